/**
 * Every limit of the control plane, named, with its unit last and what happens beyond it.
 * The data plane's own limits are in native-bindings/.
 */
const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

/** Size of the capture ring when none is given. A full ring makes writers wait. */
export const RING_BYTES_DEFAULT = 256 * MiB
/** The smallest ring: every request thread takes a chunk of it. Smaller is refused. */
export const RING_BYTES_MIN = 64 * MiB
/** How long a writer waits for ring space before its write fails with ENOSPC. */
export const RING_WAIT_MS = 30_000

/** Most bytes the drain takes and commits in one transaction. */
export const DRAIN_BATCH_BYTES_MAX = 8 * MiB
/** How long frames that the flush log has may wait for their transaction; others do not wait. */
export const COMMIT_DELAY_MS = 50
/** Bytes of frames that may wait for it. */
export const COMMIT_BYTES_HELD_MAX = 2 * MiB
/** Longest time the drain waits for records before it looks at its mailbox. */
export const DRAIN_WAIT_MS = 250
/** While there are replicas, a record waits no longer than this for others to be journaled with, */
export const SHIP_LINGER_MS = 2
/** and this long while more than so much comes: a frame costs the replica much the same at any size. */
export const SHIP_LINGER_BUSY_MS = 10
export const SHIP_BUSY_BYTES_PER_MS = 4 * KiB
/** Pause between attempts while the journal's file system refuses frames. */
export const DRAIN_RETRY_MS = 500
/** Longest time that journaled frames are not flushed to disk when no fsync asks for it. */
export const SYNC_INTERVAL_MS = 5_000
/** Journaled bytes that may wait for that. */
export const SYNC_BYTES_MAX = 512 * MiB
/** Journaled bytes after which the kernel is told to write them out and to forget them. */
export const WRITE_BEHIND_BYTES = 16 * MiB
/** Bytes of a journal read in order after which the kernel is told to forget them. */
export const READ_BEHIND_BYTES = 16 * MiB
/** Freed memory that a writer of a journal keeps for its next transaction; the rest goes back at once. */
export const HEAP_KEPT_BYTES_MAX = 32 * MiB
/** Size of the flush log, in which an fsync makes frames durable; when full, LMDB is flushed. */
export const FLUSH_LOG_BYTES = 32 * MiB
/** More than this is not copied to the flush log: LMDB is flushed instead. */
export const FLUSH_LOG_BATCH_BYTES_MAX = 4 * MiB
/** How often the drain posts its counters to the main thread. */
export const DRAIN_REPORT_MS = 500

/** Size of the address range kept for the journal's map: virtual and sparse, not disk space. */
export const JOURNAL_MAP_BYTES = 1024 * GiB
/** Frames deleted in one transaction while pruning, so that the drain is never held up long. */
export const PRUNE_FRAMES_PER_TXN = 256
/** How often retention by size and age is applied. */
export const PRUNE_INTERVAL_MS = 10_000
/** Journal size kept when the user says nothing; older frames are pruned. */
export const RETAIN_BYTES_DEFAULT = 64 * GiB

/** Time between checkpoints: bounds what a re-capture after power loss has to look at. */
export const CHECKPOINT_INTERVAL_MS = 60_000
/** Longest wait of a checkpoint for the journal to reach its seq. */
export const CHECKPOINT_WAIT_MS = 30_000
/** Subtracted from the checkpoint's time in a re-capture: clock steps and coarse timestamps. */
export const RECAPTURE_SLACK_MS = 2_000
/** Pause before a re-capture that met errors starts again. */
export const RECAPTURE_RETRY_MS = 30_000
/** A wall clock that fell back further than this between checkpoints makes ctimes unreliable. */
export const CLOCK_STEP_MS_MAX = 1_000

/** Longest time from spawning a daemon to its readiness. */
export const START_TIMEOUT_MS = 120_000
/** Longest time for an orderly stop: unmount, drain, checkpoint. */
export const STOP_TIMEOUT_MS = 120_000
/** Longest wait for the journal to become empty of pending frames at a stop. */
export const STOP_DRAIN_MS = 60_000
/** Longest wait for another process that changes the same small file. */
export const FILE_LOCK_MS = 5_000
/** How often the daemon looks at clocks, rates and a re-capture under way. */
export const TICK_MS = 1_000
/** Longest time a control request may take, when it has no bound of its own. */
export const CONTROL_TIMEOUT_MS = 30_000
/** Longest body of a control request; larger is refused. */
export const CONTROL_BODY_BYTES_MAX = 1 * MiB
/** Longest hold of I/O that may be asked for. */
export const HOLD_MS_MAX = 10_000
/** For how long a snapshot may hold I/O when nothing else is said. */
export const CUT_HOLD_MS_DEFAULT = 500
/** Longest wait until all volumes of a cut are ready for it; nothing is on hold meanwhile. */
export const CUT_GATHER_MS = 5_000
/** How often a cut is tried when I/O does not come to rest in time, when nothing else is said. */
export const CUT_ATTEMPTS_DEFAULT = 3
/** Longest time for which disks are given time to write, between two attempts. */
export const CUT_SETTLE_MS = 10_000
/**
 * Most by which two clocks drift apart, parts per million: both are slewed by adjtime(3) or ntpd the other way
 * (500 each), and have bad crystals (100 each).
 */
