//! Worker processes: fork, identities, umask.

use super::{check, check_int, errno, SysResult};

/// Sets the umask; it cannot fail.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: no memory is passed.
    unsafe { libc::umask(mask) }
}

/// Becomes another user for good: supplementary groups, group, user; capabilities go with it.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> SysResult<()> {
    // SAFETY: groups is readable for its length.
    check_int(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::setresuid(uid, uid, uid) })?;
    // A process that changed its user is not dumpable and may not follow /proc/self/fd.
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })
}

/// Dies with the parent, so that no worker outlives a killed tester.
pub fn die_with_parent() -> SysResult<()> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
}

/// Forks; the child runs `body` and exits with its value. Call while single-threaded.
pub fn fork_child(body: impl FnOnce() -> i32) -> SysResult<libc::pid_t> {
    // SAFETY: the caller is single-threaded, so the child may run ordinary code.
    match unsafe { libc::fork() } {
        -1 => Err(errno()),
        0 => {
            let code = body();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child and returns its wait status.
pub fn wait(pid: libc::pid_t) -> SysResult<i32> {
    let mut status = 0;
    // SAFETY: status is writable.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    Ok(status)
}

/// The effective user id.
pub fn euid() -> u32 {
    // SAFETY: no memory is passed.
    unsafe { libc::geteuid() }
}

/// Wall clock in seconds.
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|d| d.as_secs() as i64)
        .unwrap_or(0)
}
