//! The HTML report: well-formed, closed to the network, escaped, without what is not known, and as browsers show it.

mod browser;
pub mod builder;
mod markup;

use std::path::{Path, PathBuf};
use std::process::Command;

use pipe::report::chart;
use pipe::report::comparison::Comparison;
use serde_json::{Value, json};

use self::markup::Tag;
use crate::support;

fn rendered_with(template: &str, data: &Value) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("data.json");
    std::fs::write(&file, data.to_string()).expect("data is written");
    let output = Command::new(env!("CARGO_BIN_EXE_pipe"))
        .args(["render", template, "--data"])
        .arg(&file)
        .current_dir(support::repository())
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn rendered(data: &Value) -> String {
    rendered_with("templates/report.ru.html", data)
}

fn reference() -> Value {
    let path = support::repository().join("tests/reference/report_2025-03-15.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the reference data")).expect("it is JSON")
}

fn csv(data: &Value) -> Vec<csv::StringRecord> {
    let comparison = Comparison::read(&data.to_string(), "test").expect("a comparison");
    let text = chart::csv(&comparison).expect("CSV");
    csv::Reader::from_reader(text.as_bytes()).records().map(|row| row.expect("a row")).collect()
}

fn headings(tags: &[Tag]) -> Vec<u32> {
    tags.iter().filter_map(|tag| tag.name.strip_prefix('h')?.parse().ok()).collect()
}

/// Laws of every page.
fn lawful(page: &str) -> (Vec<Tag>, String) {
    let (tags, text) = markup::read(page);
    assert_eq!(tags[0].attribute("lang"), Some("ru"));
    let policy =
        tags.iter().find(|tag| tag.attribute("http-equiv") == Some("Content-Security-Policy")).expect("a policy");
    let policy = policy.attribute("content").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("script"), "{policy}");
    let levels = headings(&tags);
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(levels.windows(2).all(|two| two[1] <= two[0] + 1), "a heading skips a level: {levels:?}");
    let mut ids = std::collections::BTreeSet::new();
    for tag in &tags {
        assert!(!["script", "link", "iframe", "object", "base", "form", "foreignObject"].contains(&tag.name.as_str()));
        for (name, value) in &tag.attributes {
            assert!(!name.starts_with("on"), "{name} in {tag:?}");
            if ["href", "src"].contains(&name.as_str()) {
                assert!(value.starts_with('#') || value.starts_with("data:"), "{value} leads out of the page");
            }
        }
        if let Some(id) = tag.attribute("id") {
            assert!(ids.insert(id), "the id {id} stands twice");
        }
    }
    for tag in tags.iter().filter(|tag| tag.name == "a") {
        let target = tag.attribute("href").unwrap().trim_start_matches('#');
        assert!(ids.contains(target), "#{target} leads nowhere");
    }
    for svg in tags.iter().filter(|tag| tag.attribute("class") == Some("plot")) {
        assert_eq!(svg.attribute("role"), Some("img"));
        let named = svg.attribute("aria-labelledby").unwrap();
        assert!(named.split(' ').all(|id| ids.contains(id)), "{named}");
    }
    let count = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
    assert_eq!(count("table"), count("caption"));
    assert!(tags.iter().filter(|tag| tag.name == "th").all(|tag| tag.attribute("scope").is_some()));
    for address in ["http://", "https://", "@import", "url("] {
        assert!(!page.contains(address), "{address} in the page");
    }
    for word in ["NaN", "inf%", "undefined", "None"] {
        assert!(!text.contains(word), "{word} in the text");
    }
    (tags, text)
}

#[test]
fn a_whole_comparison_makes_a_whole_page() {
    let data = builder::full();
    let page = rendered(&data);
    let (tags, text) = lawful(&page);
    for section in [
        "summary",
        "certificates",
        "budgets",
        "task-1",
        "task-2",
        "task-3",
        "learning",
        "adapters",
        "provenance",
        "repeat",
    ] {
        assert!(tags.iter().any(|tag| tag.attribute("id") == Some(section)), "no section {section}");
    }
    for wanted in [
        "не обучен",
        "действует",
        "▲\u{a0}лучше",
        "▼\u{a0}хуже",
        "◆\u{a0}эквивалентно",
        "○\u{a0}не различимо",
        "Бюджеты не равны",
        "Правила без модели",
        "У 204 из 307 примеров посылка есть и в обучающих данных",
        "Формулировок запроса 3; порядок вариантов от неё зависит",
        "сущностей не из текста",
        "доля вероятности на вариантах ответа",
        "Примеры, на которых ответы расходятся",
        "меньше — лучше",
        "Нет места в тексте",
        "pipe runs",
        "a1b2c3d4e5f60718293a4b5c6d7e8f90",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in the page");
    }
    assert!(page.contains("<mark class=\"per\">Татьяна Голикова<small>PER</small></mark>"));
    let plots = tags.iter().filter(|tag| tag.attribute("class") == Some("plot")).count();
    // For each task a forest, a heat map and three lines (rank, α, hidden size); the learning curves.
    assert_eq!(plots, 3 * 5 + 1);
}

