/** What this machine has of what holdfast needs, each finding explained. Changes nothing. */
import { readFileSync, statfsSync } from 'node:fs'
import { release } from 'node:os'
import { Journal } from '../journal/store.js'
import { missingFileBytes } from '../journal/verify.js'
import { toHoldfastError } from '../lib/errors.js'
import { formatBytes, formatCount } from '../lib/format.js'
import { RING_BYTES_DEFAULT } from '../lib/limits.js'
import { mountOf } from '../lib/mountinfo.js'
import { native } from '../lib/native.js'
import { VERSION } from '../lib/version.js'
import { runningDaemon } from './lock.js'
import { findOccupants } from './occupants.js'
import { checkDirectory, checkMachine } from './preflight.js'
import { listVolumes, resolveAhead, type Volume } from './registry.js'
import { settleJournal } from './settle.js'

export interface Check {
  level: 'ok' | 'warn' | 'fail'
  what: string
  found: string
  /** What to do, where there is something to do. */
  advice?: string
}

/** Oldest kernel with what the data plane needs: openat2, HANDLE_KILLPRIV_V2, statx. */
const KERNEL_MIN: [number, number] = [5, 12]
/** Kernels with FUSE over io_uring, a faster way for small requests. */
const KERNEL_FAST: [number, number] = [6, 14]
const DESCRIPTORS_MIN = 4096
/** File systems with usable file handles on which holdfast is tested. */
const TESTED_TYPES = new Set(['ext4', 'xfs', 'btrfs', 'tmpfs'])
/** No stable file handles, or not a disk of this machine. */
const UNSUITABLE_TYPES = new Set(['fuse.holdfast', 'proc', 'sysfs', 'cgroup2', 'vfat', 'exfat'])

export async function examine(directory?: string): Promise<Check[]> {
  const checks: Check[] = [
    { level: 'ok', what: 'holdfast', found: `${VERSION}, Node ${process.versions.node}` },
    kernelCheck(),
    machineCheck(),
    dataPlaneCheck(),
    ringCheck(),
    descriptorCheck(),
  ]
  if (directory !== undefined) checks.push(...directoryChecks(resolveAhead(directory)))
  for (const volume of listVolumes()) checks.push(await journalCheck(volume))
  return checks
}

function kernelCheck(): Check {
  const what = 'kernel'
  const found = release()
  const [major = 0, minor = 0] = found.split('.').map((part) => Number.parseInt(part, 10))
  const reaches = ([wanted, wantedMinor]: [number, number]) =>
    major > wanted || (major === wanted && minor >= wantedMinor)
  if (!reaches(KERNEL_MIN)) {
    const advice = `Linux ${KERNEL_MIN.join('.')} or newer is needed.`
    return { level: 'fail', what, found, advice }
  }
  const level = reaches(KERNEL_FAST) ? 'ok' : 'warn'
  return { level, what, found, advice: `${KERNEL_FAST.join('.')} or newer answers faster.` }
}

/** The same checks as at a mount; a refusal becomes a finding. */
function machineCheck(): Check {
  const what = 'FUSE and privileges'
  try {
    checkMachine()
    return { level: 'ok', what, found: '/dev/fuse is there, mounting is allowed' }
  } catch (error) {
    return failure(what, error)
  }
}

function dataPlaneCheck(): Check {
  const what = 'data plane'
  try {
    // The check value of CRC-32C: of the digits 1 to 9.
    const crc = native.crc32c(Buffer.from('123456789'), 0)
    if (crc === 0xe3069283) return { level: 'ok', what, found: 'loads and computes' }
    return { level: 'fail', what, found: `computes wrongly: ${crc}`, advice: 'npm run build' }
  } catch (error) {
    return failure(what, error)
  }
}

function ringCheck(): Check {
  const what = 'memory for the capture ring'
  const { bavail, bsize } = statfsSync('/dev/shm')
  const free = bavail * bsize
  const found = `${formatBytes(free)} free in /dev/shm`
  if (free >= RING_BYTES_DEFAULT) return { level: 'ok', what, found }
  const advice = `A volume takes ${formatBytes(RING_BYTES_DEFAULT)}; give less with mount --ring-size.`
  return { level: 'warn', what, found, advice }
}

function descriptorCheck(): Check {
  const what = 'descriptor limit'
  const limits = readFileSync('/proc/self/limits', 'utf8')
  const hard = Number(/^Max open files\s+\d+\s+(\d+)/m.exec(limits)?.[1] ?? 0)
  const found = formatCount(hard)
  if (hard >= DESCRIPTORS_MIN) return { level: 'ok', what, found }
  return {
    level: 'warn',
    what,
    found,
    advice: 'Raise it: ulimit -Hn, or LimitNOFILE= in the unit.',
  }
}

function directoryChecks(path: string): Check[] {
  const what = path
  try {
    checkDirectory(path, 'the directory')
  } catch (error) {
    return [failure(what, error)]
  }
  const checks: Check[] = [fileSystemCheck(path)]
  const occupants = findOccupants(path)
  if (occupants.length > 0) {
    const found = `${occupants.length} processes use it, such as ${occupants[0]?.command}[${occupants[0]?.pid}]`
    const advice = 'They must leave it before it is mounted in place, or their changes bypass it.'
    checks.push({ level: 'warn', what: `${path} in use`, found, advice })
  }
  return checks
}

function fileSystemCheck(path: string): Check {
  const what = `file system of ${path}`
  const mount = mountOf(path)
  const { bavail, bsize } = statfsSync(path)
  const type = mount?.type ?? 'unknown'
  const found = `${type}, ${formatBytes(bavail * bsize)} free`
  if (UNSUITABLE_TYPES.has(type)) {
    const advice = 'Objects cannot be told apart for good there (no stable file handles).'
    return { level: 'fail', what, found, advice }
  }
  if (mount?.options.includes('ro')) return { level: 'warn', what, found: `${found}, read-only` }
  if (TESTED_TYPES.has(type)) return { level: 'ok', what, found }
  return { level: 'warn', what, found, advice: 'Not among the file systems holdfast is tested on.' }
}

async function journalCheck(volume: Volume): Promise<Check> {
  const { config } = volume
  const what = `volume ${config.name}`
  const path = await settleJournal(volume)
  const missing = missingFileBytes(path)
  if (missing > 0) {
    const found = `the journal lacks ${missing} bytes at its end`
    return { level: 'fail', what, found, advice: `holdfast journal verify ${config.name}` }
  }
  try {
    const journal = Journal.open({ path, readOnly: true })
    try {
      const { lastSeq, fileBytes } = journal.stat()
      const { recapture, clean } = journal.meta()
      const running = runningDaemon(config.name) !== undefined
      const found = `seq ${lastSeq}, ${formatBytes(fileBytes)}, ${running ? 'mounted' : 'stopped'}`
      if (recapture !== null) {
        return { level: 'warn', what, found: `${found}, not complete`, advice: recapture.reason }
      }
      if (!running && !clean) {
        const advice = `It was not stopped in order; mount it again: holdfast mount ${config.name}`
        return { level: 'warn', what, found, advice }
      }
      return { level: 'ok', what, found }
    } finally {
      await journal.close()
    }
  } catch (error) {
    return failure(what, error)
  }
}

function failure(what: string, error: unknown): Check {
  const { message, hint } = toHoldfastError(error, 'doctor')
  return { level: 'fail', what, found: message, ...(hint === undefined ? {} : { advice: hint }) }
}
