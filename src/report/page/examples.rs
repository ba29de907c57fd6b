//! Items that arms answer differently: the text, what is right, and who answered what.
//! It does not know which items were chosen.

use std::collections::BTreeMap;

use serde::Serialize;

use super::spans::{self, Piece};
use super::{arms, title_of};
use crate::report::comparison::{Comparison, Task};
use crate::report::evidence::Example;
use crate::report::wording;

/// Items on one page, different answers of one item, arms named beside one answer, characters of one text.
const MOST: usize = 12;
const MOST_ANSWERS: usize = 6;
const MOST_ARMS: usize = 8;
const MOST_CHARS: usize = 1200;

/// The examples of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examples {
    /// Those that are shown.
    pub shown: Vec<Flip>,
    /// How many more there are.
    pub left_out: usize,
}

/// An item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flip {
    /// Its id.
    pub id: String,
    /// The text, where the answers do not stand in it.
    pub text: String,
    /// What is right.
    pub gold: Given,
    /// The answers, each once.
    pub answers: Vec<Given>,
    /// How many different answers are not shown.
    pub left_out: usize,
}

/// An answer and those who gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Who, in words; empty for what is right.
    pub who: String,
    /// True if it is right.
    pub right: bool,
    /// The answer as text; empty where it stands in `pieces`.
    pub text: String,
    /// The item's text with the entities of the answer.
    pub pieces: Vec<Piece>,
    /// Entities that have no place in the text.
    pub homeless: Vec<String>,
}

/// The examples of a task; none where there are none.
pub fn examples(comparison: &Comparison, task: &Task) -> Option<Examples> {
    let shown: Vec<Flip> = task.examples.iter().take(MOST).map(|example| flip(comparison, example)).collect();
    let left_out = task.examples.len() - shown.len();
    (!shown.is_empty()).then_some(Examples { shown, left_out })
}

fn flip(comparison: &Comparison, example: &Example) -> Flip {
    let given = || std::iter::once(&example.gold).chain(example.answers.values());
    // Nothing is a set of entities, too; but where nobody named one, answers are texts.
    let in_text = spans::read(&example.gold).is_some() && given().any(|text| has_spans(text));
    let mut by_answer: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
    for arm in arms(comparison) {
        if let Some(answer) = example.answers.get(&arm.name) {
            let right = example.right.contains(&arm.name);
            by_answer.entry((!right, answer.as_str())).or_default().push(&arm.name);
        }
    }
    let different = by_answer.len();
    let answers = by_answer.into_iter().take(MOST_ANSWERS).map(|((wrong, answer), who)| Given {
        who: named(comparison, &who),
        right: !wrong,
        ..given_answer(example, answer, in_text)
    });
    Flip {
        id: wording::one_line(&example.id),
        text: if in_text { String::new() } else { tidy(&example.text) },
        gold: given_answer(example, &example.gold, in_text),
        answers: answers.collect(),
        left_out: different.saturating_sub(MOST_ANSWERS),
    }
}

fn has_spans(text: &str) -> bool {
    spans::read(text).is_some_and(|spans| !spans.is_empty())
}

fn given_answer(example: &Example, answer: &str, in_text: bool) -> Given {
    let empty =
        Given { who: String::new(), right: true, text: String::new(), pieces: Vec::new(), homeless: Vec::new() };
    match spans::read(answer).filter(|_| in_text) {
        Some(spans) => {
            let (mut pieces, homeless) = spans::marked(&example.text, &spans);
            for piece in &mut pieces {
                piece.text = tidy(&piece.text);
            }
            Given { pieces, homeless: homeless.iter().map(|span| wording::one_line(span)).collect(), ..empty }
        }
        None if answer.trim().is_empty() => Given { text: "(пусто)".to_owned(), ..empty },
        None => Given { text: tidy(answer), ..empty },
    }
}

fn named(comparison: &Comparison, names: &[&str]) -> String {
    let titles: Vec<&str> = names.iter().take(MOST_ARMS).map(|name| title_of(comparison, name)).collect();
    let more = names.len().saturating_sub(MOST_ARMS);
    let tail = if more == 0 { String::new() } else { format!(" и ещё {more}") };
    format!("{}{tail}", titles.join(", "))
}

/// Text as it may stand on a page: of bounded length, without characters that no page may hold.
fn tidy(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MOST_CHARS)
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MOST_CHARS).is_some() {
        out.push('…');
    }
    out
}
