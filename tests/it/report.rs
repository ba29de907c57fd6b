//! Reports: the reference to the byte, honest sentences, hostile data, `compare`, `render` and their keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use pipe::digest::Digest;
use pipe::event::Say;
use pipe::report::comparison::Comparison;
use pipe::report::view::{View, view};
use pipe::step::{Artifact, Context, Frame, Machine};
use serde_json::{Value, json};

use crate::support;

fn pipe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(args)
        .current_dir(support::repository())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Renders a template of the repository, or a given one, with data.
fn rendered(template: &str, data: &Value) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("data.json");
    std::fs::write(&file, data.to_string()).expect("data is written");
    let output = pipe(&["render", template, "--data", file.to_str().expect("a plain path")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn reference() -> Value {
    let path = support::repository().join("tests/reference/report_2025-03-15.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the reference data")).expect("it is JSON")
}

/// A comparison with records: arms with their F1 on both tasks, and answers that differ from the base's.
fn recorded(arms: &[(&str, &str, f64, f64, u64)]) -> Value {
    let mut doc = json!({"format": "pipe/comparison@2", "generated": false, "arms": [], "tasks": []});
    let mut terra = json!({"id": "terra", "title": "TERRa", "role": "general", "metric": "f1", "average": "macro",
        "n": 307, "classes": {"entailment": 153, "not_entailment": 154}, "results": {}, "answers": []});
    let mut nerus = json!({"id": "nerus", "title": "Nerus", "role": "special", "metric": "f1", "average": "micro",
        "n": 100, "documents": 10, "results": {}, "answers": []});
    let base = ("base", "", 0.4, 0.5, 0);
    for (i, (name, kinds, general, special, different)) in std::iter::once(&base).chain(arms).enumerate() {
        let adapters: Vec<Value> = kinds
            .split_whitespace()
            .map(|kind| match kind {
                "lora" => json!({"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.05, "target_modules": ["q_proj"]}),
                _ => json!({"kind": "mlp", "hidden_size": 16, "layers": [0, 2], "dropout": 0.1}),
            })
            .collect();
        let title = if i == 0 { "Базовая модель".to_owned() } else { name.to_uppercase() };
        let arm = json!({"name": name, "title": title, "adapters": adapters, "trainable_parameters": 1000 * i});
        doc["arms"].as_array_mut().expect("a list").push(arm);
        terra["results"][name] = json!({"accuracy": general, "f1": general});
        nerus["results"][name] = json!({"f1": special});
        if i > 0 {
            let pair = json!({"against": "base", "arm": name, "different": different});
            terra["answers"].as_array_mut().expect("a list").push(pair.clone());
            nerus["answers"].as_array_mut().expect("a list").push(pair);
        }
    }
    doc["tasks"] = json!([terra, nerus]);
    doc
}

fn viewed(doc: &Value) -> View {
    view(&Comparison::read(&doc.to_string(), "test").expect("a comparison"))
}

fn sentences(view: &View) -> String {
    let mut all: Vec<String> = view.notes.clone();
    for conclusion in &view.conclusions {
        all.push(conclusion.text.clone());
        all.extend(conclusion.points.iter().map(|point| point.text.clone()));
    }
    for item in &view.recommendations {
        all.push(item.text.clone());
        all.extend(item.points.clone());
    }
    all.join("\n")
}

// The reference.

#[test]
fn the_reference_report_is_met_to_the_byte() {
    let expected = support::repository().join("../shared/reference/report_2025-03-15.txt");
    let Ok(expected) = std::fs::read(&expected) else {
        eprintln!("skipped: {} is not there", expected.display());
        return;
    };
    let output = pipe(&["render", "templates/report.ru.txt", "--data", "tests/reference/report_2025-03-15.json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), text(&expected));
}

#[test]
fn the_reference_layout_stands_without_the_reference() {
    let report = rendered("templates/report.ru.txt", &reference());
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], "=".repeat(80));
    assert_eq!(&lines[1..3], ["СРАВНЕНИЕ АДАПТЕРОВ LoRA И MLP", "Дата: 2025-03-15 20:20:08"]);
    assert!(!report.ends_with('\n'), "a report has no newline at the end");
    for wanted in [
        "| Обучаемые параметры | ~2.1М          | 4211200      |",
        "СРАВНЕНИЕ НА ДАТАСЕТЕ TERRa (общие способности)",
        "СРАВНЕНИЕ НА ДАТАСЕТЕ NERUS (специализированная задача)",
        "| F1        |           0.3056 | 0.3056 | 0.2806 | +0.0000 (+0.00%) | -0.0250 (-8.18%)  | -0.0250 (-8.18%)  |",
        "   - MLP: общий баланс +22.55",
    ] {
        assert!(lines.contains(&wanted), "no line {wanted:?} in\n{report}");
    }
    for unwanted in ["н/д", "n =", "Усреднение", "ЗАМЕЧАНИЯ", "None", "NaN"] {
        assert!(!report.contains(unwanted), "{unwanted} in\n{report}");
    }
}

#[test]
fn the_sentences_follow_the_figures() {
    let mut doc = reference();
    doc["tasks"][0]["results"]["mlp"]["f1"] = json!(0.5);
    doc["tasks"][1]["results"]["lora"]["f1"] = json!(0.9);
    let said = sentences(&viewed(&doc));
    assert!(said.contains("На датасете TERRa (общие способности) лучшие результаты показал метод MLP."), "{said}");
    assert!(said.contains("На датасете Nerus (специализированная задача) лучшие результаты показал метод LoRA."));
    assert!(said.contains("Рекомендуется использовать LoRA адаптеры"), "{said}");
}

// Honesty.

#[test]
fn a_tie_of_adapters_has_no_winner() {
    let mut doc = reference();
    for task in 0..2 {
        let lora = doc["tasks"][task]["results"]["lora"].clone();
        doc["tasks"][task]["results"]["mlp"] = lora;
    }
    let said = sentences(&viewed(&doc));
    assert!(said.contains("методы LoRA и MLP показали одинаковые результаты"), "{said}");
    assert!(!said.contains("лучшие результаты показал"), "{said}");
    assert!(!said.contains("лучше справился"), "{said}");
    assert!(said.contains("Ни один из адаптеров не рекомендуется"), "{said}");
}

#[test]
fn figures_that_print_the_same_are_a_tie() {
    let said = sentences(&viewed(&recorded(&[("a", "lora", 0.600_01, 0.6, 9), ("b", "mlp", 0.600_02, 0.6, 9)])));
    assert!(
        said.contains("На датасете TERRa (общие способности) методы A и B показали одинаковые результаты."),
        "{said}"
    );
}

#[test]
fn an_adapter_without_effect_is_named() {
    let said = sentences(&viewed(&recorded(&[("lora", "lora", 0.4, 0.5, 0), ("mlp", "mlp", 0.3, 0.7, 40)])));
    let idle = "LORA: все ответы совпали с ответами базовой модели — адаптер не подействовал или не обучен";
    assert!(said.contains(idle), "{said}");
    assert!(said.contains("ни один метод не превзошёл базовую модель: LORA не отличается от неё по F1"), "{said}");
    assert!(said.contains("Проверить обучение и загрузку адаптеров: ответы LORA"), "{said}");
    assert!(!said.contains("MLP: все ответы"), "{said}");
}

#[test]
fn equal_answers_with_other_scores_are_an_effect() {
    let mut doc = recorded(&[("lora", "lora", 0.4, 0.6, 0)]);
    doc["tasks"][0]["answers"][0]["scores_different"] = json!(300);
    doc["tasks"][1]["answers"][0]["different"] = json!(7);
    let said = sentences(&viewed(&doc));
    assert!(said.contains("оценки вариантов изменились в 300 из 307"), "{said}");
    assert!(!said.contains("не подействовал"), "{said}");
    assert!(!said.contains("Проверить обучение"), "{said}");
}

#[test]
fn equal_figures_with_other_answers_are_said() {
    let said = sentences(&viewed(&recorded(&[("lora", "lora", 0.4, 0.5, 12), ("mlp", "mlp", 0.3, 0.6, 5)])));
    assert!(
        said.contains("LORA: не отличается от базовой модели по F1, хотя ответы различаются в 12 из 307"),
        "{said}"
    );
}

#[test]
fn records_bring_n_averages_budgets_and_the_label_of_the_balance() {
    let mut doc = recorded(&[("lora", "lora", 0.45, 0.6, 20), ("mlp", "mlp", 0.3, 0.7, 40)]);
    doc["generated"] = json!(true);
    doc["tasks"][1]["parse"] = json!({"lora": {"valid": 98, "unparsed": 2}, "base": {"valid": 100, "unparsed": 0}});
    let report = rendered("templates/report.ru.txt", &doc);
    for wanted in [
        "n = 307; эталон: entailment 153, not_entailment 154",
        "n = 100; документов: 10",
        "Усреднение — macro: среднее по классам",
        "Усреднение — micro: доли считаются по всем примерам вместе",
        "Данные сгенерированы шагом generate",
        "Бюджеты адаптеров различаются (в 2.0 раза): обучаемых параметров от 1000 — LORA до 2000 — MLP.",
        "баланс — сумма относительных изменений в процентах: F1 (macro) на TERRa и F1 (micro) на Nerus",
        "Разбор ответов, LORA: разобрано 98, не разобрано 2",
        "307 на TERRa и 100 на Nerus",
        "| Обучаемые параметры | 1000   | 2000  |",
    ] {
        assert!(report.contains(wanted), "no {wanted:?} in\n{report}");
    }
    assert!(!report.contains("Разбор ответов, Базовая"), "{report}");
    assert!(!report.contains("Дата:"), "{report}");
}

#[test]
fn what_was_tried_is_not_recommended() {
    let both = sentences(&viewed(&recorded(&[
        ("l", "lora", 0.5, 0.6, 9),
        ("m", "mlp", 0.5, 0.7, 9),
        ("b", "lora mlp", 0.4, 0.6, 9),
    ])));
    assert!(!both.contains("комбинированным"), "{both}");
    assert!(both.contains("различными рангами"), "{both}");
    let mut grid = recorded(&[("l", "lora", 0.5, 0.6, 9), ("m", "mlp", 0.5, 0.7, 9), ("k", "lora", 0.4, 0.6, 9)]);
    grid["arms"][3]["adapters"][0]["rank"] = json!(8);
    let grid = sentences(&viewed(&grid));
    assert!(!grid.contains("различными рангами"), "{grid}");
    assert!(grid.contains("комбинированным"), "{grid}");
    assert!(grid.contains("разных размеров скрытого слоя"), "{grid}");
}

#[test]
fn a_zero_base_has_no_percentages() {
    let mut doc = recorded(&[("lora", "lora", 0.4, 0.5, 3), ("mlp", "mlp", 0.3, 0.6, 9)]);
    doc["tasks"][0]["results"]["base"] = json!({"accuracy": 0.0, "f1": 0.0});
    let report = rendered("templates/report.ru.txt", &doc);
    assert!(report.contains("+0.4000 (н/д)"), "{report}");
    assert!(report.contains("изменение F1 н/д относительно базовой модели"), "{report}");
    assert!(report.contains("общий баланс н/д"), "{report}");
    assert!(report.contains("баланс не определён"), "{report}");
    assert!(!report.contains("inf") && !report.contains("NaN"), "{report}");
}

#[test]
fn a_missing_arm_is_reported() {
    let mut doc = recorded(&[("lora", "lora", 0.5, 0.6, 3), ("mlp", "mlp", 0.3, 0.6, 9)]);
    doc["tasks"][0]["results"].as_object_mut().expect("results").remove("mlp");
    let report = rendered("templates/report.ru.txt", &doc);
    assert!(report.contains("На датасете TERRa нет результатов: MLP."), "{report}");
    assert!(report.contains("MLP: нет результатов на этом датасете"), "{report}");
    assert!(report.contains("| н/д"), "{report}");
}

// Other numbers of arms.

#[test]
fn one_two_three_and_four_adapters_fit_the_layout() {
    let arms = [
        ("a", "lora", 0.5, 0.6, 3),
        ("b", "mlp", 0.3, 0.7, 9),
        ("c", "lora mlp", 0.4, 0.9, 9),
        ("d", "lora", 0.2, 0.9, 9),
    ];
    let report = |n: usize| rendered("templates/report.ru.txt", &recorded(&arms[..n]));
    assert!(report(1).contains("СРАВНЕНИЕ АДАПТЕРА A С БАЗОВОЙ МОДЕЛЬЮ"));
    assert!(report(1).contains("метод A превзошёл базовую модель по F1"));
    let three = report(3);
    assert!(three.contains("СРАВНЕНИЕ АДАПТЕРОВ A, B И C"), "{three}");
    let order = ["A vs Base", "B vs Base", "C vs Base", "B vs A", "C vs A", "C vs B"];
    let places: Vec<usize> = order.iter().map(|name| three.find(&format!("| {name} ")).expect(name)).collect();
    assert!(places.is_sorted(), "{three}");
    assert!(three.contains("0.05 / 0.1"), "both dropouts of the combined arm:\n{three}");
    let four = report(4);
    assert!(four.contains("СРАВНЕНИЕ АДАПТЕРОВ (ВАРИАНТОВ: 4)"), "{four}");
    assert!(four.contains("ВСЕ ВАРИАНТЫ"), "{four}");
    assert!(four.contains("Nerus: лучшие варианты (поровну) — C, D: F1 0.9000, +0.4000 к базовой модели"), "{four}");
    assert!(four.contains("лучшие результаты одинаковы у методов C и D"), "{four}");
}

#[test]
fn cells_of_a_matrix_show_their_coordinates() {
    let mut doc = recorded(&[("a", "lora", 0.5, 0.6, 3), ("b", "lora", 0.3, 0.7, 9)]);
    doc["arms"][1]["coordinates"] = json!({"rank": 2});
    doc["arms"][2]["coordinates"] = json!({"rank": 16});
    let report = rendered("templates/report.ru.txt", &doc);
    let lines: Vec<&str> = report.lines().collect();
    let at = lines.iter().position(|line| *line == "ВСЕ ВАРИАНТЫ").expect("a section of all cells");
    assert!(lines[at + 3].starts_with("| Вариант        |   rank |   Обучаемые параметры |"), "{report}");
    assert!(
        lines[at..].iter().any(|line| line.starts_with("| B              |     16 |                  2000 |")),
        "{report}"
    );
    assert!(report.contains("TERRa: лучший вариант — A: F1 0.5000, +0.1000 к базовой модели"), "{report}");
}

// Hostile data.

#[test]
fn titles_are_data_and_stay_on_their_line() {
    let mut doc = recorded(&[("a", "lora", 0.5, 0.6, 3), ("b", "mlp", 0.3, 0.7, 9)]);
    doc["arms"][1]["title"] = json!("x\nРЕКОМЕНДАЦИИ:\u{2028}{{ heading }} | {% include \"y\" %} <b>*_`");
    let report = rendered("templates/report.ru.txt", &doc);
    assert_eq!(report.lines().filter(|line| line.starts_with("РЕКОМЕНДАЦИИ:")).count(), 1, "{report}");
    assert!(report.contains("x РЕКОМЕНДАЦИИ: {{ heading }} | {% include \"y\" %} <b>*_`"), "{report}");
    let markdown = rendered("templates/report.ru.md", &doc);
    assert!(markdown.contains("{{ heading }} \\| {% include \"y\" %} &lt;b&gt;\\*\\_\\`"), "{markdown}");
    let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with("| F1 ")).collect();
    assert!(!rows.is_empty());
    for table in markdown.lines().collect::<Vec<_>>().split(|line| !line.starts_with('|')) {
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(table.windows(2).all(|pair| columns(pair[0]) == columns(pair[1])), "{markdown}");
    }
}

#[test]
fn comparisons_that_contradict_themselves_are_refused() {
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil); 7] = [
        ("stands twice", |doc| doc["arms"][2]["name"] = json!("a")),
        ("not in `arms`", |doc| doc["tasks"][0]["results"]["ghost"] = json!({})),
        ("no results of `base`", |doc| drop(doc["tasks"][0]["results"].as_object_mut().map(|r| r.remove("base")))),
        ("unknown field `f2`", |doc| doc["tasks"][0]["f2"] = json!(1)),
        ("more different answers than items", |doc| doc["tasks"][0]["answers"][0]["different"] = json!(308)),
        ("invalid type", |doc| doc["tasks"][0]["results"]["a"]["f1"] = json!("0.5")),
        ("the arm without adapters", |doc| doc["arms"][1]["adapters"] = json!([])),
    ];
    for (wanted, spoil) in cases {
        let mut doc = recorded(&[("a", "lora", 0.5, 0.6, 3), ("b", "mlp", 0.3, 0.7, 9)]);
        spoil(&mut doc);
        let problem = Comparison::read(&doc.to_string(), "data.json").expect_err(wanted).to_string();
        assert!(problem.contains(wanted) && problem.starts_with("data.json"), "{problem}");
    }
}

