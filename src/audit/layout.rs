//! A report as data: tables of figures by task, the adapters' parameters, and all other lines.
//! It does not judge. Tables may be drawn with `+---+` or as Markdown; spacing, line ends and decimal commas are free.

/// A report.
pub struct Report {
    /// The tables of figures, in order.
    pub tasks: Vec<Task>,
    /// Arms and the number of their trainable parameters, as far as both are there.
    pub parameters: Vec<(String, f64)>,
    /// The line of the table of adapters.
    pub parameters_line: usize,
    /// Every line that belongs to no table, with its number.
    pub lines: Vec<(usize, String)>,
}

/// A task with the figures of its arms.
pub struct Task {
    /// Its title: `TERRa`.
    pub title: String,
    /// The line of its table.
    pub line: usize,
    /// Titles of the arms, the base first.
    pub arms: Vec<String>,
    /// Figures by metric, in the order of the arms.
    pub rows: Vec<Row>,
    /// What the columns of differences say: metric, arm, against, the cell.
    pub deltas: Vec<Delta>,
    /// Lines between heading and table, and below it up to the next heading.
    pub notes: Vec<String>,
    /// How far a printed figure may be from the true one.
    pub half: f64,
    /// The same of a printed percentage.
    pub half_percent: f64,
}

/// The figures of a metric.
pub struct Row {
    /// In lower case: `f1`.
    pub metric: String,
    /// One for each arm; none where there is none.
    pub figures: Vec<Option<f64>>,
    /// Its line.
    pub line: usize,
}

/// A difference as the report has it.
pub struct Delta {
    /// In lower case.
    pub metric: String,
    /// Position of the arm.
    pub arm: usize,
    /// Position of the other.
    pub against: usize,
    /// The absolute difference.
    pub difference: f64,
    /// The relative one in percent, where there is one.
    pub percent: Option<f64>,
    /// Its line.
    pub line: usize,
}

/// Metrics that are shares, between 0 and 1. Of others (ROUGE in points, seconds) the scale is not known.
const SHARES: [&str; 4] = ["accuracy", "precision", "recall", "f1"];

/// A table: where its heading stands, and rows of cells with their lines; the first row is the header.
struct Table {
    heading: String,
    heading_line: usize,
    rows: Vec<(usize, Vec<String>)>,
}

impl Report {
    /// Reads a text. What is not understood is kept as a line.
    pub fn read(text: &str) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        let mut lines: Vec<(usize, String)> = Vec::new();
        let mut draft: Option<Draft> = None;
        // Lines above this one belong to an earlier table.
        let mut above = 0;
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            let cells = cells(line).filter(|_| !is_frame(line));
            if cells.is_none() && !is_frame(line) {
                if let Some(draft) = draft.take() {
                    tables.push(draft.table(&lines[above..]));
                    above = lines.len();
                }
                lines.push((at + 1, line.to_owned()));
                continue;
            }
            draft.get_or_insert_with(Draft::default).add(at + 1, cells);
        }
        tables.extend(draft.map(|draft| draft.table(&lines[above..])));
        let mut report = Self { tasks: Vec::new(), parameters: Vec::new(), parameters_line: 1, lines };
        let next = |i: usize| tables.get(i + 1).map_or(usize::MAX, |table| table.heading_line);
        for (i, table) in tables.iter().enumerate() {
            report.take(table, next(i));
        }
        report
    }

    fn take(&mut self, table: &Table, end: usize) {
        let Some((line, header)) = table.rows.first() else { return };
        let first = header.first().map(|cell| cell.to_lowercase()).unwrap_or_default();
        let between = |from: usize, to: usize| self.lines.iter().filter(move |(at, _)| *at > from && *at < to);
        // Between heading and table, and below it up to the next heading: a line of capitals, or one of Markdown's.
        let below = between(*line, end).take_while(|(_, line)| !is_heading(line));
        let notes: Vec<String> =
            between(table.heading_line, *line).chain(below).map(|(_, line)| line.clone()).collect();
        match first.as_str() {
            "метрика" => {
                if let Some(task) = by_columns(table, title(&table.heading), *line, notes) {
                    self.tasks.push(task);
                }
            }
            "параметр" => self.parameters(table, *line),
            "вариант" => {
                let parameters = header.iter().position(|cell| cell.to_lowercase().contains("обучаемые параметры"));
                if let Some(column) = parameters.filter(|_| self.parameters.is_empty()) {
                    self.parameters_line = *line;
                    for (_, row) in &table.rows[1..] {
                        if let (Some(arm), Some(count)) = (row.first(), row.get(column).and_then(|cell| count(cell))) {
                            self.parameters.push((arm.clone(), count));
                        }
                    }
                } else if let Some(task) = by_rows(table, title(&table.heading), *line, notes) {
                    self.tasks.push(task);
                }
            }
            _ => {}
        }
    }

    fn parameters(&mut self, table: &Table, line: usize) {
        let header = &table.rows[0].1;
        let row = table.rows.iter().find(|(_, row)| row[0].to_lowercase().contains("параметры"));
        if let Some((_, row)) = row {
            self.parameters_line = line;
            let all = header.iter().zip(row).skip(1);
            self.parameters = all.filter_map(|(arm, cell)| Some((arm.clone(), count(cell)?))).collect();
        }
    }

    /// All lines that are not in tables, as one text in lower case.
    pub fn prose(&self) -> String {
        self.lines.iter().map(|(_, line)| line.to_lowercase()).collect::<Vec<_>>().join("\n")
    }
}

