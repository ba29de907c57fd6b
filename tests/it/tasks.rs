//! The tasks' files: real data where there is some, and every way in which a file can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::error::Result;
use pipe::task::encode::Encoder;
use pipe::task::lines::Lines;
use pipe::task::terra::Label;
use pipe::task::{answer, nerus, terra, text};
use proptest::prelude::*;
use serde_json::{Value, json};

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
    terra::gate(&terra::labelled(&val, "val.jsonl", None, None).expect("labels"), "val.jsonl").expect("good gold");
}

#[test]
fn terras_test_split_is_refused_by_name() {
    let Some(data) = support::data() else { return };
    let path = data.join("terra/test.jsonl");
    assert_eq!(
        told(terra::labelled(&path, "../shared/data/terra/test.jsonl", Some(10), None)),
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
    let rows = terra::labelled(&path, "val.jsonl", None, None).expect("labels");
    let told_twice = told(terra::gate(&rows, "val.jsonl"));
    assert!(
        told_twice.starts_with("val.jsonl:2: the same premise and hypothesis stand in line 1 already"),
        "{told_twice}"
    );

    fs::write(&path, format!("{ROW}\n{}\n", second.replace("сыро", "сухо"))).expect("written");
    let rows = terra::labelled(&path, "val.jsonl", None, None).expect("labels");
    let told_class = told(terra::gate(&rows, "val.jsonl"));
    assert!(
        told_class.starts_with("val.jsonl: all 2 rows that are evaluated have the label `entailment`"),
        "{told_class}"
    );

    fs::write(&path, "\n").expect("written");
    assert_eq!(told(terra::labelled(&path, "val.jsonl", None, None)), "val.jsonl has no rows");
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

/// Special tokens of a case's tokenizer.
fn special(folder: &Path) -> Vec<(u32, String)> {
    let file = fs::read(folder.join("tokenizer.json")).unwrap_or_else(|_| b"{}".to_vec());
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    let tokens = file["added_tokens"].as_array().cloned().unwrap_or_default();
    let special = tokens.iter().filter(|token| token["special"] == true);
    let read =
        |token: &Value| Some((u32::try_from(token["id"].as_u64()?).ok()?, token["content"].as_str()?.to_owned()));
    special.filter_map(read).collect()
}

/// The boundary of prompt and answer, and texts back from ids, against lm-evaluation-harness.
#[test]
fn rows_are_encoded_as_lm_evaluation_harness_does() {
    let Some(root) = support::golden() else { return };
    for folder in cases(&root, "lm_eval") {
        let encoder = Encoder::open(&folder, "golden").expect("loads");
        let special = special(&folder);
        for case in read(&folder.join("encode.json")) {
            let text = case["text"].as_str().expect("a text");
            let ids = encoder.ids(text).expect("encoded");
            // There the words of a special token become it; here text of a data file never does.
            if special.iter().any(|(_, token)| text.contains(token.as_str())) {
                assert!(ids.iter().all(|id| special.iter().all(|(other, _)| id != other)), "{text}: {ids:?}");
                assert_eq!(encoder.text(&ids).expect("decoded").trim_start(), text.trim_start());
                continue;
            }
            assert_eq!(json!(ids), case["ids_no_special"], "{text}");
            assert_eq!(json!([encoder.prefix(), &ids].concat()), case["ids"], "{text}");
            assert_eq!(json!(encoder.text(&ids).expect("decoded")), case["decoded"], "{text}");
        }
        for case in read(&folder.join("loglikelihood.json")) {
            let (context, answer) =
                (case["context"].as_str().expect("a text"), case["continuation"].as_str().expect("a text"));
            let pair = encoder.pair(context, answer).expect("encoded");
            let whole = [encoder.prefix(), &pair.context].concat();
            assert_eq!(json!(whole), case["context_ids"], "{context:?} {answer:?}");
            assert_eq!(json!(pair.answer), case["continuation_ids"], "{context:?} {answer:?}");
        }
    }
}

/// What the reader says of a file, and what all threads together say.
fn both(text: &str) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("n.conllu");
    fs::write(&path, text).expect("written");
    let show = |document: &nerus::Document| format!("{document:?}\n");
    let mut alone = String::new();
    let mut problem = None;
    for document in nerus::Reader::open(&path, "n.conllu").expect("opens") {
        match document {
            Ok(document) => alone.push_str(&show(&document)),
            Err(found) => {
                problem = Some(found);
                break;
            }
        }
    }
    alone.extend(problem.map(|problem| problem.to_string()));
    let mut together = String::new();
    let each = nerus::parallel::each(&path, "n.conllu", &|document| Ok(show(&document)), &mut |shown, _| {
        together.push_str(&shown);
        Ok(true)
    });
    together.extend(each.err().map(|problem| problem.to_string()));
    (alone, together)
}

#[test]
fn all_threads_read_what_one_reads_and_tell_the_same_line() {
    let document = |i: usize| {
        let words: String = (1..20).map(|w| format!("{w}\tслово{w}\t_\t_\t_\t_\t_\t_\t_\tTag=O\n")).collect();
        let text: String = (1..20).map(|w| format!("слово{w} ")).collect();
        format!("# newdoc id = {i}\n# sent_id = {i}_0\n# text = {text}\n{words}\n")
    };
    // Several blocks, and a document that is longer than the first of them.
    let whole: String = (0..2000).map(document).collect();
    let long = whole.replacen("# newdoc id = 3\n", &"# note = длинная\n".repeat(6000), 1);
    let lines: Vec<&str> = whole.lines().collect();
    let without =
        |at: usize| lines.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, l)| format!("{l}\n")).collect();
    let with = |at: usize, line: &str| {
        lines.iter().enumerate().map(|(i, l)| if i == at { format!("{line}\n") } else { format!("{l}\n") }).collect()
    };
    let blank = |from: usize| (from..).find(|i| lines[*i].is_empty()).expect("a blank line");
    let texts: [String; 9] = [
        whole.clone(),
        long,
        String::new(),
        without(blank(30_000)),
        without(0),
        with(41_001, "1\tслово1\t_"),
        with(blank(9_000) + 1, "# newdoc"),
        whole[..whole.len() - 7].to_owned(),
        whole.replace("# newdoc id = 1999\n", "# newdoc id = 1998b\n# newdoc id = 1999\n"),
    ];
    let mut problems = 0;
    for text in &texts {
        let (alone, together) = both(text);
        assert!(alone == together, "{}", together.lines().last().unwrap_or_default());
        problems += usize::from(together.contains("n.conllu:"));
    }
    assert_eq!(problems, 6, "each mistake is told");
}

#[test]
fn reading_ends_where_enough_was_taken() {
    let Some(data) = support::data() else { return };
    let path = data.join("nerus/nerus_v1_lenta500_ner_only.conllu");
    let (mut taken, mut last) = (0, 0);
    let each = nerus::parallel::each(&path, "nerus", &|document| Ok(document.id), &mut |_, position| {
        taken += 1;
        last = position.bytes;
        Ok(taken < 3)
    });
    assert_eq!((each, taken), (Ok(()), 3));
    assert!(last < 1 << 20, "{last} bytes were read for three documents");
    // A problem behind what is wanted is nobody's.
    let root = tempfile::tempdir().expect("a folder");
    let bad = root.path().join("bad");
    fs::write(&bad, format!("{SENTENCE}# newdoc id = 9\nnonsense\n")).expect("written");
    let take = |limit: usize| {
        let mut taken = 0;
        nerus::parallel::each(&bad, "bad", &|document| Ok(document.sentences.len()), &mut |_, _| {
            taken += 1;
            Ok(taken < limit)
        })
    };
    assert_eq!(take(1), Ok(()));
    assert_eq!(
        told(take(2)).lines().next(),
        Some("bad:10: the row has 1 columns (expected 10 columns, separated by tabs)")
    );
}