export const CLOCK_DRIFT_PPM_MAX = 1_200
/** Exchanges of which what is known of a clock is made. */
export const CLOCK_EXCHANGES_KEPT = 64
/** Exchanges with each host before a cut, and after it. */
export const CLOCK_EXCHANGES = 16
/** An exchange that takes longer says nothing that is of use. */
export const CLOCK_EXCHANGE_MS_MAX = 2_000
/** Farthest that a peer can be said to be away, ms each way: ten times around the earth. */
export const ONE_WAY_MS_MAX = 2_000
/** Longest wait for a host to answer what is no cut. */
export const GROUP_ANSWER_MS = 30_000
/** For how long the members of a cut stay armed: their hooks, and the slowest of them; and the longest. */
export const GROUP_TIMEOUT_MS_DEFAULT = 60_000
export const GROUP_TIMEOUT_MS_MAX = 3_600_000
/** Time for an order to reach the host that is the farthest away, beyond the longest round trip. */
export const GROUP_LEAD_MS = 100
/** A question of a coordinator for something to come is answered so late at most, come or not. */
export const GROUP_NEWS_MS = 10_000
/** Output of a command that waits for its coordinator; beyond it the command waits, */
export const GROUP_OUTPUT_BYTES_MAX = 256 * KiB
/** and for so long what it left running may still say something. */
export const GROUP_OUTPUT_MS = 2_000
/** From asking the command of a coordinator that is gone to end to killing it. */
export const GROUP_COMMAND_END_MS = 10_000
/** What a command on a snapshot has left running is asked to end, is killed after so long, */
export const LEFT_RUNNING_END_MS = 5_000
/** and is left alone when that does not end it: a process that waits for a disk dies later. */
export const LEFT_RUNNING_KILL_MS = 2_000
/** How often it is looked for. */
export const LEFT_RUNNING_POLL_MS = 50
/** Longest line of the output of several hosts that is kept in one piece. */
export const GROUP_LINE_BYTES_MAX = 64 * KiB
/** Things left undone by a restore of a group that each host names. */
export const GROUP_FAILURES_MAX = 20
/** How often the commit horizon of a group moves, when nothing else is said; the shortest. */
export const HORIZON_INTERVAL_MS_DEFAULT = 1_000
export const HORIZON_INTERVAL_MS_MIN = 100
/** For how long a marker of it may hold I/O, when nothing else is said; it is tried again at the next one. */
export const HORIZON_HOLD_MS_DEFAULT = 200
/** For how long markers stay armed. */
export const HORIZON_CUT_MS = 10_000
/** A copy that has got no further for so long has failed: the group freezes, when nothing else is said. */
export const COPY_TIMEOUT_MS_DEFAULT = 10_000
/** Time beyond that to come back, from a start and from a thaw: pauses between connections are long by then. */
export const COPY_GRACE_MS = 15_000
/** How long whoever asks something of a replica waits until it is open, after a start of its server. */
export const REPLICA_OPEN_MS_MAX = 10_000
/** Longest time for which a frozen group holds applications; the data plane has the same limit. */
export const APPLICATION_HOLD_MS_MAX = 600_000
/** A host answers after so long at the latest what it is asked to wait for: it may be told more meanwhile. */
export const HORIZON_WAIT_MS = 250
/** What markers of horizons are called: no snapshot can have that name. */
export const HORIZON_MARKER = '.horizon'
/** How often it is looked whether locks are released. */
export const LOCKS_POLL_MS = 5
/** For how long writes wait in a check of locks, when nothing else is said. */
export const LOCKS_WAIT_MS_DEFAULT = 200
/** For how long applications go on at least, between two attempts. */
export const CUT_PAUSE_MS = 250
/** Longest wait for the answers of the other volumes when one has failed. */
export const CUT_ANSWER_MS = 2_000
/** Longest wait for other snapshots that are being taken. */
export const CUT_TURN_MS = 30_000
/** Files open for writing that a certificate names; the others are counted. */
export const WRITING_LISTED_MAX = 100
/** How often whoever orders a cut looks whether all are at rest, when hooks wait for that. */
export const AT_REST_POLL_MS = 1
/** A hook that has not ended by then is ended, when its directory says nothing else, */
export const HOOK_TIMEOUT_MS_DEFAULT = 30_000
/** or says too much. */
export const HOOK_TIMEOUT_MS_MAX = 3_600_000
/** From asking a hook's processes to end to killing them. */
export const HOOK_KILL_MS = 2_000
/** How much longer a hook may live when whoever runs it has died, and nobody else ends it. */
export const HOOK_ORPHAN_MS = 5_000
/** How long the output of a hook that has ended is waited for: what it left running may keep it open. */
export const HOOK_OUTPUT_MS = 200
/** While I/O is on hold nothing is waited for. */
export const HOOK_OUTPUT_HELD_MS = 5
/** Characters of a hook's output that the log keeps: the end of it. */
export const HOOK_OUTPUT_CHARS_MAX = 16_384
/** Of what it said on stderr, so much is in the certificate. */
export const HOOK_STDERR_LINES_MAX = 10
export const HOOK_STDERR_CHARS_MAX = 2_000
/** Characters of a variable of its environment: the kernel takes 128 KiB, and a character has up to 3 bytes. */
export const HOOK_VARIABLE_CHARS_MAX = 32_768
/** A line of a log waits for its reader so long at most; then it and those that follow it are dropped, */
export const LOG_PATIENCE_MS = 1_000
/** and it is tried so often. */
export const LOG_RETRY_MS = 10
/** How often the schedules of a volume are looked at. */
export const SCHEDULE_LOOK_MS = 1_000
/** Shortest and longest time between the snapshots of a schedule. */
export const SCHEDULE_EVERY_MS_MIN = 1_000
export const SCHEDULE_EVERY_MS_MAX = 366 * 86_400_000
/** Longest name of a schedule: a time follows it in those of its snapshots. */
export const SCHEDULE_NAME_MAX = 40
/** A scheduled snapshot that takes longer, with its hooks and what it prunes, is given up; */
export const SCHEDULE_RUN_MS_MAX = 2 * 3_600_000
/** and so long after it was asked to end, killed: what was begun is undone meanwhile. */
export const SCHEDULE_END_MS = 30_000
/** Longest name of a marker. */
export const MARKER_NAME_BYTES_MAX = 255

