//! Tokenizers of every kind as the Python libraries read them, and what is refused.
//! It does not know tasks: prompts and answers are texts.

use std::fs;
use std::path::Path;

use pipe::task::encode::Encoder;
use serde_json::{Value, json};

use crate::support::repository;

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

/// What the Python library `sentencepiece` answers; `tests/sentencepiece/make.py` asked it.
#[test]
fn sentencepiece_models_divide_text_as_their_own_library_does() {
    let mut compared = 0;
    for entry in fs::read_dir(repository().join("tests/sentencepiece")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "model") {
            continue;
        }
        let encoder = Encoder::open(&path, "golden").unwrap_or_else(|p| panic!("{}: {p}", path.display()));
        for case in json_of(&path.with_extension("json")).as_array().expect("a list") {
            let ids = encoder.ids(case["text"].as_str().expect("a text")).expect("encoded");
            assert_eq!(json!(ids), case["ids"], "{}: {}", path.display(), case["text"]);
            assert_eq!(
                json!(encoder.text(&ids).expect("decoded")),
                case["decoded"],
                "{}: {}",
                path.display(),
                case["text"]
            );
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared} compared");
}
