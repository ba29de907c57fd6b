//! Marked text (`[PER Анна Петрова]`) into plain text, tokens and IOB2 tags, with prepositions and capitals mended.
//! It does not know where the text comes from.

/// A token, its tag, and whether a space stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The surface form.
    pub form: String,
    /// `O`, or `B-` / `I-` and the type.
    pub tag: String,
    /// True if a space stands before it.
    pub spaced: bool,
}

/// A sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Its tokens.
    pub tokens: Vec<Token>,
}

impl Sentence {
    /// Its text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for token in &self.tokens {
            if token.spaced && !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&token.form);
        }
        text
    }

    /// Types and surface forms of its entities, left to right.
    pub fn entities(&self) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        for token in &self.tokens {
            if let Some(kind) = token.tag.strip_prefix("B-") {
                found.push((kind.to_owned(), token.form.clone()));
            } else if token.tag.starts_with("I-")
                && let Some(last) = found.last_mut()
            {
                if token.spaced {
                    last.1.push(' ');
                }
                last.1.push_str(&token.form);
            }
        }
        found
    }
}

/// Reads marked text. Marks do not nest; a stray bracket is an ordinary character of the tables and must not be there.
pub fn parse(marked: &str) -> Sentence {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = marked;
    let mut glue = true;
    while !rest.is_empty() {
        let (plain, after) = rest.split_once('[').unwrap_or((rest, ""));
        push(&mut tokens, plain, None, &mut glue);
        let (entity, after) = after.split_once(']').unwrap_or((after, ""));
        if let Some((kind, name)) = entity.split_once(' ') {
            push(&mut tokens, name, Some(kind), &mut glue);
        }
        rest = after;
    }
    mend(&mut tokens);
    Sentence { tokens }
}

/// The plain text of marked text.
pub fn plain(marked: &str) -> String {
    parse(marked).text()
}

fn push(tokens: &mut Vec<Token>, text: &str, kind: Option<&str>, glue: &mut bool) {
    let chars: Vec<char> = text.chars().collect();
    let mut first = true;
    let mut i = 0;
    while i < chars.len() {
        if chars[i] == ' ' {
            *glue = false;
            i += 1;
            continue;
        }
        let start = i;
        i += 1;
        if chars[start].is_alphanumeric() {
            while i < chars.len()
                && (chars[i].is_alphanumeric()
                    || (chars[i] == '-' && chars.get(i + 1).is_some_and(|next| next.is_alphanumeric())))
            {
                i += 1;
            }
        }
        let tag = match kind {
            None => "O".to_owned(),
            Some(kind) => format!("{}-{kind}", if first { "B" } else { "I" }),
        };
        tokens.push(Token { form: chars[start..i].iter().collect(), tag, spaced: !*glue });
        *glue = true;
        first = false;
    }
}

/// «в» before two consonants of which the first is в or ф becomes «во», «с» before a sibilant and a consonant «со»,
/// «о» before а, э, и, о, у «об»; the sentence begins with a capital.
fn mend(tokens: &mut [Token]) {
    for i in 0..tokens.len().saturating_sub(1) {
        let next: Vec<char> = tokens[i + 1].form.to_lowercase().chars().take(2).collect();
        let [first, second] = next[..] else { continue };
        let hard = !"аеёиоуыэюяьъ".contains(second) && second.is_alphabetic();
        let mended = match tokens[i].form.as_str() {
            "в" if "вф".contains(first) && hard => "во",
            "В" if "вф".contains(first) && hard => "Во",
            "с" if "сзшж".contains(first) && hard => "со",
            "С" if "сзшж".contains(first) && hard => "Со",
            "о" if "аэиоу".contains(first) => "об",
            "О" if "аэиоу".contains(first) => "Об",
            _ => continue,
        };
        tokens[i].form = mended.to_owned();
    }
    if let Some(token) = tokens.iter_mut().find(|token| token.form.starts_with(char::is_alphanumeric)) {
        let mut chars = token.form.chars();
        if let Some(first) = chars.next() {
            token.form = first.to_uppercase().chain(chars).collect();
        }
    }
}