/** Longest message between two hosts: a frame and its header. Longer ends the connection. */
export const MESSAGE_BYTES_MAX = 8 * MiB
/** Longest header of a message. */
export const MESSAGE_HEADER_BYTES_MAX = 16 * KiB
/** A host that has nothing to say says so this often. */
export const PEER_PING_MS = 2_000
/** A connection on which nothing was heard for this long is given up. */
export const PEER_SILENCE_MS_MAX = 10_000
/** Longest time for making a connection, its TLS handshake included. */
export const CONNECT_MS_MAX = 10_000
/** Longest time a stranger may take for the TLS handshake, */
export const HANDSHAKE_MS_MAX = 5_000
/** and then for its first message. */
export const FIRST_MESSAGE_MS_MAX = 5_000
/** How often the list of peers is looked at for those that are not welcome any more. */
export const PEERS_POLL_MS = 1_000
/** Longest first message: who speaks is not known yet. */
export const FIRST_MESSAGE_BYTES_MAX = MESSAGE_HEADER_BYTES_MAX + 8
/** Connections to a replica server of which nobody knows yet whose they are; beyond, the oldest goes. */
export const CONNECTIONS_WAITING_MAX = 256
/** Connections to a replica server; further ones are closed at once. */
export const CONNECTIONS_MAX = 4_096
/** Refusals that a server logs one by one within a second; the rest of them is counted. */
export const REFUSALS_LOGGED_MAX = 20
/** Pause before a connection is tried again: doubled from the first to the second, with jitter. */
export const RECONNECT_MS_MIN = 200
export const RECONNECT_MS_MAX = 10_000
/** Longest wait for the end of a connection, or of an attempt to connect, that is given up. */
export const CONNECTION_END_MS_MAX = 500
/** Memory that a connection fills with what has come; larger messages are filled where they are to lie. */
export const LINK_READ_BYTES = 128 * KiB
/** Less of a message than this is copied to it rather than waited for by itself. */
export const LINK_INTO_BYTES_MIN = 64 * KiB
/** Bytes sent and not yet logged at the replica; beyond, shipping waits. */
export const SHIP_WINDOW_BYTES = 32 * MiB
/** Bytes handed to a connection and not taken by the kernel; beyond, shipping waits for it. */
export const SHIP_BUFFER_BYTES = 8 * MiB
/** Memory kept for frames that go out, and for those that come in: of all connections together. */
export const SEND_MEMORY_BYTES_MAX = 16 * MiB
export const RECEIVE_MEMORY_BYTES_MAX = 32 * MiB
/** Frames sent before other work of the event loop gets its turn. */
export const SHIP_FRAMES_PER_TURN = 32
/** Bytes received and not yet logged; beyond, the replica stops reading from the connection. */
export const REPLICA_QUEUE_BYTES_MAX = 64 * MiB
/** Bytes of frames that a replica makes durable together. */
export const LOG_BATCH_BYTES_MAX = 8 * MiB
/** Up to so many of them go to the flush log first: one flush of the disk, but two writes. */
export const LOG_FLUSH_BYTES_MAX = 512 * KiB
/** Size of a replica's log: older frames go once they are applied. */
export const LOG_KEEP_BYTES = 1 * GiB
/** Space that a replica's log leaves free: LMDB must not meet a full disk within a transaction. */
export const LOG_SPARE_BYTES = 8 * MiB
export const LOG_PRUNE_INTERVAL_MS = 5_000
/** Lag in bytes and seconds is told from spans of this length, */
export const TIMELINE_STEP_MS = 10
/** and of so many of them; beyond, older ones become longer. */
export const TIMELINE_SPANS_MAX = 1024
/** The rate of a baseline is that of the last so many ms. */
export const BASELINE_RATE_MS = 10_000
/** Pause before a baseline that has failed is begun again: doubled from the first to the second. */
export const BASELINE_RETRY_MS_MIN = 1_000
export const BASELINE_RETRY_MS_MAX = 60_000
/** How often a replay under way says how far it is. */
export const APPLY_REPORT_MS = 5
/** Nothing to apply for this long: a replica computes codes. */
export const CODES_IDLE_MS = 200
/** Between two walks of a volume that compute codes. */
export const CODES_SWEEP_PAUSE_MS = 60_000
/** A comparison of everything is due when a replica was not proven equal for this long, */
export const SCRUB_INTERVAL_MS = 7 * 24 * 3_600_000
/** and reads no faster than this, in bytes a second. */
export const SCRUB_BYTES_PER_S = 64 * MiB
/** A replica that has applied nothing for this long is not waited for by a comparison. */
export const VERIFY_STALL_MS = 60_000
/** How often a replica looks whether its tree is still guarded. */
export const GUARD_POLL_MS = 1_000
/** Differences that are told one by one; the rest is counted. */
export const DIFFERENCES_TOLD_MAX = 1_000
/** Repairs in a row that leave a replica with something to repair. */
export const REPAIRS_MAX = 8
/** Pause before a replay that the system has failed (a full disk) goes on. */
export const APPLY_RETRY_MS = 1_000
/** How long a reply waits for a synchronous replica before it is taken as lost. */
export const SYNC_LOSS_MS = 10_000
/** Longest time that may be asked for: applications and the kernel wait meanwhile. */
export const SYNC_LOSS_MS_MAX = 3_600_000
/** By so much less than that a replica that is connected may be behind when somebody has waited. */
export const CONNECTED_LATE_MS = 1_500
/** Paths with an acknowledgement of their own, of one replica. */
export const ACK_PATHS_MAX = 256
/** Kinds of paths that differ in what replicas have to have: ACK_CLASSES_MAX of the data plane. */
export const ACK_CLASSES_MAX = 32
/** How often a limit of lag is looked at. */
export const LAG_LOOK_MS = 50
/** Lowest rate that shipping may be limited to, bytes per second. */
export const RATE_BYTES_MIN = 1 * KiB
/** A pause for the rate's sake is looked at this often: the connection may end meanwhile. */
export const RATE_PAUSE_MS_MAX = 200
/** Longest delay of a replica's tree. */
export const APPLY_DELAY_MS_MAX = 366 * 86_400_000
/** How long an orderly stop gives connected replicas for the last changes. */
export const REPLICA_FINISH_MS = 5_000
/** Journal size up to which frames are kept for a replica that lacks them; then it starts anew. */
export const REPLICA_HOLD_BYTES_MAX = 128 * GiB
/** ssh asks the other end for a sign of life this often (s), and ends after as many unanswered. */
export const SSH_ALIVE_S = 5
export const SSH_ALIVE_COUNT_MAX = 2
/** What a login shell may print before holdfast greets; with more, or another line, it is refused. */
export const SSH_GREETING_BYTES_MAX = 4 * KiB
/** And how long that may take, the connection included. */
export const SSH_GREETING_MS_MAX = 30_000
/** How much of what ssh says is kept for messages: the end of it. */
export const SSH_SAID_CHARS_MAX = 2_000
/** A program that does not end when it is asked to is killed after this long. */
export const SSH_KILL_MS = 2_000
/** How long the end of ssh waits for the server that is starting or ending on its host. */
export const STDIO_SERVER_MS_MAX = 10_000
/** A replica that was told of more than it has asks for it when nothing comes for this long. */
export const WANT_MS = 5_000
/** How long a baseline is waited for that is to mend what a replica further down lacks. */
export const FEED_REPAIR_MS_MAX = 10 * 60_000
/** Log of a replica up to which frames are kept for those that it feeds; then they start anew. */
export const FEED_HOLD_BYTES_MAX = 16 * GiB
/** How long the secret of a token is good. */
export const INVITATION_MS = 15 * 60_000

