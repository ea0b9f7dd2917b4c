//! One run: set up, the loop, the comparison of the trees, the report.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::compare::Rules;
use super::families::Profile;
use super::gen::{Gen, Planned};
use super::limits::{self, Limit, Rule};
use super::op::{Op, Step};
use super::outcome::Outcome;
use super::sabotage::{self, Damage};
use super::stats::Stats;
use super::worker::{Host, Reply, Worker, USERS};
use crate::sys::{self, attr, dir, file, name, process};
use crate::tree::{self, Mtime};

/// Operations shown before a difference.
const HISTORY: usize = 30;
/// Differences between the trees shown.
const TREE_DIFFERENCES_MAX: usize = 40;

#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    pub ops: u64,
    pub left: Vec<u8>,
    pub right: Vec<u8>,
    pub profile: Profile,
    pub users: bool,
    pub skip: Vec<String>,
    /// End after this operation, before the descriptors close; for looking at a failure.
    pub stop_at: Option<u64>,
    pub sabotage: Option<(u64, Damage)>,
    /// Compare the trees every so many operations; 0 for at the end only.
    pub check_every: u64,
    pub seek_exact: bool,
    pub strict: bool,
    pub progress: bool,
}

impl Config {
    pub fn new(seed: u64, ops: u64, left: Vec<u8>, right: Vec<u8>) -> Config {
        Config {
            seed,
            ops,
            left,
            right,
            profile: Profile::Full,
            users: false,
            skip: Vec::new(),
            stop_at: None,
            sabotage: None,
            check_every: 20_000,
            seek_exact: false,
            strict: false,
            progress: false,
        }
    }
}

/// How a run ended.
pub struct Verdict {
    /// The first difference, fully described.
    pub difference: Option<String>,
    pub stats: Stats,
    pub seconds: f64,
    pub notes: Vec<String>,
}

struct Past {
    index: u64,
    step: Step,
    result: Result<i64, i32>,
}

pub struct Run {
    config: Config,
    left: OwnedFd,
    right: OwnedFd,
    hosts: Vec<Host>,
    gen: Gen,
    rules: Rules,
    limits: Vec<&'static Limit>,
    stats: Stats,
    past: VecDeque<Past>,
    notes: Vec<String>,
}

impl Run {
    /// Opens both (empty) directories and starts the workers.
    pub fn new(config: Config) -> Result<Run, String> {
        let (left, right) = (open_empty(&config.left)?, open_empty(&config.right)?);
        let limits = match config.strict {
            true => Vec::new(),
            false => limits::in_force(left.as_raw_fd(), right.as_raw_fd()),
        };
        let worker = || Worker::new(&config.left, &config.right, config.seek_exact);
        let mut hosts = vec![Host::Local(Box::new(worker()?))];
        process::umask(0o022);
        if config.users {
            for fd in [&left, &right] {
                name::fchmod(fd.as_raw_fd(), 0o777).map_err(sys::errno_name)?;
            }
            for who in USERS {
                hosts.push(Host::fork(worker()?, who)?);
            }
        }
        let gen = Gen::new(config.seed, hosts.len(), config.profile, &config.skip);
        let notes = limits.iter().map(|l| format!("limit in force: {l}")).collect();
        Ok(Run {
            config,
            left,
            right,
            hosts,
            gen,
            rules: Rules::new(process::now()),
            limits,
            stats: Stats::default(),
            past: VecDeque::new(),
            notes,
        })
    }

