//! Pipeline files: what they mean, and every mistake with its place.

pub mod kinds;

use std::path::Path;

use pipe::spec::{Options, Pipeline, Problems, load, load_text};
use pipe::ui::problem;
use proptest::prelude::*;
use serde_json::json;

use crate::support::repository;

fn options() -> Options {
    Options { kinds: kinds::KINDS, ..Options::default() }
}

fn read(text: &str, options: &Options) -> Result<Pipeline, Problems> {
    load_text(Path::new("pipelines/test.yaml"), text, options)
}

fn good(text: &str) -> Pipeline {
    read(text, &options()).unwrap_or_else(|problems| panic!("{}", problem::render(&problems, false)))
}

fn bad(text: &str, options: &Options) -> String {
    match read(text, options) {
        Ok(_) => panic!("no problem found in\n{text}"),
        Err(problems) => problem::render(&problems, false),
    }
}

fn ids(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.steps.iter().map(|step| step.id.as_str()).collect()
}

fn sources(pipeline: &Pipeline, step: usize, port: &str) -> Vec<String> {
    let edges = &pipeline.steps[step].inputs[port];
    edges.iter().map(|edge| format!("{}.{}", pipeline.steps[edge.step].id, pipeline.output(edge).name)).collect()
}

/// Each file of `tests/bad` has one mistake; the `.txt` beside it is what a person is told.
/// A first line `# pipe check --set … --profile …` gives the command line.
#[test]
fn every_mistake_is_told_in_its_words() {
    let folder = repository().join("tests/bad");
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("tests/bad")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 40, "{} files", files.len());
    let mut different = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        let mut options = options();
        let command = text.lines().next().and_then(|line| line.strip_prefix("# pipe check ")).unwrap_or("");
        let mut words = command.split(' ').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            let value = words.next().expect("a value").to_owned();
            match word {
                "--set" => options.sets.push(value),
                "--profile" => options.profile = Some(value),
                "--target" => options.targets.push(value),
                _ => panic!("{}: {word}", file.display()),
            }
        }
        let name = format!("tests/bad/{}", file.file_name().expect("a name").to_string_lossy());
        let told = match load_text(Path::new(&name), &text, &options) {
            Ok(_) => panic!("{name} has no problem"),
            Err(problems) => problem::render(&problems, false),
        };
        let expected = file.with_extension("txt");
        if update {
            std::fs::write(&expected, &told).expect("writing");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != told {
            different.push(format!("{name} now says\n{told}"));
        }
    }
    assert!(different.is_empty(), "{}\nUPDATE=1 cargo test writes them anew", different.join("\n"));
}

#[test]
fn a_pipeline_is_what_the_file_says() {
    let pipeline = good(
        "name: demo
params:
  lora: { rank: 4, alpha: 8 }
  text: a.txt
targets: [all]
steps:
  text: { uses: fetch, with: { source: '${params.text}' } }
  tokens: { uses: tokenize, in: { data: text.index }, with: { labels: { no: on } } }
  lora:
    uses: train
    in: { data: tokens, start: null }
    matrix: { rank: [4, 8], mode: [a, b], exclude: [{ rank: 8, mode: a }] }
    with: { adapter: { lora: { rank: '${matrix.rank}', alpha: '${params.lora.alpha}' } } }
  all:
    uses: gather
    in: { results: lora, notes: ['lora[mode=b,rank=0x4].curve', text] }
",
    );
    assert_eq!(pipeline.name, "demo");
    assert_eq!(
        ids(&pipeline),
        ["text", "tokens", "lora[rank=4,mode=a]", "lora[rank=4,mode=b]", "lora[rank=8,mode=b]", "all"]
    );
    assert_eq!(pipeline.targets, [5]);
    assert_eq!(pipeline.steps[0].action.params(), json!({ "source": "a.txt", "limit": null }));
    assert_eq!(pipeline.steps[1].action.params()["labels"], json!({ "no": "on" }));
    assert_eq!(pipeline.steps[4].action.params()["adapter"]["lora"]["rank"], json!(8));
    assert_eq!(pipeline.steps[4].coordinates["mode"], json!("b"));
    assert_eq!(sources(&pipeline, 1, "data"), ["text.index"]);
    assert_eq!(
        sources(&pipeline, 5, "results"),
        ["lora[rank=4,mode=a].adapter", "lora[rank=4,mode=b].adapter", "lora[rank=8,mode=b].adapter"]
    );
    assert_eq!(sources(&pipeline, 5, "notes"), ["lora[rank=4,mode=b].curve", "text.file"]);
    assert!(pipeline.steps[2].inputs.get("start").is_none());
}

