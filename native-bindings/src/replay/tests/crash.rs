//! Dying on demand: every system call and every store to the position is a place to die at.
//!
//! Unwinding stands for the death of the process: no destructor of replay writes anything, and what
//! was stored to a mapping stays. `kills` does the same with a real SIGKILL.

use super::journal::UUID;
use crate::replay::engine::Engine;
use crate::replay::{Position, ReplayError, ReplayOptions};
use std::cell::Cell;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static BOOTS: Cell<u8> = const { Cell::new(0) };
    static BOOTED_AT: Cell<(i64, u32)> = const { Cell::new((0, 0)) };
}

/// How often the machine was started again, for replays of this thread.
pub fn boots() -> u8 {
    BOOTS.with(Cell::get)
}

/// When that was last.
pub fn booted_at() -> (i64, u32) {
    BOOTED_AT.with(Cell::get)
}

pub fn set_boots(n: u8) {
    BOOTS.with(|b| b.set(n));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    BOOTED_AT.with(|at| at.set((now.as_secs() as i64, now.subsec_nanos())));
}

/// A place to die at.
pub fn point() {
    LEFT.with(|left| match left.get() {
        0 => {}
        1 => {
            left.set(0);
            std::panic::resume_unwind(Box::new(Died));
        }
        n => left.set(n - 1),
    });
}

struct Died;

/// Does `f` in a thread that dies at its `die_at`th place (0: never); `None` when it died.
pub fn dying<R: Send>(die_at: u64, f: impl FnOnce() -> R + Send) -> Option<R> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            LEFT.with(|left| left.set(die_at));
            let done = f();
            LEFT.with(|left| left.set(0));
            done
        });
        match worker.join() {
            Ok(r) => Some(r),
            Err(e) if e.is::<Died>() => None,
            Err(e) => std::panic::resume_unwind(e),
        }
    })
}

/// Opens, applies the frames after the position, dies at the `die_at`th place; `None` when it died.
pub fn run(
    target: &Path,
    state: &Path,
    frames: &[Vec<u8>],
    die_at: u64,
) -> Option<Result<Position, ReplayError>> {
    run_with(&ReplayOptions::from_base(target.into(), UUID, state.into()), frames, die_at)
}

/// The same, with these options.
pub fn run_with(
    options: &ReplayOptions,
    frames: &[Vec<u8>],
    die_at: u64,
) -> Option<Result<Position, ReplayError>> {
    dying(die_at, || {
        let mut engine = Engine::open(options)?;
        for frame in frames {
            engine.apply_frame(frame)?;
        }
        Ok(engine.position())
    })
}
