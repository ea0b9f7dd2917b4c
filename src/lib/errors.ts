/**
 * Operating errors: one class, one registry of codes, one mapping to errno and to exit codes.
 *
 * An operating error is returned or thrown with a stable `code`, the operation `op` that met it, a
 * `cause` and a `hint` that says what to do. A broken invariant is not an operating error: it is an
 * ordinary exception and ends the part that met it.
 */

/** How the command line ends; stable, documented in docs/CONTROL.md. */
export const ExitCode = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  damaged: 5,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

/** code → [exit code, errno name shown to programs, or undefined when none fits] */
const REGISTRY = {
  // What the caller asked for
  USAGE: [ExitCode.usage, 'EINVAL'],
  NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  VOLUME_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  VOLUME_NOT_RUNNING: [ExitCode.notFound, 'ESRCH'],
  SEQ_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  // What must hold before a volume can start
  NOT_A_DIRECTORY: [ExitCode.refused, 'ENOTDIR'],
  ALREADY_MOUNTED: [ExitCode.refused, 'EBUSY'],
  VOLUME_RUNNING: [ExitCode.refused, 'EBUSY'],
  VOLUME_EXISTS: [ExitCode.refused, 'EEXIST'],
  STATE_INSIDE_VOLUME: [ExitCode.refused, 'EINVAL'],
  NO_FUSE: [ExitCode.refused, 'ENODEV'],
  NO_PRIVILEGE: [ExitCode.refused, 'EPERM'],
  FOREIGN_JOURNAL: [ExitCode.refused, 'EINVAL'],
  UNKNOWN_FORMAT: [ExitCode.refused, 'EPROTO'],
  NESTED_MOUNT: [ExitCode.refused, 'EBUSY'],
  OCCUPIED: [ExitCode.refused, 'EBUSY'],
  BUSY: [ExitCode.refused, 'EBUSY'],
  RING_SPACE: [ExitCode.refused, 'ENOSPC'],
  RING_NOT_TMPFS: [ExitCode.refused, 'EINVAL'],
  TARGET_REFUSED: [ExitCode.refused, 'EINVAL'],
  RECAPTURING: [ExitCode.refused, 'EAGAIN'],
  PRUNED: [ExitCode.refused, 'ESTALE'],
  // Formats: a frame or a record is not what docs/FORMAT.md says
  FRAME_TRUNCATED: [ExitCode.damaged, 'EBADMSG'],
  FRAME_MAGIC: [ExitCode.damaged, 'EBADMSG'],
  FRAME_VERSION: [ExitCode.refused, 'EPROTO'],
  FRAME_FLAGS: [ExitCode.refused, 'EPROTO'],
  FRAME_HEADER: [ExitCode.damaged, 'EBADMSG'],
  FRAME_CHAIN: [ExitCode.damaged, 'EBADMSG'],
  FRAME_BODY_CRC: [ExitCode.damaged, 'EBADMSG'],
  FRAME_RECORDS: [ExitCode.damaged, 'EBADMSG'],
  FRAME_VOLUME: [ExitCode.damaged, 'EBADMSG'],
  FRAME_GAP: [ExitCode.damaged, 'EBADMSG'],
  FRAME_FORK: [ExitCode.damaged, 'EBADMSG'],
  FRAME_KEY: [ExitCode.damaged, 'EBADMSG'],
  RECORD_TRUNCATED: [ExitCode.damaged, 'EBADMSG'],
  RECORD_LENGTH: [ExitCode.damaged, 'EBADMSG'],
  RECORD_CRC: [ExitCode.damaged, 'EBADMSG'],
  RECORD_ORDER: [ExitCode.damaged, 'EBADMSG'],
  RECORD_OP: [ExitCode.refused, 'EPROTO'],
  RECORD_FIELDS: [ExitCode.damaged, 'EBADMSG'],
  // The journal's store
  JOURNAL_MISSING: [ExitCode.notFound, 'ENOENT'],
  JOURNAL_TRUNCATED: [ExitCode.damaged, 'EBADMSG'],
  JOURNAL_UNREADABLE: [ExitCode.damaged, 'EIO'],
  JOURNAL_FULL: [ExitCode.failed, 'ENOSPC'],
  JOURNAL_WRITE: [ExitCode.failed, 'EIO'],
  // The data plane, by the codes it throws (native-bindings/src/binding, replay/error.rs)
  RING_FOREIGN: [ExitCode.refused, 'EINVAL'],
  NO_FILE_HANDLES: [ExitCode.refused, 'EOPNOTSUPP'],
  BAD_HANDLE: [ExitCode.failed, 'EBADF'],
  NOT_MOUNTED: [ExitCode.refused, 'ENOTCONN'],
  HOLD_TIMEOUT: [ExitCode.failed, 'ETIMEDOUT'],
  CUT_LATE: [ExitCode.failed, 'ETIMEDOUT'],
  CUT_OTHERS: [ExitCode.failed, 'ECANCELED'],
  REPLAY_FOREIGN_VOLUME: [ExitCode.refused, 'EINVAL'],
  REPLAY_GAP: [ExitCode.damaged, 'EBADMSG'],
  REPLAY_FORK: [ExitCode.damaged, 'EBADMSG'],
  REPLAY_CORRUPT: [ExitCode.damaged, 'EBADMSG'],
  REPLAY_DIVERGED: [ExitCode.damaged, 'ESTALE'],
  REPLAY_IO: [ExitCode.failed, 'EIO'],
  REPLAY_UNSUPPORTED: [ExitCode.refused, 'EOPNOTSUPP'],
  REPLAY_BUSY: [ExitCode.refused, 'EBUSY'],
  REPLAY_TARGET: [ExitCode.refused, 'EINVAL'],
  REPLAY_STATE: [ExitCode.refused, 'EINVAL'],
  REPLAY_INTERNAL: [ExitCode.failed, 'EIO'],
  // Other hosts
  PEER_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  PEER_EXISTS: [ExitCode.refused, 'EEXIST'],
  PEER_UNKNOWN: [ExitCode.refused, 'EACCES'],
  PEER_REFUSED: [ExitCode.refused, 'ECONNREFUSED'],
  PEER_SILENT: [ExitCode.failed, 'ETIMEDOUT'],
  CONNECTION: [ExitCode.failed, 'ECONNRESET'],
  PROTOCOL: [ExitCode.damaged, 'EPROTO'],
  PROTOCOL_VERSION: [ExitCode.refused, 'EPROTO'],
  TOKEN: [ExitCode.refused, 'EACCES'],
  IDENTITY: [ExitCode.refused, 'EKEYREJECTED'],
  NOT_REPLICATED: [ExitCode.notFound, 'ENOENT'],
  BASELINE: [ExitCode.failed, 'EIO'],
  // Snapshots
  SNAPSHOT_FAILED: [ExitCode.failed, 'EIO'],
  SNAPSHOT_EXISTS: [ExitCode.refused, 'EEXIST'],
  SNAPSHOT_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  SNAPSHOT_IN_USE: [ExitCode.refused, 'EBUSY'],
  // Groups
  GROUP_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  GROUP_EXISTS: [ExitCode.refused, 'EEXIST'],
  GROUP_CUT_FAILED: [ExitCode.failed, 'EIO'],
  GROUP_NO_HORIZON: [ExitCode.refused, 'EINVAL'],
  GROUP_OTHER: [ExitCode.refused, 'EBUSY'],
  GROUP_STALE: [ExitCode.refused, 'ESTALE'],
  NOT_ALLOWED: [ExitCode.refused, 'EPERM'],
  // History
  HISTORY_OFF: [ExitCode.refused, 'EOPNOTSUPP'],
  HISTORY_RANGE: [ExitCode.notFound, 'ERANGE'],
  HISTORY_FOREIGN: [ExitCode.refused, 'EINVAL'],
  VIEW_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  // Comparing and restoring trees
  TREE_READ: [ExitCode.failed, 'EIO'],
  RESTORE_FAILED: [ExitCode.failed, 'EIO'],
  NOT_THEN: [ExitCode.notFound, 'ENOENT'],
  NOT_EMPTY: [ExitCode.refused, 'ENOTEMPTY'],
  HOOK_REFUSED: [ExitCode.refused, 'EPERM'],
  HOOK_FAILED: [ExitCode.failed, 'ECANCELED'],
  SCHEDULE_NOT_FOUND: [ExitCode.notFound, 'ENOENT'],
  SCHEDULE_EXISTS: [ExitCode.refused, 'EEXIST'],
  // The machinery
  NATIVE_MISSING: [ExitCode.failed, 'ENOSYS'],
  NATIVE: [ExitCode.failed, 'EIO'],
  START_FAILED: [ExitCode.failed, 'EIO'],
  STOP_FAILED: [ExitCode.failed, 'EIO'],
  TIMEOUT: [ExitCode.failed, 'ETIMEDOUT'],
  ABORTED: [ExitCode.failed, 'ECANCELED'],
  HOLD_EXPIRED: [ExitCode.failed, 'ETIMEDOUT'],
  NOT_HELD: [ExitCode.refused, 'EINVAL'],
  CONTROL: [ExitCode.failed, 'EIO'],
  DIFFERS: [ExitCode.damaged, 'EBADMSG'],
  INTERNAL: [ExitCode.failed, 'EIO'],
} as const satisfies Record<string, readonly [ExitCode, string]>

