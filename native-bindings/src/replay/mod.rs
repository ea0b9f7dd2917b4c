//! Replay: makes a copy of the base what the journal says, record by record.
//!
//! The data's way: a frame → checked as a whole (`apply`) → each record's effect (`apply_names`,
//! `apply_data`, `apply_meta`, `apply_images`) on the object that the map (`objects`) knows for its
//! oid → the recorded times (`times`). The state directory (`state`, `header`, `map_log`) remembers
//! how far it is, so that killing the process at any instant and opening again leads to exactly the
//! same tree. `facts` applies records to a target that may be ahead of them.
//!
//! Everything runs on one thread of its own, because creations need a caller's identity and umask.
//! Nothing is resolved by path: single names below directory descriptors, and file handles.

mod apply;
mod apply_data;
mod apply_images;
mod apply_meta;
mod apply_names;
mod checkpoints;
mod descriptors;
mod engine;
mod error;
mod facts;
mod handle;
mod header;
mod identity;
mod limits;
mod map_log;
mod objects;
mod parked;
mod seal;
mod state;
mod sys;
mod times;

pub use error::{ReplayCode, ReplayError};

use engine::Engine;
use std::path::PathBuf;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::thread::JoinHandle;

/// What to replay onto.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The directory that is a copy of the base; bytes, not text.
    pub target: PathBuf,
    /// Identity of the volume; frames of another are refused.
    pub uuid: [u8; 16],
    /// The replay's own state; on the target's mount, beside it. Made when it is missing.
    pub state_dir: PathBuf,
    /// Where a new state starts.
    pub start: Start,
}

impl ReplayOptions {
    /// Onto a copy of the base, from the beginning.
    pub fn from_base(target: PathBuf, uuid: [u8; 16], state_dir: PathBuf) -> Self {
        Self { target, uuid, state_dir, start: Start::default() }
    }
}

/// Where a replay starts: by default at the beginning, on a copy of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    pub seq: u64,
    pub chain: [u8; 8],
    /// Scans under way there, one bit per kind: until they have ended, the target lacks things.
    pub scans: u64,
}

/// How far replay is. All of a frame or nothing of it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// seq of the last record of the last frame applied; 0 when none was.
    pub applied_seq: u64,
    /// Chain value of that frame.
    pub applied_chain: [u8; 8],
    /// Records and their bytes applied since the state was made.
    pub records: u64,
    pub bytes: u64,
    /// Objects in the map.
    pub objects: u64,
    /// Scans under way, one bit per kind.
    pub scans: u64,
}

/// Records whose effects a power loss has put in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The first record that is applied again.
    pub from_seq: u64,
    /// No record after this one can have reached the disk before; 0 until the first frame tells.
    pub to_seq: u64,
}

/// A frame lent to the replay thread for the time of one call.
struct Lent(*const u8, usize);

// SAFETY: the lender waits for the answer before the memory can go (see `Replayer::ask`).
unsafe impl Send for Lent {}

enum Order {
    Apply(Lent),
    Close { finish: bool },
}

type Answer = Result<Position, ReplayError>;

/// A replay onto one target. Dropping it is like losing the process: nothing is lost.
pub struct Replayer {
    orders: Option<SyncSender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    position: Position,
    doubt: Option<Doubt>,
}

impl Replayer {
    /// Opens the target and its state; continues where an earlier replay with that state was.
    pub fn open(options: ReplayOptions) -> Result<Self, ReplayError> {
        let (orders, inbox) = sync_channel::<Order>(1);
        let (outbox, answers) = sync_channel::<Answer>(1);
        let (opened, first) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("replay".into())
            .spawn(move || {
                let engine = Engine::open(&options);
                match engine {
                    Err(e) => drop(opened.send(Err(e))),
                    Ok(engine) => {
                        let _ = opened.send(Ok((engine.position(), engine.doubt())));
                        serve(engine, &options, &inbox, &outbox);
                    }
                }
            })
            .map_err(|e| {
                let mut out = ReplayError::new(ReplayCode::Io, "open", "cannot start a thread");
                out.errno = e.raw_os_error();
                out
            })?;
        let (position, doubt) = first.recv().unwrap_or_else(|_| Err(died("open")))?;
        Ok(Self { orders: Some(orders), answers, thread: Some(thread), position, doubt })
    }

    /// Applies the next frame; a frame that was applied before changes nothing.
    ///
    /// After an error the position is where it was; applying the same frame again continues at the
    /// record that failed.
    pub fn apply_frame(&mut self, frame: &[u8]) -> Result<Position, ReplayError> {
        self.ask(Order::Apply(Lent(frame.as_ptr(), frame.len())))
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// What had to be taken back at opening because the machine lost power, if it did. The tree is
    /// not proven to be right until the objects of these records have been verified or imaged.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Makes everything durable. `finish`: the replay is over, its state directory is removed.
    pub fn close(mut self, finish: bool) -> Result<Position, ReplayError> {
        self.ask(Order::Close { finish })
    }

    fn ask(&mut self, order: Order) -> Answer {
        let op = match order {
            Order::Apply(_) => "frame",
            Order::Close { .. } => "close",
        };
        let sent = self.orders.as_ref().map(|o| o.send(order).is_ok());
        if sent != Some(true) {
            return Err(died(op));
        }
        // Returns only with an answer or when the thread, and with it its use of a frame, has ended.
        let answer = self.answers.recv().unwrap_or_else(|_| Err(died(op)));
        if let Ok(position) = &answer {
            self.position = *position;
        }
        answer
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn died(op: &'static str) -> ReplayError {
    ReplayError::new(ReplayCode::Internal, op, "the replay thread ended")
}

fn serve(
    mut engine: Engine,
    options: &ReplayOptions,
    inbox: &Receiver<Order>,
    outbox: &SyncSender<Answer>,
) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Apply(Lent(at, len)) => {
                // SAFETY: the lender keeps the frame alive and unchanged until it has the answer.
                let frame = unsafe { std::slice::from_raw_parts(at, len) };
                let answer = engine.apply_frame(frame);
                if outbox.send(answer).is_err() {
                    return;
                }
            }
            Order::Close { finish } => {
                let answer = engine.close().and_then(|position| {
                    if finish {
                        state::remove(&options.state_dir)?;
                    }
                    Ok(position)
                });
                let _ = outbox.send(answer);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
