//! What the fuzz targets do with a piece of data: one function for each reader of what others may have written, and the
//! list of them. `tests/it/fuzzing.rs` includes this file too, so that it is built and tried wherever there is no fuzzer.
//! It does not know where data come from, nor what counts as a hang or as too much memory.

// A target uses one of them.
#![allow(dead_code)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipe::digest::Digest;
use pipe::error::Problem;
use pipe::event::Stamped;
use pipe::expression::{Expression, Values};
use pipe::fetch::address::Address;
use pipe::graph::Graph;
use pipe::lockfile::Lockfile;
use pipe::ml::config::ModelConfig;
use pipe::ml::models::tensors;
use pipe::ml::shapes::count;
use pipe::ml::tokens::{self, Tokens};
use pipe::run::{self, Story};
use pipe::spec::{self, Origins};
use pipe::step::Checkpoints;
use pipe::steps::KINDS;
use pipe::store::{Lookup, Store, Work};
use pipe::task::encode::chat::ChatParams;
use pipe::task::encode::{self, Encoder};
use pipe::task::lines::Lines;
use pipe::task::terra::Label2Id;
use pipe::task::{nerus, terra};
use pipe::{key, ui};
use serde_json::{Value, json};

/// Reads a piece of data, and holds what is always true of the answer.
pub type Reader = fn(&[u8]);

/// Every reader by the name of its target.
pub const READERS: &[(&str, Reader)] = &[
    ("address", address),
    ("audit", audit),
    ("checkpoint", checkpoint),
    ("compiled", compiled),
    ("config", config),
    ("dtypes", dtypes),
    ("expression", expression),
    ("journal", journal),
    ("lock", lock),
    ("manifest", manifest),
    ("nerus", nerus),
    ("pipeline", pipeline),
    ("receipt", receipt),
    ("record", record),
    ("run_log", run_log),
    ("sentencepiece", sentencepiece),
    ("terra", terra),
    ("tokenizer", tokenizer),
    ("tokens", tokens),
];

/// `dtypes.json`: what is read is written back the same, and what cannot be read is not written over.
pub fn dtypes(data: &[u8]) {
    let folder = Folder::new();
    fs::write(folder.path("dtypes.json"), data).expect("written");
    let store = Store::at(folder.path(""));
    match store.dtypes() {
        Ok(choices) => {
            for choice in choices {
                store.keep_dtype(choice.clone()).expect("kept");
                assert!(store.dtypes().expect("what was written is read").contains(&choice));
                let question = pipe::step::Machine::question(choice.threads, &choice.shape);
                let known = store.precisions(&choice.processor).expect("read");
                assert_eq!(known.get(&question).map(String::as_str), Some(choice.dtype.name()));
            }
        }
        Err(problem) => assert!(!problem.what.is_empty()),
    }
    assert!(folder.path("dtypes.json").is_file());
}

/// A finished report, whoever made it: every defect has a line of it, and line ends change nothing.
pub fn audit(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(defects) = pipe::audit::audit(text, "report") else { return };
    let lines = text.lines().count();
    assert!(defects.iter().all(|defect| (1..=lines.max(1)).contains(&defect.line)));
    if !text.contains('\r') {
        assert_eq!(pipe::audit::audit(&text.replace('\n', "\r\n"), "report").ok(), Some(defects));
    }
}

