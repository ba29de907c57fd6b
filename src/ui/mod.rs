//! Everything that a run shows: bars on a terminal, plain lines elsewhere, JSON for programs, or errors alone.
//! It sees events only: not the graph, not the store.

mod bars;
pub mod drawing;
mod gauge;
mod lines;
pub mod problem;
mod results;
mod text;

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

use crate::error::{Problem, Result};
use crate::event::{Event, Stamped};
use bars::Bars;
use lines::Lines;
pub use text::{costs, count, duration, grouped, number, size, span, table};
use text::{cut, wrap};

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
        let terminal = std::io::stderr().is_terminal() && !is_dumb();
        let bars = (mode == Mode::Human && terminal).then(Bars::new);
        let color = colors();
        Self { mode, color, lines: Lines::new(color, bars.is_none()), bars }
    }

    /// Shows events that have happened at once, in one piece where nothing is drawn.
    pub fn events(&mut self, all: &[Stamped]) {
        let mut text = String::new();
        for stamped in all {
            self.add(stamped, &mut text);
        }
        self.print(&mut text);
    }

    /// Shows an event.
    pub fn event(&mut self, stamped: &Stamped) {
        self.events(std::slice::from_ref(stamped));
    }

    /// Shows an event, or adds the lines that tell it to those that are still to be printed.
    fn add(&mut self, stamped: &Stamped, text: &mut String) {
        match self.mode {
            Mode::Json => {
                text.push_str(&serde_json::to_string(stamped).unwrap_or_default());
                text.push('\n');
            }
            Mode::Quiet => {
                if let Event::StepFailed { .. } | Event::Refused { .. } = stamped.event {
                    self.say(stamped, text);
                }
            }
            Mode::Human => {
                if let Some(bars) = &mut self.bars {
                    bars.event(stamped);
                }
                self.say(stamped, text);
            }
        }
        if let (Event::RunFinished { results, .. }, Mode::Human | Mode::Quiet) = (&stamped.event, self.mode) {
            self.print(text);
            let (shown, more) = results::listed(results, std::io::stdout().is_terminal());
            shown.iter().for_each(|path| out(path));
            more.iter().for_each(|line| err(line));
        }
    }

    fn say(&mut self, stamped: &Stamped, text: &mut String) {
        for line in self.lines.of(stamped, columns) {
            match &self.bars {
                Some(bars) => bars.line(&line),
                None => {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
    }

    /// Prints whole lines, and leaves nothing of them.
    fn print(&self, text: &mut String) {
        let lines = std::mem::take(text);
        match self.mode {
            _ if lines.is_empty() => {}
            // A reader that has gone away is not an error of ours.
            Mode::Json => drop(std::io::stdout().lock().write_all(lines.as_bytes())),
            _ => pieces(&lines),
        }
    }

    /// Takes away what is still drawn.
    pub fn end(&self) {
        if let Some(bars) = &self.bars {
            bars.end();
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

    /// Leaves the screen clean for what comes after this process.
    pub fn clear(&self) {
        if let Some(bars) = &self.0 {
            bars.clear();
        }
    }
}

/// A terminal that only prints, such as an editor's.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether stderr takes colours: it is a terminal, not a dumb one, and `NO_COLOR` is not set
/// (<https://no-color.org>).
pub fn colors() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color && !is_dumb()
}

/// How problems are drawn on stderr.
pub fn look() -> problem::Look {
    problem::Look { color: colors(), columns: columns() }
}

/// The columns of the terminal that stderr is; `None` where it is none.
pub fn columns() -> Option<usize> {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    // It cannot become one, and a run asks for each line.
    let terminal = *TERMINAL.get_or_init(|| std::io::stderr().is_terminal());
    terminal.then(|| width(&console::Term::stderr())).flatten()
}

/// A line for stdout, cut to the terminal if it is one. Only for lines whose end can be told in another way.
pub fn fitted(line: &str) -> String {
    width(&console::Term::stdout()).map_or_else(|| line.to_owned(), |columns| cut(line, columns))
}

/// A line for stdout, broken between words if that is a terminal; its other lines are indented.
pub fn wrapped(line: &str, indent: usize) -> String {
    width(&console::Term::stdout()).map_or_else(|| line.to_owned(), |columns| wrap(line, columns, indent).join("\n"))
}

fn width(term: &console::Term) -> Option<usize> {
    // A terminal that does not know its size says 0.
    term.size_checked().map(|(_, columns)| usize::from(columns)).filter(|columns| *columns >= 20)
}

/// A text on stdout as it is, with nothing added. A reader that leaves early, such as `head`, is no failure.
pub fn whole(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Problem::new(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// A line on stdout. A reader that has gone away is not an error of ours.
pub fn out(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on stderr.
pub fn err(line: &str) {
    pieces(&format!("{line}\n"));
}

/// Whole lines on stderr. In one piece: stderr has no buffer, and other processes may write there, too.
fn pieces(lines: &str) {
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}
