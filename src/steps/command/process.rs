//! Starts a program in a process group of its own, waits for it, ends it when asked to, and tells what it used.
//! It does not know what the program is for.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid};
use wait4::Wait4;

use super::watchdog::{self, Guard};

/// How often whoever waits looks whether the program shall be stopped, and what it printed.
const TICK: Duration = Duration::from_millis(100);
/// So long a program has to clear up after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// So long the rest of a killed group is waited for: only a process in the hands of the kernel takes it.
const LAST: Duration = Duration::from_millis(200);

/// What became of a program.
pub(super) struct Ended {
    pub status: ExitStatus,
    /// Processor time of it and of those of its children that it waited for.
    pub cpu: Duration,
    /// The most memory that one of them held.
    pub peak_bytes: u64,
}

/// Runs a program to its end. `stop` is asked ten times a second, and not at all of a program that is done sooner.
///
/// Nothing of its group outlives it: what it left behind is killed. Only a process that left the group (`setsid`) is
/// out of reach.
pub(super) fn run(command: &mut Command, stop: &mut dyn FnMut() -> bool) -> std::io::Result<Ended> {
    watchdog::ready();
    let mut child = command.process_group(0).spawn()?;
    let group = Pid::from_child(&child);
    let _guard = Guard::over(group);
    wait(&Waiter::new(group), group, stop);
    // It is dead but not buried, so its number, which is that of the group, cannot be anyone else's yet.
    let _ = kill_process_group(group, Signal::KILL);
    let used = child.wait4()?;
    let killed = Instant::now();
    while test_kill_process_group(group).is_ok() && killed.elapsed() < LAST {
        thread::sleep(Duration::from_millis(1));
    }
    let cpu = used.rusage.utime + used.rusage.stime;
    Ok(Ended { status: used.status, cpu, peak_bytes: used.rusage.maxrss })
}

fn wait(waiter: &Waiter, group: Pid, stop: &mut dyn FnMut() -> bool) {
    let mut asked: Option<Instant> = None;
    let mut killed = false;
    while !waiter.has_ended(group) {
        match asked {
            None if stop() => {
                asked = Some(Instant::now());
                let _ = kill_process_group(group, Signal::TERM);
            }
            Some(since) if !killed && since.elapsed() >= GRACE => {
                killed = true;
                let _ = kill_process_group(group, Signal::KILL);
            }
            _ => {}
        }
    }
}

/// How the end of a process is heard of.
enum Waiter {
    /// The kernel wakes the thread.
    Woken(OwnedFd),
    /// An old kernel, or another system: the thread looks every now and then.
    Looking,
}

impl Waiter {
    #[cfg(target_os = "linux")]
    fn new(process: Pid) -> Self {
        use rustix::process::{PidfdFlags, pidfd_open};
        pidfd_open(process, PidfdFlags::empty()).map_or(Self::Looking, Self::Woken)
    }

    #[cfg(not(target_os = "linux"))]
    fn new(_process: Pid) -> Self {
        Self::Looking
    }

    /// Waits for the end of the process, for a tick at most. It stays as it is: not buried.
    fn has_ended(&self, process: Pid) -> bool {
        match self {
            Self::Woken(fd) => {
                let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as _ };
                // A signal ends the waiting early, which does no harm.
                poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&tick)).is_ok_and(|ready| ready > 0)
            }
            Self::Looking => {
                let begun = Instant::now();
                let mut pause = Duration::from_millis(1);
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                loop {
                    match waitid(WaitId::Pid(process), look) {
                        Ok(None) if begun.elapsed() >= TICK => return false,
                        Ok(None) => thread::sleep(pause),
                        Ok(Some(_)) | Err(_) => return true,
                    }
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn both_ways_of_waiting_hear_of_an_end() {
        for looking in [false, true] {
            let mut child = shell("sleep 0.3; exit 7").process_group(0).spawn().unwrap();
            let group = Pid::from_child(&child);
            let waiter = if looking { Waiter::Looking } else { Waiter::new(group) };
            let mut asked = 0;
            wait(&waiter, group, &mut || {
                asked += 1;
                false
            });
            assert!(asked >= 1, "it was asked while it waited");
            assert_eq!(child.wait().unwrap().code(), Some(7));
        }
    }

    #[test]
    fn what_a_program_leaves_behind_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let ended = run(&mut shell(&format!("sleep 1000 & echo $! > '{}'", pid.display())), &mut || false).unwrap();
        assert!(ended.status.success() && ended.peak_bytes > 0);
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        assert!(!is_alive(pid));
    }

    #[test]
    fn a_program_that_does_not_listen_is_killed_all_the_same() {
        let ended = run(&mut shell("trap '' TERM; while :; do sleep 1; done"), &mut || true).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(9));
    }

    /// A dead process that nobody has buried is dead.
    fn is_alive(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z"))
    }
}
