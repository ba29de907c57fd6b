//! How much memory there is, asked before much of it is taken: an allocator that fails ends the whole process.
//! It does not know what is kept in it, nor a GPU's own memory, which libtorch refuses with a message.

use std::fs;

use crate::error::{Problem, Result};

/// Fails if `values` numbers of `size` bytes each do not fit into the memory that is free now.
pub fn check(what: &str, values: u128, size: u128) -> Result<()> {
    check_against(what, values, size, available())
}

fn check_against(what: &str, values: u128, size: u128, available: Option<u128>) -> Result<()> {
    let bytes = values.saturating_mul(size);
    match available {
        Some(free) if bytes > free => {
            let what =
                format!("{what} take {}: {values} numbers of {size} bytes, and {} are free", gb(bytes), gb(free));
            Err(Problem::new(what).help("take a smaller model, a smaller `dtype`, or a machine with more memory"))
        }
        _ => Ok(()),
    }
}

/// 10⁹ bytes, as disks and models are sold.
fn gb(bytes: u128) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Bytes that this process may still take: what the kernel calls available, within the limit of a container. `None`
/// where the system does not say.
fn available() -> Option<u128> {
    let kernel = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text));
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u128>().ok();
    let files = fs::read_to_string("/sys/fs/cgroup/memory.stat").ok().and_then(|text| stat(&text)).unwrap_or(0);
    let limit = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(limit, taken)| limit.saturating_sub(taken.saturating_sub(files)));
    [kernel, limit].into_iter().flatten().min()
}

/// Bytes of a container's memory that hold files: the kernel gives them back when they are needed.
fn stat(text: &str) -> Option<u128> {
    text.lines().find_map(|line| line.strip_prefix("file "))?.trim().parse().ok()
}

fn meminfo(text: &str) -> Option<u128> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u128>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        assert!(check_against("the weights", 250, 4, Some(1000)).is_ok());
        assert!(check_against("the weights", u128::MAX, 4, None).is_ok());
        let problem = check_against("the weights", 17_000_000_000, 4, Some(23_500_000_000)).unwrap_err().to_string();
        assert!(problem.contains("68.0 GB") && problem.contains("23.5 GB"), "{problem}");
        assert!(check("the weights", u128::MAX / 2, 4).is_err() || available().is_none());
    }

    #[test]
    fn the_kernel_says_what_is_available() {
        let text = "MemTotal:       24690000 kB\nMemFree:        1 kB\nMemAvailable:   22000000 kB\n";
        assert_eq!(meminfo(text), Some(22_000_000 * 1024));
        assert_eq!(meminfo("MemTotal: 5 kB"), None);
        assert_eq!(stat("anon 5\nfile 4096\nfile_mapped 7\n"), Some(4096));
    }
}
