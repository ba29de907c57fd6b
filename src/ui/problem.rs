//! Problems as a person reads them: the sentence, the place with the offending text underlined, what to do.
//! It does not know where problems come from, nor whether the reader is a terminal: the caller says so.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str as clean};

use crate::error::{Place, Problem};
use crate::spec::{Located, Problems};

/// All problems of a pipeline file, and their number at the end. Ends with a newline.
pub fn render(problems: &Problems, color: bool) -> String {
    let mut text = String::new();
    for located in &problems.list {
        text.push_str(&draw(&groups(located, problems), color));
        text.push_str("\n\n");
    }
    let count = problems.list.len();
    let s = if count == 1 { "" } else { "s" };
    text.push_str(&format!("{count} problem{s} in {}\n", clean(&problems.file)));
    text
}

/// One problem that stands alone, such as a step's. Ends with a newline.
pub fn render_one(problem: &Problem, color: bool) -> String {
    let (what, origin) = match &problem.place {
        Place::Nowhere => (problem.what.clone(), None),
        Place::Spec(path) => (format!("{}: {}", path, problem.what), None),
        Place::File { file, line, column } => {
            let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let mut origin = Origin::path(clean(file));
            if let Some(line) = line {
                origin = origin.line(number(*line));
            }
            if let Some(column) = column {
                origin = origin.char_column(number(*column));
            }
            (problem.what.clone(), Some(origin))
        }
    };
    let mut first = Group::with_title(Level::ERROR.primary_title(clean(&what)));
    if let Some(origin) = origin {
        first = first.element(origin);
    }
    if let Some(expected) = &problem.expected {
        first = first.element(Level::NOTE.message(format!("expected {}", clean(expected))));
    }
    let mut groups = vec![first];
    groups.extend(help(problem));
    draw(&groups, color) + "\n"
}

fn groups<'a>(located: &'a Located, problems: &'a Problems) -> Vec<Group<'a>> {
    let problem = &located.problem;
    let mut first = Group::with_title(Level::ERROR.primary_title(clean(&problem.what)));
    match &located.span {
        Some(span) => {
            let annotation = AnnotationKind::Primary.span(span.clone()).label(problem.expected.as_deref().map(clean));
            let snippet = Snippet::source(problems.source.as_str()).path(clean(&problems.file)).annotation(annotation);
            first = first.element(snippet);
        }
        None => {
            if let Some(expected) = &problem.expected {
                first = first.element(Level::NOTE.message(format!("expected {}", clean(expected))));
            }
        }
    }
    let mut groups = vec![first];
    groups.extend(help(problem));
    groups
}

fn help(problem: &Problem) -> Option<Group<'_>> {
    problem.help.as_ref().map(|help| Group::with_title(Level::HELP.secondary_title(clean(help))))
}

fn draw(groups: &[Group<'_>], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(groups)
}
