//! Misspelt names and wrong types, everywhere that a name or a value stands: the place, and what was meant.
//! It does not look at the whole texts: `tests/bad` holds them, one file each.

use super::{Case, Told};

const YAML: &str = "name: p
params: { lora: { rank: 4, alpha: 8 }, text: one }
profiles: { large: { lora: { rank: 64 } } }
targets: [all]
steps:
  data: { uses: generate, with: { seed: 1 } }
  tokenizer: { uses: tokenizer, in: { text: data.text } }
  base: { uses: pretrain, in: { tokenizer: tokenizer, text: data.text } }
  tokens: { uses: tokenize, in: { data: data.nerus_train, tokenizer: base }, with: { task: nerus } }
  lora:
    uses: train
    in: { model: base, data: tokens }
    with: { adapter: { lora: { rank: '${params.lora.rank}', alpha: 8, use_dora: false } }, epochs: 3 }
    expect: ['final_loss < 9']
    checkpoint: 5m
  cells:
    uses: command
    matrix:
      rank: [2, 4]
      mode: [x, y]
      exclude: [{ rank: 2, mode: x }]
      include: [{ rank: 8, mode: x }]
    when: 'matrix.rank < 9 and params.lora.alpha == 8'
    resources: { cpu: 1, memory: 1GB }
    retries: { times: 1, backoff: 1s }
    timeout: 10s
    with: { shell: 'echo ${matrix.rank} > o', outputs: { o: o }, env: { K: v } }
  all:
    uses: command
    in: { cells: cells, one: 'cells[rank=8]', o: 'lora.adapter' }
    with: { run: [cp, in/one, o], outputs: { o: o }, figures: m.json }
";

/// A text of the pipeline that stands there once more or less often, what is misspelt in its place, and what it was.
fn typos() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    vec![
        // The top level.
        ("name: p", "naem: p", "naem", "name"),
        ("params:", "parmas:", "parmas", "params"),
        ("profiles:", "profils:", "profils", "profiles"),
        ("targets:", "tragets:", "tragets", "targets"),
        ("steps:", "stpes:", "stpes", "steps"),
        ("profiles: { large: { lora: { rank", "profiles: { large: { lora: { rnak", "rnak", "rank"),
        ("profiles: { large: { lora:", "profiles: { large: { lroa:", "lroa", "lora"),
        ("targets: [all]", "targets: [lal]", "lal", "all"),
        // A step.
        ("uses: train", "usse: train", "usse", "uses"),
        ("    matrix:", "    matrx:", "matrx", "matrix"),
        ("when:", "whne:", "whne", "when"),
        ("resources:", "resorces:", "resorces", "resources"),
        ("retries:", "retrys:", "retrys", "retries"),
        ("timeout:", "timout:", "timout", "timeout"),
        ("expect:", "expcet:", "expcet", "expect"),
        ("checkpoint: 5m", "checkpiont: 5m", "checkpiont", "checkpoint"),
        ("with: { shell", "wiht: { shell", "wiht", "with"),
        ("in: { cells", "inn: { cells", "inn", "in"),
        ("uses: train", "uses: trian", "trian", "train"),
        // How it is run.
        ("cpu: 1", "cpus: 1", "cpus", "cpu"),
        ("memory: 1GB", "memroy: 1GB", "memroy", "memory"),
        ("times: 1", "tiems: 1", "tiems", "times"),
        ("backoff: 1s", "bakcoff: 1s", "bakcoff", "backoff"),
        // Its parameters, and those in them.
        ("shell: '", "sehll: '", "sehll", "shell"),
        ("outputs: { o: o }, env", "outptus: { o: o }, env", "outptus", "outputs"),
        ("figures:", "figurse:", "figurse", "figures"),
        ("epochs: 3", "epohcs: 3", "epohcs", "epochs"),
        ("with: { adapter", "with: { adpater", "adpater", "adapter"),
        ("{ lora: { rank: '$", "{ lroa: { rank: '$", "lroa", "lora"),
        ("{ lora: { rank: '$", "{ lora: { rnak: '$", "rnak", "rank"),
        ("use_dora", "use_droa", "use_droa", "use_dora"),
        // Its matrix.
        ("exclude:", "exlude:", "exlude", "exclude"),
        ("include:", "inculde:", "inculde", "include"),
        ("exclude: [{ rank", "exclude: [{ rnak", "rnak", "rank"),
        ("include: [{ rank: 8, mode", "include: [{ rank: 8, mdoe", "mdoe", "mode"),
        // Its inputs.
        ("in: { model:", "in: { modle:", "modle", "model"),
    ]
}

