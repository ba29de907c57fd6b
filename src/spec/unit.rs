//! Lengths of time and amounts of memory as people write them: `1h30m`, `8GB`.
//! It does not know what they are for.

use std::time::Duration;

/// `90`, `90s`, `30m`, `1h30m`, `2d`, `500ms`; a plain number is seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];
    let text = text.trim();
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, unit, after) = part(rest)?;
        let factor = match unit {
            "" if text.parse() == Ok(number) => 1.0,
            unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        seconds += number * factor;
        rest = after;
    }
    // A century is long enough, and the clock of every system can count it.
    (0.0..=3.2e9).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// `512`, `512MB`, `8 GB`, `20G`, `1.5GiB`; a plain number is bytes, and only the `i` makes powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 14] = [
        ("K", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("", 1.0),
        ("B", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ];
    let (number, unit, after) = part(text.trim())?;
    let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    let bytes = number * factor;
    (after.is_empty() && (0.0..=1e18).contains(&bytes)).then_some(bytes as u64)
}

/// A number, the letters behind it, and the rest.
fn part(text: &str) -> Option<(f64, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((number, &rest[..letters], rest[letters..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_people_write_is_understood() {
        let seconds = |text: &str| duration(text).map(|duration| duration.as_secs_f64());
        for (text, expected) in
            [("90", 90.0), ("30m", 1800.0), ("1h30m", 5400.0), ("2d", 172_800.0), ("0.5 s", 0.5), ("250ms", 0.25)]
        {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in ["", "m", "1x", "1h30", "-1s", "1e9d", "half"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        for (text, expected) in [
            ("512", 512),
            ("8GB", 8_000_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("64mb", 64_000_000),
            ("20G", 20_000_000_000),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for bad in ["", "GB", "8 G B", "8XB", "-1MB"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn no_text_panics(text in "[0-9a-zA-Zж. -]{0,12}") {
            let _ = (duration(&text), bytes(&text));
        }
    }
}
