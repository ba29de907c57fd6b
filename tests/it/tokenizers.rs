//! Tokenizers of every kind as the Python libraries read them, and what is refused.
//! It does not know tasks: prompts and answers are texts.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::task::encode::Encoder;
use pipe::task::encode::chat::ChatParams;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::data_steps::{artifact, project, run, told};
use crate::support::{self, repository};

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
}

/// What the Python library `sentencepiece` answers; `tests/sentencepiece/make.py` asked it. More such files may lie in
/// the folder that `PIPE_SENTENCEPIECE` names.
#[test]
fn sentencepiece_models_divide_text_as_their_own_library_does() {
    let mut compared = 0;
    let more = std::env::var_os("PIPE_SENTENCEPIECE").map(PathBuf::from);
    let folders = [Some(repository().join("tests/sentencepiece")), more];
    for entry in folders.iter().flatten().flat_map(|folder| fs::read_dir(folder).expect("a folder")) {
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

/// The cases beside `make.py`, and those below `PIPE_TOKENIZERS`.
fn cases() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let more = std::env::var_os("PIPE_TOKENIZERS").map(PathBuf::from);
    for root in [Some(repository().join("tests/tokenizers")), more].into_iter().flatten() {
        let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        found.extend(entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()));
    }
    found.sort();
    found
}

