//! Judges two outcomes of one operation.

use std::collections::HashSet;

use super::op::{Op, CAPABILITY};
use super::outcome::{Attrs, Outcome};
use crate::bytes::{escape, Bytes};
use crate::sys::attr::Identity;
use crate::sys::errno_name;

/// What is needed to compare times of two runs.
pub struct Rules {
    /// Times from here on are "during the run" and equal to each other. Operations only ever
    /// set times outside the run, so an explicit time that was lost or kept wrongly shows.
    pub run_from: i64,
    pub run_to: i64,
    /// Right-side inodes with mapped stores, whose time moves when the kernel writes back.
    pub undecided: HashSet<Identity>,
    /// Right-side inodes with mapped stores, whose write-back may remove the capabilities.
    pub uncertain_caps: HashSet<Identity>,
}

impl Rules {
    pub fn new(now: i64) -> Rules {
        Rules {
            run_from: now - 10,
            run_to: now + 7 * 86400,
            undecided: HashSet::new(),
            uncertain_caps: HashSet::new(),
        }
    }

    fn times_agree(&self, a: (i64, u32), b: (i64, u32)) -> bool {
        let inside = |t: (i64, u32)| t.0 >= self.run_from && t.0 <= self.run_to;
        a == b || (inside(a) && inside(b))
    }

    /// The first difference between the sides, in words.
    pub fn difference(&self, op: &Op, left: &Outcome, right: &Outcome) -> Option<String> {
        let uncertain = right.subject().is_some_and(|a| self.uncertain_caps.contains(&a.id));
        if !uncertain || !op.concerns_capability() {
            return self.outcome_difference(left, right);
        }
        let mut sides = [left.clone(), right.clone()];
        for side in &mut sides {
            match op {
                Op::ListXattr { .. } => {
                    side.names.iter_mut().for_each(|n| n.retain(|n| n.0.as_slice() != CAPABILITY));
                }
                _ => (side.result, side.bytes) = (Ok(0), None),
            }
        }
        self.outcome_difference(&sides[0], &sides[1])
    }

    fn outcome_difference(&self, left: &Outcome, right: &Outcome) -> Option<String> {
        if left.result != right.result {
            let show = |r: Result<i64, i32>| match r {
                Ok(n) => n.to_string(),
                Err(e) => errno_name(e),
            };
            return Some(format!("result {} / {}", show(left.result), show(right.result)));
        }
        for (side, o) in [("left", left), ("right", right)] {
            if let Some(b) = o.broken.as_ref().filter(|_| !self.seeks_below_mapping(left, right)) {
                return Some(format!("{side} breaks a promise: {b}"));
            }
        }
        if left.bytes != right.bytes {
            return Some(bytes_difference(left.bytes.as_deref(), right.bytes.as_deref()));
        }
        if left.names != right.names {
            return Some(names_difference(left, right));
        }
        for (l, r) in left.views.iter().zip(&right.views) {
            let found = match (&l.result, &r.result) {
                (Ok(a), Ok(b)) => self.attrs_difference(a, b),
                (a, b) if a == b => None,
                (a, b) => {
                    let show = |r: &Result<Attrs, i32>| match r {
                        Ok(_) => "exists".to_owned(),
                        Err(e) => errno_name(*e),
                    };
                    Some(format!("{} / {}", show(a), show(b)))
                }
            };
            if let Some(what) = found {
                return Some(format!("attributes of the {}: {what}", l.label));
            }
        }
        (left.views.len() != right.views.len()).then(|| "number of views".to_owned())
    }

    /// A FUSE mount asks its server for data and holes without writing mapped pages back first
    /// (`fuse_lseek`), so its answer may be older than what a read returns.
    fn seeks_below_mapping(&self, left: &Outcome, right: &Outcome) -> bool {
        let undecided = right.subject().is_some_and(|a| self.undecided.contains(&a.id));
        undecided && left.names.is_none() && right.broken.is_none()
    }

    fn attrs_difference(&self, a: &Attrs, b: &Attrs) -> Option<String> {
        let fields = [
            ("mode", u64::from(a.mode), u64::from(b.mode)),
            ("nlink", a.nlink.into(), b.nlink.into()),
            ("uid", a.uid.into(), b.uid.into()),
            ("gid", a.gid.into(), b.gid.into()),
            ("rdev", a.rdev, b.rdev),
            ("size", a.size.unwrap_or(0), b.size.unwrap_or(0)),
        ];
        for (name, x, y) in fields {
            if x != y {
                return Some(if name == "mode" {
                    format!("mode {x:o} / {y:o}")
                } else {
                    format!("{name} {x} / {y}")
                });
            }
        }
        if a.has_btime != b.has_btime {
            return Some(format!("birth time {:?} / {:?}", a.has_btime, b.has_btime));
        }
        if !self.undecided.contains(&b.id) && !self.times_agree(a.mtime, b.mtime) {
            return Some(format!("mtime {:?} / {:?}", a.mtime, b.mtime));
        }
        match (a.atime, b.atime) {
            (Some(x), Some(y)) if !self.times_agree(x, y) => Some(format!("atime {x:?} / {y:?}")),
            _ => None,
        }
    }
}

fn bytes_difference(a: Option<&[u8]>, b: Option<&[u8]>) -> String {
    let (Some(a), Some(b)) = (a, b) else {
        return "only one side returned data".into();
    };
    if a.len() != b.len() {
        return format!("{} / {} bytes returned", a.len(), b.len());
    }
    let i = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(0);
    let last = a.iter().zip(b).rposition(|(x, y)| x != y).unwrap_or(0);
    let cut = |v: &[u8]| escape(&v[i..v.len().min(i + 16)]);
    format!("data differs in [{i}, {last}] of {}: \"{}\" / \"{}\"", a.len(), cut(a), cut(b))
}

fn names_difference(left: &Outcome, right: &Outcome) -> String {
    let (Some(a), Some(b)) = (&left.names, &right.names) else {
        return "only one side returned names".into();
    };
    let only = |x: &[(Bytes, u8)], y: &[(Bytes, u8)]| {
        let list: Vec<String> =
            x.iter().filter(|n| !y.contains(n)).take(5).map(|n| format!("{n:?}")).collect();
        list.join(", ")
    };
    format!("names only left: [{}], only right: [{}]", only(a, b), only(b, a))
}