/// Text of a pipeline file. Lines of comment that begin with `#set `, `#profile ` and `#target ` are taken for what the
/// command line would say.
pub fn pipeline(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let said = |word: &str| text.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect();
    let profiles: Vec<String> = said("#profile ");
    let (profile, sets, targets) = (profiles.into_iter().next(), said("#set "), said("#target "));
    let options = spec::Options { profile, sets, targets, ..spec::Options::default() };
    // No folder is looked at for such a name.
    let file = Path::new("pipelines/p.yaml");
    match spec::load_text(file, text, &options) {
        Ok(pipeline) => {
            let graph = Graph::of(&pipeline);
            let order = graph.order(&pipeline.targets);
            for (at, &step) in order.iter().enumerate() {
                assert!(graph.producers(step).iter().all(|producer| order[..at].contains(producer)));
            }
            let folder = Folder::new();
            fs::write(folder.path("p.yaml"), text).expect("written");
            let origins = Origins::read(&folder.path("p.yaml"), &options);
            let origins = origins.expect("what was read once is read again");
            for step in &pipeline.steps {
                let manifest = json!({ "params": step.action.keyed() });
                reread(&manifest);
                for difference in key::diff(&Value::Null, &manifest) {
                    origins.of(step, &difference.path);
                }
                for port in step.inputs.keys() {
                    origins.of(step, &format!("inputs.{port}[0]"));
                }
                step.action.sources(&pipeline.root);
                step.action.remote();
            }
        }
        Err(problems) => {
            assert!(!problems.list.is_empty(), "a file is refused without a reason");
            for located in &problems.list {
                let Some(span) = &located.span else { continue };
                assert!(problems.source.get(span.clone()).is_some(), "{span:?} is no part of the text");
            }
            problems.placed();
            ui::problem::render(&problems, false);
            ui::problem::render(&problems, ui::problem::Look { color: true, columns: Some(30) });
        }
    }
}

/// Two documents of JSON, one after the other: manifests, as records and archives bring them.
pub fn manifest(data: &[u8]) {
    let mut documents = serde_json::Deserializer::from_slice(data).into_iter::<Value>().filter_map(Result::ok);
    let Some(one) = documents.next() else { return };
    let other = documents.next().unwrap_or(Value::Null);
    for document in [&one, &other] {
        reread(document);
        assert_eq!(key::diff(document, document), []);
    }
    let same = key::key_of(&one) == key::key_of(&other);
    for (old, new) in [(&one, &other), (&other, &one)] {
        let differences = key::diff(old, new);
        assert_eq!(differences.is_empty(), same, "a rerun without a reason, or a reason without a rerun");
        for difference in &differences {
            let _ = (difference.to_string(), difference.port());
        }
    }
}

/// The key of a document is the same however its JSON is laid out.
fn reread(document: &Value) {
    let (canonical, pretty) = (key::canonical(document), serde_json::to_string_pretty(document).expect("JSON"));
    for text in [&canonical, &pretty] {
        let again: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(key::canonical(&again), canonical);
        assert_eq!(key::key_of(&again), key::key_of(document));
    }
}

/// What follows the checksum in the file of a record; and the whole file, where the data begin like one.
pub fn record(data: &[u8]) {
    let folder = Folder::new();
    let store = Store::at(folder.path("cache"));
    let said = data.strip_prefix(b"\"key\":\"").and_then(|rest| rest.get(..64));
    let said = said.and_then(|digits| Digest::parse(std::str::from_utf8(digits).ok()?));
    let key = said.unwrap_or_else(|| Digest::of(b""));
    let head = format!("{{\"format\":\"pipe/record@2\",\"checksum\":\"{}\",", Digest::of(data));
    let sealed = [head.as_bytes(), data].concat();
    let path = folder.path("cache/records").join(&key.as_str()[..2]).join(format!("{key}.json"));
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    for text in [&sealed[..], data] {
        fs::write(&path, text).expect("written");
        if let Lookup::Hit(found) = store.find(&key) {
            assert_eq!(found.key, key);
            assert_eq!(found.outputs.len(), 0, "an output is there that nobody made");
        }
        if let Some(found) = store.record(&key) {
            reread(&found.manifest);
            found.outputs.values().for_each(|object| assert!(store.object(&object.digest).starts_with(store.root())));
        }
        store.verify(&mut |_, _| Ok(())).expect("everything there can be read");
    }
}

