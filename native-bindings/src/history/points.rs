//! Moments that have names: markers of the source, as a replica keeps them.

use super::log::{Cause, Entry};
use super::place::Place;
use super::History;
use crate::interceptor::errno::Res;

/// A moment with a name.
pub struct Point {
    pub seq: u64,
    pub clock_ns: u64,
    /// As the source has it; bytes, not text.
    pub name: Vec<u8>,
}

impl History {
    /// Keeps the name of a moment. Once: a record may be applied again.
    pub fn name_point(&self, seq: u64, name: &[u8], cause: Cause) -> Res<()> {
        let place = Place::point();
        if self.has(&place, seq)? {
            return Ok(());
        }
        let fill = |buf: &mut [u8], _: &Entry| {
            buf[..name.len()].copy_from_slice(name);
            Ok((name.len(), 0))
        };
        self.keep(&place, cause, name.len(), fill)?.set_stamp(seq);
        Ok(())
    }

    /// The moments with names that can be looked at, oldest first.
    pub fn named_points(&self) -> Res<Vec<Point>> {
        let all = self.index.all_of(&self.log, &Place::point().0)?;
        let kept = all.into_iter().filter(|(seq, _)| *seq >= self.floor());
        let points = kept.map(|(seq, entry)| {
            let name = entry.payload().to_vec();
            Point { seq, clock_ns: entry.clock_ns(), name }
        });
        Ok(points.filter(|point| !point.name.is_empty()).collect())
    }
}