export type ErrorCode = keyof typeof REGISTRY

export interface ErrorOptions {
  /** What was being done, e.g. `mount`, `journal.verify`. */
  op: string
  /** What the user can do about it. */
  hint?: string | undefined
  cause?: unknown
  /** Machine-readable particulars: positions, paths, processes. JSON values only. */
  details?: Record<string, unknown> | undefined
}

/** An error in the shape that the control socket and `--json` use. */
export interface ErrorReport {
  code: ErrorCode
  op: string
  message: string
  hint?: string
  details?: Record<string, unknown>
}

export class HoldfastError extends Error {
  readonly code: ErrorCode
  readonly op: string
  readonly hint: string | undefined
  readonly details: Record<string, unknown> | undefined

  constructor(code: ErrorCode, message: string, options: ErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'HoldfastError'
    this.code = code
    this.op = options.op
    this.hint = options.hint
    this.details = options.details
  }

  /** How the command line ends with this error. */
  get exitCode(): ExitCode {
    return REGISTRY[this.code][0]
  }

  /** The errno name that fits, for programs that think in errno. */
  get errno(): string {
    return REGISTRY[this.code][1]
  }

  toJSON(): ErrorReport {
    return {
      code: this.code,
      op: this.op,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      ...(this.details === undefined ? {} : { details: this.details }),
    }
  }