/// Lines of a journal without the digits before them: of the keys of steps, or of digests of files, by the first byte;
/// and the whole file, where the data are one.
pub fn journal(data: &[u8]) {
    let Some((&which, lines)) = data.split_first() else { return };
    let (format, name) = if which % 2 == 0 { ("pipe/steps@2", "steps/p.log") } else { ("pipe/stat@1", "stat.log") };
    let mut sealed = format!("{format}\n").into_bytes();
    for line in lines.split(|&byte| byte == b'\n') {
        sealed.extend_from_slice(&Digest::of(line).as_str().as_bytes()[..8]);
        sealed.push(b' ');
        sealed.extend_from_slice(line);
        sealed.push(b'\n');
    }
    let folder = Folder::new();
    let path = folder.path("cache").join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    for text in [&sealed[..], data] {
        fs::write(&path, text).expect("written");
        let fresh = || Store::at(folder.path("cache"));
        if which % 2 == 0 {
            let step = |line: &[u8]| Some(std::str::from_utf8(line).ok()?.split_once(' ')?.1.to_owned());
            let steps: Vec<String> = lines.split(|&byte| byte == b'\n').filter_map(step).take(8).collect();
            let key = Digest::of(lines);
            let store = fresh();
            for step in &steps {
                let known = store.keys("p", step).map(|keys| keys.all().count());
                assert!(known.is_none_or(|known| (1..=20).contains(&known)));
                store.remember("p", step, &key).expect("kept");
            }
            drop(store);
            let store = fresh();
            for step in &steps {
                assert_eq!(store.keys("p", step).expect("it was remembered").last(), &key);
            }
        } else {
            let file = folder.path("file");
            fs::write(&file, b"content").expect("written");
            assert_eq!(fresh().remembered(&file), None, "what nobody read is not remembered");
            assert_eq!(fresh().digest_of(&file, &mut |_| Ok(())).expect("read"), Digest::of(b"content"));
        }
    }
}

/// `checkpoint.json` of a state whose only file is `state`, with `content` in it.
pub fn checkpoint(data: &[u8]) {
    let folder = Folder::new();
    let store = Store::at(folder.path("cache"));
    let series = Digest::of(b"series");
    let state = folder.path("cache/checkpoints").join(&series.as_str()[..2]).join(series.as_str()).join("20");
    fs::create_dir_all(&state).expect("made");
    fs::write(state.join("state"), "content").expect("written");
    fs::write(state.join("checkpoint.json"), data).expect("written");
    let stage = store.stage().expect("made");
    let work = Work {
        series: series.clone(),
        key: Digest::of(b"key"),
        run: "r".to_owned(),
        every: Duration::ZERO,
        lasting: true,
        afresh: false,
    };
    let states = store.series(work, &stage);
    match states.latest(99).expect("read") {
        Some(found) => {
            assert_eq!(found.position, 20);
            assert!(found.folder.starts_with(folder.path("cache/tmp")));
            assert_eq!(fs::read(found.folder.join("state")).expect("read"), b"content");
            assert_eq!(fs::read_dir(&found.folder).expect("read").count(), 1, "it is the only file");
        }
        None => assert!(!state.exists(), "what is no state only takes room"),
    }
    store.settle(&series, &Digest::of(b"key"), false);
    assert!(!state.exists());
}

/// What follows the checksum in a receipt; and the whole file, where the data are one.
pub fn receipt(data: &[u8]) {
    let folder = Folder::new();
    let store = Store::at(folder.path("cache"));
    let name = Digest::of(b"name");
    let path = folder.path("cache/receipts").join(name.as_str());
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let sealed = [b"pipe/receipt@1\n", &Digest::of(data).to_bytes()[..], data].concat();
    for bytes in [&sealed[..], data] {
        fs::write(&path, bytes).expect("written");
        let Some(found) = store.receipt(&name) else { continue };
        found.steps.iter().for_each(|step| drop(step.record()));
        store.keep_receipt(&name, &found).expect("kept");
        // Not compared: a figure may be no number, which is not even the same as itself.
        let again = store.receipt(&name).expect("what was kept is read");
        assert_eq!((again.steps.len(), again.files), (found.steps.len(), found.files));
    }
}

/// A pipeline without its YAML.
pub fn compiled(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = serde_json::from_str::<Value>(text) else { return };
    let Some(of) = document["text"].as_str().and_then(Digest::parse) else { return };
    let Some(pipeline) = spec::compiled::read(text, Path::new("pipelines/p.yaml"), &of, KINDS) else { return };
    let graph = Graph::of(&pipeline);
    assert!(graph.order(&pipeline.targets).len() <= pipeline.steps.len());
    for step in &pipeline.steps {
        step.action.params();
        step.action.sources(&pipeline.root);
        step.action.variables();
    }
    assert!(spec::compiled::write(&pipeline).is_some());
}

