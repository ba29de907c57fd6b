//! Words for numbers, and tables of them.
//! It does not know what the numbers are about.

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
    fn large_numbers_are_grouped() {
        assert_eq!([7, 999, 1000, 4_211_200].map(grouped), ["7", "999", "1 000", "4 211 200"]);
    }

    #[test]
    fn tables_align_numbers_to_the_right() {
        let cells = |row: &[&str]| row.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let text = table(&cells(&["step", "f1"]), &[cells(&["ло", "0.5"]), cells(&["mlp", "10.25"])]);
        assert_eq!(text, "step     f1\nло      0.5\nmlp   10.25");
    }
}
