//! The gold gate on Nerus: tags beside their words, exchanged types, repeated documents, sentences of the training data.
//! Real files, where they are, have none of it.

use std::fs;
use std::path::{Path, PathBuf};

use pipe::task::gate::nerus::{Item, Train, flaws};
use pipe::task::gate::{Code, Flaw};
use pipe::task::nerus::{Document, Reader};
use serde_json::json;

use crate::data_steps::run;
use crate::gold::{evaluated, passes};
use crate::support;

/// What a file is found to have, beside what something was trained on.
fn found(data: &Path, train: &[&Path]) -> Vec<Flaw> {
    let documents: Vec<Document> =
        Reader::open(data, "data").expect("a file").collect::<Result<_, _>>().unwrap_or_else(|p| panic!("{p}"));
    let items: Vec<Item> = documents
        .iter()
        .flat_map(|document| document.sentences.iter().map(|sentence| (&document.id, sentence)))
        .map(|(document, s)| Item { document, id: &s.id, text: &s.text, entities: &s.entities })
        .collect();
    let mut known = Train::default();
    for path in train {
        known.read(path, "train").expect("read");
    }
    flaws(&items, &known)
}

fn codes(flaws: &[Flaw]) -> Vec<(Code, bool)> {
    flaws.iter().map(|flaw| (flaw.code, flaw.misleads)).collect()
}

/// Generated news, and the two real files where they are.
fn corpora(folder: &Path) -> Vec<PathBuf> {
    let small = json!({"text_bytes": 1000, "base_nerus": 5, "base_terra": 10, "terra_train": 300});
    let made = run("generate", small, vec![], Path::new("/")).unwrap_or_else(|p| panic!("{p:?}"));
    let copy = folder.join("generated.conllu");
    fs::copy(made.path("nerus_train.conllu"), &copy).expect("copied");
    let mut all = vec![copy];
    if let Some(data) = support::data() {
        all.push(data.join("nerus/nerus_v1_lenta500_ner_only.conllu"));
        all.push(data.join("factrueval2016/devset_nerus_format.conllu"));
    }
    all
}

/// The text of each document of a file, without what stands before the first.
fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("data");
    text.split("# newdoc id = ").skip(1).map(|rest| format!("# newdoc id = {rest}")).collect()
}

fn written(folder: &Path, documents: impl IntoIterator<Item = String>) -> PathBuf {
    let text: String = documents.into_iter().collect();
    let path = folder.join(format!("{}.conllu", blake3::hash(text.as_bytes()).to_hex()));
    fs::write(&path, text).expect("written");
    path
}

/// Every tag stands at the next word; the last of a sentence is lost.
fn moved(document: &str) -> String {
    let mut before = "Tag=O".to_owned();
    let mut text = String::new();
    for line in document.lines() {
        match line.rsplit_once('\t') {
            Some((row, tag)) => {
                text.push_str(&format!("{row}\t{before}\n"));
                before = tag.to_owned();
            }
            None => {
                before = "Tag=O".to_owned();
                text.push_str(&format!("{line}\n"));
            }
        }
    }
    text
}

/// Other ids, and capitals where there were small letters.
fn renamed(document: &str) -> String {
    let document =
        document.replace("# newdoc id = ", "# newdoc id = again").replace("# sent_id = ", "# sent_id = again");
    let upper = |line: &str| {
        let words =
            line.split('\t').enumerate().map(|(i, cell)| if i == 1 { cell.to_uppercase() } else { cell.to_owned() });
        words.collect::<Vec<_>>().join("\t")
    };
    let line = |line: &str| match line.strip_prefix("# text = ") {
        Some(text) => format!("# text = {}\n", text.to_uppercase()),
        None => format!("{}\n", upper(line)),
    };
    document.lines().map(line).collect()
}

#[test]
fn good_files_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in corpora(folder.path()) {
        let flaws = found(&path, &[]);
        assert!(flaws.iter().all(|flaw| !flaw.misleads && flaw.code == Code::Duplicates), "{path:?}: {flaws:?}");
        // Halves of one file are as near to one another as test and training data get.
        let documents = texts(&path);
        let (mut even, mut odd) = (Vec::new(), Vec::new());
        for (i, document) in documents.into_iter().enumerate() {
            if i % 2 == 0 { even.push(document) } else { odd.push(document) }
        }
        let flaws = found(&written(folder.path(), even), &[&written(folder.path(), odd)]);
        assert!(flaws.iter().all(|flaw| !flaw.misleads), "{path:?}: {flaws:?}");
    }
}

