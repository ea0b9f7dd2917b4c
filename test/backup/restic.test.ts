/** restic by its recipe; see test/harness/backup.ts. */
import t from 'tap'
import { backupTests, STILL_FILES } from '../harness/backup.js'

/** What the writers change, and its directories, is some KiB. */
const ADDED_MIB_MAX = 1

await backupTests(t, {
  page: 'restic',
  restored: (source) => `/restore${source}`,
  incremental: (said) => {
    const [, unmodified = 0] = /Files: .* (\d+) unmodified/.exec(said) ?? []
    const [, added = 0, unit = ''] = /Added to the repository: ([\d.]+) (\w+)/.exec(said) ?? []
    const little = unit === 'KiB' || unit === 'B' || Number(added) <= ADDED_MIB_MAX
    return Number(unmodified) >= STILL_FILES && little ? '' : said
  },
})
