//! Prompts as data: Tera templates over a row's own fields, with Russian defaults for both tasks.
//! It does not know tokens or models.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tera::{Context, ErrorKind, Tera};

use super::nerus::Sentence;
use super::terra::{Label, Row};
use super::{Task, answer};
use crate::error::{Path, Problem, Result};

/// The default prompt of TERRa.
pub const TERRA: &str = "Текст: {{ premise }}\nУтверждение: {{ hypothesis }}\nСледует из текста:";
/// The default prompt of Nerus.
pub const NERUS: &str = "Текст: {{ text }}\nСущности:";

/// The words that the model is to answer with. Each begins with the space that follows the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// TERRa: the hypothesis follows.
    #[serde(default = "entailment")]
    pub entailment: String,
    /// TERRa: the hypothesis does not follow.
    #[serde(default = "not_entailment")]
    pub not_entailment: String,
    /// Nerus: the text has no entities.
    #[serde(default = "none")]
    pub none: String,
}

fn entailment() -> String {
    " да".to_owned()
}
fn not_entailment() -> String {
    " нет".to_owned()
}
fn none() -> String {
    " нет".to_owned()
}

impl Default for Answers {
    fn default() -> Self {
        Self { entailment: entailment(), not_entailment: not_entailment(), none: none() }
    }
}

impl Answers {
    /// The word for a label.
    pub fn of(&self, label: Label) -> &str {
        match label {
            Label::Entailment => &self.entailment,
            Label::NotEntailment => &self.not_entailment,
        }
    }
}

/// A prompt with its answers, checked and ready.
pub struct Prompt {
    tera: Tera,
    /// The template's text.
    pub template: String,
    /// The answers.
    pub answers: Answers,
}

const NAME: &str = "prompt";

impl Prompt {
    /// Checks a template (`None`: the task's default) and its answers; problems have paths relative to `with:`.
    pub fn new(task: Task, template: Option<&str>, answers: &Answers) -> Result<Self, Vec<Problem>> {
        let template = effective(task, template);
        let mut problems = answers_problems(answers);
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::<&str>::new());
        match tera.add_raw_template(NAME, template) {
            Err(error) => problems.push(problem("is not a template", &error)),
            Ok(()) => problems.extend(variables_problem(&tera, task)),
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { tera, template: template.to_owned(), answers: answers.clone() })
    }

    /// The prompt of a TERRa row.
    pub fn terra(&self, row: &Row) -> Result<String> {
        self.render(&[("premise", &row.premise), ("hypothesis", &row.hypothesis)])
    }

    /// The prompt of a sentence.
    pub fn nerus(&self, sentence: &Sentence) -> Result<String> {
        self.render(&[("text", &sentence.text)])
    }

    /// The right answer to a sentence.
    pub fn entities(&self, sentence: &Sentence) -> String {
        answer::format(&sentence.entities, &self.answers.none)
    }

    fn render(&self, values: &[(&'static str, &str)]) -> Result<String> {
        let mut context = Context::new();
        for (name, value) in values {
            context.insert(*name, value);
        }
        self.tera.render(NAME, &context).map_err(|error| problem("cannot be filled in", &error))
    }
}

/// The template that is meant: the given one or the task's default.
pub fn effective(task: Task, template: Option<&str>) -> &str {
    template.unwrap_or(match task {
        Task::Terra => TERRA,
        Task::Nerus => NERUS,
    })
}

fn variables(task: Task) -> &'static [&'static str] {
    match task {
        Task::Terra => &["premise", "hypothesis"],
        Task::Nerus => &["text"],
    }
}

fn variables_problem(tera: &Tera, task: Task) -> Option<Problem> {
    let known = variables(task);
    let listed = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
    // An unordered set: sorted before anything is said about it.
    let used: BTreeSet<&str> = match tera.get_template_variables(NAME) {
        Ok(used) => used.into_iter().collect(),
        Err(error) => return Some(problem("is not a template", &error)),
    };
    if let Some(unknown) = used.iter().find(|name| !known.contains(name)) {
        return Some(
            Problem::new(format!("the prompt of the task `{}` has no variable `{unknown}`", task.name()))
                .at(Path::root().key("prompt"))
                .expected(format!("only {listed}")),
        );
    }
    if used.is_empty() {
        return Some(
            Problem::new("the prompt is the same for every row")
                .at(Path::root().key("prompt"))
                .expected(format!("a template that uses {listed}")),
        );
    }
    None
}

fn answers_problems(answers: &Answers) -> Vec<Problem> {
    let path = Path::root().key("answers");
    let mut problems = Vec::new();
    for (name, word) in
        [("entailment", &answers.entailment), ("not_entailment", &answers.not_entailment), ("none", &answers.none)]
    {
        if word.trim().is_empty() || word.contains('\n') {
            problems.push(
                Problem::new(format!("the answer `{name}` has no word or more than one line"))
                    .at(path.key(name))
                    .expected("a word, such as ` да`"),
            );
        }
    }
    if answers.entailment.trim().to_lowercase() == answers.not_entailment.trim().to_lowercase() {
        problems.push(
            Problem::new("both labels have the same answer")
                .at(path.key("not_entailment"))
                .expected("two words that differ"),
        );
    }
    problems
}

fn problem(what: &str, error: &tera::Error) -> Problem {
    let message = match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
            let span = report.span();
            format!("{} (line {}, column {})", report.message(), span.start_line, span.start_col + 1)
        }
        other => other.to_string(),
    };
    Problem::new(format!("the prompt {what}: {message}")).at(Path::root().key("prompt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(premise: &str) -> Row {
        let hypothesis = "Б < В".to_owned();
        Row { premise: premise.to_owned(), hypothesis, label: None, idx: 0, line: 1, generated: false }
    }

    fn told(task: Task, template: &str) -> String {
        let problems = Prompt::new(task, Some(template), &Answers::default()).err().expect("a problem");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn texts_enter_as_they_are() {
        let prompt = Prompt::new(Task::Terra, None, &Answers::default()).expect("the default is right");
        let text = prompt.terra(&row("А & \"\"Б\"\" {{ x }}")).expect("filled in");
        assert_eq!(text, "Текст: А & \"\"Б\"\" {{ x }}\nУтверждение: Б < В\nСледует из текста:");
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_known_ones() {
        assert_eq!(
            told(Task::Terra, "{{ premise }} {{ text }}"),
            "prompt: the prompt of the task `terra` has no variable `text` (expected only `premise` and `hypothesis`)"
        );
        assert!(told(Task::Nerus, "Сущности:").contains("same for every row"));
    }

    #[test]
    fn a_broken_template_is_told_with_its_place() {
        let told = told(Task::Nerus, "Текст:\n{{ text ");
        assert!(told.starts_with("prompt: the prompt is not a template: "), "{told}");
        assert!(told.contains("line 2"), "{told}");
    }

    #[test]
    fn answers_differ_and_are_not_empty() {
        let answers = Answers { entailment: "Да".into(), not_entailment: " да".into(), none: " ".into() };
        let problems = Prompt::new(Task::Terra, None, &answers).err().expect("problems");
        let paths: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(paths.len(), 2, "{paths:?}");
        assert!(paths[0].starts_with("answers.none: ") && paths[1].starts_with("answers.not_entailment: "));
    }
}