#[test]
fn the_same_data_makes_the_same_page() {
    let data = builder::full();
    assert_eq!(rendered(&data), rendered(&data));
}

#[test]
fn what_is_not_known_is_left_out() {
    let page = rendered(&reference());
    let (tags, text) = lawful(&page);
    for section in ["certificates", "budgets", "learning", "provenance"] {
        assert!(!tags.iter().any(|tag| tag.attribute("id") == Some(section)), "a section {section}");
    }
    assert!(!page.contains("<svg class=\"plot\""));
    for unwanted in
        ["Отличия от", "Правила без", "Формулировки", "Как прочитаны", "расходятся", "Рекомендуется", "баланс"]
    {
        assert!(!text.contains(unwanted), "{unwanted} in the page");
    }
    assert!(text.contains("0.3056") && text.contains("Известны только значения метрик"), "{text}");
    // The sum of percentages of different metrics stands in the reference layout alone.
    assert!(!text.contains("+22.55"));
}

#[test]
fn a_base_alone_is_a_page_too() {
    let data = json!({"format": "pipe/comparison@2", "generated": false,
        "arms": [{"name": "base", "title": "Базовая модель", "adapters": [], "trainable_parameters": 0}], "tasks": []});
    let (_, text) = lawful(&rendered(&data));
    assert!(text.contains("Оценка базовой модели"));
}

const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "\"' onload=\"alert(1)\" x='",
    "</style></title></svg><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %} &amp; &#x3c;",
    "\u{202e}gnissim\u{2066}\u{200f}",
    "]]><!--",
];

/// Puts a text into every string of the data that is not read as anything but words.
fn poison(value: &mut Value, with: &str) {
    const WORDS: [&str; 12] =
        ["title", "reason", "text", "gold", "severity", "code", "data", "schedule", "split", "kind", "what", "id"];
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                let is_word = WORDS.contains(&key.as_str());
                match inner {
                    Value::String(text) if is_word && !(key == "kind" && ["lora", "mlp"].contains(&text.as_str())) => {
                        text.push_str(with);
                    }
                    _ => poison(inner, with),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| poison(inner, with)),
        _ => {}
    }
}

#[test]
fn hostile_data_stays_text() {
    for hostile in HOSTILE {
        let mut data = builder::full();
        poison(&mut data, hostile);
        data["tasks"][1]["examples"][0]["answers"]["mlp"] = json!(hostile);
        data["tasks"][0]["variants"][0]["name"] = json!(hostile);
        data["tasks"][0]["classes"][hostile] = json!(3);
        data["tasks"][0]["findings"][0]["examples"] = json!([hostile]);
        data["provenance"]["data"][hostile] = json!(hostile);
        data["arms"][4]["coordinates"]["alpha"] = json!(hostile);
        data["arms"][4]["coordinates"][hostile] = json!(hostile);
        data["arms"][2]["certificate"]["sites"][0]["name"] = json!(hostile);
        data["arms"][1]["selection"]["values"][0]["name"] = json!(hostile);
        let (tags, _) = lawful(&rendered(&data));
        let known = builder::full();
        let (plain, _) = markup::read(&rendered(&known));
        let names = |tags: &[Tag]| tags.iter().map(|tag| tag.name.clone()).collect::<std::collections::BTreeSet<_>>();
        assert!(names(&tags).is_subset(&names(&plain)), "an element came in with {hostile:?}");
    }
}

#[test]
fn spans_of_any_kind_are_survived() {
    for answer in
        ["PER:0:0", "PER:9:2", "PER:0:18446744073709551615", "PER:5:7 LOC:6:9 ORG:0:99", ":::", "PER:-1:2", "\u{0}"]
    {
        let mut data = builder::full();
        data["tasks"][1]["examples"][1]["answers"]["lora"] = json!(answer);
        data["tasks"][1]["examples"][1]["gold"] = json!(answer);
        lawful(&rendered(&data));
    }
}

