//! This process's memory as reported by the kernel.

/// A field of a `/proc` file, converted from KiB to bytes; `None` on systems without it.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Resident bytes (VmRSS).
pub fn resident() -> Option<u64> {
    field("/proc/self/status", "VmRSS")
}

/// Resident bytes, with shared pages divided among their users (PSS).
pub fn proportional() -> Option<u64> {
    field("/proc/self/smaps_rollup", "Pss")
}

/// Total and available memory of the machine, in bytes.
pub fn machine() -> Option<(u64, u64)> {
    Some((field("/proc/meminfo", "MemTotal")?, field("/proc/meminfo", "MemAvailable")?))
}
