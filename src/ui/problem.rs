//! Problems as a person reads them: the sentence, the place with the offending text underlined, what to do.
//! It does not know where problems come from, nor whether the reader is a terminal: the caller says so.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str as clean};

use crate::error::{Place, Problem};
use crate::spec::{Located, Problems};

/// How problems are drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether in colours.
    pub color: bool,
    /// The columns of the terminal; `None` where nobody counts them.
    pub columns: Option<usize>,
}

/// In colours or not, for any width.
impl From<bool> for Look {
    fn from(color: bool) -> Self {
        Self { color, columns: None }
    }
}

/// All problems of a pipeline file, and their number at the end. Ends with a newline.
pub fn render(problems: &Problems, look: impl Into<Look>) -> String {
    let look = look.into();
    let mut text = String::new();
    for located in &problems.list {
        text.push_str(&framed(located, problems, look));
        text.push('\n');
    }
    let count = problems.list.len();
    let s = if count == 1 { "" } else { "s" };
    text.push_str(&format!("{count} problem{s} in {}\n", clean(&problems.file)));
    text
}

/// One problem that stands alone, such as a step's. Ends with a newline.
pub fn render_one(problem: &Problem, look: impl Into<Look>) -> String {
    let look = look.into();
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    match &problem.place {
        Place::Nowhere => plain(problem, &problem.what, None, look),
        Place::Spec(path) => plain(problem, &format!("{path}: {}", problem.what), None, look),
        Place::File { file, line, column } => {
            let mut origin = Origin::path(clean(file));
            if let Some(line) = line {
                origin = origin.line(number(*line));
            }
            if let Some(column) = column {
                origin = origin.char_column(number(*column));
            }
            plain(problem, &problem.what, Some(origin), look)
        }
    }
}

/// A problem without source text, part by part: drawn together, the parts would hang on an empty frame.
fn plain(problem: &Problem, what: &str, origin: Option<Origin<'_>>, look: Look) -> String {
    let mut first = Group::with_title(Level::ERROR.primary_title(clean(what)));
    if let Some(origin) = origin {
        first = first.element(origin);
    }
    let expected = problem
        .expected
        .as_ref()
        .map(|expected| Group::with_title(Level::NOTE.secondary_title(format!("expected {}", clean(expected)))));
    let parts = [Some(first), expected, help(problem)];
    parts.into_iter().flatten().map(|part| draw(&[part], look) + "\n").collect()
}

/// A problem with the text that it is about.
fn framed(located: &Located, problems: &Problems, look: Look) -> String {
    let problem = &located.problem;
    let Some(span) = &located.span else { return plain(problem, &problem.what, None, look) };
    let label = problem.expected.as_ref().map(|expected| format!("expected {}", clean(expected)));
    let annotation = AnnotationKind::Primary.span(span.clone()).label(label);
    let snippet = Snippet::source(problems.source.as_str()).path(clean(&problems.file)).annotation(annotation);
    let mut groups = vec![Group::with_title(Level::ERROR.primary_title(clean(&problem.what))).element(snippet)];
    groups.extend(help(problem));
    draw(&groups, look) + "\n"
}

fn help(problem: &Problem) -> Option<Group<'_>> {
    problem.help.as_ref().map(|help| Group::with_title(Level::HELP.secondary_title(clean(help))))
}

fn draw(groups: &[Group<'_>], look: Look) -> String {
    let renderer = if look.color { Renderer::styled() } else { Renderer::plain() };
    // A longer line of the file is shown around the place.
    let renderer = look.columns.map_or(renderer.clone(), |columns| renderer.term_width(columns));
    renderer.render(groups)
}
