import t from 'tap'
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatTime,
  parseBytes,
  parseDuration,
} from '../../src/lib/format.js'

t.test('format: sizes, counts and durations', async (t) => {
  t.equal(formatBytes(0), '0 B')
  t.equal(formatBytes(1536), '1.5 KiB')
  t.equal(formatBytes(2n ** 40n), '1.0 TiB')
  t.equal(formatCount(1234567n), '1,234,567')
  t.equal(formatDuration(430_000), '430 µs')
  t.equal(formatDuration(2_100_000n), '2.1 ms')
  t.equal(formatDuration(250e9), '4 min 10 s')
  t.equal(formatDuration(90_000e9), '1 d 1 h')
})

t.test('format: a time keeps its nanoseconds, also before the epoch', async (t) => {
  t.match(formatTime(1_760_000_000_123_456_789n, 9), /\.123456789[+-]\d\d:\d\d$/)
  t.match(formatTime(-1n, 9), /^19(69|70)-.*\.999999999/)
})

t.test('format: sizes and durations are parsed', async (t) => {
  t.equal(parseBytes('64M'), 64 * 2 ** 20)
  t.equal(parseBytes('1.5 GiB'), 1.5 * 2 ** 30)
  t.equal(parseBytes('4096'), 4096)
  t.equal(parseBytes('12 apples'), undefined)
  t.equal(parseBytes('-1'), undefined)
  t.equal(parseDuration('10m'), 600_000)
  t.equal(parseDuration('250ms'), 250)
  t.equal(parseDuration('2w'), 1_209_600_000)
  t.equal(parseDuration('7'), undefined)
})
