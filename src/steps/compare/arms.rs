//! Every arm once: what was evaluated under its name, with the seeds of one arm brought together.
//! It does not know tasks, figures or tests.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Labelled, Params};
use crate::error::{Problem, Result};
use crate::report::comparison::{Arm, BASE};
use crate::report::evidence::{Certificate, Effect};
use crate::report::results::ArmInfo;
use crate::report::title;

/// The axis of a matrix that repeats an arm instead of making another one.
const SEED: &str = "seed";

/// The arms of a comparison, and who belongs to which.
pub struct Arms {
    /// The base first, the others as they come.
    pub arms: Vec<Arm>,
    /// By the name under which it was evaluated: the arm's name, and the seed where the arm has several.
    members: BTreeMap<String, (String, Option<u64>)>,
}

impl Arms {
    /// Brings together what the results say of their arms.
    pub fn of(params: &Params, all: &[Labelled]) -> Result<Self> {
        let known = distinct(all)?;
        let mut groups: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for info in &known {
            if let Some(seed) = seed(info) {
                groups.entry(without_seed(&info.name)).or_default().push(seed);
            }
        }
        groups.retain(|_, seeds| seeds.len() > 1);

        let mut arms: Vec<Arm> = Vec::new();
        let mut members = BTreeMap::new();
        for info in &known {
            let group = Some(without_seed(&info.name)).filter(|name| seed(info).is_some() && groups.contains_key(name));
            let name = group.clone().unwrap_or_else(|| info.name.clone());
            members.insert(info.name.clone(), (name.clone(), group.and_then(|_| seed(info))));
            match arms.iter_mut().find(|arm| arm.name == name) {
                Some(arm) => join(arm, info)?,
                None => {
                    let several = groups.contains_key(&name);
                    arms.push(arm(params, info, name, several));
                }
            }
        }
        for arm in &mut arms {
            arm.certificate = weakest(all, &members, &arm.name);
        }
        arms.sort_by_key(|arm| arm.name != BASE);
        title::tell_apart(&mut arms);
        Ok(Self { arms, members })
    }

    /// The arm that was evaluated under this name, and its seed where the arm has several.
    pub fn member<'a>(&'a self, evaluated: &'a str) -> (&'a str, Option<u64>) {
        self.members.get(evaluated).map_or((evaluated, None), |(name, seed)| (name.as_str(), *seed))
    }
}

/// What was evaluated under each name, in order; the same on every task.
fn distinct(all: &[Labelled]) -> Result<Vec<&ArmInfo>> {
    let mut known: Vec<&ArmInfo> = Vec::new();
    for one in all {
        let info = &one.result.metrics.arm;
        match known.iter().find(|other| other.name == info.name) {
            Some(other) if same(other, info) => {}
            Some(_) => {
                return Err(Problem::new(format!(
                    "the arm `{}` has other adapters here than on another task",
                    info.name
                ))
                .in_file(&one.label, None)
                .help("evaluate the same adapters on every task, or give the arms different names"));
            }
            None => known.push(info),
        }
    }
    Ok(known)
}

/// The certificate is not compared: each task has prompts of its own to try an adapter with.
fn same(a: &ArmInfo, b: &ArmInfo) -> bool {
    a.coordinates == b.coordinates
        && a.adapters == b.adapters
        && a.trainable_parameters == b.trainable_parameters
        && a.training == b.training
        && a.selection == b.selection
}

fn arm(params: &Params, info: &ArmInfo, name: String, several: bool) -> Arm {
    let mut coordinates = info.coordinates.clone();
    let mut seeds = Vec::new();
    if several {
        coordinates.remove(SEED);
        seeds.extend(seed(info));
    }
    Arm {
        title: title::title(&name, &info.adapters, &coordinates, &params.titles),
        name,
        coordinates,
        adapters: info.adapters.clone(),
        trainable_parameters: info.trainable_parameters,
        parameters_are_estimated: false,
        seeds,
        training: info.training.iter().cloned().collect(),
        selection: info.selection.clone(),
        certificate: None,
    }
}

/// Adds a further seed.
fn join(arm: &mut Arm, info: &ArmInfo) -> Result<()> {
    if arm.adapters != info.adapters || arm.trainable_parameters != info.trainable_parameters {
        return Err(Problem::new(format!("`{}` differs from its other seeds in more than the seed", info.name))
            .help("an axis called `seed` repeats an arm; let other axes change adapters"));
    }
    arm.seeds.extend(seed(info));
    arm.training.extend(info.training.iter().cloned());
    Ok(())
}

fn seed(info: &ArmInfo) -> Option<u64> {
    info.coordinates.get(SEED).and_then(Value::as_u64)
}

/// `lora[rank=4,seed=1]` → `lora[rank=4]`, `lora[seed=1]` → `lora`.
fn without_seed(name: &str) -> String {
    let Some((step, cell)) = name.strip_suffix(']').and_then(|name| name.split_once('[')) else {
        return name.to_owned();
    };
    let rest: Vec<&str> = cell.split(',').filter(|part| !part.starts_with("seed=")).collect();
    if rest.is_empty() { step.to_owned() } else { format!("{step}[{}]", rest.join(",")) }
}

/// The certificate of the arm that promises least, over tasks and seeds; the first of equal ones.
fn weakest(all: &[Labelled], members: &BTreeMap<String, (String, Option<u64>)>, arm: &str) -> Option<Certificate> {
    let of_arm =
        all.iter().filter(|one| members.get(&one.result.metrics.arm.name).is_some_and(|(name, _)| name == arm));
    let certificates = of_arm.filter_map(|one| one.result.metrics.arm.certificate.as_ref());
    certificates.min_by_key(|certificate| strength(certificate.state)).cloned()
}

fn strength(state: Effect) -> u8 {
    match state {
        Effect::NotLoaded => 0,
        Effect::Untrained => 1,
        Effect::Disabled => 2,
        Effect::NoEffect => 3,
        Effect::Active => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::without_seed;

    #[test]
    fn the_seed_leaves_the_name() {
        assert_eq!(without_seed("lora[rank=4,seed=1]"), "lora[rank=4]");
        assert_eq!(without_seed("lora[seed=1]"), "lora");
        assert_eq!(without_seed("lora[rank=4]"), "lora[rank=4]");
        assert_eq!(without_seed("base"), "base");
    }
}