/// What transformers 5.24 answers (and 4.57, of what it can read); `tests/tokenizers/make.py` asked them.
#[test]
fn tokenizers_of_every_kind_make_the_ids_of_transformers() {
    let (mut compared, mut wrong) = (0, Vec::new());
    for folder in cases() {
        let expected = json_of(&folder.join("expected.json"));
        let encoder = Encoder::open(&folder, "golden").unwrap_or_else(|p| panic!("{}: {p}", folder.display()));
        assert_eq!(json!(encoder.prefix()), expected["prefix"], "{}", folder.display());
        assert_eq!(json!(encoder.eos()[0]), expected["eos"], "{}", folder.display());
        assert_eq!(json!(encoder.size()), expected["size"], "{}", folder.display());
        for case in expected["texts"].as_array().expect("a list") {
            let ids = encoder.ids(case["text"].as_str().expect("a text")).expect("encoded");
            let text = encoder.text(&ids).expect("decoded");
            if json!(ids) != case["ids"] || json!(text) != case["decoded"] {
                wrong.push(format!("{}: {ids:?} {text:?} instead of {case}", folder.display()));
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty() && compared > 100, "{compared} compared, wrong:\n{}", wrong.join("\n"));
}

#[test]
fn chat_templates_make_the_text_and_the_ids_of_transformers() {
    let (mut compared, mut refused, mut wrong) = (0, 0, Vec::new());
    for folder in cases() {
        let expected = json_of(&folder.join("expected.json"));
        for case in expected["chat"].as_array().into_iter().flatten() {
            let params = ChatParams { system: case["system"].as_str().map(str::to_owned) };
            let text = |name: &str| case[name].as_str().expect("a text");
            let encoder = Encoder::open(&folder, "golden").expect("loads");
            let at = folder.display();
            let encoded = encoder.with_chat(Some(&params)).and_then(|encoder| {
                assert_eq!(encoder.prefix(), [0; 0], "{at}");
                Ok((
                    encoder.rendered(text("prompt"))?,
                    encoder.prompt(text("prompt"))?,
                    encoder.pair(text("prompt"), text("answer"))?,
                ))
            });
            let (rendered, prompt, pair) = match (encoded, case["refused"].as_str()) {
                (Ok(encoded), None) => encoded,
                (Err(problem), Some(message)) => {
                    // What Python says of its own objects is not said here.
                    let python = ["has no attribute", "is undefined"].iter().any(|words| message.contains(words));
                    if !python && !problem.to_string().contains(message) {
                        wrong.push(format!("{at}: {problem} instead of {message}"));
                    }
                    refused += 1;
                    continue;
                }
                (Ok(_), Some(message)) => panic!("{at} was not refused: {message}"),
                (Err(problem), None) => {
                    wrong.push(format!("{at}: {problem}"));
                    continue;
                }
            };
            if rendered != text("context") {
                wrong.push(format!("{at}: {rendered:?} instead of {:?}", text("context")));
            }
            for (name, ids) in [("context_ids", &prompt), ("whole_ids", &[pair.context, pair.answer].concat())] {
                if case.get(name).is_some_and(|right| *right != json!(ids)) {
                    wrong.push(format!("{at}: {name} {ids:?} instead of {}", case[name]));
                }
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty() && compared > 8 && refused > 0, "{compared} compared, wrong:\n{}", wrong.join("\n"));
}

/// A real GPT-2 tokenizer in its two files.
#[test]
fn the_two_files_of_a_real_model_make_the_ids_of_transformers() {
    let Some(data) = support::data() else { return };
    let encoder = Encoder::open(&data.join("tokenizers/ruGPT3"), "ruGPT3").expect("loads");
    assert_eq!((encoder.prefix(), encoder.eos(), encoder.size()), ([].as_slice(), [2].as_slice(), 50257));
    for (text, ids) in [
        ("Следует из текста: да", vec![19571, 1788, 411, 13124, 30, 581]),
        (" Анна Петрова — PER; Москва — LOC", vec![7956, 41124, 510, 969, 11595, 31, 5343, 510, 1185, 39463]),
        ("<s>привет</s><mask>", vec![32, 87, 34, 960, 577, 32, 19, 87, 34, 32, 81, 19972, 34]),
        ("Ёлка\n\n  №5 🙂", vec![26972, 29735, 203, 203, 225, 4855, 25, 225, 34115, 252, 229]),
    ] {
        assert_eq!(encoder.ids(text).expect("encoded"), ids, "{text}");
        assert_eq!(encoder.text(&ids).expect("decoded"), text);
    }
    let root = project(&[]);
    let ready = vec![("ready", vec![artifact(&data.join("tokenizers/ruGPT3"), "ruGPT3")])];
    let taken = run("tokenizer", json!({}), ready, root.path()).expect("taken");
    let again = Encoder::open(&taken.path("tokenizer"), "taken").expect("loads");
    assert_eq!(again.digest().expect("read"), encoder.digest().expect("read"));
}

/// A folder with the files of a case and some of them changed; `None` takes one away.
fn changed(case: &str, files: &[(&str, Option<&str>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(repository().join("tests/tokenizers").join(case)).expect("a case") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    for (name, text) in files {
        let path = folder.path().join(name);
        match text {
            Some(text) => fs::write(path, text).expect("written"),
            None => fs::remove_file(path).expect("removed"),
        }
    }
    folder
}

/// Where flags are given, as transformers 4.57, which wrote them; where none are, as 5.24, which goes by the file.
#[test]
fn flags_say_what_begins_a_text_where_the_class_goes_by_them() {
    let names = r#""bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}"#;
    let llama = r#""tokenizer_class": "LlamaTokenizer""#;
    for (case, config, prefix) in [
        ("bpe_grown", format!(r#"{{{names}, {llama}, "add_bos_token": true}}"#), vec![1]),
        (
            "bpe_grown",
            format!(r#"{{{names}, "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true}}"#),
            vec![1],
        ),
        ("bpe_grown", format!(r#"{{{names}, "tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": true}}"#), vec![1]),
        ("bpe_grown", format!(r#"{{{names}, {llama}, "add_eos_token": true}}"#), vec![1]),
        ("bpe_grown", format!(r#"{{{names}, {llama}}}"#), vec![]),
        (
            "bpe_grown",
            format!(r#"{{{names}, "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": true}}"#),
            vec![],
        ),
        ("bpe_llama3_bos", format!(r#"{{{names}, {llama}, "add_bos_token": false}}"#), vec![]),
        ("bpe_llama3_bos", format!("{{{names}}}"), vec![1]),
        ("gpt2_older", r#"{"tokenizer_class": "GPT2TokenizerFast"}"#.to_owned(), vec![]),
    ] {
        let folder = changed(case, &[("tokenizer_config.json", Some(&config))]);
        let encoder = Encoder::open(folder.path(), "t").unwrap_or_else(|p| panic!("{config}: {p}"));
        assert_eq!(encoder.prefix(), prefix, "{case} {config}");
        assert_eq!(encoder.eos(), [2], "{case} {config}");
    }
    // A SentencePiece model is Llama's where nothing says otherwise.
    let model = fs::read(repository().join("tests/sentencepiece/bpe_llama.model")).expect("read");
    for (config, prefix) in [("{}", vec![1]), (r#"{"add_bos_token": false, "legacy": false}"#, vec![])] {
        let folder = project(&[("tokenizer.model", &model), ("tokenizer_config.json", config.as_bytes())]);
        let encoder = Encoder::open(folder.path(), "t").expect("loads");
        assert_eq!((encoder.prefix(), encoder.eos()), (prefix.as_slice(), [2].as_slice()), "{config}");
    }
}

#[test]
fn what_ends_an_answer_is_told_by_all_that_know_it() {
    let folder = changed(
        "bpe_llama3_bos",
        &[
            ("config.json", Some(r#"{"eos_token_id": [3, 2]}"#)),
            ("generation_config.json", Some(r#"{"eos_token_id": 5}"#)),
        ],
    );
    assert_eq!(Encoder::open(folder.path(), "t").expect("loads").eos(), [2, 3, 5]);
}

#[test]
fn a_tokenizer_is_told_from_another_by_all_that_changes_its_rows() {
    let digest = |folder: &Path| Encoder::open(folder, "t").expect("loads").digest().expect("read");
    let case = |case: &str, files: &[(&str, Option<&str>)]| digest(changed(case, files).path());
    let config = |text: &str| case("bpe_grown", &[("tokenizer_config.json", Some(text))]);
    let plain = case("bpe_grown", &[]);
    let read = |name: &str| fs::read_to_string(repository().join("tests/tokenizers").join(name)).expect("read");
    let own = read("bpe_grown/tokenizer_config.json");
    // How it is written, and what transformers keeps there for itself, changes no row.
    assert_eq!(config(&own.replacen('{', "{ \"model_max_length\": 7,", 1)), plain);
    assert_eq!(case("bpe_grown", &[("chat_template.jinja", Some("x"))]), plain);
    let llama = own.replace("PreTrainedTokenizerFast", "LlamaTokenizer").replacen('{', "{ \"add_bos_token\": true,", 1);
    for (what, other) in [
        ("a text begins otherwise", config(&llama)),
        ("it ends otherwise", config(&own.replace("\"eos_token\": \"</s>\"", "\"eos_token\": \"<pad>\""))),
        ("a token less", config(&own.replace("\"special\": false", "\"special\": true"))),
        ("other files", case("gpt2_files", &[])),
    ] {
        assert_ne!(other, plain, "{what}");
    }
    let merges = read("gpt2_files/merges.txt");
    let fewer = &merges[..merges.trim_end().rfind('\n').expect("lines")];
    assert_ne!(case("gpt2_files", &[("merges.txt", Some(fewer))]), case("gpt2_files", &[]));
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let model = fs::read(repository().join("tests/sentencepiece/bpe_llama.model")).expect("read");
    let sentencepiece =
        |config: &str| project(&[("tokenizer.model", &model), ("tokenizer_config.json", config.as_bytes())]);
    let tiktoken = project(&[("tokenizer.model", b"IQ== 0\nIg== 1\n")]);
    for (folder, expected) in [
        (project(&[("vocab.json", b"{}")]), "t has vocab.json but no merges.txt"),
        (
            project(&[("tekken.json", b"{}")]),
            "the tokenizer of t is tekken.json, Mistral's tekken, which is not read\nhelp: write its tokenizer.json once with transformers: AutoTokenizer.from_pretrained(",
        ),
        (project(&[("config.json", b"{}")]), "t has no tokenizer.json\nhelp: give a folder with the tokenizer"),
        (tiktoken, "the tokenizer.model of t is not a SentencePiece model that can be read: "),
        (
            sentencepiece(r#"{"tokenizer_class": "T5Tokenizer"}"#),
            "tokenizer.model of the class `T5Tokenizer` is not read (t) (expected `LlamaTokenizer`",
        ),
        (
            sentencepiece(r#"{"added_tokens_decoder": {"700": {"content": "<|im_end|>"}}}"#),
            "the configuration of t adds the token `<|im_end|>` (id 700), which its tokenizer.model does not have",
        ),
        (sentencepiece(r#"{"add_bos_token": "yes"}"#), "`add_bos_token` is \"yes\" (expected true or false)"),
        (
            changed("gpt2_files", &[("tokenizer_config.json", Some(r#"{"tokenizer_class": "RobertaTokenizer"}"#))]),
            "vocab.json and merges.txt of the class `RobertaTokenizer` are not read (t) (expected `GPT2Tokenizer`, `GPTNeoXTokenizer`, `Qwen2Tokenizer`)",
        ),
        (
            changed("gpt2_files", &[("merges.txt", Some("#version: 0.2\nнет такого\n"))]),
            "vocab.json and merges.txt of t do not belong together",
        ),
        (
            changed(
                "bpe_grown",
                &[("tokenizer_config.json", Some(r#"{"added_tokens_decoder": {"7": {"content": "</s>"}}}"#))],
            ),
            "the tokenizer of t contradicts itself: its configuration gives `</s>` the id 7, its vocabulary 2",
        ),
        (changed("bpe_grown", &[("tokenizer_config.json", Some(r#"{"eos_token": 7}"#))]), "`eos_token` is 7"),
        (changed("bpe_grown", &[("tokenizer_config.json", Some("{"))]), "not JSON: "),
    ] {
        let problem = Encoder::open(folder.path(), "t").err().unwrap_or_else(|| panic!("not refused: {expected}"));
        assert!(problem.to_string().contains(expected), "{problem}");
    }
}

#[test]
fn chat_templates_that_cannot_be_used_are_refused_with_what_to_do() {
    let params = ChatParams::default();
    let told = |template: &str| {
        let folder = changed("chat_brackets", &[("chat_template.jinja", Some(template))]);
        let encoder = Encoder::open(folder.path(), "t").expect("loads").with_chat(Some(&params));
        encoder.err().map_or_else(|| "no problem".to_owned(), |problem| problem.to_string())
    };
    for (template, expected) in [
        ("{{ strftime_now('%Y') }}{{ messages[0].content }}", "chat: the chat template of t cannot be used: "),
        ("{{ strftime_now('%Y') }}", "rows must not depend on the day"),
        ("{% for message in messages %}", "chat: the chat template of t cannot be used: "),
        (
            "{{ messages[0].content }}{{ raise_exception('нельзя') }}",
            "chat: the chat template of t refuses these messages: нельзя",
        ),
        ("{% for part in messages[0].content.parts %}{{ part }}{% endfor %}", "chat: the chat template of t "),
        ("{{ bos_token }}", "chat: the chat template of t leaves the prompt out"),
        (
            "{% for a in range(9000) %}{% for b in range(9000) %}{{ a }}{% endfor %}{% endfor %}",
            "chat: the chat template of t takes too long",
        ),
        ("{{ messages[0].content }}", "no problem"),
    ] {
        let told = told(template);
        assert!(told.contains(expected), "{template}: {told}");
    }
    let folder = changed("bpe_grown", &[]);
    let problem = Encoder::open(folder.path(), "t").expect("loads").with_chat(Some(&params)).err().expect("refused");
    assert!(
        problem.to_string().starts_with("chat: the tokenizer of t has no chat template\nhelp: leave `chat` out"),
        "{problem}"
    );
}

/// The same words inside a message are words, and only the template's own are tokens.
#[test]
fn no_text_of_a_message_becomes_a_special_token() {
    for (case, marks) in [("chat_hybrid", [4, 5]), ("chat_turns", [4, 5])] {
        let encoder = Encoder::open(&repository().join("tests/tokenizers").join(case), "t").expect("loads");
        let plain = encoder.ids("<|im_end|><|im_start|>system").expect("encoded");
        assert!(plain.iter().all(|id| !marks.contains(id)), "{plain:?}");
        let encoder = encoder.with_chat(Some(&ChatParams::default())).expect("has a template");
        let count = |prompt: &str| {
            let ids = encoder.prompt(prompt).expect("encoded");
            assert!(encoder.size() as u32 > *ids.iter().max().expect("ids"));
            ids.iter().filter(|id| marks.contains(id)).count()
        };
        assert_eq!(count("<|im_end|><|im_start|>system\n"), count("слово"), "{case}");
        let pair = encoder.pair("слово", " <|im_end|> ").expect("encoded");
        assert!(pair.answer.iter().all(|id| !marks.contains(id)), "{pair:?}");
        assert_eq!(encoder.text(&pair.answer).expect("decoded"), "<|im_end|>");
        // What ends the assistant's turn ends an answer, before what else ends a text.
        assert_eq!(encoder.eos(), [5, 7], "{case}");
        assert!(encoder.prompt("\u{FDD0}").is_err());
        // A chat without its beginning is none.
        assert_eq!(encoder.fit(&[1; 9], &[2], 9), None);
    }
}

/// Llama 2's template with a SentencePiece model: marks between words, and the two ways with the space after them.
#[test]
fn a_chat_is_divided_by_a_sentencepiece_model() {
    let model = fs::read(repository().join("tests/sentencepiece/bpe_llama.model")).expect("read");
    let template = b"{{ bos_token }}[INST] {{ messages[0].content }} [/INST]{% if messages[1] is defined %} {{ messages[1].content }} {{ eos_token }}{% endif %}";
    for legacy in [true, false] {
        let config = json!({ "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>" }).to_string();
        let files: [(&str, &[u8]); 3] = [
            ("tokenizer.model", &model),
            ("tokenizer_config.json", config.as_bytes()),
            ("chat_template.jinja", template),
        ];
        let folder = project(&files);
        let plain = Encoder::open(folder.path(), "t").expect("loads");
        let words = plain.ids("[INST] Дети [/INST]").expect("encoded");
        let chat =
            Encoder::open(folder.path(), "t").and_then(|e| e.with_chat(Some(&ChatParams::default()))).expect("loads");
        let ids = chat.prompt("Дети").expect("encoded");
        assert_eq!(ids[0], 1);
        if legacy {
            assert_eq!(ids[1..], words, "a space goes before every part");
        } else {
            assert_ne!(ids[1..], words, "a space goes before the first part alone");
        }
        let pair = chat.pair("Дети", "да").expect("encoded");
        assert_eq!(pair.context, ids);
        assert_eq!(chat.text(&[plain.ids("а").expect("encoded"), pair.answer].concat()).expect("decoded"), "а да");
        assert_eq!(chat.eos(), [2]);
    }
}

#[test]
fn rows_are_made_in_a_chat() {
    let folder = changed("chat_hybrid", &[]);
    let row = json!({ "premise": "Анна дома.", "hypothesis": "Анна ушла.", "label": "not_entailment", "idx": 0 });
    let root = project(&[("terra", format!("{row}\n").as_bytes())]);
    let inputs = || {
        let data = artifact(&root.path().join("terra"), "terra");
        vec![("data", vec![data]), ("tokenizer", vec![artifact(folder.path(), "base")])]
    };
    let with = json!({ "task": "terra", "chat": { "system": "Отвечай одним словом." } });
    let ran = run("tokenize", with, inputs(), root.path()).expect("written");
    let tokens = pipe::ml::tokens::Tokens::read(&ran.path("tokens")).expect("reads back");
    let ids: Vec<u32> = tokens.row(0).iter().map(|id| u32::try_from(*id).expect("not negative")).collect();
    let encoder = Encoder::open(folder.path(), "t").expect("loads");
    let (prompt, answer) = ids.split_at(tokens.target(0));
    assert_eq!(encoder.text(answer).expect("decoded"), "нет");
    assert_eq!(answer.last(), Some(&5), "what ends the turn ends the row");
    let prompt = encoder.text(prompt).expect("decoded");
    assert_eq!(
        prompt,
        "system\nОтвечай одним словом.\nuser\nТекст: Анна дома.\nУтверждение: Анна ушла.\nСледует из текста:\nassistant\n<think>\n\n</think>\n\n"
    );
    let problem = told(run("tokenize", json!({ "task": "terra", "chat": { "sistem": "" } }), inputs(), root.path()));
    assert!(problem.contains("unknown field `sistem`"), "{problem}");
}

proptest! {
    /// Whatever a model file is, it is read or refused.
    #[test]
    fn no_bytes_make_a_sentencepiece_model_panic(cut in 0_usize..7000, at in 0_usize..6000, byte in any::<u8>()) {
        let mut model = fs::read(repository().join("tests/sentencepiece/unigram_own_rules.model")).expect("read");
        if let Some(place) = model.get_mut(at) {
            *place = byte;
        }
        model.truncate(cut.max(16));
        let folder = project(&[("tokenizer.model", &model)]);
        if let Ok(encoder) = Encoder::open(&folder.path().join("tokenizer.model"), "t") {
            let ids = encoder.ids("Дети «говорили»\n[NL] ab abc").expect("encoded");
            encoder.text(&ids).expect("decoded");
        }
    }

    /// With bytes for what is unknown and nothing replaced, a text comes back as it was.
    #[test]
    fn a_text_comes_back_from_a_model_with_bytes(text in "[^▁]{0,40}") {
        let encoder = Encoder::open(&repository().join("tests/sentencepiece/unigram_bytes.model"), "t").expect("loads");
        let ids = encoder.ids(&text).expect("encoded");
        prop_assert_eq!(encoder.text(&ids).expect("decoded"), text);
    }
}
