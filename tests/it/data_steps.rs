//! The steps that bring data in and prepare it, each run on its own as the engine runs it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use pipe::digest::{Digest, files_below};
use pipe::error::Problem;
use pipe::event::Say;
use pipe::ml::tokens::Tokens;
use pipe::step::{Artifact, Context, Frame, Machine};
use pipe::task::encode::Encoder;
use serde_json::{Value, json};

use crate::support;

/// What a step left.
pub struct Ran {
    pub out: tempfile::TempDir,
    pub figures: BTreeMap<String, f64>,
    pub said: Vec<String>,
}

impl Ran {
    pub fn path(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    pub fn artifact(&self, name: &str, step: &str) -> Artifact {
        artifact(&self.path(name), step)
    }

    pub fn digest(&self) -> Digest {
        Digest::of_folder(self.out.path()).expect("outputs can be read")
    }
}

pub fn artifact(path: &Path, step: &str) -> Artifact {
    Artifact {
        listed: false,
        name: step.to_owned(),
        coordinates: BTreeMap::new(),
        origin: None,
        path: path.to_owned(),
        digest: Digest::of_path(path).expect("an artifact can be read"),
    }
}

/// Runs a step kind by its name.
pub fn run(kind: &str, with: Value, inputs: Vec<(&str, Vec<Artifact>)>, root: &Path) -> Result<Ran, Vec<Problem>> {
    let kind = pipe::steps::find(kind).expect("a known kind");
    let step = kind.parse(&with)?;
    within(inputs, root, |cx| step.run(cx)).map_err(|problem| vec![problem])
}

/// Does something within the context of a step.
pub fn within(
    inputs: Vec<(&str, Vec<Artifact>)>,
    root: &Path,
    work: impl FnOnce(&mut Context) -> pipe::error::Result<()>,
) -> pipe::error::Result<Ran> {
    let out = tempfile::tempdir().expect("a folder");
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let mut cx = Context::new(Frame {
        step: "here".to_owned(),
        inputs: inputs.into_iter().map(|(port, artifacts)| (port.to_owned(), artifacts)).collect(),
        out: out.path().to_owned(),
        root: root.to_owned(),
        machine: Machine::plain("cpu", 2),
        threads: 1,
        cancel: Arc::new(AtomicBool::new(false)),
        sink: Box::new(move |say| {
            if let Say::Note { text } | Say::Warning { text } = say {
                heard.lock().expect("not poisoned").push(text);
            }
        }),
    });
    work(&mut cx)?;
    let said = said.lock().expect("not poisoned").clone();
    Ok(Ran { out, figures: cx.figures().clone(), said })
}

pub fn told(result: Result<Ran, Vec<Problem>>) -> String {
    match result {
        Ok(_) => "no problem".to_owned(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

pub fn project(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, bytes).expect("written");
    }
    root
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).expect("begun");
        writer.write_all(bytes).expect("packed");
    }
    writer.finish().expect("packed").into_inner()
}

#[test]
fn download_copies_files_and_folders() {
    let root = project(&[("data/a.txt", b"A"), ("data/sub/b.txt", b"B")]);
    for source in ["data/a.txt", "file:data/a.txt"] {
        let ran = run("download", json!({ "source": source }), vec![], root.path()).expect("copied");
        assert_eq!(fs::read(ran.path("file")).expect("read"), b"A", "{source}");
    }
    let whole = format!("file://{}", root.path().join("data").display());
    let ran = run("download", json!({ "source": whole }), vec![], Path::new("/")).expect("copied");
    assert_eq!(files_below(&ran.path("file")).expect("listed"), ["a.txt", "sub/b.txt"]);
}

#[test]
fn download_unpacks_by_content() {
    let two = zip(&[("TERRa/val.jsonl", b"val"), ("TERRa/train.jsonl", b"train")]);
    let joined = [gzip(b"one "), gzip(b"two")].concat();
    let root = project(&[("x.gz", &joined), ("one", &zip(&[("val.jsonl", b"only")])), ("two.zip", &two)]);
    for (with, content) in [
        (json!({ "source": "x.gz" }), "one two"),
        (json!({ "source": "one" }), "only"),
        (json!({ "source": "two.zip", "entry": "TERRa/val.jsonl" }), "val"),
    ] {
        let ran = run("download", with.clone(), vec![], root.path()).expect("unpacked");
        assert_eq!(fs::read_to_string(ran.path("file")).expect("read"), content, "{with}");
    }
    let ran = run("download", json!({ "source": "two.zip", "unpack": false }), vec![], root.path()).expect("copied");
    assert_eq!(fs::read(ran.path("file")).expect("read"), two);
}

