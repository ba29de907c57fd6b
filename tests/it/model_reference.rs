//! Every architecture computes the logits of transformers, on tiny models whose weights follow from a formula.
//! It does not know how the figures were made: `tests/reference/models.py` says it.

use std::fs;

use pipe::ml::adapters::Arm;
use pipe::ml::config::{ModelConfig, NormKind};
use pipe::ml::models::{Input, MODELS, load, tensors};
use pipe::ml::shapes::Shapes;
use pipe::ml::weights::write_file;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::support::repository;

/// `weights` of models.py.
fn weights(shapes: &Shapes, one: f64) -> Vec<(String, Tensor)> {
    let make = |(j, (name, shape)): (usize, (&String, &Vec<i64>))| {
        let noise = |i: i64| {
            let x = (12.9898 * i as f64 + 78.233 * j as f64).sin() * 43758.5453;
            x - x.floor() - 0.5
        };
        let noise: Vec<f64> = (0..shape.iter().product()).map(noise).collect();
        let noise = Tensor::from_slice(&noise);
        let values =
            if shape.len() > 1 { noise * 0.8 } else { noise * 0.4 + if name.ends_with(".bias") { 0.0 } else { one } };
        (name.clone(), values.to_kind(Kind::Float).view(shape.as_slice()))
    };
    shapes.iter().enumerate().map(make).collect()
}

#[test]
fn every_architecture_computes_the_logits_of_transformers() {
    let text = fs::read(repository().join("tests/reference/models.json")).unwrap();
    let all: Value = serde_json::from_slice(&text).unwrap();
    let rows = |value: &Value| -> Vec<Vec<f64>> { serde_json::from_value(value.clone()).unwrap() };
    let ids: Vec<i64> = rows(&all["ids"]).concat().into_iter().map(|id| id as i64).collect();
    let ids = Tensor::from_slice(&ids).view([2, -1]);
    let mut seen = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let config = ModelConfig::from_value(&case["config"]).unwrap_or_else(|e| panic!("{}: {e}", case["config"]));
        let one = if config.norm.kind == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), case["config"].to_string()).unwrap();
        write_file(&folder.path().join("model.safetensors"), &weights(&tensors::shapes(&config), one)).unwrap();
        let model = load(folder.path(), Device::Cpu, Kind::Float).unwrap_or_else(|e| panic!("{e}"));
        let input = Input::of(&ids);
        let logits = tch::no_grad(|| model.logits(&model.hidden(&input, &Arm::none(), None)).select(1, -1));
        for (b, right) in rows(&case["logits"]).into_iter().enumerate() {
            let ours = Vec::<f64>::try_from(logits.get(b as i64).to_kind(Kind::Double)).unwrap();
            assert_eq!(ours.len(), right.len());
            for (ours, right) in ours.iter().zip(right) {
                let close = (ours - right).abs() <= 2e-4 + 1e-4 * right.abs();
                assert!(close, "{}: {ours}, but {right} is right", case["config"]);
            }
        }
        seen.push(config.model_type);
    }
    for model in MODELS {
        assert!(seen.contains(&model.name), "{} has no reference", model.name);
    }
}
