//! Places to test in: a source, a target and a state directory side by side, on several file
//! systems, gone afterwards even when a test fails.

use super::random::Chaos;
use super::source::Source;
use super::tree::copy_tree;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

fn run(program: &str, args: &[&str]) -> bool {
    let out = Command::new(program).args(args).output();
    out.is_ok_and(|o| o.status.success())
}

/// A file system of its own in a loop image, unmounted and removed at the end.
pub struct Loop {
    dir: PathBuf,
    kind: String,
}

impl Loop {
    pub fn make(kind: &str) -> Self {
        let dir = temp_name(&format!("loop-{kind}"));
        std::fs::create_dir_all(dir.join("mnt")).unwrap();
        let image = dir.join("image");
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(1 << 30).unwrap();
        let this = Self { dir, kind: kind.to_owned() };
        let image = image.to_str().unwrap();
        let mkfs: &[&str] = match kind {
            "xfs" => &["-q", "-f", image],
            _ => &["-q", "-F", image],
        };
        assert!(run(&format!("mkfs.{kind}"), mkfs), "mkfs.{kind} must work");
        this.mount();
        this
    }

    /// The whole file system as it is now, with the same inode numbers and times: what a
    /// frozen view of a volume is.
    pub fn frozen(&self) -> Self {
        let dir = temp_name("frozen");
        std::fs::create_dir_all(dir.join("mnt")).unwrap();
        let mnt = self.path();
        assert!(run("fsfreeze", &["-f", mnt.to_str().unwrap()]), "freezing must work");
        let images = (self.dir.join("image"), dir.join("image"));
        let (from, to) = (images.0.to_str().unwrap(), images.1.to_str().unwrap());
        let copied = run("cp", &["--sparse=always", from, to]);
        assert!(run("fsfreeze", &["-u", mnt.to_str().unwrap()]) && copied);
        let this = Self { dir, kind: self.kind.clone() };
        this.mount_as(if this.kind == "xfs" { "loop,nouuid" } else { "loop" });
        this
    }

    fn mount(&self) {
        self.mount_as("loop");
    }

    fn mount_as(&self, options: &str) {
        let (image, mnt) = (self.dir.join("image"), self.path());
        // Free loop devices are fought over.
        let mounted = (0..20).any(|_| {
            let args = ["-o", options, image.to_str().unwrap(), mnt.to_str().unwrap()];
            let ok = run("mount", &args);
            if !ok {
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            ok
        });
        assert!(mounted, "a loop mount must work (root)");
    }

    /// What is not on the disk at this moment is lost.
    pub fn lose_power(&self) {
        let root = std::fs::File::open(self.path()).unwrap();
        let without_log: u32 = 2;
        // FS_IOC_SHUTDOWN: _IOR('X', 125, __u32)
        // SAFETY: in-pointer of the size that the request says.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), 0x8004_587d_u64 as _, &without_log) };
        assert_eq!(done, 0, "shutting the file system down must work");
        drop(root);
        self.unmount();
        self.mount();
    }

    fn unmount(&self) {
        let mnt = self.path();
        for _ in 0..50 {
            if run("umount", &[mnt.to_str().unwrap()]) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("mnt")
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.unmount();
        let _ = std::fs::remove_dir(self.path());
        let _ = std::fs::remove_file(self.dir.join("image"));
        let _ = std::fs::remove_dir(&self.dir);
    }
}

pub fn temp_name(what: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("holdfast-replay-{what}-{}-{n}", std::process::id()))
}

/// A directory with a source `a`, a copy of its base `b`, and room for the state `s`.
pub struct World {
    pub dir: PathBuf,
}

impl World {
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    pub fn below(place: &Path) -> Self {
        let name = temp_name("world");
        let dir = place.join(name.file_name().unwrap());
        std::fs::create_dir_all(dir.join("a")).unwrap();
        Self { dir }
    }

    pub fn a(&self) -> PathBuf {
        self.dir.join("a")
    }

    pub fn b(&self) -> PathBuf {
        self.dir.join("b")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// Takes the base: from here on the source is captured.
    pub fn source(&self) -> Source {
        copy_tree(&self.a(), &self.b());
        Source::new(&self.a())
    }

    /// A base with some contents, and random operations on it.
    pub fn chaos(&self, seed: u64) -> Chaos {
        println!("seed {seed}");
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut before = Chaos::new(Source::new(&self.a()), rng.clone());
        (before.light, before.base) = (true, true);
        for _ in 0..150 {
            before.step();
        }
        before.settle();
        drop(before);
        Chaos::new(self.source(), ChaCha8Rng::seed_from_u64(seed + 1))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::env::var_os("HOLDFAST_KEEP").is_some() {
            return;
        }
        let dir = self.dir.to_str().unwrap_or("/nonexistent");
        // Immutable objects would stay.
        run("chattr", &["-R", "-f", "-i", "-a", dir]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A seed that a failing run has printed, or a new one.
pub fn seed() -> u64 {
    match std::env::var("HOLDFAST_SEED") {
        Ok(s) => s.parse().unwrap(),
        Err(_) => rand::random::<u32>().into(),
    }
}

/// Runs a test on the root file system, and on XFS and ext4 images when root.
pub fn everywhere(test: impl Fn(&World)) {
    println!("on the root file system");
    test(&World::new());
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    for kind in ["xfs", "ext4"] {
        println!("on {kind}");
        let image = Loop::make(kind);
        test(&World::below(&image.path()));
    }
}
