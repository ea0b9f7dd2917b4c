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
pub(crate) mod apply_meta;
mod apply_names;
mod checkpoints;
mod compare;
mod descriptors;
mod engine;
pub(crate) mod error;
mod facts;
mod fill;
mod handle;
mod header;
mod identity;
mod limits;
mod map_log;
mod needs;
mod objects;
mod parked;
mod past;
pub(crate) mod seal;
mod state;
pub(crate) mod sys;
mod times;

pub use compare::{Difference, Verified};
pub use error::{ReplayCode, ReplayError};
pub use needs::OBJECT;

use crate::history::History;
use crate::record::Oid;
use engine::Engine;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What to replay onto.
#[derive(Clone)]
pub struct ReplayOptions {
    /// The directory that is a copy of the base; bytes, not text.
    pub target: PathBuf,
    /// Identity of the volume; frames of another are refused.
    pub uuid: [u8; 16],
    /// The replay's own state; on the target's mount, beside it. Made when it is missing.
    pub state_dir: PathBuf,
    /// Where a new state starts.
    pub start: Start,
    /// An existing state starts there, too: it keeps only what it knows of the objects, and codes.
    pub restart: bool,
    /// Somebody brings what comparisons and codes find to differ; else they are passed over.
    pub compare: bool,
    /// Keeps what is there before it changes.
    pub history: Option<Arc<History>>,
}

impl ReplayOptions {
    /// Onto a copy of the base, from the beginning.
    pub fn from_base(target: PathBuf, uuid: [u8; 16], state_dir: PathBuf) -> Self {
        let (start, restart) = (Start::default(), false);
        Self { target, uuid, state_dir, start, restart, compare: true, history: None }
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

/// In `scans`: a baseline is to begin. That another one ends does not matter.
pub const BASELINE_AWAITED: u64 = 1 << 16;
/// In `scans`: the baseline under way is the one that was awaited; other targets take its images as well,
/// and were whole before.
pub const BASELINE_OWN: u64 = 1 << 17;

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
    /// Objects of which the target is known to lack something.
    pub needs: u64,
    /// Differences found by the comparison under way, or the last one.
    pub differences: u64,
    /// The last comparison of everything that ended.
    pub verified: Option<Verified>,
    /// Codes are missing that can be computed when there is nothing to apply.
    pub codes_left: bool,
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
    Fill(Lent),
    /// Computes codes for about this long.
    Codes(Duration),
    /// Fills `Lists`.
    Differences,
    Needs,
    Close {
        finish: bool,
    },
}

type Answer = Result<Position, ReplayError>;

/// What lacks: object, and its range or `OBJECT`.
pub type NeedList = Vec<(Oid, (u64, u64))>;

/// What an answer has besides the position.
#[derive(Default)]
struct Lists {
    differences: Vec<Difference>,
    needs: NeedList,
}

/// A replay onto one target. Dropping it is like losing the process: nothing is lost.
pub struct Replayer {
    orders: Option<SyncSender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    position: Position,
    doubt: Option<Doubt>,
    lists: Arc<Mutex<Lists>>,
}

impl Replayer {
    /// Opens the target and its state; continues where an earlier replay with that state was.
    pub fn open(options: ReplayOptions) -> Result<Self, ReplayError> {
        let (orders, inbox) = sync_channel::<Order>(1);
        let (outbox, answers) = sync_channel::<Answer>(1);
        let (opened, first) = sync_channel(1);
        let lists = Arc::new(Mutex::new(Lists::default()));
        let out = lists.clone();
        let thread = std::thread::Builder::new()
            .name("replay".into())
            .spawn(move || {
                let engine = Engine::open(&options);
                match engine {
                    Err(e) => drop(opened.send(Err(e))),
                    Ok(engine) => {
                        let _ = opened.send(Ok((engine.position(), engine.doubt())));
                        serve(engine, &options, &inbox, &outbox, &out);
                    }
                }
            })
            .map_err(|e| {
                let mut out = ReplayError::new(ReplayCode::Io, "open", "cannot start a thread");
                out.errno = e.raw_os_error();
                out
            })?;
        let (position, doubt) = first.recv().unwrap_or_else(|_| Err(died("open")))?;
        Ok(Self { orders: Some(orders), answers, thread: Some(thread), position, doubt, lists })
    }

    /// Applies the next frame; a frame that was applied before changes nothing.
    ///
    /// After an error the position is where it was; applying the same frame again continues at the
    /// record that failed.
    pub fn apply_frame(&mut self, frame: &[u8]) -> Result<Position, ReplayError> {
        self.ask(Order::Apply(Lent(frame.as_ptr(), frame.len())))
    }

    /// Takes the body of a `fill` message; the same again changes nothing.
    pub fn fill(&mut self, body: &[u8]) -> Result<Position, ReplayError> {
        self.ask(Order::Fill(Lent(body.as_ptr(), body.len())))
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// What had to be taken back at opening because the machine lost power, if it did. The tree is
    /// not proven to be right until the objects of these records have been verified or imaged.
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Computes codes that are missing, for about `most`; `codes_left` says whether that was all.
    pub fn compute_codes(&mut self, most: Duration) -> Result<Position, ReplayError> {
        self.ask(Order::Codes(most))
    }

    /// The differences found since the last call: the first 10,000 of a comparison.
    pub fn take_differences(&mut self) -> Result<Vec<Difference>, ReplayError> {
        self.ask(Order::Differences)?;
        Ok(std::mem::take(&mut self.lists.lock().differences))
    }

    /// What the target is known to lack, at most about `NEEDS_MAX` ranges of it.
    pub fn needs(&mut self) -> Result<NeedList, ReplayError> {
        self.ask(Order::Needs)?;
        Ok(std::mem::take(&mut self.lists.lock().needs))
    }

    /// Makes everything durable. `finish`: the replay is over, its state directory is removed.
    pub fn close(mut self, finish: bool) -> Result<Position, ReplayError> {
        self.ask(Order::Close { finish })
    }

    fn ask(&mut self, order: Order) -> Answer {
        let op = match order {
            Order::Apply(_) => "frame",
            Order::Fill(_) => "fill",
            Order::Codes(_) => "codes",
            Order::Differences | Order::Needs => "compare",
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
    lists: &Mutex<Lists>,
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
            Order::Fill(Lent(at, len)) => {
                // SAFETY: as above.
                let body = unsafe { std::slice::from_raw_parts(at, len) };
                if outbox.send(engine.bring(body)).is_err() {
                    return;
                }
            }
            Order::Codes(most) => {
                let more = engine.compute_codes(most);
                let answer = more
                    .map(|codes_left| Position { codes_left, ..engine.position() })
                    .map_err(|f| ReplayError::of_fault(&f, 0, "codes", Vec::new()));
                if outbox.send(answer).is_err() {
                    return;
                }
            }
            Order::Differences => {
                lists.lock().differences = engine.take_differences();
                if outbox.send(Ok(engine.position())).is_err() {
                    return;
                }
            }
            Order::Needs => {
                let answer = engine.wanted().map(|list| {
                    lists.lock().needs = list;
                    engine.position()
                });
                let fault = |f| ReplayError::of_fault(&f, 0, "needs", Vec::new());
                if outbox.send(answer.map_err(fault)).is_err() {
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
pub(crate) mod tests;