#[test]
fn the_root_holds_the_folder_pipelines() {
    let at = |file: &str| load_text(Path::new(file), "steps: { a: { uses: fetch, with: { source: a } } }", &options());
    let root = |file: &str| at(file).unwrap_or_else(|_| panic!("{file}")).root.display().to_string();
    assert_eq!(root("pipelines/x.yaml"), ".");
    assert_eq!(root("some/pipelines/x.yaml"), "some");
    assert_eq!(root("some/x.yaml"), "some");
    assert_eq!(root("x.yaml"), ".");
    assert_eq!(at("pipelines/x.yaml").expect("good").name, "x");
}

#[test]
fn a_profile_and_settings_change_parameters_in_depth() {
    let text = "params: { lora: { rank: 4, alpha: 8 }, from: small, limit: null }
profiles: { big: { lora: { rank: 64 }, from: large } }
steps:
  small: { uses: fetch, with: { source: s } }
  large: { uses: fetch, with: { source: l, limit: '${params.limit}' } }
  tokens: { uses: tokenize, in: { data: '${params.from}' } }
  lora: { uses: train, in: { data: tokens }, with: { adapter: { lora: '${params.lora}' } } }
";
    let options = Options {
        profile: Some("big".to_owned()),
        sets: vec!["lora.alpha=16".to_owned(), "params.limit=7".to_owned()],
        ..options()
    };
    let pipeline = read(text, &options).expect("good");
    let params = pipeline.steps[3].action.params();
    assert_eq!(params["adapter"]["lora"]["rank"], json!(64));
    assert_eq!(params["adapter"]["lora"]["alpha"], json!(16.0));
    assert_eq!(pipeline.steps[1].action.params()["limit"], json!(7));
    assert_eq!(sources(&pipeline, 2, "data"), ["large.file"]);
}

#[test]
fn anchors_and_merge_keys_work() {
    let pipeline = good(
        "params: { base: &base { steps: 5, warmup: 1 } }
steps:
  text: { uses: fetch, with: &with { source: a.txt } }
  more: { uses: fetch, with: *with }
  tokens: { uses: tokenize, in: { data: text } }
  a: { uses: train, in: { data: tokens }, with: { <<: *base, warmup: 2 } }
",
    );
    assert_eq!(pipeline.steps[1].action.params()["source"], json!("a.txt"));
    assert_eq!(pipeline.steps[3].action.params()["steps"], json!(5));
    assert_eq!(pipeline.steps[3].action.params()["warmup"], json!(2));
}

const WITH_FILES: &str = "params: { files: null }
targets: [tokens]
steps:
  made: { uses: fetch, with: { source: made } }
  tokens: { uses: tokenize, in: { data: made } }
  real: { uses: fetch, with: { source: '${params.files}/a.txt' } }
  whole: { uses: fetch, with: { source: '${params.files}' } }
  read: { uses: tokenize, in: { data: real } }
";

