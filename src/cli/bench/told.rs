//! What was measured, as lines for a person and as JSON for a program.
//! It does not know how it was measured.

use serde_json::{Value, json};

use super::Outcome;
use super::clock::Measured;
use crate::exec::Decider;
use crate::spec::Step;
use crate::ui;

/// Figures that follow from others.
struct Rates {
    ids: f64,
    flop: f64,
    padding: f64,
    /// Of the limit.
    share: Option<f64>,
}

impl Rates {
    fn of(measured: &Measured, outcome: &Outcome) -> Self {
        let seconds = measured.seconds.max(1e-9);
        let (work, flop) = (measured.work, measured.work.flop as f64 / seconds);
        Self {
            ids: work.ids as f64 / seconds,
            flop,
            padding: work.padding as f64 / (work.ids + work.padding).max(1) as f64,
            share: outcome.limit.spread().map(|(limit, ..)| flop / limit),
        }
    }
}

/// A line each: what it is, its value, and what that means.
pub fn lines(decider: &Decider, step: &Step, outcome: &Outcome) -> Vec<String> {
    let threads = decider.machine.threads(step.action.share());
    let dtype = outcome.limit.dtype.map(|dtype| format!(", {dtype}")).unwrap_or_default();
    let device = &decider.machine.device;
    let mut lines =
        vec![format!("{} ({}): {device}, {}{dtype}", step.id, step.kind.name(), ui::count(threads, "thread"))];
    let mut line = |name: &str, value: String, more: String| {
        lines.push(format!("  {name:13} {value:>14}   {more}").trim_end().to_owned());
    };
    if let Some(measured) = &outcome.measured {
        let (rates, Measured { pieces, warm_up, seconds, work, .. }) = (Rates::of(measured, outcome), measured);
        let before = if *warm_up > 0 { format!(", after {warm_up} to warm up") } else { String::new() };
        let cpu = measured.cpu_seconds.map(|cpu| format!(", CPU {}", time(cpu))).unwrap_or_default();
        let took = format!("{} in {}{cpu}", ui::grouped(work.ids), time(*seconds));
        line(
            "ids/s",
            ui::grouped(rates.ids.round() as u64),
            format!("{took}; {}{before}", ui::count(*pieces, "piece")),
        );
        if work.flop > 0 {
            line("padding", percent(rates.padding), "beside those ids, of all that went through".to_owned());
            line("FLOP/s", prefixed(rates.flop), "of products and attention; padding left out".to_owned());
            if let (Some(share), Some((_, low, high))) = (rates.share, outcome.limit.spread()) {
                let reach = format!("{} to {}", prefixed(low), prefixed(high));
                line("of the limit", percent(share), format!("libtorch's own products of these shapes: {reach}"));
            }
        }
    }
    let unknown = || "unknown".to_owned();
    line("peak memory", outcome.costs.peak_bytes.map_or_else(unknown, ui::size), "of the process".to_owned());
    if let Some(card) = outcome.card {
        line("", card.map_or_else(unknown, ui::size), format!("of {device}"));
    }
    let cpu = outcome.costs.cpu_ms.map_or_else(unknown, ui::duration);
    line("all of it", ui::duration(outcome.costs.took_ms), format!("CPU {cpu}"));
    if outcome.measured.is_none() {
        lines.push(format!("  `{}` computes nothing with a model: there are no ids to count", step.kind.name()));
    }
    lines
}

/// The same for a program; what cannot be told is null.
pub fn json(decider: &Decider, step: &Step, outcome: &Outcome) -> Value {
    let rates = outcome.measured.as_ref().map(|measured| Rates::of(measured, outcome));
    let work = |of: fn(&Measured) -> Value| outcome.measured.as_ref().map(of);
    let limit = outcome.limit.spread();
    let limit = limit.map(|(middle, low, high)| json!({"flop_per_second": middle, "low": low, "high": high}));
    let has_flop = outcome.measured.is_some_and(|measured| measured.work.flop > 0);
    let counted = |value: fn(&Rates) -> f64| rates.as_ref().filter(|_| has_flop).map(value);
    json!({
        "step": step.id,
        "kind": step.kind.name(),
        "device": decider.machine.device,
        "threads": decider.machine.threads(step.action.share()),
        "dtype": outcome.limit.dtype,
        "pieces": work(|measured| json!(measured.pieces)),
        "warm_up": work(|measured| json!(measured.warm_up)),
        "seconds": work(|measured| json!(measured.seconds)),
        "cpu_seconds": work(|measured| json!(measured.cpu_seconds)),
        "ids": work(|measured| json!(measured.work.ids)),
        "ids_per_second": rates.as_ref().map(|rates| rates.ids),
        "padding_share": counted(|rates| rates.padding),
        "flop": work(|measured| json!(measured.work.flop)).filter(|_| has_flop),
        "flop_per_second": counted(|rates| rates.flop),
        "limit": limit,
        "share_of_limit": rates.as_ref().and_then(|rates| rates.share),
        "peak_bytes": outcome.costs.peak_bytes,
        "gpu_bytes": outcome.card.flatten(),
        "whole_ms": outcome.costs.took_ms,
        "whole_cpu_ms": outcome.costs.cpu_ms,
        "said": outcome.said,
    })
}

fn time(seconds: f64) -> String {
    ui::duration((seconds * 1000.0).round() as u64)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `243 G`, `1.35 T`.
fn prefixed(number: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")];
    let (size, unit) = UNITS.into_iter().find(|(size, _)| number >= *size).unwrap_or((1.0, ""));
    let value = number / size;
    let digits = if value >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::{percent, prefixed};

    #[test]
    fn numbers_are_short() {
        assert_eq!([171.4e9, 1.349e12, 2.5e15, 7.0].map(prefixed), ["171 G", "1.35 T", "2.50 P", "7.00 "]);
        assert_eq!(percent(0.0341), "3.4 %");
    }
}
