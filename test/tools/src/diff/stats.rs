//! Counts what ran, what succeeded, and which errors came how often.

use std::collections::BTreeMap;
use std::fmt;

use crate::sys::{errno_name, Errno};

#[derive(Default)]
struct Count {
    ran: u64,
    ok: u64,
    errors: BTreeMap<Errno, u64>,
}

#[derive(Default)]
pub struct Stats {
    families: BTreeMap<&'static str, Count>,
}

impl Stats {
    pub fn count(&mut self, family: &'static str, result: Result<i64, Errno>) {
        let c = self.families.entry(family).or_default();
        c.ran += 1;
        match result {
            Ok(_) => c.ok += 1,
            Err(e) => *c.errors.entry(e).or_default() += 1,
        }
    }

    pub fn ran(&self) -> u64 {
        self.families.values().map(|c| c.ran).sum()
    }

    /// Share of operations that succeeded, in percent.
    pub fn success(&self) -> f64 {
        let ok: u64 = self.families.values().map(|c| c.ok).sum();
        100.0 * ok as f64 / self.ran().max(1) as f64
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18}{:>9}{:>9}{:>6}  errors", "operation", "ran", "ok", "%")?;
        for (name, c) in &self.families {
            let share = 100 * c.ok / c.ran.max(1);
            write!(f, "{name:<18}{:>9}{:>9}{share:>6} ", c.ran, c.ok)?;
            let mut errors: Vec<_> = c.errors.iter().collect();
            errors.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            for (e, n) in errors {
                write!(f, " {}:{n}", errno_name(*e))?;
            }
            writeln!(f)?;
        }
        write!(f, "{:<18}{:>9}{:>15.1}", "all", self.ran(), self.success())
    }
}
