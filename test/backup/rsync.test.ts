/** rsync by its recipe; see test/harness/backup.ts. */
import t from 'tap'
import { backupTests } from '../harness/backup.js'

/** Files of the writers: 4 chains of two and 2 banks. */
const WRITTEN_FILES = 28

await backupTests(t, {
  page: 'rsync',
  restored: () => '/restore/data',
  incremental: (said) => {
    const [, files = ''] = /regular files transferred: ([\d,]+)/.exec(said) ?? []
    return files !== '' && Number(files) <= WRITTEN_FILES ? '' : said
  },
})