#[test]
fn a_step_that_lacks_a_parameter_is_missed_by_those_targets_alone_that_need_it() {
    assert_eq!(ids(&good(WITH_FILES)), ["made", "tokens"]);
    let with = Options { sets: vec!["files=data".to_owned()], ..options() };
    let pipeline = read(WITH_FILES, &with).expect("good");
    assert_eq!(ids(&pipeline), ["made", "tokens", "real", "whole", "read"]);
    assert_eq!(pipeline.targets, [1]);
    let told = bad(WITH_FILES, &Options { targets: vec!["read".to_owned()], ..options() });
    assert!(told.contains("`params.files` is null") && told.contains("6:41"), "{told}");
}

#[test]
fn a_step_outside_the_targets_is_still_checked() {
    let told = bad(&WITH_FILES.replace("data: real", "data: rael"), &options());
    assert!(told.contains("did you mean `real`?"), "{told}");
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let told = bad(
        "naem: x
steps:
  text: { uses: fetch, with: { sorce: 1 } }
  tokens: { uses: tokenise, in: { data: txt } }
  lora: { uses: train, in: { data: txt }, with: { steps: 0, warmup: many } }
",
        &options(),
    );
    let places: Vec<&str> = told.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect();
    let expected = ["1:1", "3:24", "3:32", "4:19", "5:36", "5:58", "5:69"];
    let expected: Vec<String> = expected.iter().map(|place| format!("pipelines/test.yaml:{place}")).collect();
    assert_eq!(places, expected, "{told}");
    assert!(told.ends_with("7 problems in pipelines/test.yaml\n"), "{told}");
}

#[test]
fn a_mistake_in_every_cell_is_told_once() {
    let told = bad(
        "steps:
  text: { uses: fetch, matrix: { i: [1, 2, 3] }, with: { source: a, limit: 0 } }
",
        &options(),
    );
    assert!(told.ends_with("1 problem in pipelines/test.yaml\n"), "{told}");
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let mut text = "params:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let before = format!("*a{}", i - 1);
        text.push_str(&format!("  a{i}: &a{i} [{}]\n", vec![before; 9].join(", ")));
    }
    text.push_str("steps: { a: { uses: fetch, with: { source: a } } }\n");
    assert!(bad(&text, &options()).contains("aliases"), "{}", bad(&text, &options()));
    let deep = format!("params: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    assert!(bad(&deep, &options()).contains("nested too deep"), "{}", bad(&deep, &options()));
    let wide = (0..101).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let wide =
        format!("steps: {{ a: {{ uses: fetch, with: {{ source: a }}, matrix: {{ x: [{wide}], y: [{wide}] }} }} }}\n");
    assert!(bad(&wide, &options()).contains("more than 10000 cells"));
}

#[test]
fn very_many_problems_are_counted_but_not_listed() {
    let steps: String = (0..300).map(|i| format!("  s{i}: {{ uses: nothing }}\n")).collect();
    let told = bad(&format!("steps:\n{steps}"), &options());
    assert!(told.contains("there are 100 more problems"), "{}", told.lines().last().unwrap_or_default());
}

#[test]
fn a_long_chain_and_many_cells_are_no_trouble() {
    let chain: String =
        (1..9000).map(|i| format!("  s{i}: {{ uses: tokenize, in: {{ data: s{} }} }}\n", i - 1)).collect();
    let pipeline = good(&format!("steps:\n  s0: {{ uses: fetch, with: {{ source: a }} }}\n{chain}"));
    assert_eq!(pipeline.steps.len(), 9000);
    let values = (0..9000).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let matrix = format!("matrix: {{ i: [{values}] }}");
    let pipeline = good(&format!(
        "steps:\n  a: {{ uses: fetch, with: {{ source: a }}, {matrix} }}\n  b: {{ uses: gather, in: {{ results: a }} }}\n"
    ));
    assert_eq!(pipeline.steps[9000].inputs["results"].len(), 9000);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = |name: &str| match load(&folder.path().join(name), &options()) {
        Ok(_) => panic!("{name} was read"),
        Err(problems) => problem::render(&problems, false),
    };
    assert!(told("none.yaml").contains("cannot read"), "{}", told("none.yaml"));
    std::fs::write(folder.path().join("latin.yaml"), b"name: \xff\n").expect("writing");
    assert!(told("latin.yaml").contains("not UTF-8"));
    std::fs::write(folder.path().join("long.yaml"), vec![b'#'; (4 << 20) + 1]).expect("writing");
    assert!(told("long.yaml").contains("longer than 4 MiB"));
}

