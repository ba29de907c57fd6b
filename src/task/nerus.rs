//! Nerus's CoNLL-U: documents of sentences with persons, places and organisations, read one document at a time.
//! It does not know prompts. Syntax columns are passed over; what is wrong is told with file and line.

pub mod parallel;

use std::path::Path;

use super::lines::Lines;
use crate::error::{Problem, Result};
use crate::metric::bio::{self, Mode};

/// The types of entities, in the order of every table.
pub const TYPES: [&str; 3] = ["PER", "LOC", "ORG"];

/// Every tag.
const TAGS: [&str; 7] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];

/// The first line of a file that a generator made.
pub const GENERATED: &str = "# generator = pipe";

/// An entity and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entity {
    /// `PER`, `LOC` or `ORG`.
    pub kind: String,
    /// The first character, counted from 0.
    pub start: usize,
    /// The character after the last.
    pub end: usize,
    /// The text between.
    pub surface: String,
}

/// A sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Its own id: `0_0`.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Its words as written.
    pub tokens: Vec<String>,
    /// Its entities, in order. Tags are read as Nerus's own `bio_spans` does: see [`Mode::Nerus`].
    pub entities: Vec<Entity>,
    /// The line of its first comment, counted from 1.
    pub line: u64,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id: `0`.
    pub id: String,
    /// Its sentences; there is at least one.
    pub sentences: Vec<Sentence>,
    /// Its lines as they stand in the file, each with LF.
    pub source: String,
}

/// Reads documents one at a time.
pub struct Reader {
    lines: Lines,
    /// The line that is looked at; kept, so that not every line takes memory of its own.
    line: String,
    /// The id of the document whose first line has been read.
    next: Option<String>,
    generated: bool,
    /// True if another document follows behind these lines.
    more: bool,
}

impl Reader {
    /// Opens a file; `label` is what messages call it.
    pub fn open(path: &Path, label: &str) -> Result<Self> {
        Ok(Self::new(Lines::open(path, label)?))
    }

    /// Reads documents from these lines.
    pub fn new(lines: Lines) -> Self {
        Self { lines, line: String::new(), next: None, generated: false, more: false }
    }

    /// The same, where these lines end before the first line of another document.
    #[must_use]
    pub fn with_more(mut self, more: bool) -> Self {
        self.more = more;
        self
    }

    /// True if the file says that a generator made it; known once the first document has been read.
    pub fn generated(&self) -> bool {
        self.generated
    }

    fn next_document(&mut self) -> Result<Option<Document>> {
        let mut document = Document { id: String::new(), sentences: Vec::new(), source: String::new() };
        let mut begun = false;
        if let Some(id) = self.next.take() {
            document.source = format!("# newdoc id = {id}\n");
            document.id = id;
            begun = true;
        }
        let mut draft = Draft::default();
        loop {
            self.line.clear();
            match self.lines.next_line()? {
                Some(line) => self.line.push_str(line),
                None => break,
            }
            let line = self.line.as_str();
            if line == GENERATED && self.lines.number() == 1 {
                self.generated = true;
                continue;
            }
            if let Some(rest) = line.strip_prefix("# newdoc") {
                if !draft.is_empty() {
                    return Err(self.lines.problem("a document begins in the middle of a sentence").help(NO_BLANK));
                }
                let id = value(rest, "id")
                    .ok_or_else(|| self.lines.problem("the document has no id").expected("`# newdoc id = …`"))?;
                if begun {
                    self.next = Some(id.to_owned());
                    return self.complete(document, self.lines.number()).map(Some);
                }
                document.id = id.to_owned();
                begun = true;
            } else if line.is_empty() {
                if !draft.is_empty() {
                    document.sentences.push(draft.finish(&self.lines)?);
                    draft = Draft::default();
                }
            } else {
                if !begun {
                    return Err(self.lines.problem("a sentence stands before the first `# newdoc id = …`"));
                }
                draft.take(line, &self.lines)?;
            }
            document.source.push_str(line);
            document.source.push('\n');
        }
        if self.more && !draft.is_empty() {
            let line = self.lines.number() + 1;
            let problem = Problem::new("a document begins in the middle of a sentence");
            return Err(problem.in_file(self.lines.label(), Some(line)).help(NO_BLANK));
        }
        if !draft.is_empty() || !self.lines.ended() {
            return Err(self.lines.problem("the file ends in the middle of a sentence").help(CUT_OFF));
        }
        let line = self.lines.number() + u64::from(self.more);
        if begun { self.complete(document, line).map(Some) } else { Ok(None) }
    }

