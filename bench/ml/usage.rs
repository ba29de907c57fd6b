//! What this process used so far.
//! It does not know for what.

use std::fs;

/// The largest resident set so far, in MiB.
pub fn peak_mib() -> f64 {
    field("/proc/self/status", "VmHWM:").map_or(0.0, |kib| kib / 1024.0)
}

/// The resident set now, in MiB.
pub fn resident_mib() -> f64 {
    field("/proc/self/status", "VmRSS:").map_or(0.0, |kib| kib / 1024.0)
}

/// Seconds of processor time of all threads.
pub fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = |at: usize| after.split_whitespace().nth(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of proc(5); Linux counts a hundred ticks a second.
    (ticks(11) + ticks(12)) / 100.0
}

/// Seconds since this process was started: what is linked and loaded before `main` counts.
pub fn since_start() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let started = stat.rsplit_once(')').and_then(|(_, after)| after.split_whitespace().nth(19)?.parse::<f64>().ok());
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let now = uptime.split_whitespace().next().and_then(|now| now.parse::<f64>().ok());
    // Field 22 of proc(5), in ticks as above.
    now.zip(started).map_or(0.0, |(now, started)| now - started / 100.0)
}

fn field(path: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
