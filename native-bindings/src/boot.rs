//! Which boot of the machine this is: memory of an earlier one may be ahead of the disk.

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