impl Task {
    /// The figures of a metric.
    pub fn row(&self, metric: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.metric == metric)
    }

    /// The figure of an arm.
    pub fn figure(&self, metric: &str, arm: usize) -> Option<f64> {
        self.row(metric)?.figures.get(arm).copied().flatten()
    }

    /// Below the table, in lower case.
    pub fn prose(&self) -> String {
        self.notes.join("\n").to_lowercase()
    }

    /// The metrics that are shares: those between 0 and 1.
    pub fn shares(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| SHARES.contains(&row.metric.as_str()))
    }
}

/// A table that is being read: rows between frames.
#[derive(Default)]
struct Draft {
    groups: Vec<Vec<(usize, Vec<String>)>>,
    open: bool,
}

impl Draft {
    /// A row, or a frame.
    fn add(&mut self, line: usize, cells: Option<Vec<String>>) {
        let Some(cells) = cells else {
            self.open = false;
            return;
        };
        if !self.open {
            self.groups.push(Vec::new());
            self.open = true;
        }
        if let Some(group) = self.groups.last_mut() {
            group.push((line, cells));
        }
    }

    /// Where every row has a frame of its own, what stands between two frames is one row whose cells are wrapped. Where
    /// it has not, a row without a first cell goes on with the one above. A header between frames is one row, too.
    fn table(self, above: &[(usize, String)]) -> Table {
        let framed = self.groups.len() > 2;
        let mut rows: Vec<(usize, Vec<String>)> = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            let whole = framed || (at == 0 && self.groups.len() > 1);
            for (i, (line, cells)) in group.iter().enumerate() {
                let goes_on = i > 0 && (whole || cells.first().is_some_and(String::is_empty));
                match rows.last_mut().filter(|_| goes_on) {
                    Some((_, row)) => join(row, cells),
                    None => rows.push((*line, cells.clone())),
                }
            }
        }
        let heading = heading(above);
        Table {
            heading: heading.map(|(_, line)| line.clone()).unwrap_or_default(),
            heading_line: heading.map_or(0, |(line, _)| *line),
            rows,
        }
    }
}

/// Adds the second line of wrapped cells.
fn join(row: &mut Vec<String>, cells: &[String]) {
    for (at, cell) in cells.iter().enumerate() {
        match row.get_mut(at) {
            Some(first) if !cell.is_empty() => {
                let space = if first.is_empty() { "" } else { " " };
                first.push_str(&format!("{space}{cell}"));
            }
            Some(_) => {}
            None => row.push(cell.clone()),
        }
    }
}

/// Arms in columns, differences in the columns `A vs B`.
fn by_columns(table: &Table, title: String, line: usize, notes: Vec<String>) -> Option<Task> {
    let header = &table.rows[0].1;
    let arms: Vec<String> = header.iter().skip(1).filter(|cell| versus(cell).is_none()).cloned().collect();
    let [half, half_percent] = halves(table);
    let mut task = Task { title, line, arms, rows: Vec::new(), deltas: Vec::new(), notes, half, half_percent };
    for (line, row) in &table.rows[1..] {
        let metric = metric(row.first()?);
        let mut figures = Vec::new();
        for (name, cell) in header.iter().zip(row).skip(1) {
            match versus(name) {
                None => figures.push(number(cell)),
                Some((arm, against)) => {
                    let arm = task.position(&arm);
                    let against = task.position(&against);
                    if let (Some(arm), Some(against), Some((difference, percent))) = (arm, against, delta(cell)) {
                        let metric = metric.clone();
                        task.deltas.push(Delta { metric, arm, against, difference, percent, line: *line });
                    }
                }
            }
        }
        // A row may be cut short, or have more cells than the header.
        figures.resize(task.arms.len(), None);
        task.rows.push(Row { metric, figures, line: *line });
    }
    (task.arms.len() > 1 && task.rows.iter().any(|row| row.figures.iter().any(Option::is_some))).then_some(task)
}