/// Many arms with long titles, all with the same figures.
pub fn crowded() -> Value {
    let mut data = builder::full();
    let arms: Vec<Value> = (0..60)
        .map(|i| {
            let mut arm = data["arms"][1].clone();
            arm["name"] = json!(format!("grid[rank={i}]"));
            arm["title"] = json!(format!(
                "Очень длинное название варианта с пояснениями, которое никто не сокращал, № {i}, ШШШШШШШШШШ"
            ));
            arm["coordinates"] = json!({"rank": i, "alpha": i % 20});
            arm
        })
        .collect();
    data["arms"] = json!(std::iter::once(data["arms"][0].clone()).chain(arms).collect::<Vec<_>>());
    for task in data["tasks"].as_array_mut().unwrap() {
        let (base, figures, test) =
            (task["results"]["base"].clone(), task["results"]["lora"].clone(), task["tests"][0].clone());
        task["results"] = json!({"base": base});
        for field in ["intervals", "by_seed", "label_mass", "parse", "averages"] {
            task[field] = json!({});
        }
        for field in ["tests", "variants", "examples", "shortcuts"] {
            task[field] = json!([]);
        }
        task["leaks"] = Value::Null;
        for i in 0..60 {
            let name = format!("grid[rank={i}]");
            task["results"][&name] = figures.clone();
            let mut test = test.clone();
            test["arm"] = json!(name);
            task["tests"].as_array_mut().unwrap().push(test);
        }
    }
    data
}

#[test]
fn many_arms_leave_out_what_has_no_room_and_say_so() {
    let (_, text) = lawful(&rendered(&crowded()));
    for wanted in [
        "показаны 24 с наибольшим выигрышем, ещё 36 — в таблице",
        "показаны первые 8, ещё 52 — в plots.csv",
        "Ещё адаптеров: 48",
        "показаны первые строки и столбцы, не больше 16 и 9",
    ] {
        assert!(text.contains(wanted), "no {wanted:?}");
    }
    let rows = csv(&crowded());
    assert_eq!(rows.iter().filter(|row| &row[0] == "forest.terra").count(), 60, "the CSV has all of them");
}

#[test]
fn plots_csv_has_every_mark_unrounded() {
    let data = builder::full();
    let rows = csv(&data);
    let forest = rows.iter().find(|row| &row[0] == "forest.nerus" && &row[4] == "mlp").expect("a row");
    let test = data["tasks"][1]["tests"].as_array().unwrap().iter().find(|test| test["arm"] == "mlp").unwrap();
    assert_eq!(forest[8].parse::<f64>().unwrap(), test["difference"].as_f64().unwrap());
    assert_eq!(forest[9].parse::<f64>().unwrap(), test["interval"]["low"].as_f64().unwrap());
    let heat =
        rows.iter().find(|row| &row[1] == "heat" && row[0].contains("terra") && row[4].contains("alpha=8,rank=2"));
    assert_eq!(&heat.expect("a cell")[2], "alpha=8");
    let learning = rows.iter().filter(|row| &row[0] == "learning" && &row[4] == "lora").count();
    assert_eq!(learning, data["arms"][1]["training"][0]["curve"].as_array().unwrap().len());
    let seeds = rows.iter().filter(|row| &row[0] == "learning" && row[4].contains('[')).all(|row| !row[9].is_empty());
    assert!(seeds, "lines over several seeds have a band");
}

/// Each number that a table shares with a picture is that of the CSV, as it prints.
fn agree(cells: &[(Vec<String>, String)], rows: &[csv::StringRecord]) {
    assert!(cells.len() > 50, "only {} cells are plotted", cells.len());
    for (at, text) in cells {
        let [chart, series, x, field] = at.as_slice() else { panic!("{at:?}") };
        let row = rows.iter().find(|row| row[0] == **chart && row[2] == **series && row[6] == **x);
        let row = row.unwrap_or_else(|| panic!("no row of plots.csv for {at:?}"));
        let column = match field.as_str() {
            "low" => 9,
            "high" => 10,
            _ => 8,
        };
        let (shown, written) = (text.replace('−', "-").parse::<f64>(), row[column].parse::<f64>());
        let difference = (shown.expect("a number in the table") - written.expect("a number in the CSV")).abs();
        assert!(difference <= 0.000_05 + 1e-12, "{at:?}: {text} in the table, {} in the CSV", &row[column]);
    }
}

