//! Checkpoints and adapters that cannot be: each is refused, and the message names what is wrong.

use std::fs;
use std::path::Path;

use pipe::ml::adapters::Arm;
use pipe::ml::models::{Model, load};
use pipe::ml::weights::{Tensors, read_file, write_file};
use serde_json::{Value, json};
use tch::{Device, Kind};

use super::{IA3, LORA, MLP, REGEX, arms, checkpoint, configs, on_every_model, params, rng, trained};

/// The problem with a checkpoint after `spoil`.
fn spoilt(spoil: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&configs()[0], folder.path());
    spoil(folder.path());
    load(folder.path(), Device::Cpu, Kind::Float).err().expect("refused").to_string()
}

/// Writes the checkpoint's tensors again after a change.
fn rewritten(folder: &Path, change: impl Fn(&mut Tensors)) {
    let path = folder.join("model.safetensors");
    let mut tensors = read_file(&path, None, Device::Cpu).unwrap();
    change(&mut tensors);
    write_file(&path, &tensors.into_iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_file_that_is_not_whole_is_refused() {
    let spoil_bytes = |change: &dyn Fn(&mut Vec<u8>)| {
        spoilt(|folder| {
            let path = folder.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        })
    };
    type Change = &'static dyn Fn(&mut Vec<u8>);
    let changes: [Change; 5] = [
        &|bytes| bytes.truncate(bytes.len() - 1),
        &|bytes| bytes.truncate(100),
        &|bytes| bytes.clear(),
        // A header that claims more than there is, or more than there can be.
        &|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()),
        // Longer than its header says.
        &|bytes| bytes.push(0),
    ];
    for change in changes {
        let problem = spoil_bytes(change);
        assert!(problem.contains("model.safetensors"), "{problem}");
    }
    // A shape whose product overflows, one that does not fit its bytes, and one that no tensor can have.
    for (shape, bytes) in [("[4294967296,4294967296]", 4), ("[3]", 4), ("[0,9223372036854775809]", 0)] {
        let header = format!(r#"{{"model.norm.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; bytes]].concat();
        let problem = spoilt(|folder| fs::write(folder.join("model.safetensors"), &file).unwrap());
        assert!(problem.contains("model.safetensors"), "{problem}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_listed_on_both_sides() {
    let (old, new) = ("model.layers.1.mlp.up_proj.weight", "model.layers.9.mlp.up_proj.weight");
    let problem = spoilt(|folder| {
        rewritten(folder, |tensors| {
            let tensor = tensors.remove(old).unwrap();
            tensors.insert(new.to_owned(), tensor);
        });
    });
    assert!(problem.contains(&format!("missing: `{old}` [32, 24]")), "{problem}");
    assert!(problem.contains(&format!("without a place: `{new}` [32, 24]")), "{problem}");

    let problem = spoilt(|folder| {
        rewritten(folder, |tensors| {
            let tensor = tensors[old].transpose(0, 1).contiguous();
            tensors.insert(old.to_owned(), tensor);
        });
    });
    assert!(problem.contains(&format!("of another shape: `{old}` is [24, 32] instead of [32, 24]")), "{problem}");

    let problem = spoilt(|folder| {
        rewritten(folder, |tensors| {
            let tensor = tensors[old].to_kind(Kind::Int64);
            tensors.insert(old.to_owned(), tensor);
        });
    });
    assert!(problem.contains(old) && problem.contains("Int64"), "{problem}");
}

#[test]
fn shards_stay_in_their_folder_and_do_not_overlap() {
    let shards = |map: Value| {
        spoilt(|folder| {
            fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).unwrap();
            fs::copy(folder.join("a.safetensors"), folder.join("b.safetensors")).unwrap();
            fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
        })
    };
    for name in ["../a.safetensors", "/etc/passwd", "x/../../a.safetensors", "..\\a"] {
        let problem = shards(json!({ "model.norm.weight": name }));
        assert!(problem.contains("leads out of the folder"), "{problem}");
    }
    assert!(shards(json!({"x": "a.safetensors", "y": "b.safetensors"})).contains("in two shards"));
    assert!(shards(json!({"x": 1})).contains("shard name"));
    assert!(shards(json!({"x": "absent.safetensors"})).contains("absent.safetensors"));
    assert!(shards(json!({})).contains("missing: `lm_head.weight`"));
}

#[test]
fn pickles_are_refused_with_a_way_out() {
    let hint = "safetensors.torch.save_file";
    for name in ["pytorch_model.bin", "model.pt"] {
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&configs()[0], folder.path());
        fs::rename(folder.path().join("model.safetensors"), folder.path().join(name)).unwrap();
        let problem = load(folder.path(), Device::Cpu, Kind::Float).err().expect("refused");
        assert!(problem.to_string().contains(name) && format!("{problem:?}").contains(hint), "{problem:?}");
    }
    on_every_model(|model, _| {
        for (yaml, whole, pickled) in [
            (LORA, "adapter_model.safetensors", "adapter_model.bin"),
            (MLP, "adapter.safetensors", "pytorch_adapter.bin"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            trained(yaml, model).save(folder.path(), "base").unwrap();
            fs::rename(folder.path().join(whole), folder.path().join(pickled)).unwrap();
            let problem = Arm::load(folder.path(), model).err().expect("refused");
            assert!(problem.to_string().contains(pickled) && format!("{problem:?}").contains(hint), "{problem:?}");
        }
    });
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let config = |field: &str, value: i64| {
        let mut config = configs().remove(0);
        config[field] = Value::from(value);
        let folder = tempfile::tempdir().unwrap();
        checkpoint(&config, folder.path());
        load(folder.path(), Device::Cpu, Kind::Float).unwrap()
    };
    let (wide, shallow) = (config("hidden_size", 48), config("num_hidden_layers", 2));
    on_every_model(|model, _| {
        for yaml in arms() {
            let folder = tempfile::tempdir().unwrap();
            trained(&yaml, model).save(folder.path(), "base").unwrap();
            let refused = |other: &dyn Model| Arm::load(folder.path(), other).err().expect("refused").to_string();
            let problem = refused(wide.as_ref());
            assert!(problem.contains("of another shape") || problem.contains("width 24"), "{problem}");
            // What lies in layers that both have is told apart by the base's fingerprint alone.
            if yaml == REGEX {
                continue;
            }
            let problem = refused(shallow.as_ref());
            // A bottleneck's file names the layers that it leaves out, so the layer is in its tensors.
            assert!(problem.contains("layer 2") || problem.contains("layers.2"), "{problem}");
        }
        let params = params("lora: { layers: [3] }");
        let problem = Arm::init(&params, model, &mut rng()).err().expect("refused").to_string();
        assert!(problem.contains("layer 3"), "{problem}");
    });
}

#[test]
fn fields_of_adapters_that_cannot_be_are_refused_by_name() {
    on_every_model(|model, _| {
        let spoilt = |yaml: &str, pointer: &str, value: Value| {
            let folder = tempfile::tempdir().unwrap();
            trained(yaml, model).save(folder.path(), "base").unwrap();
            let path = folder.path().join("adapter_config.json");
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[field] = value;
            fs::write(&path, config.to_string()).unwrap();
            // The reader alone must notice.
            fs::remove_file(folder.path().join("pipe_adapter.json")).unwrap();
            Arm::load(folder.path(), model).err().unwrap_or_else(|| panic!("{pointer} was not refused")).to_string()
        };
        for (yaml, pointer, value, named) in [
            (LORA, "/lora_dropout", json!(2.0), "lora_dropout"),
            (LORA, "/r", json!(0), "`r`"),
            (LORA, "/r", json!(-4), "`r`"),
            (LORA, "/rank_pattern", json!({"q_proj": 0}), "rank_pattern"),
            (LORA, "/rank_pattern", json!({"q_proj": 2.5}), "rank_pattern"),
            (LORA, "/rank_pattern", json!({".*q_proj": 2}), "of another shape"),
            (LORA, "/rank_pattern", json!({"(?=q).*": 2}), "regular expression"),
            (LORA, "/alpha_pattern", json!({"q_proj": "much"}), "alpha_pattern"),
            // PEFT takes an empty list for none: all layers.
            (LORA, "/layers_to_transform", json!([]), "layers.0.self_attn.q_proj.lora_A"),
            (LORA, "/layers_to_transform", json!([3]), "layer 3"),
            (LORA, "/layers_pattern", json!("h"), "attaches to nothing"),
            (LORA, "/exclude_modules", json!(["v_proj"]), "without a place"),
            (LORA, "/target_modules", json!(".*(q|v)_proj"), "layers_to_transform"),
            (LORA, "/target_modules", json!(""), "target_modules"),
            (LORA, "/bias", json!("lora_only"), "bias"),
            (LORA, "/lora_bias", json!(true), "lora_bias"),
            (LORA, "/init_lora_weights", json!("pissa"), "init_lora_weights"),
            (LORA, "/task_type", json!("SEQ_CLS"), "task_type"),
            (LORA, "/peft_type", json!("ADALORA"), "ADALORA"),
            (IA3, "/feedforward_modules", json!([]), "of another shape"),
            (IA3, "/feedforward_modules", json!(null), "feedforward_modules"),
            (IA3, "/target_modules", json!(["v_proj", "down_proj"]), "without a place"),
            (LORA, "/target_modules", json!(["q_prj"]), "q_prj"),
            (LORA, "/use_dora", json!(true), "lora_magnitude_vector"),
            (LORA, "/modules_to_save", json!(["lm_head"]), "modules_to_save"),
            (MLP, "/config/dropout", json!(1.0), "dropout"),
            (MLP, "/config/reduction_factor", json!(0), "reduction_factor"),
            (MLP, "/config/reduction_factor", json!(1e-300), "of another shape"),
            (MLP, "/config/reduction_factor", json!({"0": 2}), "layer 2"),
            (MLP, "/config/non_linearity", json!("prelu"), "non_linearity"),
            (MLP, "/config/phm_layer", json!(true), "phm_layer"),
            (MLP, "/config/inv_adapter", json!("nice"), "inv_adapter"),
            (MLP, "/config/residual_before_ln", json!("post_add"), "residual_before_ln"),
            (MLP, "/config/scaling", json!("much"), "scaling"),
            (MLP, "/config/ln_before", json!(true), "adapter_norm_before.weight"),
            (MLP, "/config/mh_adapter", json!(true), "attention_adapters"),
            (MLP, "/config/architecture", json!("prefix_tuning"), "prefix_tuning"),
            (MLP, "/config", json!("seq_bn"), "`config`"),
            (MLP, "/config/use_gating", json!(true), "use_gating"),
            (MLP, "/config/leave_out", json!([0, 1, 2]), "attaches to nothing"),
            (MLP, "/config/leave_out", json!([7]), "layer 7"),
        ] {
            let problem = spoilt(yaml, pointer, value.clone());
            assert!(problem.contains(named), "{pointer} = {value}: {problem}");
        }
    });
}
