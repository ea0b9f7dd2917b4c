//! `fsload`: concurrent load whose acknowledged operations can be verified afterwards.
//!
//! Load: `fsload --seed N --dir D --threads T --seconds S --ack FILE`. D is empty; FILE lies
//! outside of what is tested. Exit status 0 also when the mount died below it.
//! Check: `fsload --check --dir D --ack FILE`. Exit status 0 when D is what the log implies, 1
//! when not, 2 when the check could not be made.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use testtools::args;
use testtools::load::ack::Setup;
use testtools::load::check::{self, Mode};
use testtools::load::run::{self, Limits};

const USAGE: &str = "\
usage: fsload --dir D --ack FILE [--seed N] [--threads T] [--seconds S] [--ops N]
              [--fsync-rate R]
       fsload --check --dir D --ack FILE [--durable-only | --racy-shutdown | --prefix]
       fsload --history T:F --ack FILE
  --seed N         seed of the sequence (default 1; kept in the log)
  --threads T      threads, each with a directory of its own (default 4)
  --seconds S      duration (default 10)
  --ops N          end each thread after N operations
  --fsync-rate R   share of operations that are fsync of a file or directory (default 0.02)
  --check          verify D: every acknowledged operation, and at most one in flight per thread
  --durable-only   verify only what precedes a returned fsync (after a power loss)
  --racy-shutdown  as --durable-only where the loss was simulated by XFS's shutdown ioctl, which
                   lets an fsync beside it return 0: a thread's last answer promises nothing
  --prefix         verify that D is a state after some number of operations of each thread,
                   one consistent cut among them (a snapshot, a lagging replica)
  --history T:F    print what thread T did to file F (the numbers in a complaint)";

struct Cli {
    dir: Vec<u8>,
    log: PathBuf,
    setup: Setup,
    limits: Limits,
    check: Option<Mode>,
    history: Option<(u32, u64)>,
}

fn parse() -> Result<Cli, String> {
    let mut cli = Cli {
        dir: Vec::new(),
        log: PathBuf::new(),
        setup: Setup { seed: 1, threads: 4, fsync_permille: 20 },
        limits: Limits { time: Duration::from_secs(10), ops: u64::MAX },
        check: None,
        history: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("dir") => cli.dir = args::path(args::value(&mut parser)?),
            Long("ack") => cli.log = args::value(&mut parser)?.into(),
            Long("seed") => cli.setup.seed = args::number("seed", args::value(&mut parser)?)?,
            Long("threads") => {
                let n = args::number("threads", args::value(&mut parser)?)?;
                cli.setup.threads = u32::try_from(n).map_err(|e| e.to_string())?.clamp(1, 99);
            }
            Long("seconds") => {
                let n = args::number("seconds", args::value(&mut parser)?)?;
                cli.limits.time = Duration::from_secs(n);
            }
            Long("ops") => cli.limits.ops = args::number("ops", args::value(&mut parser)?)?,
            Long("fsync-rate") => {
                let text = args::value(&mut parser)?.to_string_lossy().into_owned();
                let rate: f64 = text.parse().map_err(|_| "--fsync-rate: not a number")?;
                cli.setup.fsync_permille = (rate.clamp(0.0, 1.0) * 1000.0) as u32;
            }
            Long("check") => cli.check = cli.check.or(Some(Mode::Exact)),
            Long("durable-only") => cli.check = Some(Mode::Durable),
            Long("racy-shutdown") => cli.check = Some(Mode::DurableRacy),
            Long("prefix") => cli.check = Some(Mode::Prefix),
            Long("history") => {
                let text = args::value(&mut parser)?.to_string_lossy().into_owned();
                let parsed = text
                    .split_once(':')
                    .and_then(|(t, f)| Some((t.parse().ok()?, f.parse().ok()?)));
                cli.history = Some(parsed.ok_or("--history: THREAD:FILE")?);
            }
            Long("help") | Short('h') => return Err(String::new()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if (cli.dir.is_empty() && cli.history.is_none()) || cli.log.as_os_str().is_empty() {
        return Err("--dir and --ack are needed".into());
    }
    Ok(cli)
}

fn load(cli: &Cli) -> Result<bool, String> {
    println!("# seed {}", cli.setup.seed);
    let ended = run::run(&cli.dir, &cli.log, cli.setup, cli.limits)?;
    let rate = ended.acked as f64 / ended.seconds.max(1e-9);
    println!(
        "# {} operations acknowledged in {:.1} s, {rate:.0}/s; {} threads cut off, {} blocked",
        ended.acked, ended.seconds, ended.cut_off, ended.blocked
    );
    for w in &ended.wrong {
        println!("WRONG {w}");
    }
    Ok(ended.wrong.is_empty())
}

fn verify(cli: &Cli, mode: Mode) -> Result<bool, String> {
    let report = check::check(&cli.dir, &cli.log, mode)?;
    for line in &report.lines {
        println!("# {line}");
    }
    for w in &report.wrong {
        println!("WRONG {w}");
    }
    println!("{}", if report.wrong.is_empty() { "CONSISTENT" } else { "INCONSISTENT" });
    Ok(report.wrong.is_empty())
}

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let good = match (cli.history, cli.check) {
        (Some((t, f)), _) => check::history(&cli.log, t, f).map(|lines| {
            lines.iter().for_each(|l| println!("{l}"));
            true
        }),
        (None, Some(mode)) => verify(&cli, mode),
        (None, None) => load(&cli),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("fsload: {message}");
            ExitCode::from(2)
        }
    }
}
