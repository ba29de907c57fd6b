//! A panic of a step kind: the failure of one step, told with its place, and not printed.
//! It does not know what the step did.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Problem, Result};

thread_local! {
    /// Set on worker threads; the panic hook leaves the message here instead of printing it.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Calls `run`; a panic is the failure of this step alone.
pub(super) fn caught<T>(kind: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    quiet_panics();
    PANIC.set(Some(None));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let place = PANIC.take().flatten();
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        Err(Problem::new(format!("the step kind `{kind}` panicked: {}{place}", first_line(&text)))
            .help("this is a mistake in the step kind, not in the pipeline; nothing was recorded"))
    })
}

/// The first line of a panic's text. Libraries put whole C++ stacks behind it, also in escaped form.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split("\\n").next().unwrap_or_default();
    line.chars().take(400).collect()
}

fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = PANIC.with_borrow_mut(|panic| match panic {
                Some(place) => {
                    *place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
                    true
                }
                None => false,
            });
            if !ours {
                usual(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_problem_with_its_place() {
        let problem = caught::<()>("train", || panic!("shapes [2] and [3]\nException raised from x")).unwrap_err();
        assert!(problem.what.starts_with("the step kind `train` panicked: shapes [2] and [3] ("), "{problem}");
        assert!(problem.what.contains("panics.rs:"), "{problem}");
        assert_eq!(caught("train", || Ok(())), Ok(()));
    }
}