/// Arms in rows; the last column has the differences of one metric to the base.
fn by_rows(table: &Table, title: String, line: usize, notes: Vec<String>) -> Option<Task> {
    let header = &table.rows[0].1;
    let arms: Vec<String> = table.rows[1..].iter().filter_map(|(_, row)| row.first().cloned()).collect();
    let [half, half_percent] = halves(table);
    let mut task = Task { title, line, arms, rows: Vec::new(), deltas: Vec::new(), notes, half, half_percent };
    for (column, name) in header.iter().enumerate().skip(1) {
        let cells = || table.rows[1..].iter().map(|(line, row)| (*line, row.get(column).map_or("", String::as_str)));
        match versus(name) {
            None => task.rows.push(Row {
                metric: metric(name),
                figures: cells().map(|(_, cell)| number(cell)).collect(),
                line,
            }),
            Some((name, _)) => {
                for (arm, (line, cell)) in cells().enumerate() {
                    if let Some((difference, percent)) = delta(cell) {
                        let metric = metric(&name);
                        task.deltas.push(Delta { metric, arm, against: 0, difference, percent, line });
                    }
                }
            }
        }
    }
    let shares =
        task.rows.iter().any(|row| matches!(row.metric.as_str(), "accuracy" | "precision" | "recall" | "f1" | "loss"));
    (task.arms.len() > 1 && shares).then_some(task)
}

impl Task {
    /// `Base` is the first arm.
    fn position(&self, name: &str) -> Option<usize> {
        let same = |arm: &String| arm.eq_ignore_ascii_case(name);
        if name.eq_ignore_ascii_case("base") { Some(0) } else { self.arms.iter().position(same) }
    }
}

/// A metric's name in lower case: `F1-score` is `f1`.
fn metric(cell: &str) -> String {
    let name = cell.trim_matches('*').trim().to_lowercase();
    match name.as_str() {
        "f1-score" | "f1 score" | "f1-мера" | "f-мера" => "f1".to_owned(),
        _ => name,
    }
}

/// How far figures and percentages may be from the true ones: half of the last digit. Zeros at the end may be left out,
/// so the longest figure of the table tells how many digits it has.
fn halves(table: &Table) -> [f64; 2] {
    let cells = || table.rows.iter().skip(1).flat_map(|(_, row)| row.iter().skip(1));
    let figures = cells().filter_map(|cell| {
        let (figure, _) = cell.split_once('(').unwrap_or((cell, ""));
        number(figure.trim().trim_start_matches('+'))?;
        let behind = digits(figure).or_else(|| figure.contains('%').then_some(0))?;
        Some(behind + if figure.contains('%') { 2 } else { 0 })
    });
    let percents = cells().filter_map(|cell| digits(cell.split_once('(')?.1.split_once('%')?.0));
    let half =
        |most: Option<usize>, least: i32| 0.5 * 10_f64.powi(-most.map_or(least, |most| most.min(4) as i32)) + 1e-9;
    [half(figures.max(), 4), half(percents.max(), 2)]
}

/// How many digits stand behind the point; none where there is no point.
fn digits(figure: &str) -> Option<usize> {
    let (_, behind) = figure.trim().split_once(['.', ','])?;
    Some(behind.chars().take_while(char::is_ascii_digit).count())
}

/// `MLP vs Base` → both names.
fn versus(cell: &str) -> Option<(String, String)> {
    let (arm, against) = cell.split_once(" vs ")?;
    Some((arm.trim().to_owned(), against.trim().to_owned()))
}

