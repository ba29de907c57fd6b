//! How far a step is, as one line: a bar, counts, the time left, and what the step says.
//! It does not draw, and knows no clock: whoever asks says when.

use console::Alignment;
use indicatif::HumanBytes;

use super::text::{cut, seconds};

/// What is known of a step that is at work.
pub struct Gauge {
    name: String,
    since_ms: u64,
    progress: Option<Progress>,
}

struct Progress {
    done: u64,
    total: Option<u64>,
    unit: String,
    text: String,
    pace: Pace,
}

/// Columns of a bar where there is room, and where there is little.
const BARS: [usize; 3] = [24, 16, 8];

impl Gauge {
    /// A step that began at this time.
    pub fn new(name: &str, at_ms: u64) -> Self {
        Self { name: name.to_owned(), since_ms: at_ms, progress: None }
    }

    /// Takes down how far it is.
    pub fn told(&mut self, at_ms: u64, done: u64, total: Option<u64>, unit: &str, text: &str) {
        // Another unit is another piece of work, at another pace.
        let mut pace = match self.progress.take() {
            Some(before) if before.unit == unit && before.total == total => before.pace,
            _ => Pace::default(),
        };
        pace.told(at_ms, done);
        self.progress = Some(Progress { done, total, unit: unit.to_owned(), text: text.to_owned(), pace });
    }

    /// The columns of its name.
    pub fn name_width(&self) -> usize {
        console::measure_text_width(&self.name)
    }

    /// The line at this time, in so many columns, with `names` of them for the name if there is room. What a person
    /// needs most stays longest: counts, time left and the step's own words; the bar shrinks and the rate goes first.
    pub fn line(&self, now_ms: u64, columns: usize, names: usize) -> String {
        let most = (columns / 3).max(8);
        let name = console::pad_str(&cut(&self.name, most), names.min(most), Alignment::Left, None).into_owned();
        let Some(progress) = &self.progress else {
            let spinner = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇"][(now_ms / 200 % 6) as usize];
            return cut(&format!("  {name}  {spinner} {}", seconds(now_ms.saturating_sub(self.since_ms))), columns);
        };
        let told = |rate| progress.told(now_ms, rate).join("  ");
        let bars = if progress.total.is_some() { BARS.as_slice() } else { &[] };
        let with_bar = |width: &usize, rate| format!("  {name}  {}  {}", bar(progress.share(), *width), told(rate));
        let all = bars.iter().flat_map(|width| [with_bar(width, true), with_bar(width, false)]);
        let bare = [true, false].map(|rate| format!("  {name}  {}", told(rate)));
        let fits = |line: &String| console::measure_text_width(line) <= columns;
        let shortest = bare[1].clone();
        all.chain(bare).find(fits).unwrap_or_else(|| cut(&shortest, columns))
    }

    /// The same without a bar, for where lines are not redrawn.
    pub fn plain(&self, now_ms: u64) -> String {
        let told = self.progress.as_ref().map(|progress| progress.told(now_ms, true)).unwrap_or_default();
        format!("  {}: {}", self.name, told.join("  "))
    }

    /// True once all that was to be done is done.
    pub fn is_full(&self) -> bool {
        self.progress.as_ref().is_some_and(|progress| progress.total == Some(progress.done))
    }
}

impl Progress {
    fn share(&self) -> f64 {
        let total = self.total.unwrap_or_default().max(1);
        (self.done as f64 / total as f64).min(1.0)
    }

    /// Counts, rate, time left, words; what is not known is left out.
    fn told(&self, now_ms: u64, with_rate: bool) -> Vec<String> {
        let amount = |n: u64| if self.unit == "B" { HumanBytes(n).to_string() } else { n.to_string() };
        let total = self.total.map(|total| format!("/{}", amount(total))).unwrap_or_default();
        let unit = if self.unit == "B" { String::new() } else { format!(" {}", self.unit) };
        let counts = format!("{}{total}{unit}", amount(self.done));
        let per_second = self.pace.per_second(now_ms);
        let rate = per_second.filter(|_| with_rate).map(|rate| match self.unit.as_str() {
            "B" => format!("{}/s", HumanBytes(rate as u64)),
            _ if rate < 10.0 => format!("{rate:.2}/s"),
            _ => format!("{rate:.0}/s"),
        });
        let left = per_second.zip(self.total).map(|(rate, total)| {
            let ms = total.saturating_sub(self.done) as f64 / rate * 1000.0;
            format!("{} left", seconds(ms as u64))
        });
        let text = Some(self.text.clone()).filter(|text| !text.is_empty());
        [Some(counts), rate, left, text].into_iter().flatten().collect()
    }
}

/// `━━━╸    `: the share in so many columns.
pub fn bar(share: f64, columns: usize) -> String {
    let full = (share * columns as f64) as usize;
    let (line, tip) = ("━".repeat(full), if full < columns { "╸" } else { "" });
    format!("{line}{tip}{}", " ".repeat(columns.saturating_sub(full + 1)))
}

