//! What the sentences of a report say of which task and which arm.
//! It does not know figures, nor whether what is said is true.

use super::layout::{Report, Task};

/// A sentence in lower case, without the marks of a list.
pub struct Statement<'a> {
    /// The task that it stands under, if that can be seen.
    pub about: Option<&'a Task>,
    /// Its text.
    pub text: String,
}

impl Statement<'_> {
    /// True if it begins with the arm's name and a colon: `LoRA: …`.
    pub fn is_of(&self, arm: &str) -> bool {
        let rest = self.text.strip_prefix(arm.to_lowercase().as_str());
        rest.is_some_and(|rest| rest.trim_start().starts_with([':', '—']))
    }

    /// True if one of the texts stands in it.
    pub fn has(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.text.contains(word))
    }
}

/// Every sentence with the task that it stands under: the last one that was named in a heading, or in a sentence that
/// begins with `На датасете`.
pub fn statements(report: &Report) -> Vec<Statement<'_>> {
    let mut about: Option<&Task> = None;
    let mut all = Vec::new();
    for (_, line) in &report.lines {
        let text = line.trim_start_matches(['-', '*', '•', '#', ' ']).replace('\\', "");
        let text = text.trim().to_lowercase();
        let titled = |task: &&Task| text == task.title.to_lowercase();
        let named = |task: &&Task| text.contains(&format!("на датасете {}", task.title.to_lowercase()));
        about = report.tasks.iter().find(|task| titled(task) || named(task)).or(about);
        all.push(Statement { about, text });
    }
    all
}
