//! Small pieces of Russian text: enumerations, headings, names of metrics, averages and counts.
//! It does not know what is compared.

use super::comparison::Role;

/// `A`, `A и B`, `A, B и C`.
pub fn enumerate<S: AsRef<str>>(names: &[S], and: &str) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [head @ .., last] => format!("{} {and} {last}", head.join(", ")),
    }
}

/// The first of many names, and how many more there are; a few names all.
pub fn few<S: AsRef<str>>(names: &[S]) -> String {
    const ALL: usize = 6;
    const FIRST: usize = 4;
    if names.len() <= ALL {
        return enumerate(names, "и");
    }
    let first: Vec<&str> = names.iter().take(FIRST).map(AsRef::as_ref).collect();
    format!("{} и ещё {}", first.join(", "), names.len() - FIRST)
}

/// A title on one line: control characters, line breaks among them, become spaces. Marks that turn the direction of
/// text are left out: in a sentence nothing would end their reach.
pub fn one_line(text: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let spaced: String = text.chars().filter(|c| !turns(*c)).map(|c| if is_break(c) { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A name in a heading: an ordinary word in capitals (`Nerus` → `NERUS`), an acronym as it is (`TERRa`).
pub fn heading(title: &str) -> String {
    let is_word = !title.chars().skip(1).any(char::is_uppercase);
    if is_word { title.to_uppercase() } else { title.to_owned() }
}

/// What a task stands for.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::General => "общие способности",
        Role::Special => "специализированная задача",
        Role::Retention => "сохранение языковой модели",
    }
}

/// `accuracy` → `Accuracy`; names are the field's own and stay English.
pub fn metric(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What an average is, in words.
pub fn average(name: &str) -> String {
    match name {
        "micro" => "micro: доли считаются по всем примерам вместе".to_owned(),
        "macro" => "macro: среднее по классам".to_owned(),
        "macro_types" => "macro_types: среднее по типам сущностей".to_owned(),
        "mean_documents" => "mean_documents: среднее по документам".to_owned(),
        other => other.to_owned(),
    }
}

/// What became of generated answers, in words.
pub fn parse_state(name: &str) -> &str {
    match name {
        "valid" => "разобрано",
        "unparsed" => "не разобрано",
        "truncated" => "обрезано",
        "hallucinated" => "сущностей не из текста",
        "duplicate" => "повторных сущностей",
        other => other,
    }
}

/// An exact count as it is; an estimate rounded, with a tilde: `~2.1М`.
pub fn parameters(count: u64, estimated: bool) -> String {
    if !estimated {
        return count.to_string();
    }
    match count {
        0..1_000 => format!("~{count}"),
        1_000..1_000_000 => format!("~{:.1}К", count as f64 / 1e3),
        _ => format!("~{:.1}М", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_enumerated() {
        assert_eq!(enumerate::<&str>(&[], "и"), "");
        assert_eq!(enumerate(&["A"], "и"), "A");
        assert_eq!(enumerate(&["A", "B", "C"], "И"), "A, B И C");
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (1..=7).map(|i| i.to_string()).collect();
        assert_eq!(few(&names), "1, 2, 3, 4 и ещё 3");
        assert_eq!(few(&names[..6]), "1, 2, 3, 4, 5 и 6");
    }

    #[test]
    fn titles_lose_their_line_breaks() {
        assert_eq!(one_line("a\r\n\tb\u{2028}c  d"), "a b c d");
        assert_eq!(one_line("\u{202e}LoRA\u{2066}"), "LoRA");
    }

    #[test]
    fn words_are_raised_and_acronyms_stay() {
        assert_eq!(heading("Nerus"), "NERUS");
        assert_eq!(heading("TERRa"), "TERRa");
        assert_eq!(heading("задача"), "ЗАДАЧА");
    }

    #[test]
    fn only_estimates_are_rounded() {
        assert_eq!(parameters(2_097_152, true), "~2.1М");
        assert_eq!(parameters(2_097_152, false), "2097152");
        assert_eq!(parameters(34_500, true), "~34.5К");
    }
}