/// Names that refer to something.
fn references() -> Vec<(&'static str, &'static str, &'static str, &'static str)> {
    vec![
        ("cells: cells,", "cells: cels,", "cels", "cells"),
        ("data: data.nerus_train", "data: data.nerus_trian", "nerus_trian", "nerus_train"),
        ("lora.adapter", "lora.adaptre", "adaptre", "adapter"),
        ("'cells[rank=8]'", "'cells[rnak=8]'", "rnak", "rank"),
        ("'cells[rank=8]'", "'cells[rank=8,mode=z]'", "cells[rank=8,mode=z]", "cells[rank=8,mode=x]"),
        ("'${params.lora.rank}'", "'${params.lora.rnak}'", "${params.lora.rnak}", "rank"),
        ("'${params.lora.rank}'", "'${parmas.lora.rank}'", "${parmas.lora.rank}", "params"),
        ("${matrix.rank}", "${matrix.rnak}", "${matrix.rnak}", "rank"),
    ]
}

fn check(yaml: &str) -> Told {
    Case::new(yaml, &[]).pipe(&["check", "p.yaml"])
}

/// Line and column of the misspelt name, counted from 1.
fn place(yaml: &str, from: &str, to: &str, wrong: &str) -> String {
    let (before, _) = yaml.split_once(from).expect(from);
    let at = before.len() + to.find(wrong).expect(wrong);
    let text = yaml.replacen(from, to, 1);
    let line = text[..at].matches('\n').count() + 1;
    let column = text[..at].rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("p.yaml:{line}:{column}\n")
}

fn each_has_its_place(typos: Vec<(&str, &str, &str, &str)>) {
    assert_eq!(check(YAML).code, Some(0), "{}", check(YAML).text);
    let mut missed = String::new();
    for (from, to, wrong, meant) in typos {
        let told = check(&YAML.replacen(from, to, 1));
        let place = place(YAML, from, to, wrong);
        let said = told.text.contains(&place) && told.text.contains(&format!("did you mean `{meant}`?"));
        if told.code != Some(3) || !said {
            missed.push_str(&format!("{to}: {place}{:?} {}\n", told.code, told.text));
        }
    }
    assert!(missed.is_empty(), "{missed}");
}

#[test]
fn l6_unknown_keys_are_refused_everywhere() {
    each_has_its_place(typos());
}

#[test]
fn b7_misspelt_references_have_their_place() {
    each_has_its_place(references());
}

#[test]
fn b7_wrong_types_have_their_place() {
    for (from, to, wrong, expected) in [
        ("epochs: 3", "epochs: three", "three", "a whole number"),
        ("use_dora: false", "use_dora: 1", "1", "`true` or `false`"),
        ("cpu: 1", "cpu: one", "one", "a whole number from 1"),
        ("timeout: 10s", "timeout: soon", "soon", "a length of time"),
        ("memory: 1GB", "memory: much", "much", "an amount of memory"),
        ("outputs: { o: o }, env", "outputs: [o], env", "[o]", "a mapping"),
        ("mode: [x, y]", "mode: x", "x", "a list"),
        ("rank: '${params.lora.rank}'", "rank: four", "four", "a whole number"),
    ] {
        let told = check(&YAML.replacen(from, to, 1));
        assert_eq!(told.code, Some(3), "{to}: {}", told.text);
        assert!(told.text.contains(&place(YAML, from, to, wrong)), "{to}: {}", told.text);
        assert!(told.text.contains(expected), "{to}: {}", told.text);
    }
    // A value that comes from a parameter is told where it is used, and where from.
    let told = check(&YAML.replacen("rank: 4", "rank: four", 1));
    assert!(told.code == Some(3) && told.text.contains("params.lora.rank"), "{}", told.text);
}

