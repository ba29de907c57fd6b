//! What each adapter does to its base, and what its training was given.
//! It does not know tasks, nor figures on them.

use std::collections::BTreeSet;

use serde::Serialize;

use super::table::{self, ABSENT, Cell, Table};
use crate::report::comparison::{Arm, Comparison};
use crate::report::delta::figure;
use crate::report::evidence::{Certificate, Effect, Site, Training};
use crate::report::verdicts;

/// Sites in the table of one adapter, and adapters with such a table.
const MOST_SITES: usize = 64;
const MOST_TABLES: usize = 24;

/// What adapters do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Certificates {
    /// A row for each adapter.
    pub table: Table,
    /// Sentences about those that do nothing.
    pub idle: Vec<String>,
    /// Where each sits.
    pub sites: Vec<Sites>,
}

/// Where an adapter sits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sites {
    /// The adapter.
    pub title: String,
    /// How many places.
    pub count: usize,
    /// A row for each place.
    pub table: Table,
}

/// What the trainings were given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Budgets {
    /// A row for each adapter.
    pub table: Table,
    /// What is not the same for all, each in a line.
    pub unequal: Vec<String>,
    /// What is the same for all, where that is said once; may be empty.
    pub shared: String,
    /// True if something was compared and all of it is the same.
    pub equal: bool,
    /// How each was chosen among trials.
    pub trials: Option<Table>,
}

/// The certificates; none where there are none.
pub fn certificates(comparison: &Comparison) -> Option<Certificates> {
    let known: Vec<(&Arm, &Certificate)> =
        comparison.adapted().filter_map(|arm| Some((arm, arm.certificate.as_ref()?))).collect();
    if known.is_empty() {
        return None;
    }
    let headers = ["Адаптер", "Состояние", "Тензоры", "‖ΔW‖ / ‖W‖", "Изменение логитов", "Другой первый токен"];
    let idle = known.iter().filter(|(_, certificate)| certificate.state != Effect::Active);
    Some(Certificates {
        idle: idle
            .map(|(arm, found)| format!("{}: {} — {}", arm.title, verdicts::effect(found.state), found.reason))
            .collect(),
        table: Table {
            caption: "Действие адаптеров на базовую модель".to_owned(),
            headers: headers.map(str::to_owned).to_vec(),
            rows: known.iter().map(|(arm, certificate)| row(arm, certificate)).collect(),
            note: "Тензоры — сколько из ожидаемых нашли своё место. ‖ΔW‖ / ‖W‖ — норма Фробениуса изменения веса \
                   к норме веса, медиана по местам. Изменение логитов — наибольшее и среднее на пробных входах."
                .to_owned(),
        },
        sites: known
            .iter()
            .filter(|(_, certificate)| !certificate.sites.is_empty())
            .take(MOST_TABLES)
            .map(|(arm, certificate)| sites(arm, &certificate.sites))
            .collect(),
    })
}

fn row(arm: &Arm, certificate: &Certificate) -> Vec<Cell> {
    let (sign, class) = match certificate.state {
        Effect::Active => ("● ", "better"),
        Effect::NoEffect | Effect::Untrained => ("○ ", "worse"),
        Effect::NotLoaded | Effect::Disabled => ("× ", "worse"),
    };
    let probe = certificate.probe.as_ref();
    let logits = probe.map_or_else(
        || Cell::number(ABSENT),
        |probe| {
            Cell::number(number(probe.max_logit_change)).below(format!("в среднем {}", number(probe.mean_logit_change)))
        },
    );
    let flips = probe.map_or_else(
        || Cell::number(ABSENT),
        |probe| Cell::number(format!("{} из {}", table::count(probe.argmax_flips), table::count(probe.inputs))),
    );
    let tensors = certificate.tensors;
    vec![
        Cell::text(&arm.title),
        Cell::text(format!("{sign}{}", verdicts::effect(certificate.state))).class(class),
        Cell::number(format!("{} из {}", table::count(tensors.placed), table::count(tensors.expected))),
        Cell::number(median(&certificate.sites).map_or_else(|| ABSENT.to_owned(), number)),
        logits,
        flips,
    ]
}

fn ratio(site: &Site) -> Option<f64> {
    let (delta, weight) = (site.delta_norm?, site.weight_norm?);
    Some(delta / weight).filter(|ratio| ratio.is_finite())
}

fn median(sites: &[Site]) -> Option<f64> {
    let mut ratios: Vec<f64> = sites.iter().filter_map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    let upper = *ratios.get(middle)?;
    Some(if ratios.len().is_multiple_of(2) { (ratios[middle - 1] + upper) / 2.0 } else { upper })
}

