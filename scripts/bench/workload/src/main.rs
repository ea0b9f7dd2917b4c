//! fsbench: runs one file system workload in one directory and prints one JSON line.
//!
//! `fsbench WORKLOAD DIR [--seconds S] [--warmup S] [--threads N]`
//!
//! The line is `{"ops":N,"bytes":N,"seconds":S}`; `seconds` covers the timed parts only, never
//! setting up or clearing away. System calls are made through libc without buffering, so that
//! one operation is the system calls its name says. Called by `scripts/bench/main.mjs`, which
//! repeats it over targets and rounds.

mod awake;
mod cold;
mod data;
mod fixture;
mod meter;
mod names;
mod sys;
mod warm;

use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
pub struct Job {
    pub dir: PathBuf,
    pub warmup: Duration,
    pub seconds: Duration,
    pub threads: usize,
}

const USAGE: &str = "usage: fsbench WORKLOAD DIR [--seconds S] [--warmup S] [--threads N]

workloads:
  prefill                      write the file that an existing-file workload then finds, and leaves
  prepare                      write the read-only fixture that the warm and cold ones need
  {seq,rand}write4k-{wronly,rdwr}-{new,existing}
  seqwrite1m                   create-write4k-close   fsync4k
  rename  unlink  chmod  mkdir
  stat  readdir  read4k  read1m  openread
  keepawake DIR                spin at idle priority until killed (DIR is not used)
  cold-seq1m  cold-rand4k  cold-small       (root: they drop the kernel's caches)";

fn seconds_of(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| format!("not a number: {text}"))?;
    Duration::try_from_secs_f64(value).map_err(|e| e.to_string())
}

fn parse(args: &[String]) -> Result<(String, Job), String> {
    let mut positional = Vec::new();
    let mut job = Job {
        dir: PathBuf::new(),
        warmup: Duration::from_millis(200),
        seconds: Duration::from_secs(1),
        threads: 1,
    };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seconds" => job.seconds = seconds_of(value()?)?,
            "--warmup" => job.warmup = seconds_of(value()?)?,
            "--threads" => {
                job.threads = value()?.parse().map_err(|_| "bad --threads".to_string())?
            }
            flag if flag.starts_with("--") => return Err(format!("unknown option {flag}")),
            _ => positional.push(arg.clone()),
        }
    }
    match <[String; 2]>::try_from(positional) {
        Ok([workload, dir]) => {
            job.dir = PathBuf::from(dir);
            Ok((workload, job))
        }
        Err(_) => Err(USAGE.to_string()),
    }
}

fn run(workload: &str, job: &Job) -> std::io::Result<Option<meter::Tally>> {
    if let Some(write) = data::Write::parse(workload) {
        return data::write(job, &write).map(Some);
    }
    let tally = match workload {
        "keepawake" => return awake::keep().map(|()| None),
        "prepare" => return fixture::prepare(&job.dir).map(|()| None),
        "prefill" => return data::prefill(job).map(|()| None),
        "fsync4k" => data::fsync(job)?,
        "create-write4k-close" => names::create(job)?,
        "rename" => names::rename(job)?,
        "unlink" => names::unlink(job)?,
        "chmod" => names::chmod(job)?,
        "mkdir" => names::mkdir(job)?,
        "stat" => warm::stat(job)?,
        "readdir" => warm::readdir(job)?,
        "read4k" => warm::read(job, 4096)?,
        "read1m" => warm::read(job, 1 << 20)?,
        "openread" => warm::openread(job)?,
        "cold-seq1m" => cold::sequential(job)?,
        "cold-rand4k" => cold::random(job)?,
        "cold-small" => cold::small(job)?,
        other => {
            return Err(std::io::Error::other(format!(
                "unknown workload {other}\n{USAGE}"
            )));
        }
    };
    Ok(Some(tally))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (workload, job) = parse(&args).unwrap_or_else(|message| {
        eprintln!("{message}");
        std::process::exit(2);
    });
    match run(&workload, &job) {
        Ok(None) => {}
        Ok(Some(tally)) => println!(
            "{{\"ops\":{},\"bytes\":{},\"seconds\":{:.6}}}",
            tally.ops,
            tally.bytes,
            tally.spent.as_secs_f64()
        ),
        Err(error) => {
            eprintln!("fsbench {workload}: {error}");
            std::process::exit(1);
        }
    }
}