/// What stands above a table as its heading: the last line that looks like one, or else the last that is no rule.
fn heading(lines: &[(usize, String)]) -> Option<&(usize, String)> {
    let is_rule = |line: &str| line.chars().all(|c| matches!(c, '-' | '=' | '_' | '*'));
    let underlined = |at: usize| lines.get(at + 1).is_some_and(|(_, next)| next.len() > 2 && is_rule(next));
    let is_title = |at: usize, line: &str| {
        line.starts_with('#') || underlined(at) || line.to_lowercase().starts_with("сравнение на датасете")
    };
    let texts = || lines.iter().enumerate().rev().filter(|(_, (_, line))| !is_rule(line));
    let title = texts().find(|(at, (_, line))| is_title(*at, line)).or_else(|| texts().next());
    title.map(|(_, line)| line)
}

/// `СРАВНЕНИЕ НА ДАТАСЕТЕ TERRa (общие способности)` or `## TERRa: общие способности` → `TERRa`.
fn title(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim();
    let after = heading.rsplit_once("ДАТАСЕТЕ").map_or(heading, |(_, after)| after);
    let end = after.find(['(', ':']).unwrap_or(after.len());
    after[..end].trim().to_owned()
}

fn is_heading(line: &str) -> bool {
    let letters = || line.chars().filter(|c| c.is_alphabetic());
    line.starts_with('#')
        || (letters().count() > 6 && letters().filter(|c| c.is_uppercase()).count() * 10 > letters().count() * 8)
}

/// A line of a frame: `+----+====+` or `|---|:--|`.
fn is_frame(line: &str) -> bool {
    line.len() > 2
        && line.starts_with(['+', '|'])
        && line.contains('-') | line.contains('=')
        && line.chars().all(|c| matches!(c, '+' | '-' | '=' | '|' | ':' | ' '))
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().replace('\\', "")).collect())
}

/// Larger figures are no figures of a report.
const MOST: f64 = 1e15;

/// A figure, or a percentage as a share; a comma may stand for the point.
fn number(cell: &str) -> Option<f64> {
    let text = cell.trim().trim_matches('*').replace(',', ".").replace('−', "-");
    let (text, factor) = text.strip_suffix('%').map_or((text.as_str(), 1.0), |share| (share.trim(), 0.01));
    text.parse::<f64>().ok().filter(|value| value.abs() < MOST).map(|value| value * factor)
}

/// `+0.1111 (+30.72%)`.
fn delta(cell: &str) -> Option<(f64, Option<f64>)> {
    let (difference, rest) = cell.split_once('(').unwrap_or((cell, ""));
    let percent = rest.split_once('%').and_then(|(percent, _)| number(percent.trim_start_matches('+')));
    Some((number(difference.trim().trim_start_matches('+'))?, percent))
}

/// `4211200`, `4 211 200`, `~2.1М`, `34,5K`.
fn count(cell: &str) -> Option<f64> {
    let text: String = cell.trim().trim_start_matches(['~', '≈']).chars().filter(|c| !c.is_whitespace()).collect();
    let (digits, factor) = match text.chars().last()? {
        'М' | 'M' | 'м' | 'm' => (text.strip_suffix(['М', 'M', 'м', 'm'])?, 1e6),
        'К' | 'K' | 'к' | 'k' => (text.strip_suffix(['К', 'K', 'к', 'k'])?, 1e3),
        _ => (text.as_str(), 1.0),
    };
    let groups: Vec<&str> = digits.split(',').collect();
    // `4,211,200`: one comma alone is a decimal one.
    let grouped = groups.len() > 2 && groups[1..].iter().all(|group| group.len() == 3);
    let digits = if grouped { groups.concat() } else { digits.to_owned() };
    Some(number(&digits)? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        assert_eq!(count("~2.1М"), Some(2.1e6));
        assert_eq!(count("4 211 200"), Some(4_211_200.0));
        assert_eq!(delta("+0.1111 (+30.72%)"), Some((0.1111, Some(30.72))));
        assert_eq!(delta("-0,0250 (-8,18%)"), Some((-0.025, Some(-8.18))));
        assert_eq!(delta("+0.5000 (н/д)"), Some((0.5, None)));
        assert_eq!(number("н/д"), None);
        assert_eq!(count("4,211,200"), Some(4_211_200.0));
        assert_eq!(number("50,0 %"), Some(0.5));
        assert_eq!(number("1e300"), None);
    }

    #[test]
    fn titles_stand_in_headings() {
        assert_eq!(title("СРАВНЕНИЕ НА ДАТАСЕТЕ NERUS (специализированная задача)"), "NERUS");
        assert_eq!(title("## TERRa: общие способности"), "TERRa");
    }
}