#[test]
fn tags_beside_their_words_are_caught() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in corpora(folder.path()) {
        let documents = texts(&path);
        let some = |every: usize| {
            let change =
                |(i, document): (usize, &String)| if i % every == 0 { moved(document) } else { document.clone() };
            written(folder.path(), documents.iter().enumerate().map(change))
        };
        let tags = |path: &Path| {
            codes(&found(path, &[])).into_iter().filter(|(code, _)| *code == Code::Tags).collect::<Vec<_>>()
        };
        assert_eq!(tags(&some(1)), [(Code::Tags, true)], "all of {path:?}");
        assert_eq!(tags(&some(10)), [(Code::Tags, true)], "a tenth of {path:?}");
        // One document is told; in the first of factRuEval the words behind names are names, too.
        if !path.ends_with("devset_nerus_format.conllu") {
            assert_eq!(tags(&some(documents.len())), [(Code::Tags, false)], "one of {path:?}");
        }
        let small = |document: &String| {
            document
                .lines()
                .map(|line| {
                    let (text, tag) = line.rsplit_once("Tag=").unwrap_or((line, ""));
                    let tag = if tag.is_empty() { String::new() } else { format!("Tag={tag}") };
                    let text = if text.starts_with("# newdoc") || text.starts_with("# sent_id") {
                        text.to_owned()
                    } else {
                        text.to_lowercase()
                    };
                    format!("{text}{tag}\n")
                })
                .collect::<String>()
        };
        // Text that has no capitals at all says nothing.
        assert_eq!(tags(&written(folder.path(), documents.iter().map(small))), [], "{path:?} in small letters");
    }
    let path = &corpora(folder.path())[0];
    let wrong = written(folder.path(), texts(path).iter().map(|document| moved(document)));
    let said = evaluated("nerus", &wrong, &[], json!({}));
    assert!(said.contains("tags look moved beside their words") && said.contains("allow: [tags]"), "{said}");
    assert!(passes(&evaluated("nerus", &wrong, &[], json!({"allow": ["tags"]}))));
}

#[test]
fn documents_under_another_id_are_caught() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in corpora(folder.path()) {
        let documents = texts(&path);
        let twice = |count: usize| {
            let again = documents.iter().take(count).map(|document| renamed(document));
            found(&written(folder.path(), documents.iter().cloned().chain(again)), &[])
        };
        let flaws = twice(documents.len() / 10);
        let flaw = &flaws[0];
        assert_eq!((flaw.code, flaw.misleads, flaw.count), (Code::Duplicates, true, documents.len() as u64 / 10));
        assert!(flaw.what.contains("a second time under another id") && flaw.examples[0].starts_with("again"));
        // One of many may be an oversight of who made the corpus: it is told.
        if documents.len() > 100 {
            let flaws = twice(1);
            assert_eq!((flaws[0].code, flaws[0].misleads, flaws[0].count), (Code::Duplicates, false, 1), "{path:?}");
        }
    }
    let documents = texts(&corpora(folder.path())[0]);
    let again = documents.iter().take(9).map(|document| renamed(document));
    let wrong = written(folder.path(), documents.iter().cloned().chain(again));
    let said = evaluated("nerus", &wrong, &[], json!({}));
    assert!(said.contains("9 of ") && said.contains("allow: [duplicates]"), "{said}");
    assert!(passes(&evaluated("nerus", &wrong, &[], json!({"allow": ["duplicates"]}))));
}

/// A document of every tenth sentence, told by the blank line behind each.
fn every_tenth(documents: &[String]) -> String {
    let mut text = "# newdoc id = copied\n".to_owned();
    let body = |document: &String| document.split_once('\n').map(|(_, body)| body.to_owned()).expect("sentences");
    for (i, sentence) in documents.iter().map(body).collect::<String>().split_inclusive("\n\n").enumerate() {
        if i % 10 == 0 {
            text.push_str(sentence);
        }
    }
    renamed(&text)
}

#[test]
fn a_tenth_of_the_sentences_in_the_training_data_is_caught() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in corpora(folder.path()) {
        let documents = texts(&path);
        let (test, train) = documents.split_at(documents.len() / 2);
        let copied = train.iter().cloned().chain([every_tenth(test)]);
        let flaws = found(&written(folder.path(), test.to_vec()), &[&written(folder.path(), copied)]);
        let shared = flaws.iter().find(|flaw| flaw.code == Code::SharedTexts).expect("found");
        assert!(shared.misleads, "{path:?}: {shared:?}");
    }
    let documents = texts(&corpora(folder.path())[0]);
    let (test, train) = documents.split_at(documents.len() / 2);
    let data = written(folder.path(), test.to_vec());
    let train = written(folder.path(), train.iter().cloned().chain([every_tenth(test)]));
    let said = evaluated("nerus", &data, &[&train], json!({}));
    assert!(said.contains("are in the training data, too") && said.contains("allow: [shared_texts]"), "{said}");
    assert!(passes(&evaluated("nerus", &data, &[&train], json!({"allow": ["shared_texts"]}))));
}

#[test]
fn exchanged_types_are_shown_by_the_names_of_the_training_data() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in corpora(folder.path()).iter().take(2) {
        let documents = texts(path);
        let (test, train) = documents.split_at(documents.len() / 2);
        let exchanged =
            |document: &String| document.replace("-LOC", "-X").replace("-ORG", "-LOC").replace("-X", "-ORG");
        let data = written(folder.path(), test.iter().map(exchanged));
        let train = written(folder.path(), train.to_vec());
        let flaws = found(&data, &[&train]);
        let polarity: Vec<&Flaw> = flaws.iter().filter(|flaw| flaw.code == Code::Polarity).collect();
        assert!(polarity.len() == 1 && polarity[0].misleads, "{path:?}: {flaws:?}");
        assert!(polarity[0].what.contains("LOC ") && !polarity[0].what.contains("PER"), "{}", polarity[0].what);
    }
}
