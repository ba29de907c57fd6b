//! The tasks' files: real data where there is some, and every way in which a file can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::error::Result;
use pipe::task::encode::Encoder;
use pipe::task::lines::Lines;
use pipe::task::terra::Label;
use pipe::task::{answer, nerus, terra, text};
use proptest::prelude::*;
use serde_json::json;

use crate::golden_metrics::{cases, read};
use crate::support;

fn terra_of(bytes: &[u8]) -> Result<Vec<terra::Row>> {
    terra::Reader::new(Lines::new(std::io::Cursor::new(bytes.to_vec()), "val.jsonl")).collect()
}

fn nerus_of(bytes: &[u8]) -> Result<Vec<nerus::Document>> {
    nerus::Reader::new(Lines::new(std::io::Cursor::new(bytes.to_vec()), "n.conllu")).collect()
}

fn told<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "no problem".to_owned(),
        Err(problem) => problem.to_string(),
    }
}

fn documents(path: &Path) -> Vec<nerus::Document> {
    nerus::Reader::open(path, "data").expect("opens").collect::<Result<_>>().expect("is right")
}

fn count(documents: &[nerus::Document], kind: &str) -> usize {
    let sentences = documents.iter().flat_map(|d| &d.sentences);
    sentences.flat_map(|s| &s.entities).filter(|e| e.kind == kind).count()
}

const ROW: &str = r#"{"premise": "Шёл дождь.", "hypothesis": "Было сыро.", "label": "entailment", "idx": 0}"#;
const SENTENCE: &str = "# newdoc id = 7\n# sent_id = 7_0\n# text = Анна в Москве.\n1\tАнна\t_\tPROPN\t_\t_\t3\tnsubj\t_\tTag=B-PER\n2\tв\t_\t_\t_\t_\t_\t_\t_\tTag=O\n3\tМоскве\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No|Tag=B-LOC\n4\t.\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n";

#[test]
fn terra_is_read_whole() {
    let Some(data) = support::data() else { return };
    for (file, rows, entailment, other) in
        [("train.jsonl", 2616, 1359, 1257), ("val.jsonl", 307, 153, 154), ("test.jsonl", 3198, 0, 0)]
    {
        let path = data.join("terra").join(file);
        let read: Vec<terra::Row> =
            terra::Reader::open(&path, file).expect("opens").collect::<Result<_>>().expect("is right");
        let of = |label| read.iter().filter(|row| row.label == Some(label)).count();
        assert_eq!((read.len(), of(Label::Entailment), of(Label::NotEntailment)), (rows, entailment, other), "{file}");
        assert!(read.iter().any(|row| row.premise.contains("\"\"")), "{file}: doubled quotes stay as they are");
        assert!(read.iter().enumerate().all(|(i, row)| row.idx == i as u64 && row.line == i as u64 + 1));
    }
    let val = data.join("terra/val.jsonl");
    terra::gate(&terra::labelled(&val, "val.jsonl", None).expect("labels"), "val.jsonl").expect("good gold");
}

#[test]
fn terras_test_split_is_refused_by_name() {
    let Some(data) = support::data() else { return };
    let path = data.join("terra/test.jsonl");
    assert_eq!(
        told(terra::labelled(&path, "../shared/data/terra/test.jsonl", Some(10))),
        "../shared/data/terra/test.jsonl has no labels: row 0 (line 1) has none\nhelp: TERRa's test split is unlabelled: evaluate on val, train on train"
    );
}