/// The log of a run; its first line need not be there.
pub fn run_log(data: &[u8]) {
    let folder = Folder::new();
    let path = folder.path("r.jsonl");
    let head = b"{\"format\":\"pipe/run@1\",\"run\":\"r\",\"version\":\"1\"}\n";
    for text in [&[head, data].concat()[..], data] {
        fs::write(&path, text).expect("written");
        let glance = run::glance(&path);
        let Ok((_, events)) = run::read(&path) else { continue };
        let again = folder.path("again");
        let mut log = run::Log::create(&again, "r").expect("a log");
        for stamped in &events {
            log.write(std::slice::from_ref(stamped)).expect("written");
            let line = serde_json::to_string(stamped).expect("JSON");
            assert_eq!(&serde_json::from_str::<Stamped>(&line).expect("an event"), stamped);
        }
        assert!(run::read(&again.join("r.jsonl")).expect("a log").1.len() <= events.len());
        let story = Story::of(events);
        for told in &story.steps {
            told.fate.word();
            told.fate.result().iter().for_each(|result| drop(key::short(&result.key)));
        }
        if let Ok(glance) = glance {
            // A log may say twice how it began, or ended; both readers see such a one, not the same.
            assert!(glance.begun.is_none() || story.begun.is_some());
        }
        fs::remove_dir_all(&again).expect("removed");
    }
}

/// `pipe.lock`.
pub fn lock(data: &[u8]) {
    let folder = Folder::new();
    let path = folder.path("pipe.lock");
    let head = b"format: pipe/lock@1\nsources:\n";
    for text in [&[head, data].concat()[..], data] {
        fs::write(&path, text).expect("written");
        match Lockfile::read(path.clone()) {
            Ok(lock) => {
                if let Some(locked) = lock.get("https://a/x") {
                    assert!(locked.files.keys().all(|name| Path::new("/a").join(name).starts_with("/a")));
                    assert!(locked.files.keys().all(|name| !name.split('/').any(|part| part == "..")));
                }
            }
            Err(problem) => told(&problem),
        }
    }
}

/// An expression of `when:` or `expect:`; behind the first line break, JSON with the values of its names.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, values) = text.split_once('\n').unwrap_or((text, "{}"));
    match Expression::parse(text) {
        Ok(expression) => {
            assert_eq!(expression.text(), text);
            let _ = expression.names();
            for number in [0.0, 1.0, -1.5, f64::NAN, f64::INFINITY, 1e300] {
                let values = expression.values(|_| number);
                let answer = expression.holds(&values);
                let _ = answer.map_err(|problem| told(&problem));
            }
            if !expression.multiplies()
                && let Ok(values @ Value::Object(_)) = serde_json::from_str::<Value>(values)
            {
                let _ = expression.holds(&Values::from(&values)).map_err(|problem| told(&problem));
            }
        }
        Err(problem) => told(&problem),
    }
}

/// The address of a remote source, as a pipeline or a lock has it.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let all = [Address::parse(text), Address::hub(text), Address::web(text, false)];
    for address in all.into_iter().filter_map(|address| address.map_err(|problem| told(&problem)).ok()) {
        let again = Address::parse(&address.to_string()).expect("what is written is read");
        assert_eq!(again, address);
        if let Address::Hub(repo) = &address {
            assert!(repo.path.iter().all(|path| !path.starts_with('/') && !path.split('/').any(|part| part == "..")));
        }
    }
}

/// `config.json` of a checkpoint.
pub fn config(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    match ModelConfig::from_value(&value) {
        Ok(config) => {
            let again = ModelConfig::from_value(&config.to_value()).expect("what was read is read again");
            assert_eq!(again, config);
            config.longest();
            // Thousands of blocks are right, and slow.
            if config.num_hidden_layers <= 8 {
                let shapes = tensors::shapes(&config);
                assert!(shapes.values().flatten().all(|size| *size > 0));
                count(&shapes);
                let _ = (0..config.num_hidden_layers).filter(|layer| config.slides(*layer)).count();
            }
        }
        Err(problem) => told(&problem),
    }
}

