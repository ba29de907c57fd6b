//! How much memory of its card this process holds, as the driver's own program tells.
//! It does not know for what. libtorch keeps what it once took, so at the end it is the most that was held.

use std::process::Command;

/// Bytes; `None` where nobody can tell.
pub fn memory() -> Option<u64> {
    let question = ["--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(question).output().ok()?;
    of(&String::from_utf8(output.stdout).ok()?, std::process::id())
}

/// In a container the driver may know this process by another number: then there is no line of it.
fn of(told: &str, process: u32) -> Option<u64> {
    let mine = told.lines().filter_map(|line| line.split_once(','));
    let mut mine = mine.filter(|(number, _)| number.trim().parse() == Ok(process)).peekable();
    mine.peek()?;
    mine.map(|(_, mib)| mib.trim().parse::<u64>().ok()?.checked_mul(1 << 20)).sum()
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn only_what_is_told_of_this_process_counts() {
        let told = "12, 300\n7, 512\n7, 1024\n";
        assert_eq!(of(told, 7), Some(1536 << 20));
        assert_eq!(of(told, 8), None);
        assert_eq!(of("7, [N/A]\n", 7), None);
        assert_eq!(of("", 7), None);
    }
}