/** Out-of-band events collected for this long before the paths are re-captured. */
export const WATCH_DEBOUNCE_MS = 100
/** Without an event for this long, what was noticed is looked at once more. */
export const WATCH_SETTLE_MS = 500
/** And after this long at the latest, however many come. */
export const WATCH_SETTLE_MS_MAX = 5_000
/** Directories with more entries are not compared then: only what events name is captured. */
export const WATCH_SWEEP_ENTRIES_MAX = 16_384
/** Most paths in one re-capture call; further ones wait for the next. */
export const WATCH_BATCH_PATHS_MAX = 4096

/** Size of a volume's history, and the smallest one that can be asked for. */
export const HISTORY_BYTES_DEFAULT = 64 * GiB
export const HISTORY_BYTES_MIN = 128 * MiB
/** How long after a cut there may be a certificate of it. */
export const CUT_PENDING_MS = 10 * 60_000
/** How often views and snapshots of commands that have died are looked for. */
export const VIEWS_LOOK_MS = 1_000
/** How often it is told that a history finds no room. */
export const LOSSES_TOLD_MS = 60_000
/** Longest wait for the views of a killed command to go from where the next one is to see its own. */
export const EXEC_PLACE_MS = 5_000
export const EXEC_PLACE_POLL_MS = 50
/** How often a history forgets what is too old, or what no snapshot has come of. */
export const HISTORY_AGE_LOOK_MS = 10_000