#[test]
fn nerus_is_read_whole() {
    let Some(data) = support::data() else { return };
    for (file, sizes, entities) in [
        ("nerus/nerus_first10docs.conllu", (10, 117, 2040), [43, 56, 50]),
        ("nerus/nerus_v1_lenta500_ner_only.conllu", (500, 5840, 106_568), [2038, 2420, 2285]),
        ("factrueval2016/devset_nerus_format.conllu", (122, 1769, 30_940), [728, 959, 733]),
    ] {
        let documents = documents(&data.join(file));
        let sentences: Vec<&nerus::Sentence> = documents.iter().flat_map(|d| &d.sentences).collect();
        let tokens: usize = sentences.iter().map(|s| s.tokens.len()).sum();
        assert_eq!((documents.len(), sentences.len(), tokens), sizes, "{file}");
        assert_eq!(nerus::TYPES.map(|kind| count(&documents, kind)), entities, "{file}");
        for entity in sentences.iter().flat_map(|s| s.entities.iter().map(move |e| (s, e))) {
            let (sentence, entity) = entity;
            let cut: String = sentence.text.chars().skip(entity.start).take(entity.end - entity.start).collect();
            assert_eq!(cut, entity.surface, "{file} {}", sentence.id);
        }
        let joined: String = documents.iter().map(|d| d.source.as_str()).collect();
        assert!(joined == fs::read_to_string(data.join(file)).expect("UTF-8"), "{file}: documents keep their lines");
    }
}

/// The format of answers must not cost the gold itself: written out, read back and found in the text again.
#[test]
fn the_gold_survives_its_own_format() {
    let Some(data) = support::data() else { return };
    for file in ["nerus/nerus_v1_lenta500_ner_only.conllu", "factrueval2016/devset_nerus_format.conllu"] {
        let (mut all, mut same) = (0, 0);
        for document in documents(&data.join(file)) {
            for sentence in document.sentences {
                let reading = answer::parse(&answer::format(&sentence.entities, " нет"), true, " нет");
                let spots = answer::align(&sentence.text, &reading.mentions);
                all += sentence.entities.len();
                let found: Vec<_> = reading.mentions.iter().map(|m| m.kind).zip(spots).collect();
                same += sentence
                    .entities
                    .iter()
                    .filter(|e| {
                        found.iter().any(|(kind, spot)| *kind == e.kind && *spot == answer::Spot::At(e.start, e.end))
                    })
                    .count();
            }
        }
        let share = same as f64 / all as f64;
        assert!(share > 0.995, "{file}: {same} of {all}");
    }
}

#[test]
fn rows_that_are_wrong_are_told_with_their_line() {
    let with = |field: &str, other: &str| {
        format!("{ROW}\n{}\n", ROW.replace("\"idx\": 0", "\"idx\": 1").replace(field, other))
    };
    for (bytes, expected) in [
        (format!("{ROW}\n{}", &ROW[..60]), "val.jsonl:2: the file ends in the middle of a row"),
        (format!("{ROW}\n{}\n", &ROW[..60]), "val.jsonl:2: not a JSON object with the fields of TERRa"),
        (format!("{ROW}\n[1]\n"), "val.jsonl:2: not a JSON object with the fields of TERRa"),
        (format!("{ROW}\n{ROW}\n"), "val.jsonl:2: `idx` 0 stands in line 1 already"),
        (with("\"hypothesis\"", "\"hypotesis\""), "val.jsonl:2: the row has no `hypothesis`"),
        (with("\"Шёл дождь.\"", "7"), "val.jsonl:2: `premise` is 7 (expected a text)"),
        (with("Шёл дождь.", " "), "val.jsonl:2: `premise` is empty"),
        (with("\"idx\": 1", "\"idx\": -1"), "val.jsonl:2: `idx` is -1 (expected a whole number from 0)"),
        (
            with("\"entailment\"", "\"Entailment\""),
            "val.jsonl:2: the label `Entailment` is not one of TERRa's (expected `entailment` or `not_entailment`)",
        ),
        (with("\"entailment\"", "0"), "val.jsonl:2: the label is 0 (expected `entailment` or `not_entailment`)"),
    ] {
        let told = told(terra_of(bytes.as_bytes()));
        assert!(told.starts_with(expected), "{bytes}\n{told}");
    }
    assert!(told(terra_of(b"{\"premise\": \"\xff\"}\n")).starts_with("val.jsonl:1: byte 14 of the line is not UTF-8"));
}

