/** GNU tar by its recipe; see test/harness/backup.ts. */
import t from 'tap'
import { backupTests } from '../harness/backup.js'

await backupTests(t, {
  page: 'tar',
  restored: () => '/restore/data',
  // Directories are in every archive, with the names that are in them; so is what has a future mtime.
  incremental: (said) => {
    const files = said.split('\n').filter((line) => line.startsWith('./') && !line.endsWith('/'))
    const others = files.filter(
      (name) => !/^\.\/((left|right)\/(chain|bank)-|deep\/a\/to-big)/.test(name),
    )
    return files.length > 0 && others.length === 0 ? '' : others.join('\n') || said
  },
  forget: ['/backup/data.snar', '/backup/data-*.tar'],
})
