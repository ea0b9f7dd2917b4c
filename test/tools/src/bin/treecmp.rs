//! `treecmp A B`: are two directory trees the same, bit for bit?
//!
//! Prints one line per difference: field, path (escaped), both values. Exit status 0 when equal,
//! 1 when different, 2 when the comparison could not be made.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use lexopt::prelude::*;
use testtools::sys::{errno_name, file};
use testtools::tree::{self, Mtime, Options};
use testtools::{args, bytes};

const USAGE: &str = "\
usage: treecmp A B [options]
  --ignore FIELD,...     leave out: type mode uid gid size mtime rdev nlink links target data
                         xattr flags projid
  --with FIELD,...       compare in addition: ino, ctime (two views of one tree), holes
  --holes                compare the SEEK_DATA/SEEK_HOLE maps
  --hole-granularity N   round the maps outward to N bytes first (default 65536)
  --exclude NAME         leave out NAME in the two roots; may be repeated
  --json                 one JSON object per difference, and a summary object at the end
  --max N                print at most N differences (all are counted)
  --quiet                no summary line";

struct Cli {
    roots: Vec<Vec<u8>>,
    options: Options,
    json: bool,
    quiet: bool,
    max: u64,
}

fn parse() -> Result<Cli, String> {
    let mut cli = Cli {
        roots: Vec::new(),
        options: Options::default(),
        json: false,
        quiet: false,
        max: u64::MAX,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Value(v) => cli.roots.push(args::path(v)),
            Long("ignore") => cli.options.ignore.extend(args::list(args::value(&mut parser)?)),
            Long("with") => {
                for f in args::list(args::value(&mut parser)?) {
                    match f.as_str() {
                        "ino" => cli.options.ino = true,
                        "ctime" => cli.options.ctime = true,
                        "holes" => cli.options.holes = true,
                        other => return Err(format!("--with: unknown field '{other}'")),
                    }
                }
            }
            Long("holes") => cli.options.holes = true,
            Long("hole-granularity") => {
                cli.options.hole_granularity =
                    args::number("hole-granularity", args::value(&mut parser)?)?;
            }
            Long("exclude") => cli.options.exclude.push(args::path(args::value(&mut parser)?)),
            Long("json") => cli.json = true,
            Long("quiet") => cli.quiet = true,
            Long("max") => cli.max = args::number("max", args::value(&mut parser)?)?,
            Long("help") | Short('h') => return Err(String::new()),
            other => return Err(other.unexpected().to_string()),
        }
    }
    if cli.roots.len() != 2 {
        return Err("two directories are needed".into());
    }
    if let Some(f) = cli.options.ignore.iter().find(|f| !tree::FIELDS.contains(&f.as_str())) {
        return Err(format!("--ignore: unknown field '{f}'"));
    }
    if cli.options.ignore.iter().any(|f| f == "mtime") {
        cli.options.mtime = Mtime::Ignore;
    }
    Ok(cli)
}

fn run(cli: &Cli) -> Result<bool, String> {
    let open = |p: &Vec<u8>| {
        file::open_root(p).map_err(|e| format!("{}: {}", bytes::escape(p), errno_name(e)))
    };
    let (left, right) = (open(&cli.roots[0])?, open(&cli.roots[1])?);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut printed = 0;
    let mut failed = None;
    let seen = tree::compare(left.as_raw_fd(), right.as_raw_fd(), &cli.options, &mut |d| {
        printed += 1;
        if printed <= cli.max {
            let line = if cli.json { d.to_json() } else { d.to_string() };
            failed = writeln!(out, "{line}").err().or(failed.take());
        }
    })
    .map_err(|e| e.to_string())?;
    if !cli.quiet {
        let (o, b, d) = (seen.objects, seen.bytes, seen.differences);
        failed = if cli.json {
            writeln!(out, "{{\"objects\":{o},\"bytes\":{b},\"differences\":{d}}}")
        } else {
            writeln!(out, "# {o} objects, {b} bytes compared, {d} differences")
        }
        .err()
        .or(failed);
    }
    failed = out.flush().err().or(failed);
    match failed {
        Some(e) => Err(e.to_string()),
        None => Ok(seen.differences == 0),
    }
}

fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("treecmp: {message}");
            ExitCode::from(2)
        }
    }
}
