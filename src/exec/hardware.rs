//! What a run computes on, for people who look at it later: device, processor, cores, memory, graphics cards.
//! It enters no key and no result. It does not know what of the machine may change answers: that is `step::Machine`.

use std::fs;

use crate::step::Machine;

/// What computes, as answers of measurements are kept for it: the processor and whether it multiplies bf16 natively, or
/// the graphics cards. `None` where the system does not tell.
pub fn processor(machine: &Machine) -> Option<String> {
    if machine.device.starts_with("cuda") {
        let mut cards = cards();
        cards.sort();
        cards.dedup();
        return (!cards.is_empty()).then(|| cards.join(" and "));
    }
    let name = field(&fs::read_to_string("/proc/cpuinfo").ok()?, "model name")?;
    Some(format!("{name}, bf16 {}", if machine.bf16 { "native" } else { "emulated" }))
}

fn cards() -> Vec<String> {
    let cards = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    cards.filter_map(|card| field(&fs::read_to_string(card.path().join("information")).ok()?, "Model")).collect()
}

/// `cpu; 16 cores of AMD EPYC 7763, 125.8 GiB; 1 of NVIDIA H100`. What the system does not tell is left out.
pub fn told(machine: &Machine) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    describe(machine, &read("/proc/cpuinfo"), &read("/proc/meminfo"), &cards())
}

fn describe(machine: &Machine, processors: &str, memory: &str, cards: &[String]) -> String {
    let cores = if machine.cores == 1 { "1 core".to_owned() } else { format!("{} cores", machine.cores) };
    let name = field(processors, "model name").map(|name| format!(" of {name}")).unwrap_or_default();
    let kilobytes = field(memory, "MemTotal").and_then(|size| size.strip_suffix(" kB")?.trim().parse::<f64>().ok());
    let size = kilobytes.map(|size| format!(", {:.1} GiB", size / f64::from(1 << 20))).unwrap_or_default();
    let mut text = format!("{}; {cores}{name}{size}", machine.device);
    let mut sorted = cards.to_vec();
    sorted.sort();
    for same in sorted.chunk_by(|a, b| a == b) {
        text.push_str(&format!("; {} of {}", same.len(), same[0]));
    }
    text
}

/// The value behind `name:`, on one line and without characters that a terminal would obey.
fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    let plain: String = value.chars().filter(|c| !c.is_control()).collect();
    Some(plain.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_told_and_the_rest_left_out() {
        let machine = |cores| Machine::plain("cuda:0", cores);
        let processors = "processor\t: 0\nmodel name\t: AMD  EPYC\u{1b} 7763\nprocessor\t: 1\n";
        let cards = ["NVIDIA H100".to_owned(), "NVIDIA H100".to_owned()];
        assert_eq!(
            describe(&machine(2), processors, "MemTotal:       16777216 kB\n", &cards),
            "cuda:0; 2 cores of AMD EPYC 7763, 16.0 GiB; 2 of NVIDIA H100"
        );
        assert_eq!(describe(&machine(1), "", "MemTotal: some\n", &[]), "cuda:0; 1 core");
    }
}
