/**
 * Hooks around snapshots of real volumes: their order and what they are told, what is undone and by
 * whom, what hangs and what fails, and that I/O goes on within its bound whatever they do.
 */
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import {
  createSnapshot,
  destroySnapshot,
  findSnapshot,
  type HoldfastError,
  type HookRun,
  rehearseSnapshot,
} from '../../src/index.js'
import { heldNs } from '../../src/snapshot/certificate.js'
import { alive, until } from '../harness/faults.js'
import { HOLDFAST, projectFile } from '../harness/files.js'
import { makeImage } from '../harness/image.js'
import { attempt, start } from '../harness/run.js'
import { openSandbox } from '../harness/sandbox.js'
import { mountVolume } from '../harness/volume.js'

t.setTimeout(400_000)
const sandbox = await openSandbox(t)
const hooks = join(sandbox.root, 'hooks.d')
const own = join(sandbox.root, 'own')
const told = join(sandbox.root, 'told')
process.env.HOLDFAST_HOOKS_DIR = hooks
process.env.TOLD = told
const image = await makeImage(sandbox, { fs: 'xfs' })
const left = await mountVolume(sandbox, image, { name: 'left' })
const right = await mountVolume(sandbox, image, { name: 'right' })
const both = ['left', 'right']

/** Begins anew: no hooks, nothing told. */
function clear(): void {
  for (const directory of [hooks, own]) {
    rmSync(directory, { recursive: true, force: true })
    mkdirSync(directory)
  }
  writeFileSync(told, '')
}

