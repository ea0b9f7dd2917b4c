//! Rates of replay, printed; run with `cargo test --release replay::tests::speed -- --ignored
//! --nocapture`. The directory is HOLDFAST_SPEED_DIR, or the one for temporary files.

use super::journal::{Head, Journal};
use super::kills::open;
use super::world::World;
use crate::record::{Oid, Op, Time};
use std::time::Instant;

const FILE: u32 = libc::S_IFREG | 0o644;

fn head(op: Op, ino: u64, n: u64) -> Head {
    let time = Time { sec: 1_700_000_000 + n as i64, nsec: 5 };
    Head { op, oid: Oid { ino, gen: 1 }, time, mode: FILE, flags: 0 }
}

fn create(journal: &mut Journal, ino: u64, name: &str) {
    let h = head(Op::Mknod, ino, ino);
    journal.add(h, |e| {
        e.oid(Oid { ino: 1, gen: 1 }).time(h.time).u32(0).u32(FILE).u32(0o022).u32(0).u32(0);
        e.name(name.as_bytes());
    });
}

fn measure(what: &str, unit: f64, name: &str, fill: impl FnOnce(&mut Journal)) {
    let place = std::env::var("HOLDFAST_SPEED_DIR").unwrap_or_else(|_| "/tmp".into());
    let world = World::below(std::path::Path::new(&place));
    std::fs::create_dir(world.b()).unwrap();
    let mut journal = Journal::default();
    journal.add(head(Op::Bind, 1, 0), |e| {
        e.oid(Oid::NONE).name(b"");
    });
    for ino in 2..10 {
        create(&mut journal, ino, &format!("base{ino}"));
    }
    journal.cut();
    let before = journal.records.len();
    fill(&mut journal);
    let frames = journal.frames(usize::MAX, 512 << 10);
    let mut replayer = open(&world);
    replayer.apply_frame(&frames[0]).unwrap();
    let start = Instant::now();
    for frame in &frames[1..] {
        replayer.apply_frame(frame).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {:.0} {name}/s", (journal.records.len() - before) as f64 * unit / seconds);
}

#[test]
#[ignore = "measures"]
fn rates() {
    measure("1 MiB writes, sequential, one file", 1.0, "MiB", |j| {
        let data = vec![1; 1 << 20];
        for n in 0..1024 {
            j.add(head(Op::Write, 2, n), |e| {
                e.u64(n << 20).payload().raw(&data);
            });
        }
    });
    measure("1 MiB writes over existing data", 1.0, "MiB", |j| {
        let data = vec![1; 1 << 20];
        for n in 0..1024 {
            j.add(head(Op::Write, 2, n), |e| {
                e.u64((n % 64) << 20).payload().raw(&data);
            });
        }
    });
    measure("4 KiB writes, 8 files in turn", 1.0, "writes", |j| {
        let data = vec![1; 4096];
        for n in 0..200_000 {
            j.add(head(Op::Write, 2 + n % 8, n), |e| {
                e.u64(n / 8 % 4096 * 4096).payload().raw(&data);
            });
        }
    });
    measure("100 byte writes, one file", 1.0, "writes", |j| {
        for n in 0..500_000 {
            j.add(head(Op::Write, 2, n), |e| {
                e.u64(n * 100).payload().raw(&[9; 100]);
            });
        }
    });
    measure("creations", 1.0, "files", |j| {
        for n in 0..100_000 {
            create(j, 100 + n, &format!("file{n}"));
        }
    });
    measure("creation, 4 KiB write", 0.5, "files", |j| {
        let data = vec![1; 4096];
        for n in 0..50_000 {
            create(j, 100 + n, &format!("file{n}"));
            j.add(head(Op::Write, 100 + n, n), |e| {
                e.u64(0).payload().raw(&data);
            });
        }
    });
    measure("creation, rename, chmod, unlink", 0.25, "files", |j| {
        for n in 0..50_000u64 {
            let (name, other) = (format!("file{n}"), format!("other{n}"));
            let root = Oid { ino: 1, gen: 1 };
            create(j, 100 + n, &name);
            let h = head(Op::Rename, 100 + n, n);
            j.add(h, |e| {
                e.oid(root).time(h.time).oid(root).time(h.time).u32(0).oid(Oid::NONE).u32(0);
                e.name(name.as_bytes()).name(other.as_bytes());
            });
            let h = Head { mode: libc::S_IFREG | 0o600, ..head(Op::Setattr, 100 + n, n) };
            j.add(h, |e| {
                e.u32(1).u32(0o600).u32(0).u32(0).u64(0).time(h.time).time(h.time);
            });
            j.add(head(Op::Unlink, 100 + n, n), |e| {
                e.oid(root).time(h.time).u32(0).name(other.as_bytes());
            });
        }
    });
}

#[test]
#[ignore = "measures"]
fn memory_of_a_million_objects() {
    let rss = || {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|l| l.starts_with("RssAnon")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let mut map = crate::replay::objects::Objects::default();
    let before = rss();
    for ino in 0..1_000_000u64 {
        let handle = crate::replay::handle::Handle::new(1, &ino.to_le_bytes()).unwrap();
        map.add(Oid { ino: ino + 1, gen: 1 }, handle, 8, 0);
    }
    println!("a million objects: {} MiB", rss() - before);
}
