//! Adapters on models whose projections have other names and layouts: one for queries, keys and values, stored as
//! [inputs, outputs] or head by head. It does not know how those models compute.

use pipe::ml::adapters::merge::{Merge, merge};
use pipe::ml::adapters::{Arm, Format};
use pipe::ml::device::Precision;
use pipe::ml::models::load;
use serde_json::{Value, json};
use tch::{Device, Kind};

use super::{checkpoint, params, plain, rng, trained};

/// Configurations, and the names of their stacked projection and of the one out of the feed-forward block.
pub(super) fn families() -> [(Value, &'static str, &'static str); 2] {
    let gpt2 =
        json!({"model_type": "gpt2", "vocab_size": 41, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64});
    let neox = json!({"model_type": "gpt_neox", "vocab_size": 41, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 4});
    [(gpt2, "c_attn", "mlp.c_proj"), (neox, "query_key_value", "dense_4h_to_h")]
}

#[test]
fn every_way_of_adapting_fits_projections_of_every_layout() {
    for (config, stacked, down) in families() {
        let base = tempfile::tempdir().unwrap();
        checkpoint(&config, base.path());
        let model = load(base.path(), Device::Cpu, Kind::Float).unwrap();
        let model = model.as_ref();
        let name = config["model_type"].as_str().unwrap();
        let bare = plain(model, &Arm::none());
        for (yaml, linear, identity) in [
            (format!("lora: {{ rank: 3, alpha: 7, target_modules: [{stacked}, {down}] }}"), true, true),
            (format!("lora: {{ rank: 2, alpha: 5, use_dora: true, target_modules: [{stacked}, {down}] }}"), true, true),
            ("lora: { rank: 1, alpha: 2, target_modules: all-linear, layers: [1] }".to_owned(), true, true),
            (format!("ia3: {{ target_modules: [{stacked}, {down}], feedforward_modules: [{down}] }}"), true, true),
            (
                format!("ia3: {{ target_modules: [{stacked}, {down}], feedforward_modules: [], layers: [0] }}"),
                true,
                true,
            ),
            ("mlp: { config: double_seq_bn, hidden_size: 3 }".to_owned(), false, false),
            ("mlp: { config: par_bn, hidden_size: 3, layers: [1] }".to_owned(), false, true),
        ] {
            let fresh = Arm::init(&params(&yaml), model, &mut rng()).unwrap();
            assert_eq!(plain(model, &fresh).equal(&bare), identity, "{name} {yaml}");
            let arm = trained(&yaml, model);
            let right = plain(model, &arm);
            assert!(!right.equal(&bare), "{name} {yaml}");

            let folder = tempfile::tempdir().unwrap();
            arm.save(folder.path(), "base").unwrap();
            let again = Arm::load(folder.path(), model).unwrap_or_else(|e| panic!("{name} {yaml}: {e}"));
            assert!(plain(model, &again).equal(&right), "{name} {yaml}");
            assert_eq!(again.describe(), arm.describe());

            let into = tempfile::tempdir().unwrap();
            let probes = [vec![1, 5, 9, 40, 0, 7]];
            let what = Merge {
                adapter: folder.path(),
                base: base.path(),
                output: into.path(),
                dtype: None,
                probes: &probes,
                device: Device::Cpu,
            };
            let merged = merge(&what, &mut |_| Ok(()));
            assert_eq!(merged.is_ok(), linear, "{name} {yaml}");
            if let Ok(certificate) = merged {
                let f32 = certificate.changes.iter().find(|change| change.dtype == Precision::F32).unwrap();
                assert!(f32.lost() < 1e-4 && f32.flips == 0, "{name} {yaml}: {f32:?}");
            }
        }
        // AdapterHub's LoRA has no such projections: nothing is written under names that it does not know.
        let arm = trained(&format!("lora: {{ target_modules: [{stacked}] }}"), model);
        let folder = tempfile::tempdir().unwrap();
        let problem = arm.save_as(Format::AdapterHub, folder.path(), "base").unwrap_err().to_string();
        assert!(problem.contains(stacked), "{problem}");
    }
}