#[test]
fn download_tells_what_is_wrong() {
    let bomb = gzip(&vec![0; 1 << 20]);
    let two = zip(&[("a/val.jsonl", b"val"), ("../evil", b"x")]);
    let cut = &gzip("много текста, и разного".as_bytes())[..20];
    let root = project(&[
        ("a.txt", b"A"),
        ("bomb.gz", &bomb),
        ("two.zip", &two),
        ("cut.gz", cut),
        ("bad.zip", b"PK\x03\x04nonsense"),
    ]);
    let looked = root.path().join("data/nerus.conllu").display().to_string();
    let blake3 = Digest::of(b"A").to_string();
    for (with, expected) in [
        (json!({ "source": "data/nerus.conllu" }), format!("source: data/nerus.conllu does not exist\nhelp: it was looked for at {looked}")),
        (json!({ "source": "s3://x/y" }), "source: sources of the kind `s3://` cannot be fetched".to_owned()),
        (json!({ "source": "hf://x/y" }), "source: hf://x/y: it is not in the Hugging Face cache, and nothing may be fetched".to_owned()),
        (json!({ "source": "hf://y" }), "source: `hf://y`: the name has no owner (expected `hf://owner/name`".to_owned()),
        (json!({ "source": "hf://x/y", "entry": "z" }), "entry: a repository is no archive".to_owned()),
        (json!({ "source": "hf://x/y", "pin": format!("sha256:{}", "0".repeat(64)) }), "pin: a repository has no sha256".to_owned()),
        (json!({ "source": "http://example.org/y" }), "source: over `http://` anybody on the way can change the file".to_owned()),
        (json!({ "source": "https://user:word@example.org/y" }), "source: the address has a name or a password in it".to_owned()),
        (json!({ "source": "a.txt", "pin": "md5:1" }), "pin: `md5:1` is not a pin (expected `blake3:` or `sha256:`".to_owned()),
        (json!({ "source": "a.txt", "pin": format!("sha256:{}", "0".repeat(64)) }), "pin: a.txt is not what is pinned: its sha256 is 559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd".to_owned()),
        (json!({ "source": "a.txt", "pin": format!("blake3:{}", "0".repeat(64)) }), format!("pin: a.txt is not what is pinned: its blake3 is {blake3}")),
        (json!({ "source": ".", "pin": format!("sha256:{}", "0".repeat(64)) }), "pin: . is a folder, and a folder has no sha256".to_owned()),
        (json!({ "source": "a.txt", "entry": "x" }), "entry: a.txt is not a zip archive".to_owned()),
        (json!({ "source": "two.zip" }), "entry: two.zip has 2 files, and `entry` does not say which\nhelp: the archive has `../evil`, `a/val.jsonl`".to_owned()),
        (json!({ "source": "two.zip", "entry": "val.jsonl" }), "entry: two.zip has no entry `val.jsonl`\nhelp: the archive has `../evil`, `a/val.jsonl`".to_owned()),
        (json!({ "source": "two.zip", "entry": "../evil" }), "entry: the name of the entry leads outside of two.zip".to_owned()),
        (json!({ "source": "bomb.gz", "max_bytes": 1000 }), "max_bytes: more than 1000 bytes come out of the source".to_owned()),
        (json!({ "source": "cut.gz" }), "the gzip file cut.gz cannot be unpacked".to_owned()),
        (json!({ "source": "bad.zip" }), "the zip archive bad.zip cannot be unpacked".to_owned()),
    ] {
        let told = told(run("download", with.clone(), vec![], root.path()));
        assert!(told.starts_with(&expected), "{with}\n{told}");
    }
    let right = json!({ "source": "a.txt", "pin": format!("blake3:{blake3}") });
    assert_eq!(told(run("download", right, vec![], root.path())), "no problem");
}

