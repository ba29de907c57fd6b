//! Text to ids on all cores: generated prose, a tokenizer that our own step trains on it, and the time to encode it.
//! It does not know models.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pipe::corpus::prose;
use pipe::digest::Digest;
use pipe::error::{Problem, Result};
use pipe::step::{Artifact, Context, Frame, Machine, stream};
use pipe::steps;
use pipe::task::encode::Encoder;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::usage;
use crate::work::Options;

/// Bytes of prose.
const BYTES: usize = 8 << 20;
/// The tokenizer that is trained where none is given has the vocabulary of shape T.
const VOCABULARY: u64 = 8192;

/// Writes `prose.txt` and `tokenizer/`.
pub fn make(folder: &Path) -> Result<()> {
    let text = prose::text(&mut stream(6, "prose"), BYTES, &BTreeSet::new());
    let path = folder.join("prose.txt");
    fs::write(&path, &text).map_err(|e| Problem::io("write", &path, &e))?;
    let kind = steps::find("tokenizer").ok_or_else(|| Problem::new("there is no step kind `tokenizer`"))?;
    let step = kind.parse(&json!({"vocab_size": VOCABULARY})).map_err(|mut problems| problems.remove(0))?;
    let artifact = Artifact {
        name: "prose".to_owned(),
        coordinates: BTreeMap::new(),
        listed: false,
        origin: None,
        path,
        digest: Digest::of(text.as_bytes()),
    };
    let machine = Machine::plain("cpu", 1);
    let mut cx = Context::new(Frame {
        step: "tokenizer".to_owned(),
        inputs: BTreeMap::from([("text".to_owned(), vec![artifact])]),
        out: folder.to_owned(),
        root: folder.to_owned(),
        machine,
        threads: 1,
        cancel: Arc::default(),
        sink: Box::new(|_| {}),
    });
    step.run(&mut cx)
}

/// Encodes every line of a text, as `pretrain` does, on all cores: once to warm up, then the fastest of five.
pub fn tokenize(folder: &Path, options: &Options) -> Result<Value> {
    let named = |name: &str, own: &str| options.0.get(name).map_or_else(|| folder.join(own), PathBuf::from);
    let path = named("text", "prose.txt");
    let text = fs::read_to_string(&path).map_err(|e| Problem::io("read", &path, &e))?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let encoder = Encoder::open(&named("tokenizer", "tokenizer"), "the tokenizer")?;
    let (mut best, mut cpu, mut ids) = (f64::INFINITY, 0.0, 0);
    for _ in 0..6 {
        let (begun, used) = (Instant::now(), usage::cpu_seconds());
        let encoded: Vec<Vec<u32>> = lines.par_iter().map(|line| encoder.ids(line)).collect::<Result<_>>()?;
        let seconds = begun.elapsed().as_secs_f64();
        if seconds < best {
            (best, cpu) = (seconds, usage::cpu_seconds() - used);
        }
        ids = encoded.iter().map(Vec::len).sum();
    }
    Ok(json!({
        "tokens_per_second": ids as f64 / best,
        "bytes_per_second": text.len() as f64 / best,
        "seconds": best,
        "cpu_seconds": cpu,
        "peak_mib": usage::peak_mib(),
        "losses": [ids],
    }))
}
