//! The generated data: formats, balance, no leaks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pipe::step::{Context, Frame, Machine};
use serde_json::json;

fn generate(out: &Path, with: serde_json::Value) {
    let step = pipe::steps::find("generate").expect("a step kind").parse(&with).map_err(|p| format!("{p:?}")).unwrap();
    let machine = Machine { device: "cpu".into(), cores: 1, bf16: false };
    let mut cx = Context::new(Frame {
        step: "data".into(),
        inputs: Default::default(),
        out: out.into(),
        root: out.into(),
        machine,
        threads: 1,
        cancel: Arc::new(AtomicBool::new(false)),
        sink: Box::new(|said| eprintln!("{said:?}")),
    });
    step.run(&mut cx).unwrap();
}

#[test]
fn writes_everything_quickly() {
    let folder = std::env::var_os("PIPE_KEEP").map_or_else(|| tempfile::tempdir().unwrap().keep(), Into::into);
    generate(&folder, json!({"seed": 1}));
    assert!(folder.join("terra_val.jsonl").exists());
}
