//! What the file formats cannot say, the side-car notices: another α, lost tensors, changed values, another base.
//! It does not know how adapters compute.

use std::fs;
use std::path::Path;

use pipe::ml::adapters::{Arm, Base};
use pipe::ml::weights::{fingerprint, read_file, write_file};
use serde_json::{Value, json};
use tch::Device;

use super::{IA3, LORA, MLP, on_every_model, trained};

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_changed_adapter_is_refused_and_without_side_car_nobody_would_know() {
    on_every_model(|model, _| {
        type Change = fn(&Path);
        let without_v: Change = |folder| {
            edit(&folder.join("adapter_config.json"), |c| c["target_modules"] = json!(["down_proj", "q_proj"]));
            let path = folder.join("adapter_model.safetensors");
            let mut tensors = read_file(&path, None, Device::Cpu).unwrap();
            tensors.retain(|name, _| !name.contains("v_proj"));
            write_file(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
        };
        let one_value: Change = |folder| {
            let path = folder.join("adapter_model.safetensors");
            let mut tensors = read_file(&path, None, Device::Cpu).unwrap();
            let (name, tensor) = tensors.pop_last().unwrap();
            tensors.insert(name, tensor * 1.001);
            write_file(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
        };
        let cases: [(&str, Change, &[&str]); 7] = [
            (
                LORA,
                |f| edit(&f.join("adapter_config.json"), |c| c["lora_alpha"] = json!(16)),
                &["scale", "down_proj", "5.33", "2.33"],
            ),
            (LORA, |f| edit(&f.join("adapter_config.json"), |c| c["use_rslora"] = json!(true)), &["scale"]),
            (LORA, without_v, &["v_proj", "is missing"]),
            (LORA, one_value, &["other values"]),
            (MLP, |f| edit(&f.join("adapter_config.json"), |c| c["config"]["scaling"] = json!(2.0)), &["scaling"]),
            (
                MLP,
                |f| edit(&f.join("adapter_config.json"), |c| c["config"]["non_linearity"] = json!("relu")),
                &["gelu"],
            ),
            (
                MLP,
                |f| edit(&f.join("adapter_config.json"), |c| c["config"]["original_ln_before"] = json!(false)),
                &["original_ln_before"],
            ),
        ];
        for (yaml, change, named) in cases {
            let folder = tempfile::tempdir().unwrap();
            trained(yaml, model).save(folder.path(), "base").unwrap();
            change(folder.path());
            let problem = Arm::load(folder.path(), model).err().expect("refused").to_string();
            assert!(problem.contains("pipe_adapter.json"), "{problem}");
            assert!(named.iter().all(|name| problem.contains(name)), "{problem}");
            fs::remove_file(folder.path().join("pipe_adapter.json")).unwrap();
            Arm::load(folder.path(), model).unwrap();
        }
    });
}

#[test]
fn what_changes_nothing_is_no_change() {
    on_every_model(|model, _| {
        let folder = tempfile::tempdir().unwrap();
        trained(LORA, model).save(folder.path(), "base").unwrap();
        edit(&folder.path().join("adapter_config.json"), |config| {
            config["base_model_name_or_path"] = json!("elsewhere");
            config["inference_mode"] = json!(true);
            config["lora_dropout"] = json!(0.25);
        });
        Arm::load(folder.path(), model).unwrap();
    });
}

#[test]
fn another_base_is_refused_however_it_is_split() {
    on_every_model(|model, base| {
        let print = fingerprint(base).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let named = Base { name: "base", fingerprint: Some(print.as_str()) };
        trained(IA3, model).save(folder.path(), named).unwrap();
        let arm = Arm::load(folder.path(), model).unwrap();
        arm.check_base(base).unwrap();

        // The same weights in two files.
        let other = tempfile::tempdir().unwrap();
        let tensors: Vec<_> =
            read_file(&base.join("model.safetensors"), None, Device::Cpu).unwrap().into_iter().collect();
        let (one, two) = tensors.split_at(tensors.len() / 2);
        write_file(&other.path().join("a.safetensors"), one).unwrap();
        write_file(&other.path().join("b.safetensors"), two).unwrap();
        let map: Value = [(one, "a.safetensors"), (two, "b.safetensors")]
            .into_iter()
            .flat_map(|(part, file)| part.iter().map(move |(name, _)| (name.clone(), json!(file))))
            .collect();
        fs::write(other.path().join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
        arm.check_base(other.path()).unwrap();

        // One number of it.
        let mut changed: Vec<_> = two.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        changed[0].1 = &changed[0].1 + 1e-3;
        write_file(&other.path().join("b.safetensors"), &changed).unwrap();
        let problem = arm.check_base(other.path()).unwrap_err().to_string();
        assert!(problem.contains("another base") && problem.contains(print.short()), "{problem}");
    });
}

#[test]
fn a_side_car_that_is_none_is_refused_by_line() {
    on_every_model(|model, _| {
        let folder = tempfile::tempdir().unwrap();
        trained(LORA, model).save(folder.path(), "base").unwrap();
        let path = folder.path().join("pipe_adapter.json");
        for (text, named) in [("{", "pipe_adapter.json:1"), ("{}", "format"), (r#"{"format": 1}"#, "expected a string")]
        {
            fs::write(&path, text).unwrap();
            let problem = Arm::load(folder.path(), model).err().expect("refused").to_string();
            assert!(problem.contains(named), "{problem}");
        }
    });
}