/// Rows of TERRa, whose labels are words, numbers, or absent.
pub fn terra(data: &[u8]) {
    let lines = || Lines::new(Cursor::new(data.to_owned()), "rows");
    for numbers in [None, Some(Label2Id { entailment: 0, not_entailment: 1 })] {
        let mut before = 0;
        for row in terra::Reader::new(lines()).numbered(numbers) {
            match row {
                Ok(row) => {
                    assert!(row.line > before);
                    before = row.line;
                }
                Err(problem) => {
                    told(&problem);
                    break;
                }
            }
        }
    }
}

/// Documents of Nerus, as CoNLL-U.
pub fn nerus(data: &[u8]) {
    let mut source = String::new();
    let mut documents = 0;
    for document in nerus::Reader::new(Lines::new(Cursor::new(data.to_owned()), "documents")) {
        let document = match document {
            Ok(document) => document,
            Err(problem) => return told(&problem),
        };
        assert!(!document.sentences.is_empty());
        for sentence in &document.sentences {
            assert!(sentence.entities.iter().all(|entity| !entity.surface.is_empty() && entity.start < entity.end));
        }
        documents += 1;
        source.push_str(&document.source);
    }
    // What is written into the parts of a split is read like the whole.
    let again = nerus::Reader::new(Lines::new(Cursor::new(source.into_bytes()), "documents"));
    let again: Vec<nerus::Document> = again.collect::<Result<_, Problem>>().expect("it was read before");
    assert_eq!(again.len(), documents);
}

/// The files of a tokenizer: an object of JSON with what is in each by its name, as text or as JSON.
pub fn tokenizer(data: &[u8]) {
    let Ok(Value::Object(files)) = serde_json::from_slice::<Value>(data) else { return };
    let folder = Folder::new();
    for (name, content) in files.iter().filter(|(name, _)| encode::files::ALL.contains(&name.as_str())) {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(folder.path(name), text).expect("written");
    }
    encoded(&folder.path(""));
}

/// A model of SentencePiece.
pub fn sentencepiece(data: &[u8]) {
    let folder = Folder::new();
    fs::write(folder.path("tokenizer.model"), data).expect("written");
    encoded(&folder.path("tokenizer.model"));
}

/// A tokenizer is refused with a reason, or it encodes and decodes, or says why it does not.
fn encoded(path: &Path) {
    let fine = |problem: Problem| told(&problem);
    let encoder = match Encoder::open(path, "a tokenizer") {
        Ok(encoder) => encoder,
        Err(problem) => return fine(problem),
    };
    for text in ["", "кот спит", " a  b\n\0\u{301}😀<s></s>"] {
        if let Ok(ids) = encoder.ids(text).map_err(fine) {
            assert!(ids.iter().all(|id| (*id as usize) < encoder.size()), "an id is out of the vocabulary");
            let _ = encoder.text(&ids).map_err(fine);
        }
        let _ = encoder.pair(text, "да").map(|pair| encoder.fit(&pair.context, &pair.answer, 4)).map_err(fine);
    }
    let _ = encoder.text(&[0, 1, 7, u32::MAX]).map_err(fine);
    if let Ok(encoder) = encoder.with_chat(Some(&ChatParams { system: None })).map_err(fine) {
        let _ = encoder.prompt("кот").map_err(fine);
        let _ = encoder.pair("кот", "да").map_err(fine);
    }
}

/// A file of rows of ids: what `tokens.json` says in the first line, then `tokens.safetensors`.
pub fn tokens(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (info, numbers) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let folder = Folder::new();
    fs::write(folder.path(tokens::INFO), info).expect("written");
    fs::write(folder.path(tokens::NUMBERS), numbers).expect("written");
    match Tokens::read(&folder.path("")) {
        Ok(tokens) => {
            assert!((0..tokens.rows()).all(|row| tokens.target(row) < tokens.row(row).len()));
            tokens.write(&folder.path("again")).expect("what was read is written");
            assert_eq!(Tokens::read(&folder.path("again")).expect("and read again"), tokens);
        }
        Err(problem) => told(&problem),
    }
}

/// A problem says something, and can be drawn.
fn told(problem: &Problem) {
    assert!(!problem.what.is_empty());
    ui::problem::render_one(problem, false);
}

/// A folder of this thread, empty at first and gone at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
