//! All problems of one pipeline file, each with the place in the text that it is about.
//! It does not know how they are drawn (`ui::problem`).

use std::ops::Range;

use crate::error::{Path, Place, Problem};

use super::locate;

/// Every problem of one pipeline file.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The file as the user gave it.
    pub file: String,
    /// Its text; empty if it could not be read.
    pub source: String,
    /// The problems in the order of the text, then those of the command line.
    pub list: Vec<Located>,
}

/// A problem and the text that it is about.
#[derive(Debug, Clone)]
pub struct Located {
    /// What is wrong.
    pub problem: Problem,
    /// The offending bytes of [`Problems::source`]; `None` if the place is the command line or the whole file.
    pub span: Option<Range<usize>>,
}

impl Problems {
    /// The problems alone, each with its place in the file as line and column.
    pub fn placed(&self) -> Vec<Problem> {
        let place = |located: &Located| {
            let mut problem = located.problem.clone();
            let at = located.span.as_ref().map(|span| &self.source[..span.start]);
            let number = |n: usize| n as u64 + 1;
            problem.place = Place::File {
                file: self.file.clone(),
                line: at.map(|before| number(before.matches('\n').count())),
                column: at.map(|before| number(before.rsplit('\n').next().unwrap_or_default().chars().count())),
            };
            problem
        };
        self.list.iter().map(place).collect()
    }
}

/// What of a path's place is to be underlined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Focus {
    /// The key that the path ends with.
    Key,
    /// The second key of this name in its mapping.
    SecondKey,
    /// The value at the path.
    Value,
    /// This part of the value, or all of it where the text is written otherwise.
    Within(String),
    /// These bytes.
    Bytes(Range<usize>),
}

/// A problem that is not yet a line and a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub problem: Problem,
    pub focus: Focus,
}

/// Collects findings; an equal one, as every cell of a matrix would bring, is kept once.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    dropped: usize,
}

/// More problems than this are not listed: nobody reads them, and each costs a walk through the file.
const MOST: usize = 200;

impl Findings {
    pub fn add(&mut self, focus: Focus, problem: Problem) {
        self.push(Finding { problem, focus });
    }

    pub fn key(&mut self, path: &Path, problem: Problem) {
        self.add(Focus::Key, problem.at(path.clone()));
    }

    pub fn value(&mut self, path: &Path, problem: Problem) {
        self.add(Focus::Value, problem.at(path.clone()));
    }

    /// A problem of the command line or of the file as a whole.
    pub fn nowhere(&mut self, problem: Problem) {
        self.add(Focus::Value, problem);
    }

    pub fn push(&mut self, finding: Finding) {
        if self.list.contains(&finding) {
            return;
        }
        if self.list.len() < MOST {
            self.list.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Finds the places and puts the problems into the order of the text.
    pub fn locate(self, file: &str, source: &str) -> Problems {
        let mut list: Vec<Located> = self
            .list
            .into_iter()
            .map(|Finding { problem, focus }| {
                let span = match (&problem.place, &focus) {
                    (_, Focus::Bytes(span)) => Some(span.clone()),
                    (Place::Spec(path), _) => locate::span(source, path, &focus),
                    _ => None,
                };
                Located { problem, span }
            })
            .collect();
        list.sort_by_key(|located| located.span.as_ref().map_or(usize::MAX, |span| span.start));
        if self.dropped > 0 {
            let problem = Problem::new(format!("there are {} more problems", self.dropped)).help("repair these first");
            list.push(Located { problem, span: None });
        }
        Problems { file: file.to_owned(), source: source.to_owned(), list }
    }
}
