//! A directory of its own for each test, and the tools as programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Removed on drop, also when the test fails.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Temp {
        assert_eq!(testtools::sys::process::euid(), 0, "these tests need root");
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("testtools-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary directory");
        Temp(path)
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).expect("directory");
        path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[allow(dead_code)]
pub fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs a tool; its exit status and all it printed.
#[allow(dead_code)]
pub fn tool(program: &str, args: &[&str], dirs: &[(&str, &Path)]) -> (i32, String) {
    let mut command = Command::new(program);
    command.args(args);
    for (option, path) in dirs {
        if !option.is_empty() {
            command.arg(option);
        }
        command.arg(path);
    }
    let out = command.output().expect("the tool starts");
    (out.status.code().unwrap_or(-1), text(&out))
}