/// Steps whose `with` has the given text of parameters, written in several ways.
fn one_step(with: &str) -> String {
    format!(
        "steps:\n  text: {{ uses: fetch, with: {{ source: a }} }}\n  tokens: {{ uses: tokenize, in: {{ data: text }} }}\n  lora:\n    in: {{ data: tokens }}\n    uses: train\n{with}"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,120}") {
        let _ = read(&text, &options()).map_err(|problems| problem::render(&problems, true));
    }

    #[test]
    fn no_broken_pipeline_makes_it_panic(cut in 0usize..600, insert in "[\\[\\]{}:,&*!|>'\"$#%@`\\n\\t a-zя0-9.-]{0,6}", at in 0usize..600) {
        let mut text: Vec<char> = WITH_FILES.chars().collect();
        let at = at.min(text.len());
        text.splice(at..at, insert.chars());
        text.truncate(cut.max(40));
        let text: String = text.into_iter().collect();
        let _ = read(&text, &options()).map_err(|problems| problem::render(&problems, false));
    }

    #[test]
    fn no_substitution_makes_it_panic(text in "[$\\{\\}a-z.\\[\\]= \"]{0,40}", set in "[a-z.={}\\[\\]\"' :&*]{0,20}") {
        let quoted = serde_json::to_string(&text).expect("text");
        let yaml = format!("params: {{ a: 1 }}\nsteps:\n  t: {{ uses: fetch, with: {{ source: {quoted} }} }}\n  u: {{ uses: tokenize, in: {{ data: {quoted} }} }}\n");
        let options = Options { sets: vec![set.clone()], targets: vec![set], ..options() };
        let _ = read(&yaml, &options).map_err(|problems| problem::render(&problems, false));
    }

    #[test]
    fn order_spacing_and_comments_do_not_matter(
        entries in Just(vec!["steps: 7", "warmup: 3", "verbose: true", "adapter: { lora: { alpha: 2, rank: 1 } }"]).prop_shuffle(),
        gap in 1usize..6,
        comment in "[ a-z]{0,10}",
    ) {
        let body: String = entries.iter().map(|entry| format!("{}{entry}   # {comment}\n\n", " ".repeat(4 + gap))).collect();
        let block = good(&one_step(&format!("    with:\n{body}")));
        let flow = good(&one_step("    with: { adapter: { lora: { rank: 1, alpha: 2.0 } }, steps: 7, verbose: true, warmup: 0x3 }\n"));
        prop_assert_eq!(block.steps[2].action.params(), flow.steps[2].action.params());
    }

    #[test]
    fn ids_are_unique(values in prop::collection::vec("[a-z0-9,=\\[\\]\" .-]{0,5}", 1..6), numbers in prop::collection::btree_set(-9i64..9, 1..4)) {
        let mut texts = values;
        texts.sort();
        texts.dedup();
        let text = format!(
            "steps: {{ a: {{ uses: fetch, with: {{ source: a }}, matrix: {{ t: {}, n: {}, m: {} }} }} }}",
            json!(texts), json!(numbers), json!([1, "1", true, "true"])
        );
        let pipeline = good(&text);
        let unique: std::collections::BTreeSet<_> = ids(&pipeline).into_iter().collect();
        prop_assert_eq!(unique.len(), pipeline.steps.len());
        for step in &pipeline.steps {
            let options = Options { targets: vec![step.id.clone()], ..options() };
            let again = read(&text, &options).expect("an id is a target");
            prop_assert_eq!(again.targets.len(), 1);
            prop_assert_eq!(&again.steps[again.targets[0]].id, &step.id);
        }
    }
}
