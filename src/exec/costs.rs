//! What a step costs that computes in this process: time of its processors, and the most memory it held.
//! It does not know what the step does, nor steps that start other programs: those tell it themselves.
//!
//! A process knows what it used, not which of its threads it was for. So a step is measured while it is alone; of one
//! beside others nothing is said rather than something wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::event::Costs;

/// Who runs in this process.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    inside: AtomicUsize,
    came: AtomicUsize,
}

/// A step that is being measured.
pub(super) struct Meter<'a> {
    crowd: &'a Crowd,
    begun: Instant,
    /// What the process had used, and how many had come, if the step began alone.
    alone: Option<(u64, usize)>,
}

impl Crowd {
    /// A step begins. Without `measured` only the time that it takes is told.
    pub fn enter(&self, measured: bool) -> Meter<'_> {
        let came = self.came.fetch_add(1, Ordering::SeqCst) + 1;
        let alone = self.inside.fetch_add(1, Ordering::SeqCst) == 0;
        let alone = (measured && alone && forget_peak()).then(cpu_ms).flatten().map(|cpu| (cpu, came));
        Meter { crowd: self, begun: Instant::now(), alone }
    }
}

impl Meter<'_> {
    /// What it cost so far.
    pub fn read(&self) -> Costs {
        let took_ms = self.begun.elapsed().as_millis() as u64;
        let alone = self.alone.filter(|(_, came)| self.crowd.came.load(Ordering::SeqCst) == *came);
        let cpu_ms = alone.and_then(|(before, _)| Some(cpu_ms()?.saturating_sub(before)));
        let peak_bytes = alone.and_then(|_| peak());
        Costs { took_ms, cpu_ms, peak_bytes }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.crowd.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Time of all processors that this process has used, where the system tells.
#[cfg(target_os = "linux")]
pub fn cpu_ms() -> Option<u64> {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(u64::try_from(used.tv_sec).ok()? * 1000 + u64::try_from(used.tv_nsec).ok()? / 1_000_000)
}

/// Lets the kernel count the peak from now on; false where it cannot.
#[cfg(target_os = "linux")]
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The most memory that this process has held since then.
#[cfg(target_os = "linux")]
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// See above: this system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn cpu_ms() -> Option<u64> {
    None
}

/// See above: this system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn forget_peak() -> bool {
    false
}

/// See above: this system does not tell.
#[cfg(not(target_os = "linux"))]
pub fn peak() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_alone_is_not_measured() {
        let crowd = Crowd::default();
        let first = crowd.enter(true);
        let second = crowd.enter(true);
        assert_eq!((second.read().cpu_ms, first.read().cpu_ms), (None, None));
        drop((first, second));
        let third = crowd.enter(true);
        assert_eq!(third.read().cpu_ms.is_some(), cfg!(target_os = "linux"));
        drop(crowd.enter(false));
        assert_eq!(third.read().peak_bytes, None, "somebody was there meanwhile");
        drop(third);
        assert_eq!(crowd.enter(false).read().cpu_ms, None);
    }
}