#[test]
fn tables_say_what_plots_csv_says() {
    let data = builder::full();
    let page = rendered(&data);
    let mut cells: Vec<(Vec<String>, String)> = Vec::new();
    for cell in page.split("<td ").skip(1).filter(|cell| cell.split('>').next().unwrap().contains("data-chart")) {
        let (tag, rest) = cell.split_once('>').unwrap();
        let attribute = |name: &str| {
            let after = tag.split_once(&format!("{name}=\"")).unwrap().1;
            after.split('"').next().unwrap().to_owned()
        };
        let at = |field: &str| {
            let place = ["data-chart", "data-series", "data-x"].map(attribute);
            place.into_iter().chain([field.to_owned()]).collect::<Vec<_>>()
        };
        let inside = |from: &str| rest.split_once(from).unwrap().1.split('<').next().unwrap().to_owned();
        cells.push((at("y"), inside("<span>")));
        if attribute("data-field") == "interval" {
            let interval = inside("<small>");
            let (low, high) = interval.trim_matches(['[', ']']).split_once("; ").expect("an interval");
            cells.extend([(at("low"), low.to_owned()), (at("high"), high.to_owned())]);
        }
    }
    agree(&cells, &csv(&data));
}

// Colours.

fn custom_properties(css: &str) -> std::collections::BTreeMap<String, [f64; 3]> {
    let one = |declaration: &str| {
        let (name, value) = declaration.trim().split_once(':')?;
        let hex = value.strip_prefix('#')?;
        let part = |i: usize| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok().map(f64::from);
        Some((name.to_owned(), [part(0)?, part(2)?, part(4)?]))
    };
    css.split([';', '{', '\n']).filter_map(one).collect()
}

