//! Ends the programs of steps when `pipe` itself is killed and cannot.
//! It does not know why a process ended.
//!
//! A shell reads from a pipe whose other end this process alone holds, and learns from it which process groups are at
//! work. When that end is closed, which the kernel does however a process ends, the shell kills the groups that are
//! left. So the programs of a killed run do not go on beside those of the next one. It is started with the first
//! program and ends with this process.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::Pid;

const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r what group; do
  case $what in
    begun) groups="$groups$group " ;;
    ended) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"#;

/// As long as it lives, the group is killed if this process ends.
pub(super) struct Guard(Pid);

impl Guard {
    /// Watches over the group of this process. Where there is no shell, nobody does.
    pub fn over(group: Pid) -> Self {
        tell("begun", group);
        Self(group)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        tell("ended", self.0);
    }
}

static SHELL: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();

/// Starts the shell, so that a program is watched over from its first moments.
pub(super) fn ready() {
    SHELL.get_or_init(start);
}

fn tell(what: &str, group: Pid) {
    if let Some(shell) = SHELL.get_or_init(start) {
        let line = format!("{what} {}\n", group.as_raw_nonzero());
        // A shell that somebody killed watches no more; the steps go on.
        let _ = shell.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

fn start() -> Option<Mutex<ChildStdin>> {
    let mut shell = Command::new("/bin/sh");
    // A group of its own: Ctrl-C in a terminal goes to all of the foreground group.
    shell.args(["-c", SCRIPT, "pipe-watchdog"]).process_group(0).current_dir("/").env_clear();
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().ok()?.stdin.take().map(Mutex::new)
}