/** Views that a browse tree has mounted at once; beyond, those that rest go, or the reader gets EBUSY. */
export const BROWSE_VIEWS_MAX = 64
/** A view of a browse tree that nobody has read for this long goes. */
export const BROWSE_VIEW_IDLE_MS = 10_000
/** A view that a symbolic link was read for stays at least this long. */
export const BROWSE_VIEW_LEASE_MS = 10_000
/** How often a browse tree looks for those, and whether its mount is still there. */
export const BROWSE_LOOK_MS = 500
/** How long what a browse tree has found out holds: a rendered file, versions, */
export const BROWSE_FRESH_MS = 1_000
/** and which moment is now. */
export const BROWSE_NOW_MS = 200
/** Changes of one process that follow one another within this time make one version. */
export const BROWSE_BURST_MS = 1_000
/** Paths of which it keeps the versions that it has asked for; beyond, the oldest goes. */
export const BROWSE_PATHS_MAX = 256
/** Versions of one file that are listed, the newest; older ones are reached by their moment (`at/`). */
export const BROWSE_VERSIONS_MAX = 1_000
/** Snapshots that are looked through for names where there are no other moments, the newest. */
export const BROWSE_SNAPSHOTS_MAX = 16
/** Changes with which a file of the journal's tail begins, */
export const BROWSE_TAIL_CHANGES = 1_000
/** its size, beyond which it begins anew with the last ones, */
export const BROWSE_TAIL_BYTES_MAX = 8 * MiB
/** and how often it looks for more. */
export const BROWSE_TAIL_LOOK_MS = 200
/** A tail that nobody has looked at for this long lets go of the journal. */
export const BROWSE_TAIL_IDLE_MS = 60_000
/** A request of a browse tree that takes longer fails with ETIMEDOUT. */
export const BROWSE_REQUEST_MS_MAX = 120_000
/** Longest time for starting or ending one. */
export const BROWSE_START_MS_MAX = 30_000
/** Threads for its reads: one that waits for a volume must not stop the others. */
export const BROWSE_THREADS = 16

/** Processes named in a refusal; the rest is counted. */
export const OCCUPANTS_SHOWN_MAX = 10
/** Descriptor limit the daemon asks for; it takes what it gets. */
export const DESCRIPTORS_WANTED = 1_048_576