#[test]
fn copies_with_other_line_ends_and_fields_are_the_same_rows() {
    let plain = terra_of(format!("{ROW}\n").as_bytes()).expect("rows");
    for copy in [format!("{ROW}\r\n"), ROW.to_owned(), format!("\u{feff}{ROW}\n\n")] {
        assert_eq!(terra_of(copy.as_bytes()).expect("rows"), plain, "{copy:?}");
    }
    let more = ROW.replace("\"idx\"", "\"source\": [1], \"generated\": true, \"idx\"");
    let rows = terra_of(more.as_bytes()).expect("rows");
    assert!(rows[0].generated && !plain[0].generated);
}

#[test]
fn gold_that_says_nothing_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("val.jsonl");
    let second = ROW.replace("\"idx\": 0", "\"idx\": 1");
    fs::write(&path, format!("{ROW}\n{second}\n")).expect("written");
    let rows = terra::labelled(&path, "val.jsonl", None).expect("labels");
    let told_twice = told(terra::gate(&rows, "val.jsonl"));
    assert!(
        told_twice.starts_with("val.jsonl:2: the same premise and hypothesis stand in line 1 already"),
        "{told_twice}"
    );

    fs::write(&path, format!("{ROW}\n{}\n", second.replace("сыро", "сухо"))).expect("written");
    let rows = terra::labelled(&path, "val.jsonl", None).expect("labels");
    let told_class = told(terra::gate(&rows, "val.jsonl"));
    assert!(
        told_class.starts_with("val.jsonl: all 2 rows that are evaluated have the label `entailment`"),
        "{told_class}"
    );

    fs::write(&path, "\n").expect("written");
    assert_eq!(told(terra::labelled(&path, "val.jsonl", None)), "val.jsonl has no rows");
}

#[test]
fn a_sentence_is_read_with_its_places() {
    let generated = format!("{}\n{SENTENCE}", nerus::GENERATED);
    let mut reader = nerus::Reader::new(Lines::new(std::io::Cursor::new(generated.into_bytes()), "n.conllu"));
    let document = reader.next().expect("a document").expect("is right");
    assert!(reader.generated());
    let entities: Vec<_> = document.sentences[0].entities.iter().map(|e| (e.kind.as_str(), e.start, e.end)).collect();
    assert_eq!(entities, [("PER", 0, 4), ("LOC", 7, 13)]);
    assert_eq!(document.sentences[0].tokens, ["Анна", "в", "Москве", "."]);
    assert!(reader.next().is_none());

    let crlf = nerus_of(SENTENCE.replace('\n', "\r\n").as_bytes()).expect("is right");
    assert_eq!(crlf, nerus_of(SENTENCE.as_bytes()).expect("is right"));
}

#[test]
fn conllu_quirks_are_data() {
    let quirks = "# newdoc id = 0\n# sent_id = 0_3\n# text = \n\n# sent_id = 0_7\n# text = _ # _\n1\t_\t_\t_\t_\t_\t0\troot\t_\tTag=B-ORG\n2\t#\t_\t_\t_\t_\t0\troot\t_\tTag=I-LOC\n3\t_\t_\t_\t_\t_\t_\t_\t_\tTag=O\n\n";
    let documents = nerus_of(quirks.as_bytes()).expect("is right");
    let [empty, odd] = documents[0].sentences.as_slice() else { panic!("two sentences") };
    assert_eq!((empty.text.as_str(), empty.tokens.len()), ("", 0));
    assert_eq!((odd.entities[0].kind.as_str(), odd.entities[0].surface.as_str()), ("ORG", "_ #"));
}

