//! Ends the programs of steps when `pipe` itself is killed and cannot.
//! It does not know why a process ended.
//!
//! A shell reads from a pipe whose other end this process alone holds, and nothing is ever written there. When that end
//! is closed, which the kernel does however a process ends, the shell kills the process groups that were at work. So
//! the programs of a killed run do not go on beside those of the next one. Which these are stands in a file in memory
//! that both have open: to tell the shell of every step would wake it twice for each. It is started with the first
//! program and ends with this process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::Pid;

/// The list is what it was given as its stdout.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r _
while read -r group; do
  [ -z "$group" ] || kill -s KILL -- "-$group" 2>/dev/null
done <&1
"#;

/// The bytes of a line of the list: a number, or nothing.
const LINE: usize = 12;

/// As long as it lives, the group is killed if this process ends.
pub(super) struct Guard(Option<usize>);

impl Guard {
    /// Watches over the group of this process. Where there is no shell, nobody does.
    pub fn over(group: Pid) -> Self {
        let place = watchdog().map(|watchdog| {
            let mut taken = watchdog.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let place = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
            if place == taken.len() {
                taken.push(true);
            }
            taken[place] = true;
            place
        });
        note(place, &group.as_raw_nonzero().to_string());
        Self(place)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        note(self.0, "");
        if let (Some(watchdog), Some(place)) = (watchdog(), self.0) {
            watchdog.taken.lock().unwrap_or_else(PoisonError::into_inner)[place] = false;
        }
    }
}

struct Watchdog {
    /// A line for each group that is at work, and empty ones.
    list: File,
    /// Which lines are in use.
    taken: Mutex<Vec<bool>>,
    _alive: ChildStdin,
}

/// Starts the shell, so that a program is watched over from its first moments.
pub(super) fn ready() {
    watchdog();
}

fn watchdog() -> Option<&'static Watchdog> {
    static SHELL: OnceLock<Option<Watchdog>> = OnceLock::new();
    SHELL.get_or_init(start).as_ref()
}

fn note(place: Option<usize>, group: &str) {
    if let (Some(watchdog), Some(place)) = (watchdog(), place) {
        let line = format!("{group:width$}\n", width = LINE - 1);
        // It lies in memory; where there is none left, the program goes on unwatched.
        let _ = watchdog.list.write_all_at(line.as_bytes(), (place * LINE) as u64);
    }
}

fn start() -> Option<Watchdog> {
    let list = memory().ok()?;
    let mut shell = Command::new("/bin/sh");
    // A group of its own: Ctrl-C in a terminal goes to all of the foreground group.
    shell.args(["-c", SCRIPT, "pipe-watchdog"]).process_group(0).current_dir("/").env_clear();
    shell.stdin(Stdio::piped()).stdout(list.try_clone().ok()?).stderr(Stdio::null());
    let alive = shell.spawn().ok()?.stdin.take()?;
    Some(Watchdog { list, taken: Mutex::default(), _alive: alive })
}

/// A file that has no name.
#[cfg(target_os = "linux")]
fn memory() -> std::io::Result<File> {
    Ok(rustix::fs::memfd_create("pipe-watchdog", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn memory() -> std::io::Result<File> {
    tempfile::tempfile()
}
