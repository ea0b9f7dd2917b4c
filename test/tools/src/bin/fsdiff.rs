//! `fsdiff --left DIR --right DIR`: run one random sequence of operations on both and compare.
//!
//! LEFT is the mount under test, RIGHT a plain directory on the same kind of file system as lies
//! below LEFT; both empty. Exit status 0 when they agree, 1 at the first difference, 2 when the
//! test itself could not go on. What may differ is listed in `testtools::diff::limits`.

use std::process::ExitCode;

use lexopt::prelude::*;
use testtools::args;
use testtools::diff::families::{self, Profile, FAMILIES, TRAITS};
use testtools::diff::run::{Config, Run, Verdict};
use testtools::diff::sabotage::Damage;

const USAGE: &str = "\
usage: fsdiff --left DIR --right DIR [options]
  --seed N           seed of the sequence (default: from the clock; always printed)
  --ops N            number of operations (default 100k; suffixes k, m)
  --profile P        full, namespace or data (default full)
  --users            also run operations as uids 1000, 1001 and 1002 in processes of their own
  --skip-op NAME,... leave out families, or the open flags `direct`, `append`, `sync-flags` (see
                     --list); may be repeated
  --check-every N    compare the trees every N operations (default 20k, 0 = at the end only)
  --seek-exact       demand equal answers of SEEK_DATA and SEEK_HOLE
  --strict           accept no kernel limit
  --stop-at K        end after operation K, for looking at the state before a difference
  --sabotage K[:W]   damage the right side after operation K; W is one of data, mode, mtime,
                     xattr, name, link (default data). The run must then fail.
  --report FILE      also write the result to FILE
  --progress         a line on stderr at each comparison of the trees
  --list             print the families and exit";

struct Cli {
    config: Config,
    report: Option<Vec<u8>>,
}

fn parse() -> Result<Option<Cli>, String> {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64 % 1_000_000_007);
    let mut config = Config::new(clock, 100_000, Vec::new(), Vec::new());
    let mut report = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("seed") => config.seed = args::number("seed", args::value(&mut parser)?)?,
            Long("ops") => config.ops = args::number("ops", args::value(&mut parser)?)?,
            Long("left") => config.left = args::path(args::value(&mut parser)?),
            Long("right") => config.right = args::path(args::value(&mut parser)?),
            Long("users") => config.users = true,
            Long("seek-exact") => config.seek_exact = true,
            Long("strict") => config.strict = true,
            Long("progress") => config.progress = true,
            Long("report") => report = Some(args::path(args::value(&mut parser)?)),
            Long("skip-op") => config.skip.extend(args::list(args::value(&mut parser)?)),
            Long("profile") => config.profile = profile(args::value(&mut parser)?)?,
            Long("check-every") => {
                config.check_every = args::number("check-every", args::value(&mut parser)?)?;
            }
            Long("stop-at") => {
                config.stop_at = Some(args::number("stop-at", args::value(&mut parser)?)?);
            }
            Long("sabotage") => config.sabotage = Some(sabotage(args::value(&mut parser)?)?),
            Long("list") => {
                FAMILIES.iter().map(|f| f.name).chain(TRAITS.iter().copied()).for_each(|n| {
                    println!("{n}");
                });
                return Ok(None);
            }
            Long("help") | Short('h') => return Err(String::new()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if config.left.is_empty() || config.right.is_empty() {
        return Err("--left and --right are needed".into());
    }
    if let Some(s) = config.skip.iter().find(|s| !families::is_known(s)) {
        return Err(format!("--skip-op: unknown family '{s}'"));
    }
    Ok(Some(Cli { config, report }))
}

fn profile(value: std::ffi::OsString) -> Result<Profile, String> {
    match value.to_str() {
        Some("full") => Ok(Profile::Full),
        Some("namespace") => Ok(Profile::Namespace),
        Some("data") => Ok(Profile::Data),
        _ => Err("--profile: full, namespace or data".into()),
    }
}

fn sabotage(value: std::ffi::OsString) -> Result<(u64, Damage), String> {
    let text = value.to_string_lossy().into_owned();
    let (at, what) = text.split_once(':').unwrap_or((&text, "data"));
    let damage = Damage::parse(what).ok_or(format!("--sabotage: unknown damage '{what}'"))?;
    Ok((args::number("sabotage", at.into())?, damage))
}

fn summary(v: &Verdict, seed: u64) -> String {
    let notes: String = v.notes.iter().map(|n| format!("# {n}\n")).collect();
    let rate = v.stats.ran() as f64 / v.seconds.max(1e-9);
    let end = match &v.difference {
        Some(d) => format!("{d}DIFFERENT seed={seed}"),
        None => format!("EQUAL seed={seed}"),
    };
    format!("{notes}{}\n# {:.1} s, {rate:.0} operations/s\n{end}\n", v.stats, v.seconds)
}

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(Some(cli)) => cli,
        Ok(None) => return ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let seed = cli.config.seed;
    println!("# seed {seed}");
    match Run::new(cli.config).and_then(Run::run) {
        Ok(verdict) => {
            let text = summary(&verdict, seed);
            print!("{text}");
            if let Some(path) = cli.report {
                use std::os::unix::ffi::OsStringExt;
                let path = std::ffi::OsString::from_vec(path);
                if let Err(e) = std::fs::write(&path, &text) {
                    eprintln!("fsdiff: report: {e}");
                    return ExitCode::from(2);
                }
            }
            ExitCode::from(u8::from(verdict.difference.is_some()))
        }
        Err(message) => {
            eprintln!("fsdiff: seed {seed}: {message}");
            ExitCode::from(2)
        }
    }
}