/// WCAG 2.2, "contrast ratio".
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let luminance = |rgb: [f64; 3]| {
        let linear = rgb.map(|c| {
            let c = c / 255.0;
            if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn colours_can_be_read_in_both_schemes() {
    let style = std::fs::read_to_string(support::repository().join("templates/html/style.html")).expect("the style");
    let (light, rest) = style.split_once("@media screen and (prefers-color-scheme:dark)").expect("a dark scheme");
    let dark = rest.split("}\n}").next().unwrap();
    for (scheme, css) in [("light", light), ("dark", dark)] {
        let colours = custom_properties(css);
        let of = |name: &str| *colours.get(name).unwrap_or_else(|| panic!("no {name} in the {scheme} scheme"));
        let mut pairs: Vec<(String, &str, f64)> = Vec::new();
        for text in ["--ink", "--muted", "--link", "--better", "--worse", "--equivalent", "--open"] {
            pairs.push((text.to_owned(), "--paper", 4.5));
        }
        pairs.push(("--flag".to_owned(), "--flag-paper", 4.5));
        pairs.push(("--ink".to_owned(), "--flag-paper", 4.5));
        for mark in ["--per", "--loc", "--org", "--other"] {
            pairs.push(("--ink".to_owned(), mark, 4.5));
            pairs.push(("--muted".to_owned(), mark, 4.5));
        }
        for text in ["--ink", "--muted", "--open", "--better", "--worse", "--equivalent"] {
            pairs.push((text.to_owned(), "--band", 3.0));
        }
        for i in 0..8 {
            pairs.push((format!("--s{i}"), "--paper", 3.0));
        }
        pairs.push(("--strong".to_owned(), "--paper", 3.0));
        const CELLS: [&str; 7] = ["--q0", "--q1", "--q2", "--q3", "--q4", "--q5", "--q6"];
        for (i, cell) in CELLS.iter().enumerate() {
            pairs.push((format!("--t{i}"), cell, 4.5));
        }
        for (text, paper, least) in pairs {
            let ratio = contrast(of(&text), of(paper));
            assert!(ratio >= least, "{scheme}: {text} on {paper} has {ratio:.2}, needs {least}");
        }
    }
}

// English.

#[test]
fn the_english_report_has_no_russian_of_its_own() {
    let mut data = builder::full();
    data["arms"][0]["title"] = json!("Base model");
    data["arms"][3]["title"] = json!("DoRA, untrained");
    data["tasks"][2]["title"] = json!("Running text");
    for arm in data["arms"].as_array_mut().unwrap() {
        arm["title"] = json!(arm["title"].as_str().unwrap().replace("α", "alpha"));
    }
    let report = rendered_with("templates/report.en.md", &data);
    let foreign: String = report
        .lines()
        .filter(|line| line.chars().any(|c| ('а'..='я').contains(&c.to_lowercase().next().unwrap())))
        .collect();
    assert!(foreign.is_empty(), "{foreign}");
    for wanted in ["better", "worse", "equivalent", "indistinguishable", "untrained", "plots.csv", "TERRa", "n = 307"] {
        assert!(report.contains(wanted), "no {wanted:?} in\n{report}");
    }
    let bare = rendered_with("templates/report.en.md", &reference());
    assert!(bare.contains("0.3056") && !bare.contains("Tests") && !bare.contains("Budgets"), "{bare}");
}

// The browser.

/// Pages by name, with the number of pictures that each must have at least.
fn pages(folder: &Path) -> Vec<(&'static str, PathBuf, u64)> {
    let mut hostile = builder::full();
    poison(&mut hostile, HOSTILE[0]);
    poison(&mut hostile, HOSTILE[4]);
    let pages = [
        ("full", builder::full(), 16),
        ("crowded", crowded(), 7),
        ("hostile", hostile, 16),
        ("figures", reference(), 0),
    ];
    let write = |(name, data, plots): (&'static str, Value, u64)| {
        let file = folder.join(format!("{name}.html"));
        std::fs::write(&file, rendered(&data)).expect("a page is written");
        (name, file, plots)
    };
    pages.into_iter().map(write).collect()
}

const SCREENS: [(&str, browser::Screen); 5] = {
    use browser::Screen;
    let desk = Screen { width: 1280, height: 900, phone: false, media: "screen", scheme: "light" };
    let phone = Screen { width: 390, height: 844, phone: true, media: "screen", scheme: "light" };
    [
        ("desk-light", desk),
        ("desk-dark", Screen { scheme: "dark", ..desk }),
        ("phone-light", phone),
        ("phone-dark", Screen { scheme: "dark", ..phone }),
        ("print", Screen { width: 690, height: 980, media: "print", scheme: "dark", ..desk }),
    ]
};

#[cfg(unix)]
#[test]
fn browser_shows_the_report_as_it_should_be() {
    if std::env::var_os("PIPE_BROWSER").is_none() {
        eprintln!("skipped: it starts a browser (`make browser` runs it)");
        return;
    }
    let Some(program) = browser::chromium() else {
        eprintln!("skipped: there is no chromium on the search path");
        return;
    };
    let folder = support::repository().join("target/browser");
    std::fs::create_dir_all(&folder).expect("a folder for screenshots");
    let mut browser = browser::Browser::start(&program);
    let mut wrong = Vec::new();
    for (name, file, least) in pages(&folder) {
        for (screen_name, screen) in SCREENS {
            browser.open(&file, screen);
            let seen = browser.evaluate(include_str!("report_html/look.js"));
            for what in seen["wrong"].as_array().expect("a list") {
                wrong.push(format!("{name}, {screen_name}: {what}"));
            }
            assert!(seen["plots"].as_u64() >= Some(least), "{name}: {} charts", seen["plots"]);
            assert_eq!(seen["scripts"], 0);
            if name == "full" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let cell = |cell: &Value| {
                    (["chart", "series", "x", "field"].map(|key| text(&cell[key])).to_vec(), text(&cell["text"]))
                };
                let cells: Vec<_> = seen["cells"].as_array().unwrap().iter().map(cell).collect();
                agree(&cells, &csv(&builder::full()));
            }
            let picture = browser.screenshot(screen.width);
            assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000);
            std::fs::write(folder.join(format!("{name}-{screen_name}.png")), picture).expect("a screenshot");
            for event in &browser.events {
                let (method, params) = (event["method"].as_str().unwrap_or(""), &event["params"]);
                let address = params["request"]["url"].as_str().unwrap_or("");
                let is_own = address.starts_with("file:///") && address.ends_with(".html");
                match method {
                    "Network.requestWillBeSent" if !is_own => wrong.push(format!("{name} asks for {address}")),
                    "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                        wrong.push(format!("{name}, {screen_name}: on the console: {params}"));
                    }
                    _ => {}
                }
            }
        }
        let pdf = browser.pdf();
        assert!(pdf.starts_with(b"%PDF"));
        std::fs::write(folder.join(format!("{name}.pdf")), pdf).expect("a print");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("screenshots are in {}", folder.display());
}
