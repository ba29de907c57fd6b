//! Everything that a run shows: bars on a terminal, plain lines elsewhere, JSON for programs, or errors alone.
//! It sees events only: not the graph, not the store.

mod bars;
mod lines;
pub mod problem;
mod text;

use std::io::{IsTerminal, Write};

use crate::event::{Event, Stamped};
use bars::Bars;
use lines::Lines;
pub use text::{duration, grouped, table};

/// What the user asked to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Text for a person, as the terminal allows.
    Human,
    /// One event per line on stdout.
    Json,
    /// Errors only.
    Quiet,
}

/// The one owner of what a run prints.
pub struct Ui {
    mode: Mode,
    color: bool,
    lines: Lines,
    bars: Option<Bars>,
}

/// Says one line from another thread without tearing the bars.
#[derive(Clone)]
pub struct Handle(Option<Bars>, Mode);

impl Ui {
    /// Text with bars if stderr is a terminal that can move its cursor, plain lines otherwise.
    pub fn new(mode: Mode) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        let bars = (mode == Mode::Human && terminal).then(Bars::new);
        let color = colors();
        Self { mode, color, lines: Lines::new(color, bars.is_none()), bars }
    }

    /// Shows an event.
    pub fn event(&mut self, stamped: &Stamped) {
        match self.mode {
            Mode::Json => out(&serde_json::to_string(stamped).unwrap_or_default()),
            Mode::Quiet => {
                if let Event::StepFailed { .. } = stamped.event {
                    self.say(stamped);
                }
            }
            Mode::Human => {
                if let Some(bars) = &mut self.bars {
                    bars.event(stamped);
                }
                self.say(stamped);
            }
        }
        if let (Event::RunFinished { results, .. }, Mode::Human | Mode::Quiet) = (&stamped.event, self.mode) {
            results.iter().for_each(|path| out(path));
        }
    }

    fn say(&mut self, stamped: &Stamped) {
        for line in self.lines.of(stamped) {
            match &self.bars {
                Some(bars) => bars.line(&line),
                None => err(&line),
            }
        }
    }

    /// A warning about the run itself.
    pub fn warn(&self, text: &str) {
        self.handle().line(&text::warning(text, self.color));
    }

    /// For the thread that hears Ctrl-C.
    pub fn handle(&self) -> Handle {
        Handle(self.bars.clone(), self.mode)
    }
}

impl Handle {
    /// Says one line on stderr, unless only errors are wanted.
    pub fn line(&self, text: &str) {
        match (&self.0, self.1) {
            (_, Mode::Quiet) => {}
            (Some(bars), _) => bars.line(text),
            (None, _) => err(text),
        }
    }
}

/// Whether stderr takes colours: it is a terminal, not a dumb one, and `NO_COLOR` is not set
/// (<https://no-color.org>).
pub fn colors() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stderr().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// A line on stdout. A reader that has gone away is not an error of ours.
pub fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on stderr.
pub fn err(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