#[test]
fn the_place_of_a_source_is_not_in_the_key() {
    let kind = pipe::steps::find("download").expect("known");
    let step = |source: &str| kind.parse(&json!({ "source": source })).expect("right");
    assert_eq!(step("a/x").keyed(), step("/b/y").keyed());
    assert_eq!(step("a/x").origin().as_deref(), Some("a/x"));
    assert_eq!(step("a/x").sources(Path::new("/root"))[0].path, Path::new("/root/a/x"));
}

fn document(id: usize, text: &str) -> String {
    format!("# newdoc id = {id}\n# sent_id = {id}_0\n# text = {text}\n1\t{text}\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n")
}

#[test]
fn split_parts_by_document_and_holds_out_by_content() {
    let long = |i: usize| format!("Предложение_номер_{i}_достаточной_длины_чтобы_узнать_документ");
    let all: String = (0..300).map(|i| document(i, &long(i))).collect();
    let first: String = (0..5).map(|i| document(900 + i, &long(i))).collect();
    let root = project(&[("all", all.as_bytes()), ("first", first.as_bytes())]);
    let of = |path: &str| vec![artifact(&root.path().join(path), path)];
    let ran =
        run("split", json!({}), vec![("data", of("all")), ("hold_out", of("first"))], root.path()).expect("parted");

    let ids = |part: &str| -> Vec<usize> {
        let text = fs::read_to_string(ran.path(&format!("{part}.conllu"))).expect("read");
        text.lines()
            .filter_map(|line| line.strip_prefix("# newdoc id = "))
            .map(|id| id.parse().expect("a number"))
            .collect()
    };
    let (train, dev, test) = (ids("train"), ids("dev"), ids("test"));
    let mut together = [train.clone(), dev.clone(), test.clone()].concat();
    together.sort_unstable();
    assert_eq!(together, (5..300).collect::<Vec<_>>(), "every document once, those held out never");
    assert!((15..50).contains(&dev.len()) && (15..50).contains(&test.len()), "{} {}", dev.len(), test.len());
    assert_eq!(ran.figures["test.documents"], test.len() as f64);

    // A document keeps its part when others go.
    let fewer: String = (100..300).map(|i| document(i, &long(i))).collect();
    fs::write(root.path().join("fewer"), format!("# generator = pipe\n{fewer}")).expect("written");
    let again = run("split", json!({}), vec![("data", of("fewer"))], root.path()).expect("parted");
    let text = fs::read_to_string(again.path("test.conllu")).expect("read");
    assert!(text.starts_with("# generator = pipe\n# newdoc"), "the mark is kept");
    let kept: Vec<usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# newdoc id = "))
        .map(|id| id.parse().expect("a number"))
        .collect();
    assert_eq!(kept, test.into_iter().filter(|id| *id >= 100).collect::<Vec<_>>());

    let other = run("split", json!({ "seed": 7 }), vec![("data", of("all"))], root.path()).expect("parted");
    assert_ne!(other.digest(), ran.digest());
}

#[test]
fn split_refuses_shares_that_leave_a_part_empty() {
    let root = project(&[("two", (document(0, "а") + &document(1, "б")).as_bytes())]);
    let data = vec![("data", vec![artifact(&root.path().join("two"), "corpus")])];
    let problem = told(run("split", json!({ "dev": 0.01, "test": 0.01 }), data, root.path()));
    assert!(problem.starts_with("no document of the output of step `corpus` falls to `dev`"), "{problem}");
    assert!(
        told(run("split", json!({ "dev": 0.5, "test": 0.5 }), vec![], root.path()))
            .starts_with("test: dev 0.5 and test 0.5")
    );
}

/// Text of many words of equal counts, so that merges have ties.
fn text() -> String {
    let syllables = ["ма", "ра", "ко", "ли", "та", "сне", "го", "вда"];
    let words =
        (0..4000_usize).map(|i| format!("{}{}{}", syllables[i % 8], syllables[i / 8 % 8], syllables[i / 64 % 8]));
    words.collect::<Vec<_>>().chunks(10).map(|line| line.join(" ") + ".\n").collect()
}

#[test]
fn a_tokenizer_is_the_same_however_often_it_is_trained() {
    let root = project(&[("text", text().as_bytes())]);
    let train = || {
        let inputs = vec![("text", vec![artifact(&root.path().join("text"), "text")])];
        run("tokenizer", json!({ "vocab_size": 500 }), inputs, root.path()).expect("trained")
    };
    let first = train();
    for _ in 0..4 {
        assert_eq!(train().digest(), first.digest());
    }
    assert_eq!(first.figures["vocab_size"], 500.0);
}