function hook(name: string, script: string, directory = hooks): string {
  const path = join(directory, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `#!/bin/bash\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}

/** Says that it was called, and ends so. */
const tells = (name: string, code = 0) => `echo "${name} $*" >>"$TOLD"; exit ${code}`
const toldLines = () => readFileSync(told, 'utf8').trimEnd().split('\n')
const configure = (config: unknown) => {
  writeFileSync(join(hooks, 'hooks.json'), JSON.stringify(config))
}
const results = (runs: readonly HookRun[]) =>
  runs.map((run) => `${run.hook} ${run.phase} ${run.result}`)

async function refusal(work: Promise<unknown>): Promise<HoldfastError> {
  return work.then(
    () => {
      throw new Error('it was not refused')
    },
    (error: HoldfastError) => error,
  )
}

/** Writes one after the other from now on, until it is stopped; tells the longest write, ms. */
async function startWriter(dir: string): Promise<() => Promise<number>> {
  const stop = join(sandbox.root, 'stop')
  rmSync(stop, { force: true })
  const script = `import os, time
fd = os.open(${JSON.stringify(join(dir, 'written'))}, os.O_CREAT | os.O_WRONLY)
longest = 0
print('begun', flush=True)
while not os.path.exists(${JSON.stringify(stop)}):
    begun = time.monotonic()
    os.pwrite(fd, b'x' * 512, 0)
    longest = max(longest, time.monotonic() - begun)
print(longest * 1000)`
  const child = start('python3', ['-c', script])
  let output = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const ended = once(child, 'close')
  await until(() => output.startsWith('begun'), 'the writer')
  return async () => {
    writeFileSync(stop, '')
    await ended
    return Number(output.split('\n')[1])
  }
}

await t.test('hooks: in order, undone in reverse, and in the certificate', async (t) => {
  clear()
  hook('20-second', tells('second'))
  hook('10-first', tells('first'))
  hook('15-not-executable', tells('never'))
  chmodSync(join(hooks, '15-not-executable'), 0o644)
  hook('16-left.bak', tells('never'))
  hook('pre-snapshot.d/12-before', tells('before'))
  hook('post-snapshot.d/12-before', tells('undoes'))
  hook('post-snapshot.d/30-backup', tells('backup'))
  hook('fsfreeze-hook.d/17-qemu', tells('qemu'))
  hook('held.d/18-held', tells('held'))
  const certificate = await createSnapshot({ volumes: both, name: 'ordered' })
  t.strictSame(toldLines(), [
    'first pre-snapshot',
    'before pre-snapshot',
    'qemu freeze',
    'second pre-snapshot',
    'held held',
    'backup post-snapshot',
    'second post-snapshot',
    'qemu thaw',
    'undoes post-snapshot',
    'first post-snapshot',
  ])
  t.equal(certificate.hooks.length, 10)
  t.ok(certificate.hooks.every(({ result, code }) => result === 'ok' && code === 0))
  t.strictSame(findSnapshot('ordered').hooks, certificate.hooks, 'kept with it')
  const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, 'snapshot', ...args])
  t.match((await cli('show', 'ordered')).stdout, /hook held\.d\/18-held, held: ok, [\d.]+ ms/)
  t.match((await cli('hooks', 'left')).stdout, /10-first .*pre-snapshot,.* 30\.0 s .*fail/)
  await cli('create', 'left', '--name', 'without', '--no-hooks')
  t.strictSame(findSnapshot('without').hooks, [])
})

await t.test('hooks: what they are told', async (t) => {
  clear()
  const kept = join(sandbox.root, 'kept')
  hook('10-all', `env -0 | sort -z >${kept}.$HOLDFAST_PHASE; cat >${kept}.$HOLDFAST_PHASE.json`)
  await createSnapshot({ volumes: both, name: 'said', labels: { ticket: '12 34', 'a-b': 'c' } })
  const variables = (phase: string) => {
    const text = readFileSync(`${kept}.${phase}`, 'utf8')
    return Object.fromEntries(text.split('\0').map((each) => each.split(/=(.*)/s).slice(0, 2)))
  }
  const seqs = findSnapshot('said').members.map(({ seq }) => seq)
  const common = {
    HOLDFAST_SNAPSHOT: 'said',
    HOLDFAST_VOLUME: 'left',
    HOLDFAST_VOLUMES: 'left right',
    HOLDFAST_MOUNTPOINTS: `${left.dir}\n${right.dir}`,
    HOLDFAST_LABEL_ticket: '12 34',
    HOLDFAST_LABEL_a_b: 'c',
    HOLDFAST_DRY_RUN: '',
    ZREPL_SNAPNAME: 'said',
    ZREPL_DRYRUN: '',
    SANOID_TARGETS: 'left,right',
  }
  t.match(variables('pre-snapshot'), {
    ...common,
    HOLDFAST_PHASE: 'pre-snapshot',
    HOLDFAST_RESULT: '',
    HOLDFAST_SEQS: '',
    ZREPL_HOOKTYPE: 'pre_snapshot',
    SANOID_SCRIPT: 'pre',
  })
  t.match(variables('post-snapshot'), {
    ...common,
    HOLDFAST_RESULT: 'taken',
    HOLDFAST_SEQS: seqs.join(' '),
    ZREPL_HOOKTYPE: 'post_snapshot',
    SANOID_SCRIPT: 'post',
    SANOID_PRE_FAILURE: '0',
  })
  t.match(JSON.parse(readFileSync(`${kept}.post-snapshot.json`, 'utf8')), {
    version: 1,
    phase: 'post-snapshot',
    snapshot: 'said',
    dryRun: false,
    result: 'taken',
    labels: { ticket: '12 34' },
    volumes: [
      { name: 'left', mountpoint: left.dir, seq: seqs[0] },
      { name: 'right', mountpoint: right.dir, seq: seqs[1] },
    ],
  })
})

await t.test('hooks: one that fails is undone with those before it; policies', async (t) => {
  clear()
  hook('10-first', tells('first'))
  hook(
    '20-fails',
    `echo one >&2; echo why >&2; [ "$1" != pre-snapshot ]; ok=$?; ${tells('fails', 0).replace(
      'exit 0',
      'exit $((ok * 3))',
    )}`,
  )
  hook('30-never', tells('never'))
  hook('post-snapshot.d/40-backup', tells('backup'))
  hook('failure.d/50-mail', 'echo "mail $HOLDFAST_ERROR_CODE: $HOLDFAST_ERROR" >>"$TOLD"')
  const error = await refusal(createSnapshot({ volumes: both, name: 'unborn' }))
  t.equal(error.code, 'HOOK_FAILED')
  t.match(error.message, /hook 20-fails failed in pre-snapshot: exit code 3: why/)
  t.strictSame(toldLines().slice(0, 4), [
    'first pre-snapshot',
    'fails pre-snapshot',
    'fails post-snapshot',
    'first post-snapshot',
  ])
  t.match(toldLines().slice(4).sort(), [
    'fails failure',
    'first failure',
    /^mail HOOK_FAILED: hook 20-fails/,
    'never failure',
  ])
  t.throws(() => findSnapshot('unborn'), { code: 'SNAPSHOT_NOT_FOUND' })
  for (const { volume } of [left, right]) t.notOk((await volume.status()).held)

  writeFileSync(told, '')
  configure({ hooks: { '20-fails': { onFailure: 'continue' } } })
  const { hooks: runs } = await createSnapshot({ volumes: both, name: 'although' })
  t.match(runs[1], { hook: '20-fails', result: 'failed', code: 3, stderr: 'one\nwhy' })
  t.ok(toldLines().includes('backup post-snapshot'))
  const shown = await attempt(process.execPath, [HOLDFAST, 'snapshot', 'show', 'although'])
  t.match(shown.stdout, /20-fails, pre-snapshot: exit code 3, .*\n +one\n +why/)
  const log = readFileSync(join(left.volume.stateDirectory, 'daemon.log'), 'utf8')
  t.match(log, /"hook 20-fails: pre-snapshot: failed"/)
})

await t.test('hooks: one that hangs is ended, with what it has started', async (t) => {
  clear()
  hook(
    '10-hangs',
    `[ "$1" = pre-snapshot ] || exit 0; trap '' TERM
    sleep 1000 & echo $! >"$TOLD"; sleep 1000 & echo $! >>"$TOLD"; while :; do sleep 1; done`,
  )
  configure({ defaults: { timeout: '500ms' } })
  const error = await refusal(createSnapshot({ volumes: ['left'], name: 'hung' }))
  t.match(error.message, /hook 10-hangs failed in pre-snapshot: not ended after \d+ ms/)
  const pids = toldLines().map(Number)
  t.equal(pids.length, 2)
  await until(() => !pids.some(alive), 'its children to be gone')
  configure({ defaults: { timeout: '500ms', onFailure: 'continue' } })
  const { hooks: runs } = await createSnapshot({ volumes: ['left'], name: 'not-hung' })
  t.match(runs[0], { result: 'timeout', phase: 'pre-snapshot' })
  t.ok((runs[0]?.ms ?? 0) < 20_000, 'within its time')
  // What it leaves in the background with its output open is not waited for.
  hook('10-hangs', 'sleep 5 & exit 0')
  const begun = performance.now()
  await createSnapshot({ volumes: ['left'], name: 'left-behind' })
  t.ok(performance.now() - begun < 4_500, 'goes on without it')
})

await t.test('hooks: while I/O is on hold, within its bound', async (t) => {
  clear()
  const counted = () => readFileSync(join(right.dir, 'written')).length
  appendFileSync(join(right.dir, 'written'), 'x')
  t.ok(counted() > 0)
  hook('held.d/10-slow', `sleep 0.2; ${tells('held')}`)
  let stop = await startWriter(left.dir)
  const taken = await createSnapshot({ volumes: both, name: 'held', maxHoldMs: 3_000 })
  t.ok(heldNs(taken) >= 200e6, `held for ${heldNs(taken) / 1e6} ms`)
  t.ok((await stop()) >= 150, 'the writer was held')
  t.strictSame(results(taken.hooks), ['held.d/10-slow held ok'])

  hook('held.d/10-slow', 'exec sleep 30')
  stop = await startWriter(left.dir)
  const error = await refusal(createSnapshot({ volumes: both, name: 'too-long', maxHoldMs: 300 }))
  t.match(
    error.message,
    /hook held\.d\/10-slow had not ended when the time for holding I\/O was over/,
  )
  const longest = await stop()
  t.ok(longest < 1_500, `longest write ${longest} ms, of 300 ms allowed`)
  t.throws(() => findSnapshot('too-long'), { code: 'SNAPSHOT_NOT_FOUND' })

  // A hook that writes to a volume on hold waits for itself; its time is over all the same.
  hook('held.d/10-slow', `echo x >${right.dir}/by-hook`)
  configure({ hooks: { 'held.d/10-slow': { timeout: '100ms', onFailure: 'continue' } } })
  const foolish = await createSnapshot({ volumes: both, name: 'foolish', maxHoldMs: 3_000 })
  t.strictSame(results(foolish.hooks), ['held.d/10-slow held timeout'])
  t.ok(heldNs(foolish) < 2_000e6, `held for ${heldNs(foolish) / 1e6} ms`)

  hook('held.d/10-slow', 'exit 7')
  rmSync(join(hooks, 'hooks.json'))
  const failed = await refusal(createSnapshot({ volumes: both, name: 'failed' }))
  t.match(failed.message, /hook held\.d\/10-slow failed in held: exit code 7/)
  for (const { volume } of [left, right]) t.notOk((await volume.status()).held)
  rmSync(join(hooks, 'held.d'), { recursive: true })
  await createSnapshot({ volumes: both, name: 'as-ever' })
})

await t.test('hooks: whoever takes the snapshot is killed meanwhile', async (t) => {
  clear()
  hook('held.d/10-tells', `echo $$ >"$TOLD"; exec sleep 600`)
  for (const maxHoldMs of [10_000, 400]) {
    writeFileSync(told, '')
    const script = projectFile('dist/test/snapshot/snapshot-forever.js')
    const args = [script, `killed-${maxHoldMs}`, ...both]
    const child = start(process.execPath, args, { env: { MAX_HOLD_MS: `${maxHoldMs}` } })
    const ended = once(child, 'close')
    const stop = await startWriter(left.dir)
    await until(() => toldLines()[0] !== '', 'the hook')
    child.kill('SIGKILL')
    await ended
    await sleep(100)
    appendFileSync(join(right.dir, 'written'), 'x')
    const longest = await stop()
    t.ok(longest < maxHoldMs + 1_000, `longest write ${longest} ms`)
    for (const { volume } of [left, right]) t.notOk((await volume.status()).held)
    t.throws(() => findSnapshot(`killed-${maxHoldMs}-0`), { code: 'SNAPSHOT_NOT_FOUND' })
  }
  // timeout(1) ends what nobody else does: after the time for the hold, and some seconds.
  const pid = Number(toldLines()[0])
  t.ok(alive(pid), 'the orphan lives on for now')
  await until(() => !alive(pid), 'the orphan to be ended')
})

await t.test('hooks: stopped in the middle, what was begun is undone', async (t) => {
  clear()
  hook('10-freezes', tells('freezes'))
  hook('20-waits', '[ "$1" = pre-snapshot ] || exit 0; echo waits >>"$TOLD"; sleep 600')
  for (const [command, signal] of [
    [['snapshot', 'create', 'left', '--name', 'stopped'], 'SIGINT'],
    [['exec', '--snapshot', 'left', '--', 'true'], 'SIGINT'],
    [['exec', '--snapshot', 'left', '--keep', '--', 'true'], 'SIGTERM'],
  ] as const) {
    writeFileSync(told, '')
    const child = start(process.execPath, [HOLDFAST, ...command])
    const ended = once(child, 'close')
    await until(() => toldLines().includes('waits'), 'the hook')
    child.kill(signal)
    t.strictSame(await ended, [1, null], `${command[0]}, ${signal}`)
    t.ok(toldLines().includes('freezes post-snapshot'))
  }
})

await t.test('hooks: a dry run takes nothing', async (t) => {
  clear()
  hook('10-says', 'echo "$1 $HOLDFAST_DRY_RUN $ZREPL_DRYRUN" >>"$TOLD"')
  hook('held.d/10-says', 'echo "$1 $HOLDFAST_DRY_RUN" >>"$TOLD"')
  const runs = await rehearseSnapshot({ volumes: ['left'], name: 'dry' })
  t.strictSame(toldLines(), ['pre-snapshot 1 true', 'held 1', 'post-snapshot 1 true'])
  t.equal(runs.length, 3)
  t.throws(() => findSnapshot('dry'), { code: 'SNAPSHOT_NOT_FOUND' })
  const dry = [HOLDFAST, 'snapshot', 'create', 'left', '--dry-run']
  t.match((await attempt(process.execPath, dry)).stdout, /^nothing is taken; hooks ran\n/)
})

await t.test('hooks: before a snapshot is destroyed', async (t) => {
  clear()
  await createSnapshot({ volumes: both, name: 'doomed' })
  hook('pre-destroy.d/10-keeps', 'echo "$HOLDFAST_SNAPSHOT $HOLDFAST_SEQS" >>"$TOLD"; exit 1')
  const error = await refusal(destroySnapshot('doomed'))
  t.equal(error.code, 'HOOK_FAILED')
  const { members } = findSnapshot('doomed')
  t.equal(toldLines()[0], `doomed ${members.map(({ seq }) => seq).join(' ')}`)
  await destroySnapshot('doomed', { force: true })
  t.throws(() => findSnapshot('doomed'), { code: 'SNAPSHOT_NOT_FOUND' })
})

await t.test('hooks: those that others than root can have written are refused', async (t) => {
  clear()
  const path = hook('10-fine', tells('fine'))
  const create = () => createSnapshot({ volumes: ['left'], name: 'unsafe' })
  const refused = async (message: RegExp) => {
    t.match(await refusal(create()), { code: 'HOOK_REFUSED', message })
  }
  chmodSync(path, 0o777)
  await refused(/10-fine can be written to by everybody/)
  chmodSync(path, 0o755)
  chownSync(path, 1000, 0)
  await refused(/10-fine belongs to uid 1000, not to root/)
  chownSync(path, 0, 1000)
  chmodSync(path, 0o775)
  await refused(/10-fine can be written to by group 1000/)
  rmSync(path)
  chmodSync(hooks, 0o777)
  await refused(/hooks\.d can be written to by everybody/)
  chmodSync(hooks, 0o755)
  const elsewhere = join(sandbox.root, 'elsewhere')
  mkdirSync(elsewhere)
  symlinkSync(hook('program', tells('link'), elsewhere), path)
  chmodSync(elsewhere, 0o777)
  await refused(/elsewhere can be written to by everybody/)
  chmodSync(elsewhere, 0o755)
  configure({ hooks: { '99-absent': {} } })
  await refused(/hooks\.json speaks of 99-absent, which is not there/)
  configure({ hooks: { '10-fine': { timeout: 'soon' } } })
  await refused(/hooks\.json hooks\.10-fine\.timeout: /)
  t.strictSame(toldLines(), [''], 'none has run')
  configure({ hooks: { '10-fine': { volumes: ['right'] } } })
  await createSnapshot({ volumes: ['left'], name: 'not-its-own' })
  t.strictSame(toldLines(), [''], 'not of this volume')
  await createSnapshot({ volumes: both, name: 'its-own' })
  t.strictSame(toldLines(), ['link pre-snapshot', 'link post-snapshot'])
})

await t.test("hooks: a volume's own, and those of one order", async (t) => {
  clear()
  const cli = (...args: string[]) => attempt(process.execPath, [HOLDFAST, ...args])
  await left.volume.unmount()
  t.equal((await cli('mount', 'left', '--hooks', own)).code, 0)
  hook('10-general', tells('general'))
  hook('05-own', tells('own'), own)
  const further = join(sandbox.root, 'further')
  hook('01-further', tells('further'), further)
  await createSnapshot({ volumes: both, name: 'three', hooks: further })
  t.strictSame(
    toldLines()
      .slice(0, 3)
      .map((line) => line.split(' ')[0]),
    ['general', 'own', 'further'],
  )
  writeFileSync(told, '')
  await createSnapshot({ volumes: ['right'], name: 'one' })
  t.strictSame(toldLines(), ['general pre-snapshot', 'general post-snapshot'])
  rmSync(own, { recursive: true })
  const error = await refusal(createSnapshot({ volumes: ['left'], name: 'lost' }))
  t.match(error, { code: 'HOOK_REFUSED', message: new RegExp(`${basename(own)} is no directory`) })
  t.ok(existsSync(left.dir))
  await Promise.all([left.volume.unmount(), right.volume.unmount()])
})
