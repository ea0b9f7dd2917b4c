/** borg by its recipe; see test/harness/backup.ts. */
import t from 'tap'
import { backupTests } from '../harness/backup.js'

await backupTests(t, {
  page: 'borg',
  // Its times end in January 2038, and begin in 1970.
  prepare: 'touch -h -d 2020-02-02Z many/file-9 deep/a/to-big',
  restored: (source) => `/restore${source}`,
  // Only what the writers have in their two directories is read again.
  incremental: (said) => {
    const read = said.split('\n').filter((line) => /^[AMCE] /.test(line))
    const others = read.filter((line) => !/(left|right)\/(chain|bank)-/.test(line))
    return read.length > 0 && others.length === 0 ? '' : others.join('\n') || said
  },
})
