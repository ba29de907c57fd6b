//! Two long texts side by side: what they share is cut away, so that what differs can be seen.
//! It does not know what the texts mean.

/// Shorter ones stand as they are.
const SHORT: usize = 60;

/// No side is longer than this.
const LONGEST: usize = 160;

/// So much of what is shared stands beside what differs, at most.
const CONTEXT: usize = 20;

/// Both texts, without what they share; whole where they are short.
pub(super) fn apart(old: &str, new: &str) -> (String, String) {
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if a.len().max(b.len()) <= SHORT {
        return (old.to_owned(), new.to_owned());
    }
    let shortest = a.len().min(b.len());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a.iter().rev().zip(b.iter().rev()).take(shortest - head).take_while(|(a, b)| a == b).count();
    let (head, tail) = (from(&a[..head]), from(&a.iter().rev().copied().take(tail).collect::<Vec<_>>()));
    let middle = |text: &[char]| {
        let part: String = text[head..text.len() - tail].iter().collect();
        format!("{}{}{}", if head > 0 { "…" } else { "" }, cut(&part), if tail > 0 { "…" } else { "" })
    };
    (middle(&a), middle(&b))
}

/// How much of what is shared is left out: all but the words nearest to what differs.
fn from(shared: &[char]) -> usize {
    let least = shared.len().saturating_sub(CONTEXT);
    let words = (least..shared.len()).find(|&at| at > 0 && shared[at - 1].is_whitespace());
    if least == 0 { 0 } else { words.unwrap_or(least) }
}

/// A text that is not longer than it may be, with `…` in the place of its middle.
pub(super) fn cut(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= LONGEST {
        return text.to_owned();
    }
    let half = LONGEST / 2;
    let part = |range: &[char]| range.iter().collect::<String>();
    format!("{} … {}", part(&chars[..half]), part(&chars[chars.len() - half..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_long_texts_only_what_differs_is_shown() {
        assert_eq!(apart("4", "8"), ("4".into(), "8".into()));
        let line =
            |n: &str| format!("[python3, scripts/features.py, --data, in/data, --window, {n}, --out, features.csv]");
        assert_eq!(
            apart(&line("128"), &line("256")),
            ("…in/data, --window, 128, --out,…".into(), "…in/data, --window, 256, --out,…".into())
        );
        let (old, new) = apart(&"a".repeat(100), &"a".repeat(101));
        assert_eq!((old, new), (format!("…{}", "a".repeat(20)), format!("…{}", "a".repeat(21))));
        assert_eq!(cut(&"я".repeat(161)).chars().count(), 163);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn different_texts_look_different(head in "[ab ]{0,80}", a in "[ab]{0,4}", b in "[ab]{0,4}", tail in "[ab ]{0,80}") {
            let (old, new) = (format!("{head}{a}{tail}"), format!("{head}{b}{tail}"));
            let told = apart(&old, &new);
            prop_assert_eq!(told.0 == told.1, old == new);
        }
    }
}
