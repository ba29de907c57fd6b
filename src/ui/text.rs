//! Words for numbers, and tables of them.
//! It does not know what the numbers are about.

use crate::event::Costs;

/// `850 ms`, `42.1 s`, `3 m 05 s`, `2 h 07 m`.
pub fn duration(ms: u64) -> String {
    // Rounded before the unit is chosen, so that no `60.0 s` comes out.
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..59_950 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => {
            let seconds = (ms + 500) / 1000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            if hours > 0 { format!("{hours} h {minutes:02} m") } else { format!("{minutes} m {:02} s", seconds % 60) }
        }
    }
}

/// `42.1 s, CPU 80.2 s, 1.2 GiB`: what a result cost; what was not measured is left out.
pub fn costs(costs: &Costs) -> String {
    let rest = Some(measured(costs)).filter(|rest| !rest.is_empty());
    [Some(duration(costs.took_ms)), rest].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The same without the duration: `CPU 80.2 s, 1.2 GiB`; empty if nothing was measured, and of a step that was over at
/// once: there it would tell of the program around it.
pub fn measured(costs: &Costs) -> String {
    if costs.took_ms < 1000 {
        return String::new();
    }
    let cpu = costs.cpu_ms.map(|ms| format!("CPU {}", duration(ms)));
    [cpu, costs.peak_bytes.map(size)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `2-3 min`, `20-40 s`, `1.5-2.5 h`: a time that is not known exactly, never told more exactly than it is known.
pub fn span(low_ms: u64, high_ms: u64) -> String {
    // Minutes as long as they have two digits.
    let (unit, name) = match high_ms {
        ..=59_999 => (1000, "s"),
        60_000..=5_940_000 => (60_000, "min"),
        _ => (360_000, "h"),
    };
    let word = |n: u64| if name == "h" { format!("{}.{}", n / 10, n % 10) } else { n.to_string() };
    let (low, high) = (low_ms.min(high_ms) / unit, high_ms.div_ceil(unit));
    if low == high { format!("{} {name}", word(low)) } else { format!("{}-{} {name}", word(low), word(high)) }
}

/// `1.2 GiB`, `210 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value < 10.0 && unit > 0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// The same in whole seconds, for what is counted down: `26 s`, `3 m 05 s`.
pub fn seconds(ms: u64) -> String {
    if ms < 59_950 { format!("{} s", ((ms + 500) / 1000).min(59)) } else { duration(ms) }
}

/// `2 097 152`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A figure in six digits that count: `0.666667`, `12`, `1.5e-7`.
pub fn number(value: f64) -> String {
    let rounded = format!("{value:.5e}").parse().unwrap_or(value);
    // Minus zero is zero to a reader.
    let text = format!("{:?}", if rounded == 0.0 { 0.0 } else { rounded });
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// `1 step`, `2 steps`.
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The first reasons of a rerun on one line.
pub fn reasons(why: &[String]) -> String {
    const SHOWN: usize = 2;
    let mut text = why.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if why.len() > SHOWN {
        text.push_str(&format!(" and {} more", why.len() - SHOWN));
    }
    text
}

/// Text in so many columns, with `…` in place of what does not fit.
pub fn cut(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// Text in lines of so many columns, broken between words; all lines but the first are indented.
pub fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    // Spaces at the beginning are an indentation of its own.
    let start = text.len() - text.trim_start().len();
    lines[0].push_str(&text[..start]);
    used += start;
    for word in text.split_whitespace() {
        let width = console::measure_text_width(word);
        let begun = lines.last().is_some_and(|line| !line.trim().is_empty());
        if begun && used + 1 + width > columns {
            lines.push(" ".repeat(indent));
            used = indent;
        } else if begun {
            lines.last_mut().expect("never empty").push(' ');
            used += 1;
        }
        lines.last_mut().expect("never empty").push_str(word);
        used += width;
    }
    lines
}

/// A warning as it looks everywhere.
pub fn warning(text: &str, color: bool) -> String {
    format!("{} {text}", paint("!", "33", color))
}

/// Text in an ANSI colour.
pub fn paint(text: &str, code: &str, color: bool) -> String {
    if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Columns under each other: text to the left, numbers to the right, two spaces between.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).chain(head.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let numeric = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).all(|cell| cell.is_empty() || cell.parse::<f64>().is_ok())
    };
    let line = |cells: &[String]| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(width(column) - cell.chars().count());
            if numeric(column) { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(line(head)).chain(rows.iter().map(|row| line(row))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_into_the_next_unit() {
        let cases = [(0, "0 ms"), (999, "999 ms"), (42_149, "42.1 s"), (59_949, "59.9 s"), (59_950, "1 m 00 s")];
        for (ms, text) in cases.into_iter().chain([(185_000, "3 m 05 s"), (3_599_600, "1 h 00 m")]) {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn costs_tell_what_was_measured() {
        let all = Costs { took_ms: 42_100, cpu_ms: Some(80_200), peak_bytes: Some(1_288_490_189) };
        assert_eq!(costs(&all), "42.1 s, CPU 1 m 20 s, 1.2 GiB");
        assert_eq!(costs(&Costs { took_ms: 12, ..Costs::default() }), "12 ms");
        assert_eq!(costs(&Costs { took_ms: 999, ..all }), "999 ms", "over at once");
        assert_eq!([0, 1000, 220_200_960].map(size), ["0 B", "1.0 KiB", "210 MiB"]);
    }

    #[test]
    fn spans_are_as_rough_as_what_is_known() {
        let cases = [(0, 0, "0 s"), (0, 12, "0-1 s"), (20_400, 39_100, "20-40 s"), (120_000, 120_000, "2 min")];
        let long = [(121_000, 170_000, "2-3 min"), (30_000, 61_000, "0-2 min"), (5_400_000, 9_000_000, "1.5-2.5 h")];
        for (low, high, text) in cases.into_iter().chain(long) {
            assert_eq!(span(low, high), text);
        }
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([7, 999, 1000, 4_211_200].map(grouped), ["7", "999", "1 000", "4 211 200"]);
    }

    #[test]
    fn figures_have_six_digits() {
        let cases = [0.0, -0.0, 2.0 / 3.0, 12.0, 1.5e-7, 0.62 - 0.6, 1e300, -1_234_567.0, f64::NAN];
        let texts = ["0", "0", "0.666667", "12", "1.5e-7", "0.02", "1e300", "-1234570", "NaN"];
        assert_eq!(cases.map(number), texts);
    }

    #[test]
    fn seconds_have_no_decimals() {
        assert_eq!(
            [400, 26_400, 59_900, 59_950, 185_000].map(seconds),
            ["0 s", "26 s", "59 s", "1 m 00 s", "3 m 05 s"]
        );
    }

    #[test]
    fn what_does_not_fit_is_cut_or_wrapped() {
        assert_eq!((cut("потери", 6), cut("потери", 4)), ("потери".to_owned(), "пот…".to_owned()));
        assert_eq!(wrap("  a: один два три", 12, 4), ["  a: один", "    два три"]);
        assert_eq!(wrap("x", 1, 4), ["x"]);
        assert_eq!(wrap("длинное/имя/файла b", 5, 2), ["длинное/имя/файла", "  b"]);
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = table(&cells(&["step", "f1"]), &[cells(&["ло", "0.5"]), cells(&["mlp", "10.25"])]);
        assert_eq!(text, "step     f1\nло      0.5\nmlp   10.25");
    }
}