#[test]
fn a_trained_tokenizer_keeps_every_text_and_makes_no_special_tokens_of_it() {
    let root = project(&[("text", text().as_bytes())]);
    let inputs = vec![("text", vec![artifact(&root.path().join("text"), "text")])];
    let ran = run("tokenizer", json!({ "vocab_size": 400 }), inputs, root.path()).expect("trained");
    let encoder = Encoder::open(&ran.path("tokenizer"), "t").expect("loads");
    assert_eq!((encoder.prefix(), encoder.eos(), encoder.size()), ([1].as_slice(), [2].as_slice(), 400));
    for text in ["марако лита", " «Ёлка» — 東京 \u{1F600}\n\n  x", "<eos><pad> <bos>"] {
        let ids = encoder.ids(text).expect("encoded");
        assert!(ids.iter().all(|id| *id > 2), "{text}: {ids:?}");
        assert_eq!(encoder.text(&ids).expect("decoded"), text);
    }
    // White space at the end of a prompt belongs to the answer; both together are the whole.
    let apart = encoder.pair("Ответ:", " да").expect("encoded");
    assert_eq!(apart, encoder.pair("Ответ: ", "да").expect("encoded"));
    assert_eq!(encoder.text(&apart.answer).expect("decoded"), " да");
    assert_eq!(apart.context, encoder.prompt("Ответ: ").expect("encoded"));
}

#[test]
fn a_ready_tokenizer_is_taken_as_it_is() {
    let Some(data) = support::data() else { return };
    let file = data.join("tokenizers/rubert-tiny2-tokenizer.json");
    let root = project(&[("broken", b"{\"model\": 1}")]);
    let ready = |path: &Path| vec![("ready", vec![artifact(path, "ready")])];
    let problem = told(run("tokenizer", json!({}), ready(&root.path().join("broken")), root.path()));
    assert!(problem.starts_with("the tokenizer of the output of step `ready` cannot be read"), "{problem}");
    // A real one, but of a model that does not generate: nothing ends a text.
    let problem = told(run("tokenizer", json!({}), ready(&file), root.path()));
    assert!(problem.contains("has no token that ends a text"), "{problem}");
    let problem = told(run("tokenizer", json!({}), vec![], root.path()));
    assert!(problem.starts_with("the tokenizer has nothing to learn from"), "{problem}");

    let inputs = vec![("text", vec![artifact(&data.join("terra/val.jsonl"), "val")])];
    let trained = run("tokenizer", json!({ "vocab_size": 300 }), inputs, root.path()).expect("trained");
    let taken = run("tokenizer", json!({}), ready(&trained.path("tokenizer")), root.path()).expect("taken");
    assert_eq!(taken.digest(), trained.digest());
}

/// A small trained tokenizer.
pub fn tokenizer(root: &Path) -> Ran {
    let path = root.join("text for the tokenizer");
    fs::write(&path, text()).expect("written");
    run("tokenizer", json!({ "vocab_size": 400 }), vec![("text", vec![artifact(&path, "text")])], root)
        .expect("trained")
}

fn terra_rows(n: usize) -> String {
    let row = |i: usize| {
        let label = ["entailment", "not_entailment"][i % 2];
        format!("{{\"premise\": \"марако {i}\", \"hypothesis\": \"лита\", \"label\": \"{label}\", \"idx\": {i}}}\n")
    };
    (0..n).map(row).collect()
}

