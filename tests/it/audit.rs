//! `pipe audit` through the binary: the reference's defects are found, each with its arithmetic; sound reports have none.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::report_html::builder;
use crate::support;

fn pipe(args: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(args)
        .current_dir(support::repository())
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(stdin.as_bytes()).expect("it is read");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// The rules that find something, in the order of the report.
fn rules(report: &str) -> Vec<String> {
    let (code, out, err) = pipe(&["audit", "-", "--json"], report);
    let document: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    let defects = document["defects"].as_array().expect("a list");
    assert_eq!(code, if defects.is_empty() { 0 } else { 5 }, "{out}");
    defects.iter().map(|defect| defect["rule"].as_str().expect("a rule").to_owned()).collect()
}

fn rendered(template: &str, data: &Value) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("data.json");
    std::fs::write(&file, data.to_string()).expect("written");
    let (code, out, err) = pipe(&["render", template, "--data", file.to_str().expect("a plain path")], "");
    assert_eq!(code, 0, "{err}");
    out
}

fn reference() -> String {
    let path = "tests/reference/report_2025-03-15.json";
    let (code, out, err) = pipe(&["render", "templates/report.ru.txt", "--data", path], "");
    assert_eq!(code, 0, "{err}");
    out
}

/// The seven of the reference that can be seen from its text.
const REFERENCE: [&str; 7] = [
    "unequal_budgets",
    "one_class_gold",
    "no_effect",
    "no_sample_size",
    "unnamed_average",
    "tie_called_best",
    "added_percentages",
];

#[test]
fn the_reference_has_its_seven_defects_with_their_arithmetic() {
    let report = reference();
    assert_eq!(rules(&report), REFERENCE);
    let (code, told, _) = pipe(&["audit", "-"], &report);
    assert_eq!(code, 5);
    for words in [
        "Дефектов: 7",
        "TERRa: все эталонные метки одного класса",
        "0.44 → R 0.22, F1 0.3056",
        "возможные n: 100, 200, 300, 400",
        "LoRA совпадает с базовой моделью во всех цифрах",
        "n = 100: 5 : 0, p ≥ 0.0625",
        "NERUS: F1 не равна 2PR/(P+R)",
        "2·0.2983·0.524/(0.2983+0.524) = 0.3802, а напечатано 0.3615",
        "TERRa: лучшим назван LoRA, хотя это ничья",
        "MLP: -8.18 +30.73 = +22.55",
        "в 2.0 раза",
    ] {
        assert!(told.contains(words), "{words}:\n{told}");
    }
    let shared = support::repository().join("../shared/reference/report_2025-03-15.txt");
    if let Ok(text) = std::fs::read_to_string(&shared) {
        assert_eq!(rules(&text), REFERENCE);
    } else {
        eprintln!("skipped: {} is not there", shared.display());
    }
}

#[test]
fn another_layout_of_the_same_has_the_same_defects() {
    let report = reference();
    assert_eq!(rules(&report.replace('\n', "\r\n")), REFERENCE);
    assert_eq!(rules(&format!("\u{feff}{report}")), REFERENCE);
    let indented: String = report.lines().map(|line| format!("\t {line}  \n")).collect();
    assert_eq!(rules(&indented), REFERENCE);
    // Decimal commas in the tables.
    let commas: String = report
        .lines()
        .map(|line| if line.starts_with('|') { line.replace("0.", "0,") + "\n" } else { line.to_owned() + "\n" })
        .collect();
    assert_eq!(rules(&commas), REFERENCE);
    // No frame but the header's.
    let bare: String =
        report.lines().filter(|line| !line.starts_with("+-")).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(rules(&bare), REFERENCE);
    let data: Value = serde_json::from_slice(
        &std::fs::read(support::repository().join("tests/reference/report_2025-03-15.json")).expect("there"),
    )
    .expect("JSON");
    let mut markdown = rules(&rendered("templates/report.ru.md", &data));
    let mut wanted = REFERENCE.map(str::to_owned).to_vec();
    markdown.sort();
    wanted.sort();
    assert_eq!(markdown, wanted);
    // Without the conclusions, what was concluded is no defect.
    let cut = report.split("ОБЩИЕ ВЫВОДЫ").next().expect("a beginning");
    assert_eq!(rules(cut), REFERENCE[..5]);
}

#[test]
fn sentences_that_the_tables_contradict_are_found() {
    let report = reference();
    let with = |from: &str, to: &str| {
        assert!(report.contains(from), "{from}");
        let mut all = rules(&report.replacen(from, to, 1));
        all.retain(|rule| !REFERENCE.contains(&rule.as_str()));
        all
    };
    assert_eq!(with("MLP: изменение F1 -8.18%", "MLP: изменение F1 -3.18%"), ["change"]);
    assert_eq!(with("MLP: общий баланс +22.55", "MLP: общий баланс +32.55"), ["balance"]);
    assert_eq!(with("Рекомендуется использовать MLP", "Рекомендуется использовать LoRA"), ["recommended_not_leading"]);
    assert_eq!(with("0.2983 | 0.2983 | 0.3875", "0.2983 | 0.2984 | 0.3875"), ["no_effect_on_task"]);
}