/// How fast something moves: over the last half minute, so that it follows a change, and known only after a
/// second, because the first steps are never like the others.
#[derive(Default)]
struct Pace {
    seen: Vec<(u64, u64)>,
}

impl Pace {
    const KNOWN_AFTER_MS: u64 = 1000;
    const WINDOW_MS: u64 = 30_000;
    const APART_MS: u64 = 250;

    fn told(&mut self, at_ms: u64, done: u64) {
        if self.seen.last().is_some_and(|&(_, before)| done < before) {
            self.seen.clear();
        }
        // The latest is always kept; of those before it, only some.
        if let [.., (before, _), _] = self.seen.as_slice()
            && at_ms.saturating_sub(*before) < Self::APART_MS
        {
            self.seen.pop();
        }
        self.seen.push((at_ms, done));
        let old = self.seen.iter().skip(1).take_while(|(at, _)| at_ms.saturating_sub(*at) >= Self::WINDOW_MS).count();
        self.seen.drain(..old);
    }

    /// Units in a second; `None` where it is not known yet, or nothing moved.
    fn per_second(&self, now_ms: u64) -> Option<f64> {
        let (&(from_ms, from), &(_, to)) = (self.seen.first()?, self.seen.last()?);
        let ms = now_ms.saturating_sub(from_ms);
        (ms >= Self::KNOWN_AFTER_MS && to > from).then(|| (to - from) as f64 * 1000.0 / ms as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(text: &str) -> Gauge {
        let mut gauge = Gauge::new("lora", 0);
        for step in 1..=20 {
            gauge.told(1000 + 100 * step, step, Some(600), "steps", text);
        }
        gauge
    }

    #[test]
    fn no_rate_is_told_before_it_is_known() {
        let mut gauge = Gauge::new("data", 0);
        gauge.told(1, 442_890_299, Some(900_000_000), "B", "");
        assert_eq!(gauge.plain(2), "  data: 422.37 MiB/858.31 MiB");
        gauge.told(1001, 542_890_299, Some(900_000_000), "B", "");
        assert_eq!(gauge.plain(1001), "  data: 517.74 MiB/858.31 MiB  95.37 MiB/s  4 s left");
        // Another piece of work begins anew.
        gauge.told(1100, 1, None, "rows", "");
        assert_eq!(gauge.plain(1150), "  data: 1 rows");
    }

    #[test]
    fn a_pace_follows_the_last_half_minute() {
        let mut pace = Pace::default();
        for second in 0..100 {
            pace.told(second * 1000, second * 10);
        }
        for second in 100..200 {
            pace.told(second * 1000, 1000 + (second - 100) * 2);
        }
        assert!(pace.seen.len() < 40, "{}", pace.seen.len());
        assert!((pace.per_second(199_000).unwrap() - 2.0).abs() < 1e-9);
        // Nothing moves any more: slower and slower.
        assert!(pace.per_second(250_000).unwrap() < 1.0);
        pace.told(250_000, 0);
        assert_eq!(pace.per_second(260_000), None);
    }

    #[test]
    fn loss_tokens_and_time_left_stay_where_there_is_little_room() {
        let gauge = training("loss 1.234  3.1k tok/s");
        let (empty, words) = (" ".repeat(23), "20/600 steps  10/s  58 s left  loss 1.234  3.1k tok/s");
        assert_eq!(gauge.line(3000, 120, 4), format!("  lora  ╸{empty}  {words}"));
        assert_eq!(gauge.line(3000, 120, 6), format!("  lora    ╸{empty}  {words}"));
        for columns in 60..200 {
            let line = gauge.line(3000, columns, 4);
            assert!(console::measure_text_width(&line) <= columns, "{columns}: {line}");
            for words in ["20/600 steps", "58 s left", "loss 1.234", "3.1k tok/s"] {
                assert!(line.contains(words), "{columns}: {line}");
            }
        }
        assert!(gauge.line(3000, 100, 4).contains('╸') && !gauge.line(3000, 60, 4).contains('╸'));
        for columns in 8..60 {
            assert!(console::measure_text_width(&gauge.line(3000, columns, 4)) <= columns, "{columns}");
        }
        assert_eq!(gauge.plain(3000), "  lora: 20/600 steps  10/s  58 s left  loss 1.234  3.1k tok/s");
    }

    #[test]
    fn before_any_progress_the_time_is_told() {
        assert_eq!(Gauge::new("шаг", 1000).line(13_300, 80, 3), "  шаг  ⠋ 12 s");
    }

    #[test]
    fn bars_have_their_width() {
        for share in [0.0, 0.3, 0.999, 1.0] {
            assert_eq!(bar(share, 24).chars().count(), 24);
        }
        assert_eq!((bar(0.5, 4), bar(1.0, 4), bar(0.0, 4)), ("━━╸ ".into(), "━━━━".into(), "╸   ".into()));
    }
}
