//! What a misspelt name was probably meant to be.
//! It does not know what the names stand for.

/// The nearest of `known`, if it is near enough to be meant.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |name: &str| name.to_lowercase().replace('-', "_");
    let wrong = fold(wrong);
    known
        .into_iter()
        .map(|name| (name, strsim::normalized_damerau_levenshtein(&wrong, &fold(name))))
        .filter(|(_, likeness)| *likeness >= 0.6)
        // The first of equals: `max_by` would give the last, and so depend on what stands behind.
        .fold(None, |best: Option<(&str, f64)>, (name, likeness)| match best {
            Some((_, top)) if top >= likeness => best,
            _ => Some((name, likeness)),
        })
        .map(|(name, _)| name)
}

/// ``did you mean `name`?``, or what there is, or `otherwise` where there is nothing.
pub fn help<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>, what: &str, otherwise: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(name) = nearest(wrong, known.iter().copied()) {
        return format!("did you mean `{name}`?");
    }
    if known.is_empty() {
        return otherwise.to_owned();
    }
    const SHOWN: usize = 12;
    let list: Vec<String> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if known.len() > SHOWN { format!(" and {} more", known.len() - SHOWN) } else { String::new() };
    format!("{what}: {}{more}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("tokenise", ["train", "tokenize"]), Some("tokenize"));
        assert_eq!(nearest("rnak", ["alpha", "rank"]), Some("rank"));
        assert_eq!(nearest("hidden-size", ["hidden_size"]), Some("hidden_size"));
        assert_eq!(nearest("zebra", ["alpha", "rank"]), None);
    }

    #[test]
    fn without_a_near_name_the_known_ones_are_listed() {
        assert_eq!(help("zebra", ["alpha", "rank"], "known", "none"), "known: `alpha`, `rank`");
        assert_eq!(help("zebra", [], "known", "there are none"), "there are none");
    }
}