#[test]
fn rows_of_other_lengths_are_read() {
    let header = "| Метрика | Base | LoRA |\n|---|---|---|\n";
    assert_eq!(rules(&format!("{header}| F1 | 0.5 |\n| Recall | 0.5 | 0.6 | 0.7 |\n")), ["no_sample_size"]);
}

#[test]
fn sound_tables_of_other_precision_and_metrics_have_no_defect() {
    let table = |rows: &str, below: &str| {
        rules(&format!(
            "СРАВНЕНИЕ НА ДАТАСЕТЕ A (x)\n| Метрика | Base | LoRA | LoRA vs Base |\n|---|---|---|---|\n{rows}{below}; интервал 95 %\n"
        ))
    };
    let two = "| Accuracy | 0.33 | 0.67 | +0.33 (+100.0%) |\n| F1-score | 0.50 | 0.67 | +0.17 (+33.3%) |\n";
    assert_eq!(table(two, "n = 3"), [""; 0]);
    assert_eq!(table("| Accuracy | 33,3 % | 66,7 % | |\n", "n = 3"), [""; 0]);
    assert_eq!(table("| ROUGE-L | 23.5 | 22.5 | |\n| Время, с | 12 | 13 | |\n", "n = 3"), [""; 0]);
    assert_eq!(table("| Accuracy | 0.1230 | 0.2 | |\n", "n = 1 000"), [""; 0]);
    assert_eq!(table("| Accuracy | 0.1234 | 0.2 | |\n", "n = 1 000"), ["not_a_share"]);
}

#[test]
fn other_names_and_line_ends_have_the_same_defects() {
    let report = reference();
    assert_eq!(rules(&report.replace('\n', "\r")), REFERENCE);
    assert_eq!(rules(&report.replace("| F1        |", "| F1-score  |")), REFERENCE);
    assert_eq!(rules(&report.replace("4211200  ", "4,211,200")), REFERENCE);
}

#[test]
fn what_is_no_report_is_an_error_with_its_name() {
    let (code, out, err) = pipe(&["audit", "-"], "просто текст\n");
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("no table of figures is found"), "{err}");
    let (code, _, err) = pipe(&["audit", "missing.txt"], "");
    assert!(code == 1 && err.contains("missing.txt"), "{err}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("кои.txt");
    std::fs::write(&path, [0xd0, 0xff, 0xfe]).expect("written");
    let (code, _, err) = pipe(&["audit", path.to_str().expect("a path")], "");
    assert!(code == 1 && err.contains("is not UTF-8"), "{err}");
}