/// On the command line the argument is the place.
#[test]
fn l6_misspelt_names_on_the_command_line() {
    let case = Case::new(YAML, &[]);
    for (arguments, code, place, meant) in [
        (&["check", "p.yaml", "--set", "lora.rnak=8"][..], 3, "`--set lora.rnak=8`", "`lora.rank`"),
        (&["check", "p.yaml", "--set", "rnak=8"], 3, "`--set rnak=8`", ""),
        (&["check", "p.yaml", "--set", "txet=8"], 3, "`--set txet=8`", "`text`"),
        (&["check", "p.yaml", "--set", "lora={rnak: 8}"], 3, "`--set lora={rnak: 8}`", "`rank`"),
        (&["check", "p.yaml", "--profile", "lrage"], 3, "`--profile lrage`", "`large`"),
        (&["run", "p.yaml", "--grid", "lora.rnak=2,4"], 3, "rnak", "`lora.rank`"),
        (&["run", "p.yaml", "tokesn"], 3, "`tokesn`", "`tokens`"),
        (&["run", "p.yaml", "cells[rnak=8]"], 3, "`rnak`", "`rank`"),
        (&["run", "p.yaml", "--only", "tokesn"], 3, "`tokesn`", "`tokens`"),
        (&["run", "p.yaml", "--force", "tokesn"], 2, "`--force tokesn`", "`tokens`"),
        (&["run", "p.yaml", "--from", "tokesn"], 2, "`--from tokesn`", "`tokens`"),
        (&["explain", "p.yaml", "tokesn"], 3, "`tokesn`", "`tokens`"),
        (&["logs", "p.yaml", "cels"], 3, "`cels`", "`cells`"),
        (&["graph", "p.yaml", "tokesn"], 3, "`tokesn`", "`tokens`"),
        (&["help", "trian"], 2, "`trian`", "`train`"),
        (&["run", "p.yaml", "--forec", "a"], 2, "'--forec'", "'--force'"),
        (&["exlpain", "p.yaml"], 2, "'exlpain'", "'explain'"),
        (&["graph", "p.yaml", "--format", "mermiad"], 2, "'mermiad'", "mermaid"),
    ] {
        let told = case.pipe(arguments);
        assert_eq!(told.code, Some(code), "{arguments:?}: {}", told.text);
        assert!(told.text.contains(place), "{arguments:?}: {}", told.text);
        assert!(told.text.contains(meant), "{arguments:?}: {}", told.text);
        assert_eq!(told.out, "", "{arguments:?}");
    }
    assert!(!case.cache().exists(), "nothing ran");
}

/// What `expect:` asks for is known only once there are figures; then it has a suggestion, too.
#[test]
fn b7_a_misspelt_figure_is_told_with_what_there_is() {
    let yaml = "steps: { a: { uses: command, expect: ['loss_fianl > 0'], with: { shell: 'echo \"{\\\"loss_final\\\": 0.5}\" > m', outputs: { m: m }, figures: m } } }";
    let told = Case::new(yaml, &[]).run(&[]);
    assert_eq!(told.code, Some(4), "{}", told.text);
    assert!(
        told.text.contains("asks for the figure `loss_fianl`") && told.text.contains("did you mean `loss_final`?"),
        "{}",
        told.text
    );
}