#[test]
fn conllu_that_is_wrong_is_told_with_its_line() {
    let whole = SENTENCE.to_owned();
    for (bytes, expected) in [
        (whole[..whole.len() - 1].to_owned(), "n.conllu:7: the file ends in the middle of a sentence"),
        (
            whole[..whole.len() - 9].to_owned(),
            "n.conllu:7: the row has 9 columns (expected 10 columns, separated by tabs)\nhelp: it was probably cut off",
        ),
        (whole.replace("B-LOC", "B-GPE"), "n.conllu:6: the tag `B-GPE` is not one of Nerus's"),
        (whole.replace("|Tag=B-LOC", ""), "n.conllu:6: the last column has no tag"),
        (whole.replace("3\tМоскве", "3\tМосква"), "n.conllu:6: the word `Москва` is not in the rest"),
        (whole.replace("# newdoc id = 7\n", ""), "n.conllu:1: a sentence stands before the first `# newdoc id = …`"),
        (whole.replace("id = 7\n", "\n"), "n.conllu:1: the document has no id"),
        (whole.replace("# text = Анна в Москве.\n", ""), "n.conllu:2: the sentence has no `# text = …`"),
        (whole.replace("# sent_id = 7_0\n", ""), "n.conllu:2: the sentence has no `# sent_id = …`"),
        (format!("{}{whole}", &whole[..whole.len() - 1]), "n.conllu:8: a document begins in the middle of a sentence"),
        ("# newdoc id = 0\n# newdoc id = 1\n".to_owned(), "n.conllu:2: the document 0 has no sentences"),
    ] {
        let told = told(nerus_of(bytes.as_bytes()));
        assert!(told.starts_with(expected), "{bytes}\n{told}");
    }
}

#[test]
fn text_is_what_a_person_wrote() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    };
    // Files in a store have no endings: the content tells.
    write("a.txt", "Раз.\n\nДва.\n");
    write("b.jsonl", ROW);
    write("c.conllu", SENTENCE);
    write("LICENSE", "not a text");
    let texts = |path: &Path| {
        let mut found = Vec::new();
        text::each(path, "x", &mut |text| {
            found.push(text.to_owned());
            Ok(true)
        })
        .expect("is read");
        found
    };
    assert_eq!(texts(folder.path()), ["Раз.", "Два.", "Шёл дождь.", "Было сыро.", "Анна в Москве."]);
    assert_eq!(texts(&write("file", SENTENCE)), ["Анна в Москве."]);
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = terra_of(&bytes);
        let _ = nerus_of(&bytes);
    }

    /// Cutting a file anywhere is noticed, or what is left is whole rows and whole sentences.
    #[test]
    fn no_cut_makes_another_sentence(at in 0..SENTENCE.len()) {
        if let Ok(documents) = nerus_of(&SENTENCE.as_bytes()[..at]) {
            prop_assert!(documents.is_empty());
        }
        if let Ok(rows) = terra_of(&ROW.as_bytes()[..at.min(ROW.len() - 1)]) {
            prop_assert!(rows.is_empty());
        }
    }
}

/// The boundary of prompt and answer, and texts back from ids, against lm-evaluation-harness.
#[test]
fn rows_are_encoded_as_lm_evaluation_harness_does() {
    let Some(root) = support::golden() else { return };
    for folder in cases(&root, "lm_eval") {
        let encoder = Encoder::open(&folder, "golden").expect("loads");
        for case in read(&folder.join("encode.json")) {
            let text = case["text"].as_str().expect("a text");
            let ids = encoder.ids(text).expect("encoded");
            // There the words of a special token become it; here text of a data file never does.
            if ["<s>", "</s>", "<pad>"].iter().any(|special| text.contains(special)) {
                assert!(ids.iter().all(|id| *id > 2), "{text}: {ids:?}");
                assert_eq!(encoder.text(&ids).expect("decoded"), text);
                continue;
            }
            assert_eq!(json!(ids), case["ids_no_special"], "{text}");
            assert_eq!(json!([encoder.prefix(), &ids].concat()), case["ids"], "{text}");
            assert_eq!(json!(encoder.text(&ids).expect("decoded")), case["decoded"], "{text}");
        }
        for case in read(&folder.join("loglikelihood.json")) {
            let (context, answer) =
                (case["context"].as_str().expect("a text"), case["continuation"].as_str().expect("a text"));
            // An empty context is BOS alone there; here a prompt is never empty.
            if !context.is_empty() {
                let pair = encoder.pair(context, answer).expect("encoded");
                assert_eq!(json!(pair.context), case["context_ids"], "{context:?} {answer:?}");
                assert_eq!(json!(pair.answer), case["continuation_ids"], "{context:?} {answer:?}");
            }
        }
    }
}
