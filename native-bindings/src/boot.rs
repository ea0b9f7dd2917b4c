//! Which boot of the machine this is: memory of an earlier one may be ahead of the disk.

/// When the machine was started, by its clock as it is now: seconds and nanoseconds since 1970.
pub fn booted_at() -> (i64, u32) {
    let read = |clock| {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: ts is a valid out-pointer.
        unsafe { libc::clock_gettime(clock, &mut ts) };
        i128::from(ts.tv_sec) * 1_000_000_000 + i128::from(ts.tv_nsec)
    };
    let ns = read(libc::CLOCK_REALTIME) - read(libc::CLOCK_BOOTTIME);
    (ns.div_euclid(1_000_000_000) as i64, ns.rem_euclid(1_000_000_000) as u32)
}

/// The kernel's boot id, as 16 bytes.
pub fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut out = [0; 16];
    let mut digits = text.bytes().filter_map(|b| (b as char).to_digit(16));
    for byte in &mut out {
        let (hi, lo) = (digits.next().unwrap_or(0), digits.next().unwrap_or(0));
        *byte = (hi << 4 | lo) as u8;
    }
    out
}
