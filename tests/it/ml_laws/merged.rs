//! Merged weights compute what the adapter on its base computes, and the certificate says how nearly.
//! It does not know any way of adapting beyond its name.

use std::fs;
use std::path::Path;

use pipe::ml::adapters::Arm;
use pipe::ml::adapters::merge::{Certificate, Limits, Merge, merge};
use pipe::ml::device::Precision;
use pipe::ml::models::{Model, load};
use pipe::ml::weights::read_file;
use serde_json::Value;
use tch::{Device, Kind};

use super::{DORA, IA3, IA3_OUT, LORA, MLP, PATTERNS, REGEX, far, on_every_model, plain, trained};

const STRICT: Limits = Limits { lost: 1e-4, flipped: 0.0 };

fn merged(
    yaml: &str,
    model: &dyn Model,
    base: &Path,
    dtype: Option<Precision>,
    into: &Path,
) -> pipe::error::Result<Certificate> {
    let adapter = tempfile::tempdir().unwrap();
    trained(yaml, model).save(adapter.path(), "base").unwrap();
    let probes = [vec![1, 5, 9, 40, 0, 7], vec![3, 3, 2, 11, 12, 13]];
    let what = Merge { adapter: adapter.path(), base, output: into, dtype, probes: &probes, device: Device::Cpu };
    merge(&what, &mut |_| Ok(()))
}

#[test]
fn what_is_merged_is_what_was_wrapped() {
    on_every_model(|model, base| {
        fs::write(base.join("tokenizer.json"), "{}").unwrap();
        for (yaml, projections) in [(LORA, 6), (DORA, 6), (PATTERNS, 21), (IA3, 9), (IA3_OUT, 6), (REGEX, 2)] {
            let folder = tempfile::tempdir().unwrap();
            let certificate = merged(yaml, model, base, None, folder.path()).unwrap();
            assert_eq!((certificate.stored, certificate.projections), (Precision::F32, projections), "{yaml}");
            certificate.judge(STRICT).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert!(certificate.changes.iter().all(|change| change.positions == 12 && change.effect > 1e-3));
            let again = load(folder.path(), Device::Cpu, Kind::Float).unwrap();
            let (right, ours) = (plain(model, &trained(yaml, model)), plain(again.as_ref(), &Arm::none()));
            assert!(far(&ours, &right) <= 1e-4 * right.abs().max().double_value(&[]).max(1.0), "{yaml}");
            assert_eq!(fs::read_to_string(folder.path().join("tokenizer.json")).unwrap(), "{}");
            let record: Value =
                serde_json::from_slice(&fs::read(folder.path().join("pipe_merge.json")).unwrap()).unwrap();
            assert_eq!(record["changes"].as_array().map(Vec::len), Some(2));
        }
    });
}

#[test]
fn narrow_weights_lose_what_a_weak_adapter_adds_and_wide_ones_keep_it() {
    on_every_model(|model, base| {
        let weak = LORA.replace("alpha: 7", "alpha: 0.001");
        let narrow = tempfile::tempdir().unwrap();
        let certificate = merged(&weak, model, base, Some(Precision::Bf16), narrow.path()).unwrap();
        assert_eq!(certificate.stored, Precision::Bf16);
        let tensors = read_file(&narrow.path().join("model.safetensors"), None, Device::Cpu).unwrap();
        assert!(tensors.values().all(|tensor| tensor.kind() == Kind::BFloat16));
        let problem = certificate.judge(Limits { lost: 0.1, flipped: 1.0 }).unwrap_err().to_string();
        assert!(problem.contains("in bf16 the merge loses") && problem.contains("--dtype f32"), "{problem}");

        let wide = tempfile::tempdir().unwrap();
        let certificate = merged(&weak, model, base, Some(Precision::F32), wide.path()).unwrap();
        certificate.judge(Limits { lost: 0.1, flipped: 0.0 }).unwrap();
    });
}

#[test]
fn a_bottleneck_is_not_merged() {
    on_every_model(|model, base| {
        for yaml in [MLP.to_owned(), format!("{LORA}\n{MLP}")] {
            let folder = tempfile::tempdir().unwrap();
            let problem = merged(&yaml, model, base, None, folder.path()).unwrap_err().to_string();
            assert!(problem.contains("not linear"), "{problem}");
            assert!(trained(&yaml, model).mergeable().is_err());
        }
    });
}
