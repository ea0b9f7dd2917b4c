//! Timing: a worker runs batches until its time is over; only what a batch reports counts.

use crate::Job;
use std::io::{Error, Result};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What was done, and in how much timed time.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub ops: u64,
    pub bytes: u64,
    pub spent: Duration,
}

/// Times `part`, which returns (ops, bytes).
pub fn timed(part: impl FnOnce() -> Result<(u64, u64)>) -> Result<Tally> {
    let start = Instant::now();
    let (ops, bytes) = part()?;
    Ok(Tally {
        ops,
        bytes,
        spent: start.elapsed(),
    })
}

/// Repeats `batch` until its timed parts add up to `limit`, at least once.
fn repeat(limit: Duration, batch: &mut dyn FnMut() -> Result<Tally>) -> Result<Tally> {
    let mut sum = Tally::default();
    loop {
        let one = batch()?;
        sum.ops += one.ops;
        sum.bytes += one.bytes;
        sum.spent += one.spent;
        if sum.spent >= limit {
            return Ok(sum);
        }
    }
}

/// Warms up, then measures.
pub fn measure(job: &Job, mut batch: impl FnMut() -> Result<Tally>) -> Result<Tally> {
    repeat(job.warmup, &mut batch)?;
    repeat(job.seconds, &mut batch)
}

/// Runs `worker(index)` to get one batch function per thread, warms all up, starts them at one
/// moment, and adds up. The time is that of the slowest thread.
pub fn measure_threads<W, B>(job: &Job, worker: W) -> Result<Tally>
where
    W: Fn(usize) -> Result<B> + Sync,
    B: FnMut() -> Result<Tally>,
{
    let barrier = Barrier::new(job.threads);
    let results: Vec<Result<Tally>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..job.threads)
            .map(|index| {
                let (barrier, worker) = (&barrier, &worker);
                scope.spawn(move || {
                    // A thread that fails to warm up still has to reach the barrier.
                    let warmed = worker(index).and_then(|mut batch| {
                        repeat(job.warmup, &mut batch)?;
                        Ok(batch)
                    });
                    barrier.wait();
                    repeat(job.seconds, &mut warmed?)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|h| {
                h.join()
                    .unwrap_or_else(|_| Err(Error::other("a worker panicked")))
            })
            .collect()
    });
    let mut sum = Tally::default();
    for one in results {
        let one = one?;
        sum.ops += one.ops;
        sum.bytes += one.bytes;
        sum.spent = sum.spent.max(one.spent);
    }
    Ok(sum)
}

/// xorshift64*: cheap, and the same sequence in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}