/// Four digits after the point, or a power of ten for what would vanish.
fn number(value: f64) -> String {
    let text = if value != 0.0 && value.abs() < 0.0005 { format!("{value:.1e}") } else { figure(value) };
    text.replace('-', "−")
}

fn sites(arm: &Arm, sites: &[Site]) -> Sites {
    let norm = |value: Option<f64>| Cell::number(value.map_or_else(|| ABSENT.to_owned(), number));
    let row = |site: &Site| {
        vec![
            Cell::text(&site.name).class("code"),
            Cell::text(&site.kind),
            norm(site.delta_norm),
            norm(site.weight_norm),
            norm(ratio(site)),
        ]
    };
    let left_out = sites.len().saturating_sub(MOST_SITES);
    Sites {
        title: arm.title.clone(),
        count: sites.len(),
        table: Table {
            caption: format!("{}: нормы по местам", arm.title),
            headers: ["Модуль", "Вид", "‖ΔW‖", "‖W‖", "Отношение"].map(str::to_owned).to_vec(),
            rows: sites.iter().take(MOST_SITES).map(row).collect(),
            note: if left_out == 0 { String::new() } else { format!("Не показано мест: {left_out}.") },
        },
    }
}

/// What of an arm and its first training is compared; none where it is not known.
type Value = fn(&Arm, Option<&Training>) -> Option<String>;

/// A column of the table of budgets: its header, its text, and what must be equal for a fair comparison.
struct Column {
    header: &'static str,
    cell: fn(&Arm, Option<&Training>) -> Cell,
    compared: Option<Value>,
}

const COLUMNS: [Column; 11] = [
    Column {
        header: "Обучаемые параметры",
        cell: |arm, _| {
            let sign = if arm.parameters_are_estimated { "≈ " } else { "" };
            Cell::number(format!("{sign}{}", table::count(arm.trainable_parameters)))
        },
        compared: Some(|arm, _| Some(arm.trainable_parameters.to_string())),
    },
    Column {
        header: "Данные",
        cell: |_, training| {
            training.map_or_else(|| Cell::text(ABSENT), |t| Cell::text(table::digest(&t.data)).class("hash"))
        },
        compared: Some(|_, training| training.map(|t| t.data.clone())),
    },
    Column {
        header: "Строки",
        cell: |_, training| Cell::count(training.map(|t| t.rows)),
        compared: Some(|_, training| training.map(|t| t.rows.to_string())),
    },
    Column { header: "Эпохи", cell: |_, training| Cell::count(training.and_then(|t| t.epochs)), compared: None },
    Column {
        header: "Шаги",
        cell: |_, training| Cell::count(training.map(|t| t.steps)),
        compared: Some(|_, training| training.map(|t| t.steps.to_string())),
    },
    Column {
        header: "Размер шага",
        cell: |_, training| Cell::count(training.map(|t| t.batch_size)),
        compared: Some(|_, training| training.map(|t| t.batch_size.to_string())),
    },
    Column {
        header: "Токены",
        cell: |_, training| {
            let cell = Cell::count(training.map(|t| t.tokens));
            match training {
                Some(t) => cell.below(format!("с ответом {}", table::count(t.target_tokens))),
                None => cell,
            }
        },
        compared: Some(|_, training| training.map(|t| t.tokens.to_string())),
    },
    Column {
        header: "Скорость обучения",
        cell: |_, training| match training {
            Some(t) => Cell::number(table::rate(t.lr)).below(t.schedule.clone()),
            None => Cell::number(ABSENT),
        },
        compared: Some(|_, training| training.map(|t| format!("{} {}", t.lr, t.schedule))),
    },
    Column {
        header: "Проб при подборе",
        cell: |arm, _| Cell::count(Some(trials(arm))),
        compared: Some(|arm, _| Some(trials(arm).to_string())),
    },
    Column {
        header: "Запусков (seed)",
        cell: |arm, training| {
            let runs = arm.training.len().max(arm.seeds.len()).max(usize::from(training.is_some()));
            Cell::count(Some(runs as u64))
        },
        compared: Some(|arm, _| Some(arm.training.len().max(arm.seeds.len()).max(1).to_string())),
    },
    Column {
        header: "Потери: начало → конец",
        cell: |_, training| {
            let ends = training.and_then(|t| Some((t.first_loss?, t.last_loss?)));
            Cell::number(ends.map_or_else(|| ABSENT.to_owned(), |(a, b)| format!("{a:.3} → {b:.3}")))
        },
        compared: None,
    },
];

fn trials(arm: &Arm) -> u64 {
    arm.selection.as_ref().map_or(1, |selection| selection.trials)
}

/// Adapters whose equal values are still shown side by side; of more, they are said once.
const FEW: usize = 4;