  /** The error that another process reported. */
  static from(report: ErrorReport): HoldfastError {
    const code = isErrorCode(report.code) ? report.code : 'INTERNAL'
    const { op, hint, details } = report
    return new HoldfastError(code, report.message, { op, hint, details })
  }
}

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(REGISTRY, code)
}

/** The errno name (`ENOENT`) of a system error, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof HoldfastError) return error.errno
  if (typeof error === 'object' && error !== null && 'code' in error) {
    const { code } = error
    if (typeof code === 'string' && /^E[A-Z0-9]+$/.test(code)) return code
  }
  return undefined
}

const ERRNO_HINTS: Record<string, string> = {
  EACCES: 'Run as root, or check the permissions of the path.',
  EPERM: 'Run as root (CAP_SYS_ADMIN is needed to mount).',
  ENOSPC: 'Free space on that file system; nothing was lost.',
  EROFS: 'The file system is mounted read-only.',
  EMFILE: 'Raise the limit of open files (ulimit -n).',
  ENODEV: 'Load the fuse module: modprobe fuse',
}

/**
 * Any thrown value as a HoldfastError: ours unchanged, the native module's by its code, a system
 * error by its errno. `op` says what was being done.
 */
export function toHoldfastError(error: unknown, op: string): HoldfastError {
  if (error instanceof HoldfastError) return error
  const message = error instanceof Error ? error.message : String(error)
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : null
  if (isErrorCode(code)) return new HoldfastError(code, message, { op, cause: error })
  const errno = errnoOf(error)
  if (errno === 'ENOENT') return new HoldfastError('NOT_FOUND', message, { op, cause: error })
  if (errno !== undefined) {
    const hint = ERRNO_HINTS[errno]
    return new HoldfastError('NATIVE', message, { op, cause: error, hint, details: { errno } })
  }
  return new HoldfastError('INTERNAL', message, { op, cause: error })
}