    fn complete(&self, document: Document, line: u64) -> Result<Document> {
        if document.sentences.is_empty() {
            return Err(Problem::new(format!("the document {} has no sentences", document.id))
                .in_file(self.lines.label(), Some(line))
                .help(CUT_OFF));
        }
        Ok(document)
    }
}

const NO_BLANK: &str = "a blank line ends each sentence";
const CUT_OFF: &str =
    "it was probably cut off while it was copied: fetch it again; a whole file ends with a blank line";

impl Iterator for Reader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_document().transpose()
    }
}

/// `value` of ` name = value`; it may be empty, also where an editor took the last space away.
fn value<'a>(comment: &'a str, name: &str) -> Option<&'a str> {
    let rest = comment.strip_prefix(' ')?.strip_prefix(name)?.strip_prefix(" =")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(' ') }
}

/// A sentence that is being read.
#[derive(Default)]
struct Draft {
    line: Option<u64>,
    id: Option<String>,
    text: Option<String>,
    /// Form, tag and line of each word.
    words: Vec<(String, &'static str, u64)>,
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.line.is_none()
    }

    fn take(&mut self, line: &str, lines: &Lines) -> Result<()> {
        self.line.get_or_insert(lines.number());
        // A comment is `# ` with its space: a row begins with its number.
        if let Some(comment) = line.strip_prefix('#').filter(|rest| rest.starts_with(' ')) {
            if !self.words.is_empty() {
                return Err(lines.problem("a comment stands in the middle of a sentence").help(NO_BLANK));
            }
            if let Some(id) = value(comment, "sent_id") {
                self.id = Some(id.to_owned());
            } else if let Some(text) = value(comment, "text") {
                self.text = Some(text.to_owned());
            }
            return Ok(());
        }
        let (mut form, mut last, mut count) = ("", "", 0);
        for column in line.split('\t') {
            count += 1;
            if count == 2 {
                form = column;
            }
            last = column;
        }
        if count != 10 {
            let problem = lines.problem(format!("the row has {count} columns"));
            let problem = problem.expected("10 columns, separated by tabs");
            return Err(if lines.ended() { problem } else { problem.help(CUT_OFF) });
        }
        let tag = last.split('|').find_map(|field| field.strip_prefix("Tag="));
        let tag = tag.ok_or_else(|| lines.problem("the last column has no tag").expected("`Tag=O` or `Tag=B-PER`"))?;
        let Some(tag) = TAGS.iter().find(|known| **known == tag) else {
            return Err(lines
                .problem(format!("the tag `{tag}` is not one of Nerus's"))
                .expected("`O`, or `B-` or `I-` before `PER`, `LOC` or `ORG`"));
        };
        self.words.push((form.to_owned(), tag, lines.number()));
        Ok(())
    }

    fn finish(self, lines: &Lines) -> Result<Sentence> {
        let line = self.line.unwrap_or(lines.number());
        let at = |what: &str| Problem::new(what).in_file(lines.label(), Some(line));
        let id = self.id.ok_or_else(|| at("the sentence has no `# sent_id = …`"))?;
        let text = self.text.ok_or_else(|| at("the sentence has no `# text = …`"))?;

        // Place of each word in bytes and characters, found from left to right.
        let mut places = Vec::with_capacity(self.words.len());
        let (mut byte, mut character) = (0, 0);
        for (form, _, line) in &self.words {
            let Some(offset) = first(&text[byte..], form) else {
                return Err(Problem::new(format!("the word `{form}` is not in the rest of the sentence's text"))
                    .in_file(lines.label(), Some(*line)));
            };
            let start = character + text[byte..byte + offset].chars().count();
            let end = start + form.chars().count();
            places.push((byte + offset, byte + offset + form.len(), start, end));
            (byte, character) = (byte + offset + form.len(), end);
        }

        let tags: Vec<&str> = self.words.iter().map(|(_, tag, _)| *tag).collect();
        let entities = bio::spans(&tags, Mode::Nerus)
            .into_iter()
            .map(|span| {
                let (first, last) = (places[span.first], places[span.last]);
                let surface = text[first.0..last.1].to_owned();
                Entity { kind: span.kind.to_owned(), start: first.2, end: last.3, surface }
            })
            .collect();
        let tokens = self.words.into_iter().map(|(form, ..)| form).collect();
        Ok(Sentence { id, text, tokens, entities, line })
    }
}

/// Where a word is first found. Nearly always it is at once or after a space, which needs no search.
fn first(text: &str, word: &str) -> Option<usize> {
    if text.starts_with(word) {
        return Some(0);
    }
    if text.strip_prefix(' ').is_some_and(|rest| rest.starts_with(word)) { Some(1) } else { text.find(word) }
}