// `pipe render`.

#[test]
fn errors_of_templates_have_a_place_and_the_fields() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let template = folder.path().join("t.txt");
    let data = folder.path().join("d.json");
    std::fs::write(&data, r#"{"alpha": 8, "inner": {"beta": 1}}"#).expect("data");
    let fail = |content: &str| {
        std::fs::write(&template, content).expect("a template");
        let out = folder.path().join("out.txt");
        let paths = [&template, &data, &out].map(|path| path.to_str().expect("a plain path").to_owned());
        let output = pipe(&["render", &paths[0], "--data", &paths[1], "-o", &paths[2]]);
        assert_eq!(output.status.code(), Some(1), "{content}");
        assert!(!out.exists(), "nothing is written after an error");
        text(&output.stderr)
    };
    let error = fail("{{ alpha }}\n{{ alhpa }}");
    assert!(error.contains("t.txt:2:") && error.contains("`alhpa`") && error.contains("alpha, inner"), "{error}");
    let error = fail("{{ inner.gamma }}");
    assert!(error.contains("`gamma`") && error.contains("beta"), "{error}");
    assert!(fail("{% if %}").contains("t.txt:1:"));
    assert!(fail("{% include \"../../etc/passwd\" %}").contains("lies outside the template's folder"));
    assert!(fail("\n{% include \"gone.txt\" %}").contains("t.txt:2"));
    assert!(fail("{{ grid(headers=[\"a\"], rows=[[1.5]], floatfmt=\"?\") }}").contains("number format"));
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(left.len(), 2, "no half-written file is left");
}