#[test]
fn rows_begin_with_bos_and_have_loss_on_their_answers_and_eos() {
    let root = project(&[("terra", terra_rows(5000).as_bytes())]);
    let trained = tokenizer(root.path());
    let inputs = || {
        vec![
            ("data", vec![artifact(&root.path().join("terra"), "terra")]),
            ("tokenizer", vec![trained.artifact("tokenizer", "tokenizer")]),
        ]
    };
    let with =
        json!({ "task": "terra", "prompt": "{{ premise }}\n{{ hypothesis }}? ", "answers": { "entailment": "да" } });
    let ran = run("tokenize", with.clone(), inputs(), root.path()).expect("written");
    let tokens = Tokens::read(&ran.path("tokens")).expect("reads back");
    let encoder = Encoder::open(&trained.path("tokenizer"), "t").expect("loads");
    assert_eq!(tokens.rows(), 5000);
    for (row, answer) in [(0, " да"), (1, "  нет"), (4096, " да"), (4999, "  нет")] {
        let ids: Vec<u32> = tokens.row(row).iter().map(|id| u32::try_from(*id).expect("not negative")).collect();
        let (prompt, said) = ids.split_at(tokens.target(row));
        assert_eq!((prompt[0], said.last()), (1, Some(&2)));
        assert_eq!(encoder.text(prompt).expect("decoded"), format!("марако {row}\nлита?"));
        assert_eq!(encoder.text(said).expect("decoded"), answer, "white space of the prompt goes to the answer");
    }
    assert_eq!(ran.figures["dropped"], 0.0);
    assert!(ran.said[0].starts_with("5000 rows, "), "{:?}", ran.said);
    let again = run("tokenize", with, inputs(), root.path()).expect("written");
    assert_eq!(again.digest(), ran.digest());
}

#[test]
fn a_long_prompt_loses_its_beginning_and_an_answer_is_never_cut() {
    let long = format!("{} Анна. ", "марако ".repeat(60));
    let text =
        format!("# newdoc id = 0\n# sent_id = 0_0\n# text = {long}\n1\tАнна\t_\t_\t_\t_\t_\t_\t_\tTag=B-PER\n\n");
    let root = project(&[("nerus", text.as_bytes())]);
    let trained = tokenizer(root.path());
    let run = |longest: u32| {
        let inputs = vec![
            ("data", vec![artifact(&root.path().join("nerus"), "nerus")]),
            ("tokenizer", vec![trained.artifact("tokenizer", "tokenizer")]),
        ];
        run("tokenize", json!({ "task": "nerus", "max_length": longest }), inputs, root.path())
    };
    let ran = run(64).expect("written");
    let tokens = Tokens::read(&ran.path("tokens")).expect("reads back");
    let encoder = Encoder::open(&trained.path("tokenizer"), "t").expect("loads");
    let ids: Vec<u32> = tokens.row(0).iter().map(|id| u32::try_from(*id).expect("not negative")).collect();
    assert_eq!((ids.len(), ids[0], ran.figures["truncated"]), (64, 1, 1.0));
    assert_eq!(encoder.text(&ids[tokens.target(0)..]).expect("decoded"), " Анна — PER");
    assert!(encoder.text(&ids[..tokens.target(0)]).expect("decoded").ends_with("\nСущности:"));
    assert!(ran.said.iter().any(|said| said == "1 prompts lost their beginning to `max_length` 64"), "{:?}", ran.said);
    assert!(told(run(8)).starts_with("none of the 1 answers fits into 8 ids"));
}

#[test]
fn tokenize_tells_all_mistakes_of_its_prompt() {
    let with = json!({ "task": "nerus", "prompt": "{{ premise }}", "answers": { "none": "" } });
    let problem = told(run("tokenize", with, vec![], Path::new("/")));
    assert!(
        problem.contains("answers.none: ")
            && problem.contains("prompt: the prompt of the task `nerus` has no variable `premise`"),
        "{problem}"
    );
    let kind = pipe::steps::find("tokenize").expect("known");
    let keyed = kind.parse(&json!({ "task": "nerus" })).expect("right").keyed();
    assert_eq!(keyed["prompt"], pipe::task::prompt::NERUS, "the default prompt is part of the key");
}

#[test]
fn split_holds_documents_out_that_share_sentences() {
    let Some(data) = support::data() else { return };
    let inputs = vec![
        ("data", vec![artifact(&data.join("nerus/nerus_v1_lenta500_ner_only.conllu"), "nerus")]),
        ("hold_out", vec![artifact(&data.join("nerus/nerus_first10docs.conllu"), "first")]),
    ];
    let ran = run("split", json!({}), inputs, &data).expect("parted");
    // The ten themselves, and six later articles that repeat whole sentences of theirs.
    assert_eq!(ran.said[0], "16 of 500 documents are held out");
    let kept: f64 = ["train", "dev", "test"].iter().map(|part| ran.figures[&format!("{part}.documents")]).sum();
    assert_eq!(kept, 484.0);
}