/// The budgets; none where no training is known.
pub fn budgets(comparison: &Comparison) -> Option<Budgets> {
    let arms: Vec<&Arm> = comparison.adapted().collect();
    if arms.iter().all(|arm| arm.training.is_empty() && arm.selection.is_none()) {
        return None;
    }
    let (mut unequal, mut equal, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let mut headers = vec!["Адаптер".to_owned()];
    for column in &COLUMNS {
        let differs = column.compared.is_some_and(|of| values(&arms, of).len() > 1);
        let all_the_same = texts(&arms, column).len() == 1 && arms.iter().all(|arm| !arm.training.is_empty());
        if differs {
            unequal.push(difference(&arms, column));
        } else if arms.len() > FEW && all_the_same {
            let text = texts(&arms, column).into_iter().map(|(text, below)| joined(&text, &below)).next();
            equal.push(format!("{} {}", column.header.to_lowercase(), text.unwrap_or_default()));
            continue;
        }
        headers.push(if differs { format!("≠\u{a0}{}", column.header) } else { column.header.to_owned() });
        shown.push(column);
    }
    let row = |arm: &&Arm| {
        let cells = shown.iter().map(|column| (column.cell)(arm, arm.training.first()));
        std::iter::once(Cell::text(&arm.title)).chain(cells).collect()
    };
    let mut notes = Vec::new();
    if !unequal.is_empty() {
        notes.push("Знак ≠ в заголовке — значения столбца не у всех одинаковы.");
    }
    if arms.iter().any(|arm| arm.training.len() > 1) {
        notes.push("При нескольких запусках показан первый.");
    }
    Some(Budgets {
        equal: unequal.is_empty() && arms.len() > 1,
        unequal,
        shared: if equal.is_empty() {
            String::new()
        } else {
            format!("Одинаково у всех: {}.", equal.join("; "))
        },
        table: Table {
            caption: "Что получило обучение каждого адаптера".to_owned(),
            headers,
            rows: arms.iter().map(row).collect(),
            note: notes.join(" "),
        },
        trials: trials_table(&arms),
    })
}

/// The different cells of a column: their text and second line.
fn texts(arms: &[&Arm], column: &Column) -> BTreeSet<(String, String)> {
    let cells = arms.iter().map(|arm| (column.cell)(arm, arm.training.first()));
    cells.map(|cell| (cell.text, cell.below)).collect()
}

/// `81 234 (с ответом 9 000)`.
fn joined(text: &str, below: &str) -> String {
    if below.is_empty() { text.to_owned() } else { format!("{text} ({below})") }
}

fn values(arms: &[&Arm], of: Value) -> BTreeSet<String> {
    arms.iter().filter_map(|arm| of(arm, arm.training.first())).collect()
}

/// `Обучаемые параметры: от 2 097 152 до 4 211 200, в 2.0 раза`.
fn difference(arms: &[&Arm], column: &Column) -> String {
    if column.header == COLUMNS[0].header {
        let sizes = || arms.iter().map(|arm| arm.trainable_parameters);
        let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        let ratio = if least == 0 { String::new() } else { format!(", в {:.1} раза", most as f64 / least as f64) };
        return format!("{}: от {} до {}{ratio}", column.header, table::count(least), table::count(most));
    }
    let mut texts: Vec<String> = Vec::new();
    for arm in arms {
        let cell = (column.cell)(arm, arm.training.first());
        let text = joined(&cell.text, &cell.below);
        if text != ABSENT && !texts.contains(&text) {
            texts.push(text);
        }
    }
    let more = texts.len().saturating_sub(6);
    texts.truncate(6);
    let tail = if more == 0 { String::new() } else { format!(" и ещё {more}") };
    format!("{}: {}{tail}", column.header, texts.join(", "))
}

fn trials_table(arms: &[&Arm]) -> Option<Table> {
    let chosen = arms.iter().filter_map(|arm| Some((arm, arm.selection.as_ref()?)));
    let row = |(arm, selection): (&&Arm, &crate::report::evidence::Selection)| {
        let values: Vec<String> =
            selection.values.iter().map(|trial| format!("{}: {}", trial.name, table::plain(trial.value))).collect();
        vec![
            Cell::text(&arm.title),
            Cell::count(Some(selection.trials)),
            Cell::text(crate::report::wording::metric(&selection.metric)),
            Cell::text(table::digest(&selection.split)).class("hash"),
            Cell::text(values.join("; ")).class("wide"),
        ]
    };
    let rows: Vec<Vec<Cell>> = chosen.map(row).collect();
    (!rows.is_empty()).then(|| Table {
        caption: "Подбор на отложенных данных".to_owned(),
        headers: ["Адаптер", "Проб", "Метрика", "Данные подбора", "Пробы"].map(str::to_owned).to_vec(),
        rows,
        note: String::new(),
    })
}
