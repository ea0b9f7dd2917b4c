//! Keeps every CPU out of its halt state, with spinners that any other task displaces at once
//! (SCHED_IDLE). In a virtual machine, waking a halted CPU can cost more than the whole FUSE
//! round trip and swamps what is being compared; a busy host never pays it.

use std::io::{Error, Result};

fn spin_on(cpu: usize) -> Result<()> {
    // SAFETY: cpu_set_t is plain memory for which all-zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, as it comes from available_parallelism.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: both structures outlive the calls; 0 is the calling thread.
    let failed = unsafe {
        libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set) < 0
            || libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) < 0
    };
    if failed {
        return Err(Error::last_os_error());
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Spins until killed, or until the parent process ends.
pub fn keep() -> Result<()> {
    // SAFETY: plain call; asks for SIGKILL when the parent ends.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let cpus = std::thread::available_parallelism()?
        .get()
        .min(libc::CPU_SETSIZE as usize);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|cpu| scope.spawn(move || spin_on(cpu)))
            .collect();
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|_| Err(Error::other("a spinner panicked")))
        })
    })
}