#[test]
fn any_object_renders_with_includes_and_escapes_html_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    };
    put("parts/row.txt", "[{{ name }}]");
    let plain = put("t.txt", "{% include \"parts/row.txt\" %}");
    let html = put("t.html", "{{ name }}");
    let data = put("d.json", r#"{"name": "<b>"}"#);
    assert_eq!(text(&pipe(&["render", &plain, "--data", &data]).stdout), "[<b>]");
    assert_eq!(text(&pipe(&["render", &html, "--data", &data]).stdout), "&lt;b&gt;");
    let out = folder.path().join("out.txt");
    let output = pipe(&["render", &plain, "--data", &data, "-o", out.to_str().expect("a plain path")]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(std::fs::read_to_string(&out).expect("the output"), "[<b>]");
    let list = put("list.json", "[1]");
    let error = text(&pipe(&["render", &plain, "--data", &list]).stderr);
    assert!(error.contains("the data is not a JSON object") && error.contains("list.json"), "{error}");
}

// The steps.

struct Made {
    out: tempfile::TempDir,
    figures: BTreeMap<String, f64>,
    said: Vec<Say>,
}

fn run(kind: &str, with: &Value, port: &str, inputs: &[(&str, PathBuf)], root: &Path) -> Result<Made, String> {
    let kind = pipe::steps::find(kind).expect("a step kind");
    let step = kind.parse(with).map_err(|problems| problems[0].to_string())?;
    let out = tempfile::tempdir().expect("a temporary folder");
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let artifact = |(name, path): &(&str, PathBuf)| Artifact {
        listed: true,
        name: (*name).to_owned(),
        coordinates: BTreeMap::new(),
        origin: None,
        path: path.clone(),
        digest: Digest::of_path(path).expect("an artifact"),
    };
    let mut cx = Context::new(Frame {
        step: "step".to_owned(),
        inputs: BTreeMap::from([(port.to_owned(), inputs.iter().map(artifact).collect())]),
        out: out.path().to_owned(),
        root: root.to_owned(),
        machine: Machine::plain("cpu", 1),
        threads: 1,
        cancel: Arc::new(AtomicBool::new(false)),
        sink: Box::new(move |say| heard.lock().expect("no panic").push(say)),
    });
    step.run(&mut cx).map_err(|problem| problem.to_string())?;
    let figures = cx.figures().clone();
    let said = said.lock().expect("no panic").clone();
    Ok(Made { out, figures, said })
}

/// A result folder as `evaluate` leaves it: the arm's answers to three items, and the figures that follow from them.
/// The gold of TERRa is `x`, `y`, `x`; the gold of Nerus is `PER:0:3` everywhere.
fn result(folder: &Path, task: &str, arm: &str, answers: [&str; 3]) -> PathBuf {
    let path = folder.join(format!("{task}-{}", arm.replace(['[', ']', '='], "_")));
    std::fs::create_dir_all(&path).expect("a folder");
    let adapters = match arm {
        "base" => json!([]),
        "mlp" => json!([{"kind": "mlp", "hidden_size": 8, "layers": [0], "dropout": 0.1, "non_linearity": "relu"}]),
        _ => json!([{"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.05, "target_modules": ["q_proj"]}]),
    };
    let coordinates = if arm.contains('[') { json!({"rank": 4}) } else { json!({}) };
    let figure =
        |name: &str, average: Option<&str>, value: f64| json!({"name": name, "average": average, "value": value});
    let mut records = String::new();
    let metrics = if task == "terra" {
        let gold = ["x", "y", "x"];
        records.push_str("id,prompt,gold,answer,loglik_entailment,loglik_not_entailment,correct\n");
        for (i, answer) in answers.iter().enumerate() {
            records.push_str(&format!("{i},p,{},{answer},-{}.5,-2.5,true\n", gold[i], arm.len()));
        }
        let figures = pipe::metric::classification::classification(&["x", "y"], &gold, &answers);
        vec![figure("accuracy", None, figures.accuracy), figure("f1", Some("macro"), figures.macro_.f1)]
    } else {
        records.push_str("id,document,prompt,gold,answer,predicted,state,tp,fp,fn\n");
        let mut tallies = Vec::new();
        for (i, answer) in answers.iter().enumerate() {
            records.push_str(&format!("{i},d{i},p,PER:0:3,\"{answer}\",{answer},valid,1,0,0\n"));
            let entity = |text: &str| [(text[..3].to_owned(), text[3..].to_owned())];
            tallies.push((format!("d{i}"), pipe::metric::entities::Tally::of(entity("PER:0:3"), entity(answer))));
        }
        let of = pipe::metric::entities::averages(tallies.iter().map(|(document, tally)| (document.as_str(), tally)));
        let all = [("micro", of.micro), ("macro_types", of.macro_types), ("mean_documents", of.mean_documents)];
        all.map(|(average, scores)| figure("f1", Some(average), scores.f1)).to_vec()
    };
    let parameters = if arm == "base" { 0 } else { 100 };
    let classes = if task == "terra" { json!({"x": 2, "y": 1}) } else { json!({"PER": 3, "LOC": 0, "ORG": 0}) };
    let doc = json!({"format": "pipe/metrics@2", "task": task, "generated": true, "n": 3, "documents": null,
        "classes": classes, "metrics": metrics, "parse": {"valid": 3},
        "arm": {"name": arm, "coordinates": coordinates, "adapters": adapters, "trainable_parameters": parameters}});
    std::fs::write(path.join("metrics.json"), doc.to_string()).expect("metrics");
    std::fs::write(path.join("records.csv"), records).expect("records");
    path
}

/// Producers and their result folders.
type Results = Vec<(&'static str, PathBuf)>;

fn results(folder: &Path) -> Results {
    vec![
        ("e1", result(folder, "nerus", "mlp", ["PER:0:3", "PER:0:3", "PER:0:3"])),
        ("e2", result(folder, "nerus", "base", ["PER:0:3", "LOC:0:3", "PER:1:3"])),
        ("e3", result(folder, "nerus", "grid[rank=4]", ["PER:0:3", "LOC:0:3", "PER:1:3"])),
        ("e4", result(folder, "terra", "base", ["y", "y", "y"])),
        ("e5", result(folder, "terra", "mlp", ["x", "x", "x"])),
        ("e6", result(folder, "terra", "grid[rank=4]", ["y", "y", "y"])),
    ]
}

fn compare(with: &Value, inputs: &[(&str, PathBuf)]) -> Result<Made, String> {
    run("compare", with, "results", inputs, support::repository())
}

#[test]
fn compare_writes_raw_figures_and_what_follows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = compare(&json!({}), &results(folder.path())).expect("a comparison");
    let read = |name: &str| std::fs::read_to_string(made.out.path().join(name)).expect(name);
    let comparison = Comparison::read(&read("comparison.json"), "comparison.json").expect("its own format");
    let titles: Vec<&str> = comparison.arms.iter().map(|arm| arm.title.as_str()).collect();
    assert_eq!(titles, ["Базовая модель", "MLP", "LoRA r=4"]);
    let tasks: Vec<&str> = comparison.tasks.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(tasks, ["terra", "nerus"], "general ability comes first");
    assert!(comparison.generated && comparison.date.is_none());
    let nerus = &comparison.tasks[1];
    assert_eq!((nerus.n, nerus.average.as_deref()), (Some(3), Some("micro")));
    assert_eq!(nerus.averages.keys().collect::<Vec<_>>(), ["macro_types", "mean_documents"]);
    assert_eq!(nerus.against_base("mlp").expect("a pair").different, 2);
    assert_eq!(nerus.against_base("grid[rank=4]").expect("a pair").different, 0);
    assert_eq!(comparison.tasks[0].against_base("mlp").expect("a pair").scores_different, Some(3));
    assert_eq!(made.figures["nerus.mlp.f1"], 1.0);
    assert_eq!(made.figures["terra.mlp.accuracy"], 2.0 / 3.0);
    let differences = read("differences.csv");
    assert!(
        differences.contains("\nnerus,f1,micro,mlp,base,1,0.3333333333333333,0.6666666666666667,200"),
        "{differences}"
    );
    assert!(
        differences.contains("\nterra,accuracy,,grid[rank=4],base,0.3333333333333333,0.3333333333333333,0,0\n"),
        "{differences}"
    );
    let grid = read("grid.csv");
    let header = grid.lines().next().expect("a header");
    assert!(header.starts_with("arm,title,axis.rank,trainable_parameters,adapters,rank,alpha"), "{header}");
    assert!(header.contains("terra.accuracy,terra.f1.macro,nerus.f1.micro,nerus.f1.macro_types"), "{header}");
    assert_eq!(grid.lines().count(), 4);
    let conclusions: Value = serde_json::from_str(&read("conclusions.json")).expect("JSON");
    assert_eq!(conclusions["conclusions"][1]["ranking"]["leaders"], json!([]), "three items prove nothing");
    let test = nerus.tests.iter().find(|test| test.arm == "mlp" && test.against == "base").expect("a test");
    assert_eq!((test.p, test.verdict), (0.5, pipe::statistics::verdict::Verdict::Indistinguishable));
    let pair = test.discordant.expect("items are right or wrong");
    assert_eq!((pair.fixed, pair.broken, pair.exact_p), (2, 0, 0.5));
    let text = conclusions.to_string();
    assert!(text.contains("LoRA r=4: все ответы совпали с ответами базовой модели"), "{text}");
}

#[test]
fn compare_does_not_depend_on_the_names_of_steps_and_warns_of_missing_arms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut inputs = results(folder.path());
    inputs.truncate(5);
    let made = compare(&json!({"titles": {"mlp": "Адаптер"}}), &inputs).expect("a comparison");
    let warned =
        |say: &Say| matches!(say, Say::Warning { text } if text.contains("`grid[rank=4]`") && text.contains("`terra`"));
    assert!(made.said.iter().any(warned), "{:?}", made.said);
    let comparison = std::fs::read_to_string(made.out.path().join("comparison.json")).expect("comparison.json");
    assert!(comparison.contains("\"Адаптер\"") && !comparison.contains("e1"), "{comparison}");
}

#[test]
fn compare_refuses_what_cannot_be_compared() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |wanted: &str, with: Value, change: &dyn Fn(&mut Results)| {
        let mut inputs = results(folder.path());
        change(&mut inputs);
        let problem = compare(&with, &inputs).err().unwrap_or_else(|| panic!("not refused: {wanted}"));
        assert!(problem.contains(wanted), "{problem}");
    };
    let replace = |path: &Path, file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(path.join(file)).expect("a file");
        assert!(text.contains(from), "{text}");
        std::fs::write(path.join(file), text.replace(from, to)).expect("a file");
    };
    refused("no result of the base on the task `terra`", json!({}), &|inputs| drop(inputs.remove(3)));
    refused("has two results on the task `nerus`", json!({}), &|inputs| inputs.push(inputs[0].clone()));
    refused("stands where the base has `1`", json!({}), &|inputs| {
        replace(&inputs[0].1, "records.csv", "1,d1,p", "7,d1,p");
    });
    refused("has another prompt or gold", json!({}), &|inputs| {
        replace(&inputs[0].1, "records.csv", "2,d2,p,PER", "2,d2,q,PER");
    });
    refused("3 records, but n is 4", json!({}), &|inputs| replace(&inputs[0].1, "metrics.json", "\"n\":3", "\"n\":4"));
    refused("is no number", json!({}), &|inputs| replace(&inputs[3].1, "records.csv", "-2.5", "low"));
    refused("there is no column `gold`", json!({}), &|inputs| replace(&inputs[3].1, "records.csv", "gold,", "good,"));
    refused("it is not CSV", json!({}), &|inputs| replace(&inputs[3].1, "records.csv", "2,p,", "2,"));
    refused("invalid type", json!({}), &|inputs| replace(&inputs[3].1, "metrics.json", "0.25", "\"high\""));
    refused("pipe/metrics@2", json!({}), &|inputs| replace(&inputs[3].1, "metrics.json", "metrics@2", "metrics@9"));
    refused("but the records give", json!({}), &|inputs| replace(&inputs[3].1, "metrics.json", "0.25", "0.26"));
    refused("has other adapters here", json!({}), &|inputs| {
        replace(&inputs[4].1, "metrics.json", "relu\"", "relu\",\"rank\":1");
    });
    refused("there is no result on the task `nreus`", json!({"tasks": {"nreus": {}}}), &|_| ());
    refused("there is no metric `f2` (micro)", json!({"tasks": {"nerus": {"metric": "f2"}}}), &|_| ());
    refused("have the same title", json!({"titles": {"a": "x", "b": "x"}}), &|_| ());
}

#[test]
fn render_makes_a_folder_with_a_file_named_like_the_template() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("object");
    std::fs::write(&data, reference().to_string()).expect("data");
    let with = json!({"template": "templates/report.ru.txt"});
    let made = run("render", &with, "data", &[("compare", data)], support::repository()).expect("a report");
    let report = std::fs::read_to_string(made.out.path().join("report/report.ru.txt")).expect("the report");
    assert_eq!(report, rendered("templates/report.ru.txt", &reference()));
}

#[test]
fn the_content_of_a_template_and_of_its_includes_is_a_source_and_its_folder_is_not_in_the_key() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, content: &str| {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    };
    put("t/a.txt", "{% include \"parts/b.txt\" %}");
    put("t/parts/b.txt", "one");
    put("t/other.txt", "not used");
    let step = |path: &str| {
        pipe::steps::find("render")
            .expect("a step kind")
            .parse(&json!({ "template": path }))
            .map_err(|_| ())
            .expect("params")
    };
    let digests = || -> Vec<(String, Digest)> {
        let sources = step("t/a.txt").sources(root.path());
        sources.into_iter().map(|source| (source.name, Digest::of_path(&source.path).expect("a source"))).collect()
    };
    let before = digests();
    let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.txt", "parts/b.txt"]);
    put("t/other.txt", "changed");
    assert_eq!(before, digests());
    put("t/parts/b.txt", "two");
    assert_ne!(before, digests());
    assert_eq!(step("t/a.txt").keyed(), step("elsewhere/a.txt").keyed());
    assert_ne!(step("t/a.txt").keyed(), step("t/b.txt").keyed());
}
