/** Progress of long work, on stderr and only when that is a terminal. Wraps `cli-progress`. */
import { SingleBar } from 'cli-progress'
import { formatBytes, formatDuration } from '../lib/format.js'

export interface Progress {
  /** Bytes done so far, and a word on where. */
  update(bytes: number, note?: string): void
  stop(): void
}

const SILENT: Progress = { update: () => {}, stop: () => {} }

/** A bar over `totalBytes`, with rate and time left. */
export function progressBar(label: string, totalBytes: number): Progress {
  if (process.stderr.isTTY !== true || totalBytes <= 0) return SILENT
  const begun = performance.now()
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    etaBuffer: 50,
    format: (options, { progress, value }, { note }) => {
      const width = options.barsize ?? 30
      const filled = Math.round(progress * width)
      const seconds = (performance.now() - begun) / 1000
      const rate = seconds > 0 ? value / seconds : 0
      const left = rate > 0 ? formatDuration(((totalBytes - value) / rate) * 1e9) : '?'
      const drawn = `${'█'.repeat(filled)}${'░'.repeat(width - filled)}`
      const percent = `${Math.floor(progress * 100)}%`.padStart(4)
      return `${label} ${drawn} ${percent}  ${formatBytes(value)}  ${formatBytes(rate)}/s  ${left} left  ${note}`
    },
  })
  bar.start(totalBytes, 0, { note: '' })
  return {
    update: (bytes, note = '') => bar.update(Math.min(bytes, totalBytes), { note }),
    stop: () => bar.stop(),
  }
}

/** A bar of percent, with a text of its own behind it; undefined where there is no terminal. */
export function percentBar(
  label: string,
): { update(percent: number, text: string): void; stop(): void } | undefined {
  if (process.stderr.isTTY !== true) return undefined
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    format: (options, { progress }, { text }) => {
      const width = options.barsize ?? 30
      const filled = Math.round(progress * width)
      return `${label} ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${text}`
    },
    barsize: 24,
  })
  bar.start(100, 0, { text: '' })
  return {
    update: (percent, text) => bar.update(Math.min(percent, 100), { text }),
    stop: () => bar.stop(),
  }
}
