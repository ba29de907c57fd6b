//! What every arm is asked: the items of a task with their prompts, read and looked at once.
//! It does not know models, nor who answers.

use super::{About, Params, gold, nerus, terra};
use crate::error::Result;
use crate::step::Context;
use crate::task::Task;
use crate::task::gate::Flaw;

/// Items with their prompts.
pub enum Items {
    /// Rows of TERRa.
    Terra(Vec<terra::Item>),
    /// Sentences of Nerus.
    Nerus(Vec<nerus::Item>),
}

/// What is asked, and what is wrong with it.
pub struct Questions {
    /// The items.
    pub items: Items,
    generated: bool,
    flaws: Vec<Flaw>,
}

impl Questions {
    /// Reads the data of the step's inputs, and looks at the gold.
    pub fn read(params: &Params, cx: &Context) -> Result<Self> {
        let prompt = params.prompt()?;
        let data = cx.input("data")?;
        match params.task {
            Task::Terra => {
                let items = terra::items(&data.path, &data.label(), params.limit(), params.label2id, &prompt)?;
                let generated = items.iter().any(|item| item.row.row.generated);
                let flaws = gold::terra(params, cx, &items)?;
                Ok(Self { items: Items::Terra(items), generated, flaws })
            }
            Task::Nerus => {
                let (items, generated) = nerus::items(&data.path, &data.label(), params.limit(), &prompt)?;
                let flaws = gold::nerus(cx, &items)?;
                Ok(Self { items: Items::Nerus(items), generated, flaws })
            }
        }
    }

    /// The prompts in the order of the items.
    #[cfg(feature = "torch")]
    pub fn prompts(&self) -> Vec<&str> {
        match &self.items {
            Items::Terra(items) => items.iter().map(|item| item.prompt.as_str()).collect(),
            Items::Nerus(items) => items.iter().map(|item| item.prompt.as_str()).collect(),
        }
    }

    /// Tells a step what is wrong with them; what misleads is an error.
    pub fn about(&self, params: &Params, cx: &Context) -> Result<About> {
        let n = match &self.items {
            Items::Terra(items) => items.len(),
            Items::Nerus(items) => items.len(),
        };
        let findings = gold::judge(params, cx, n, &self.flaws)?;
        Ok(About { generated: self.generated, asked: params.asked(), findings })
    }
}