    /// Runs to the end or to the first difference. An error means that the test itself failed.
    pub fn run(mut self) -> Result<Verdict, String> {
        let start = Instant::now();
        let last = self.config.stop_at.map_or(self.config.ops, |k| k.min(self.config.ops));
        let mut difference = None;
        for index in 1..=last {
            difference = self.one(index)?;
            if difference.is_some() {
                break;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        for host in std::mem::take(&mut self.hosts) {
            host.finish();
        }
        if difference.is_none() {
            difference = self.trees("after the last operation, all descriptors closed")?;
        }
        for root in [&self.left, &self.right] {
            unseal(root.as_raw_fd());
        }
        Ok(Verdict { difference, stats: self.stats, seconds, notes: self.notes })
    }

    fn one(&mut self, index: u64) -> Result<Option<String>, String> {
        let mut planned = self.gen.next_step();
        let refused = self.refusal(planned.family);
        planned.step.left_only = refused.is_some();
        let host = self.hosts.get_mut(planned.step.worker as usize).ok_or("no such worker")?;
        let reply = host
            .run(&planned.step)
            .map_err(|e| format!("{e}\nat operation {index}: {:?}", planned.step))?;
        if let (Op::Open { slot, .. }, Ok(_), Err(_)) =
            (&planned.step.op, reply.left.result, reply.right.result)
        {
            // Where that is allowed, both sides go on without a descriptor.
            let op = Op::Close { slot: *slot };
            let step = Step { op, ..planned.step.clone() };
            let closed = host.run(&step)?;
            self.gen.learn_closed(step, &closed.right);
        }
        self.stats.count(planned.family, reply.right.result);
        self.follow_times(&planned, &reply.right);
        let found = match refused {
            Some(errno) if reply.left.result == Err(errno) => None,
            Some(errno) => Some(format!("expected {} on the left", sys::errno_name(errno))),
            None if self.allowed(&planned.step.op, &reply) => None,
            None => self.rules.difference(&planned.step.op, &reply.left, &reply.right),
        };
        if let Some(what) = found {
            return Ok(Some(self.describe(index, &planned, &what, &reply.left, &reply.right)));
        }
        if refused.is_none() {
            self.gen.learn(&planned, &reply.right);
        }
        self.past.push_back(Past { index, step: planned.step, result: reply.right.result });
        if self.past.len() > HISTORY {
            self.past.pop_front();
        }
        if let Some((at, damage)) = self.config.sabotage {
            if at == index {
                let path = sabotage::apply(
                    damage,
                    self.right.as_raw_fd(),
                    &self.gen.tree,
                    &self.rules.undecided,
                );
                let path = path.ok_or("nothing to sabotage at this operation")?;
                let path = crate::bytes::escape(&path);
                self.notes.push(format!("sabotaged {damage:?} of {path} after {at}"));
            }
        }
        let every = self.config.check_every;
        if every > 0 && index.is_multiple_of(every) {
            if self.config.progress {
                eprintln!("# {index} operations, {:.1} % ok", self.stats.success());
            }
            return self.trees(&format!("after operation {index}"));
        }
        Ok(None)
    }

    /// The errno with which a family must be refused on the left.
    fn refusal(&self, family: &str) -> Option<i32> {
        self.limits.iter().find_map(|l| match l.rule {
            Rule::Refused { families, errno } if families.contains(&family) => Some(errno),
            _ => None,
        })
    }

    fn allowed(&self, op: &Op, reply: &Reply) -> bool {
        self.gen.any_sealed()
            && self.limits.iter().any(|l| l.rule == Rule::Sealed)
            && limits::sealed_allows(op, &reply.left, &reply.right)
    }

    /// Keeps the set of inodes whose modification time is not decided, see `limits`.
    fn follow_times(&mut self, planned: &Planned, right: &Outcome) {
        let Some((id, mode)) = right.subject().map(|a| (a.id, a.mode)) else { return };
        match &planned.step.op {
            Op::Write { .. } | Op::Writev { .. } if mode & libc::S_IFMT == libc::S_IFIFO => {
                self.rules.undecided.insert(id);
            }
            Op::MapStore { .. } => {
                self.rules.undecided.insert(id);
                self.rules.uncertain_caps.insert(id);
            }
            Op::SetXattr { .. }
                if planned.step.op.concerns_capability()
                    && right.result.is_ok()
                    && !self.gen.is_mapped(id) =>
            {
                self.rules.uncertain_caps.remove(&id);
            }
            Op::Utimens { mtime, .. } if right.result.is_ok() => {
                let explicit = mtime.1 != libc::UTIME_OMIT && mtime.1 != libc::UTIME_NOW;
                if explicit && !self.gen.is_mapped(id) {
                    self.rules.undecided.remove(&id);
                }
            }
            _ => {}
        }
    }

    fn trees(&self, when: &str) -> Result<Option<String>, String> {
        let options = tree::Options {
            mtime: Mtime::Window {
                from: self.rules.run_from,
                to: self.rules.run_to,
                skip: self.rules.undecided.clone(),
            },
            uncertain_caps: self.rules.uncertain_caps.clone(),
            ..tree::Options::default()
        };
        let mut lines = Vec::new();
        let (l, r) = (self.left.as_raw_fd(), self.right.as_raw_fd());
        let seen = tree::compare(l, r, &options, &mut |d| {
            if lines.len() < TREE_DIFFERENCES_MAX {
                lines.push(d.to_string());
            }
        })
        .map_err(|e| e.to_string())?;
        if seen.differences == 0 {
            return Ok(None);
        }
        let mut text = format!("seed {}: the trees differ {when}\n", self.config.seed);
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
        self.history(&mut text);
        Ok(Some(text))
    }

    fn describe(
        &self,
        index: u64,
        planned: &Planned,
        what: &str,
        left: &Outcome,
        right: &Outcome,
    ) -> String {
        let mut text = String::new();
        self.history(&mut text);
        let _ = writeln!(text, "seed {} operation {index}: {what}", self.config.seed);
        let _ = writeln!(text, "  family {}", planned.family);
        let _ = writeln!(text, "  {}", show(&planned.step));
        let _ = writeln!(text, "  left : {left}");
        let _ = writeln!(text, "  right: {right}");
        text
    }

    fn history(&self, text: &mut String) {
        let _ = writeln!(text, "last {} operations:", self.past.len());
        for p in &self.past {
            let result = match p.result {
                Ok(n) => n.to_string(),
                Err(e) => sys::errno_name(e),
            };
            let _ = writeln!(text, "  {:>8} {} = {result}", p.index, show(&p.step));
        }
    }
}

fn show(step: &Step) -> String {
    let who = match step.worker {
        0 => "root".to_owned(),
        n => format!("u{}", USERS[(n as usize - 1) % USERS.len()].uid),
    };
    format!("{who}: {:?}", step.op)
}

fn open_empty(path: &[u8]) -> Result<OwnedFd, String> {
    let shown = crate::bytes::escape(path);
    let fd = file::open_root(path).map_err(|e| format!("{shown}: {}", sys::errno_name(e)))?;
    match dir::read_all(fd.as_raw_fd()) {
        Ok(names) if names.is_empty() => Ok(fd),
        Ok(_) => Err(format!("{shown} is not empty")),
        Err(e) => Err(format!("{shown}: readdir: {}", sys::errno_name(e))),
    }
}

/// Clears immutable and append-only everywhere, so that the tree can be removed.
fn unseal(dir_fd: i32) {
    // The caller's descriptor may already stand at the end of its directory.
    let Ok(own) = file::openat(dir_fd, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0) else { return };
    let Ok(entries) = dir::read_all(own.as_raw_fd()) else { return };
    for (entry, kind) in entries {
        if kind != libc::DT_DIR && kind != libc::DT_REG {
            continue;
        }
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let Ok(c) = sys::cstr(&entry) else { continue };
        let Ok(fd) = file::openat(dir_fd, &c, flags, 0) else { continue };
        let sealed = attr::FLAG_IMMUTABLE | attr::FLAG_APPEND;
        if let Ok(flags) = attr::get_flags(fd.as_raw_fd()) {
            if flags & sealed != 0 {
                // A failure here only makes the tree harder to remove.
                let _ = attr::set_flags(fd.as_raw_fd(), flags & !sealed);
            }
        }
        if kind == libc::DT_DIR {
            unseal(fd.as_raw_fd());
        }
    }
}
