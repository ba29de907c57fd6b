//! Whether an adapter does anything: the certificate of `evaluate`, for every model and way of adapting, and five ways
//! to break an adapter, each of which is noticed. It does not know how adapters compute.

use std::fs;
use std::path::Path;

use pipe::ml::adapters::Arm;
use pipe::ml::models::Model;
use pipe::ml::probe::Probe;
use pipe::ml::weights::{Tensors, read_file, write_file};
use pipe::report::evidence::{Certificate, Effect};
use pipe::steps::evaluate::certificate::certify;
use serde_json::{Value, json};
use tch::Device;

use crate::ml_laws::{DORA, IA3, IA3_OUT, LORA, MLP, REGEX, fresh_arm, on_every_model, trained};

fn prompts() -> Vec<Vec<i64>> {
    (0..5).map(|i| (0..4 + i).map(|t| (i * 7 + t * 3) % 41).collect()).collect()
}

fn certificate(model: &dyn Model, arm: &Arm) -> Certificate {
    certify(model, arm, &Probe::of(model, &prompts())).unwrap_or_else(|e| panic!("{e}"))
}

/// What becomes of a good adapter that is changed in its folder: the state of its certificate, or why it is refused.
fn broken(model: &dyn Model, yaml: &str, change: impl FnOnce(&Path)) -> Result<Effect, String> {
    let folder = tempfile::tempdir().unwrap();
    trained(yaml, model).save(folder.path(), "base").unwrap();
    // The side-car would notice all of it: this is about adapters from elsewhere, too.
    fs::remove_file(folder.path().join("pipe_adapter.json")).unwrap();
    change(folder.path());
    let arm = Arm::load(folder.path(), model).map_err(|problem| problem.to_string())?;
    Ok(certificate(model, &arm).state)
}

fn tensors(folder: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = folder.join("adapter_model.safetensors");
    let mut tensors = read_file(&path, None, Device::Cpu).unwrap();
    change(&mut tensors);
    write_file(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
}

fn config(folder: &Path, field: &str, value: Value) {
    let path = folder.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn every_adapter_that_changes_something_is_active_and_every_new_one_untrained() {
    on_every_model(|model, _| {
        for yaml in [LORA, DORA, MLP, IA3, IA3_OUT, REGEX] {
            let active = certificate(model, &trained(yaml, model));
            assert_eq!(active.state, Effect::Active, "{yaml}: {}", active.reason);
            assert!(active.probe.expect("it was tried").max_logit_change > 0.0);
            assert!(!active.sites.is_empty() && active.tensors.placed > 0);
            if !yaml.starts_with("mlp") {
                let new = certificate(model, &fresh_arm(yaml, model));
                assert_eq!(new.state, Effect::Untrained, "{yaml}: {}", new.reason);
                assert!(new.sites.iter().all(|site| site.delta_norm.is_some_and(|norm| norm < 1e-5)), "{yaml}");
            }
        }
    });
}

#[test]
fn the_change_of_a_weight_is_that_of_its_definition() {
    on_every_model(|model, _| {
        let arm = trained(LORA, model);
        let parameters: Tensors = arm.parameters().into_iter().collect();
        for site in certificate(model, &arm).sites {
            let part = |part: &str| &parameters[&format!("base_model.model.{}.{part}.weight", site.name)];
            let change = part("lora_B").matmul(part("lora_A")) * (7.0 / 3.0);
            let norm = change.norm().double_value(&[]);
            assert!((site.delta_norm.expect("a projection") - norm).abs() < 1e-3 * norm, "{}", site.name);
            assert!(site.weight_norm.expect("a projection") > 0.0);
        }
    });
}

#[test]
fn five_ways_to_break_an_adapter_are_noticed() {
    on_every_model(|model, _| {
        let state = |change: &dyn Fn(&Path)| broken(model, LORA, change);
        assert_eq!(state(&|_| ()), Ok(Effect::Active), "the adapter itself is good");

        let zeroed = |folder: &Path| {
            tensors(folder, |all| {
                for (name, tensor) in all.iter_mut() {
                    if name.contains("lora_B") {
                        *tensor = tensor.zeros_like();
                    }
                }
            });
        };
        assert_eq!(state(&zeroed), Ok(Effect::Untrained));

        let prefix = |folder: &Path| {
            tensors(folder, |all| {
                *all = std::mem::take(all)
                    .into_iter()
                    .map(|(name, t)| (name.replace("base_model.", "base."), t))
                    .collect();
            });
        };
        let refused = state(&prefix).expect_err("a wrong prefix");
        assert!(refused.contains("not loaded"), "{refused}");

        let half = |folder: &Path| tensors(folder, |all| all.retain(|name, _| !name.contains("v_proj")));
        let refused = state(&half).expect_err("half of the targets");
        assert!(refused.contains("v_proj") && refused.contains("not loaded"), "{refused}");
        // Fewer targets in the configuration, too: PEFT drops the tensors without a word.
        let fewer = |folder: &Path| config(folder, "target_modules", json!(["q_proj", "down_proj"]));
        let refused = state(&fewer).expect_err("tensors without a place");
        assert!(refused.contains("v_proj") && refused.contains("not loaded"), "{refused}");

        let disabled = |folder: &Path| config(folder, "lora_alpha", json!(0));
        match state(&disabled) {
            Ok(state) => assert_eq!(state, Effect::Disabled),
            Err(refused) => assert!(refused.contains("alpha"), "{refused}"),
        }

        // A changed α computes something, but not what was trained: only what stands beside the adapter knows.
        let folder = tempfile::tempdir().unwrap();
        trained(LORA, model).save(folder.path(), "base").unwrap();
        config(folder.path(), "lora_alpha", json!(14));
        let refused = Arm::load(folder.path(), model).err().expect("another α").to_string();
        assert!(refused.contains("scale") && refused.contains("pipe_adapter.json"), "{refused}");
    });
}

#[test]
fn a_change_below_rounding_is_no_effect() {
    on_every_model(|model, _| {
        let tiny = |folder: &Path| {
            tensors(folder, |all| {
                for (name, tensor) in all.iter_mut() {
                    if name.contains("lora_B") {
                        *tensor = &*tensor * 1e-12;
                    }
                }
            });
        };
        assert_eq!(broken(model, LORA, tiny), Ok(Effect::NoEffect));
    });
}
