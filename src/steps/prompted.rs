//! The parameters that say what is asked and of how much, the same for every step kind that fills prompts.
//! It does not know what becomes of a prompt.

/// Adds task, prompt, answers, chat and limit to the parameters of a step kind.
///
/// A macro, because `#[serde(flatten)]` would take the places out of error messages, and let unknown keys pass.
macro_rules! prompted {
    ($(#[$attribute:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        pub struct $name {
            /// What the data is: `terra` (JSON lines) or `nerus` (CoNLL-U).
            pub task: crate::task::Task,
            /// The prompt, a Tera template: of `premise` and `hypothesis`, or of `text`. Without it the task's own.
            #[serde(default)]
            pub prompt: Option<String>,
            /// The words to answer with.
            #[serde(default)]
            pub answers: crate::task::prompt::Answers,
            /// Puts prompts into the model's own chat template, `{}` or with a `system` message; hybrid models answer without
            /// thinking. `tokenize` and `evaluate` need the same. Without it prompts stand as they are.
            #[serde(default)]
            pub chat: Option<crate::task::encode::chat::ChatParams>,
            /// Which number means which label, where TERRa's rows have numbers instead of names, such as
            /// `{ entailment: 1, not_entailment: 0 }`. Copies differ in it, so numbers are refused without.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub label2id: Option<crate::task::terra::Label2Id>,
            /// Only the first so many rows or sentences.
            #[serde(default)]
            #[schemars(range(min = 1))]
            pub limit: Option<u64>,
            $($own)*
        }

        impl $name {
            /// Everything that is wrong with prompt and answers.
            fn prompt_problems(&self) -> Vec<crate::error::Problem> {
                let prompt = crate::task::prompt::Prompt::new(self.task, self.prompt.as_deref(), &self.answers);
                let mut problems = prompt.err().unwrap_or_default();
                problems.extend(crate::steps::prompted::label2id_problem(self.task, self.label2id));
                problems
            }

            /// The prompt, ready. Its problems have been told together when the file was checked, so one is enough.
            fn prompt(&self) -> crate::error::Result<crate::task::prompt::Prompt> {
                let prompt = crate::task::prompt::Prompt::new(self.task, self.prompt.as_deref(), &self.answers);
                prompt.map_err(|problems| {
                    let first = problems.into_iter().next();
                    first.unwrap_or_else(|| crate::error::Problem::new("the prompt is wrong"))
                })
            }

            /// The prompt as it enters the key: the default is spelled out, so that a new default makes a new key.
            fn keyed_prompt(&self) -> Option<String> {
                Some(crate::task::prompt::effective(self.task, self.prompt.as_deref()).to_owned())
            }

            fn limit(&self) -> Option<usize> {
                self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
            }
        }
    };
}
pub(super) use prompted;

use crate::error::{Path, Problem};
use crate::task::Task;
use crate::task::terra::Label2Id;

/// What is wrong with a declared mapping.
pub(super) fn label2id_problem(task: Task, numbers: Option<Label2Id>) -> Option<Problem> {
    let numbers = numbers?;
    let at = Path::root().key("label2id");
    if task != Task::Terra {
        return Some(Problem::new(format!("the task `{}` has no labels of rows", task.name())).at(at));
    }
    let same = numbers.entailment == numbers.not_entailment;
    same.then(|| Problem::new("both labels have the same number").at(at.key("not_entailment")))
}