/// A sound comparison with records: figures that follow from counts, averages that have names.
fn sound(accuracies: [u64; 3], parameters: [u64; 2], f1: [f64; 3]) -> Value {
    let arms = ["base", "lora", "mlp"];
    let adapters = [
        json!([]),
        json!([{"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.05, "target_modules": ["q_proj"]}]),
        json!([{"kind": "mlp", "hidden_size": 16, "layers": [0, 2], "dropout": 0.1}]),
    ];
    let titles = ["Базовая модель", "LoRA", "MLP"];
    let arm = |i: usize| {
        let count = if i == 0 { 0 } else { parameters[i - 1] };
        json!({"name": arms[i], "title": titles[i], "adapters": adapters[i], "trainable_parameters": count})
    };
    let test = |arm: usize, against: usize, values: [f64; 3]| {
        let difference = values[arm] - values[against];
        json!({"against": arms[against], "arm": arms[arm], "difference": difference, "p": 0.3, "p_holm": 0.6,
            "interval": {"low": difference - 0.05, "high": difference + 0.05},
            "equivalence": {"margin": 0.02, "p": 0.4}, "verdict": "indistinguishable"})
    };
    let tests = |values: [f64; 3]| json!([test(1, 0, values), test(2, 0, values), test(2, 1, values)]);
    let shares = accuracies.map(|right| right as f64 / 307.0);
    let all = |of: &dyn Fn(usize) -> Value| -> Value { (0..3).map(|i| (arms[i].to_owned(), of(i))).collect() };
    json!({"format": "pipe/comparison@2", "generated": false, "arms": [arm(0), arm(1), arm(2)],
    "settings": {"alpha": 0.05, "resamples": 1000, "seed": 1},
    "tasks": [
        {"id": "terra", "title": "TERRa", "role": "general", "metric": "f1", "average": "macro", "n": 307,
         "results": all(&|i| json!({"accuracy": shares[i], "f1": shares[i]})), "tests": tests(shares),
         "answers": [{"against": "base", "arm": "lora", "different": 9}, {"against": "base", "arm": "mlp", "different": 9}]},
        {"id": "nerus", "title": "Nerus", "role": "special", "metric": "f1", "average": "micro", "n": 100,
         "results": all(&|i| json!({"f1": f1[i]})), "tests": tests(f1),
         "answers": [{"against": "base", "arm": "lora", "different": 9}, {"against": "base", "arm": "mlp", "different": 9}]},
    ]})
}

#[test]
fn one_mutation_gives_one_defect() {
    let good = rendered("templates/report.ru.txt", &sound([180, 190, 201], [1000, 2000], [0.31, 0.42, 0.53]));
    assert_eq!(rules(&good), [""; 0], "{good}");
    let mutated = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}:\n{good}");
        rules(&good.replacen(from, to, 1))
    };
    assert_eq!(mutated("0.6189", "0.6194")[0], "not_a_share", "190 of 307 is 0.6189");
    assert_eq!(mutated("+0.1100 (+35.48%)", "+0.1100 (+45.48%)"), ["percent"]);
    assert_eq!(mutated("+0.1100 (+35.48%)", "+0.2100 (+35.48%)"), ["difference"]);
    let claim = "ОБЩИЕ ВЫВОДЫ\nНа датасете Nerus лучшие результаты показал метод LoRA.\n";
    assert_eq!(mutated("ОБЩИЕ ВЫВОДЫ\n", claim), ["not_the_best"]);
    assert_eq!(rules(&good.replace("0.53 ", "1.53 ")), ["out_of_range", "difference", "difference", "balance"]);
}

/// The defects of a report beyond those of the reference.
fn only(report: &str, rule: &str) -> bool {
    rules(report).iter().any(|found| found == rule)
}

#[test]
fn cells_may_be_wrapped() {
    // Every cell with a space goes on in a second line, as reports for narrow pages have it.
    let mut wrapped = String::new();
    for line in reference().lines() {
        if !line.starts_with('|') {
            wrapped.push_str(&format!("{line}\n"));
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let part = |cell: &str, second: bool| match cell.rsplit_once(' ') {
            Some((a, b)) => {
                if second {
                    b.to_owned()
                } else {
                    a.to_owned()
                }
            }
            None => {
                if second {
                    String::new()
                } else {
                    cell.to_owned()
                }
            }
        };
        for second in [false, true] {
            let row: Vec<String> = cells.iter().map(|cell| part(cell, second)).collect();
            wrapped.push_str(&format!("| {} |\n", row.join(" | ")));
        }
    }
    assert_eq!(rules(&wrapped), REFERENCE, "{wrapped}");
    // Without frames between rows, a row without a first cell goes on with the one above.
    let table = "## A\n| Метрика | Base | LoRA | LoRA vs Base |\n|---|---|---|---|\n| F1 | 0.50 | 0.67 | +0.17 |\n| | | | (+33.3%) |\nn = 3; интервал 95 %\n";
    assert_eq!(rules(table), [""; 0]);
    assert_eq!(rules(&table.replace("(+33.3%)", "(+43.3%)")), ["percent"]);
}

#[test]
fn a_note_between_heading_and_table_is_a_note() {
    let report = reference();
    let rule = "-".repeat(80);
    let noted = report.replace(
        &format!("СРАВНЕНИЕ НА ДАТАСЕТЕ TERRa (общие способности)\n{rule}\n"),
        &format!("СРАВНЕНИЕ НА ДАТАСЕТЕ TERRa (общие способности)\n{rule}\nОценено на n = 100 примерах, интервалы не считались\n"),
    );
    assert_ne!(noted, report);
    // The sentences about TERRa are still held against its table, and 100 items are those of TERRa alone.
    assert_eq!(rules(&noted), REFERENCE);
    let data: Value = serde_json::from_slice(
        &std::fs::read(support::repository().join("tests/reference/report_2025-03-15.json")).expect("there"),
    )
    .expect("JSON");
    let markdown = rendered("templates/report.ru.md", &data);
    let mut wanted = rules(&markdown);
    let title = markdown.lines().find(|line| line.starts_with("## TERRa")).expect("a title").to_owned();
    let noted = markdown.replace(&title, &format!("{title}\n\nЗапуск от 15 марта"));
    let mut found = rules(&noted);
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn a_phrase_about_something_else_silences_nothing() {
    let report = reference();
    for words in [
        "LoRA2: исправлено 3, испорчено 4",
        "Ошибки разметки исправлено в новой версии данных",
        "Сравнить адаптеры при равном числе обучаемых параметров",
        "Бюджет проекта согласован",
        "Число обучаемых параметров у вариантов не различается",
        "Для p = нет данных; n = много",
        "Оценка скорости — лишь ориентир",
        "Доверительные интервалы — в приложении",
    ] {
        assert_eq!(rules(&format!("{report}\n{words}\n")), REFERENCE, "{words}");
    }
    for (words, rule) in [
        ("LoRA: исправлено 3, испорчено 3", "no_effect"),
        ("- LoRA: не обучен — B равна нулю", "no_effect"),
        ("Бюджеты адаптеров различаются (в 2.0 раза)", "unequal_budgets"),
        ("Число обучаемых параметров различается", "unequal_budgets"),
        ("Баланс — сумма процентов разных метрик; складываются разные величины", "added_percentages"),
        ("число примеров: 100 на TERRa и 200 на Nerus; p = 0.07", "no_sample_size"),
    ] {
        let report = format!("{report}\n{words}\n");
        assert!(!only(&report, rule), "{words}: {:?}", rules(&report));
    }
    // About one task alone.
    let own = report.replacen("0.2983 | 0.2983 | 0.3875", "0.2983 | 0.2984 | 0.3875", 1);
    assert!(only(&own, "no_effect_on_task"));
    let under = |task: &str| format!("{own}\nНа датасете {task} видно больше\n- LoRA: исправлено 3, испорчено 3\n");
    assert!(only(&under("Nerus"), "no_effect_on_task"));
    assert!(!only(&under("TERRa"), "no_effect_on_task"));
}

/// Accuracies that are k / n, or means of that over the seeds of an arm, as compare gives them; the rest is invented.
fn counted(mut data: Value) -> Value {
    for task in data["tasks"].as_array_mut().expect("tasks") {
        let n = task["n"].as_f64().expect("n");
        let seeds: Vec<(String, u64)> = task["by_seed"]
            .as_object()
            .map(|all| {
                all.iter().map(|(arm, of)| (arm.clone(), of.as_object().map_or(1, |of| of.len() as u64))).collect()
            })
            .unwrap_or_default();
        for (arm, figures) in task["results"].as_object_mut().expect("figures") {
            let runs = seeds.iter().find(|(name, _)| name == arm).map_or(1, |(_, runs)| *runs) as f64;
            if let Some(accuracy) = figures["accuracy"].as_f64() {
                figures["accuracy"] = json!((accuracy * n * runs).round() / (n * runs));
            }
        }
    }
    data
}

/// Many arms, seeds, a task of running text, an adapter without effect: nothing of our own is a defect.
#[test]
fn our_own_large_reports_have_no_defect() {
    for template in ["templates/report.ru.txt", "templates/report.ru.md"] {
        let full = counted(builder::full());
        let report = rendered(template, &full);
        assert!(report.contains("запусков 3"), "the builder has seeds");
        for words in ["Как повторить", "pipe.lock", "libtorch", "показывает `pipe runs --run last`"]
        {
            assert!(report.replace('\\', "").contains(words), "{words}: {report}");
        }
        assert_eq!(rules(&report), [""; 0], "{report}");
        let mut few = full.clone();
        few["arms"].as_array_mut().expect("arms").truncate(4);
        let names: Vec<String> = few["arms"]
            .as_array()
            .expect("arms")
            .iter()
            .map(|arm| arm["name"].as_str().expect("a name").to_owned())
            .collect();
        let known = |name: &Value| names.iter().any(|known| name == known);
        for task in few["tasks"].as_array_mut().expect("tasks") {
            task["tests"].as_array_mut().expect("tests").retain(|test| known(&test["arm"]) && known(&test["against"]));
            task["results"].as_object_mut().expect("figures").retain(|arm, _| names.contains(arm));
        }
        let report = rendered(template, &few);
        assert_eq!(rules(&report), [""; 0], "{report}");
    }
    // Two runs of 307 rows give halves of rows; where nothing is said of runs, there are none.
    let table =
        "## A\n| Метрика | Base | LoRA |\n|---|---|---|\n| Accuracy | 0.6189 | 0.6205 |\nn = 307; интервал 95 %\n";
    assert_eq!(rules(table), ["not_a_share"]);
    assert_eq!(rules(&format!("{table}- LoRA: запусков 2, от 0.6189 до 0.6221\n")), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn sound_reports_have_no_defect(
        right in prop::array::uniform3(1_u64..306),
        parameters in prop::array::uniform2(1_u64..10_000_000),
        f1 in prop::array::uniform3(0.0..=1.0_f64),
        markdown in any::<bool>(),
    ) {
        let template = if markdown { "templates/report.ru.md" } else { "templates/report.ru.txt" };
        let report = rendered(template, &sound(right, parameters, f1));
        prop_assert_eq!(rules(&report), [""; 0], "{}", report);
    }
}
