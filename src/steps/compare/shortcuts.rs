//! `shortcuts.json`, as the step `shortcuts` leaves it, read strictly.
//! It does not know how shortcuts answer.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Problem, Result};
use crate::report::comparison::Figures;
use crate::report::evidence::Shortcut;
use crate::report::results::{self, Metric};

const FORMAT: &str = "pipe/shortcuts@1";

/// What rules without a model reach on a task.
#[derive(Debug, Clone, Deserialize)]
pub struct Shortcuts {
    format: String,
    /// The task.
    pub task: String,
    baselines: Vec<Baseline>,
    /// What the items share with the training data.
    #[serde(default)]
    pub overlap: Option<Overlap>,
    /// How to call it in a message.
    #[serde(skip)]
    pub label: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Baseline {
    name: String,
    title: String,
    n: u64,
    metrics: Vec<Metric>,
}

/// Items that share a premise or a document with the training data.
#[derive(Debug, Clone, Deserialize)]
pub struct Overlap {
    /// `premise` or `document`.
    pub what: String,
    /// How many share one.
    pub shared: u64,
    /// How many there are.
    pub total: u64,
    /// Ids of the others.
    pub leak_free: BTreeSet<String>,
}

impl Shortcuts {
    /// Reads a file.
    pub fn read(path: &Path, label: &str) -> Result<Self> {
        let read: Self = results::read_json(path, label)?;
        if read.format != FORMAT {
            let what = format!("the format is `{}`, and this program reads `{FORMAT}`", read.format);
            return Err(Problem::new(what).in_file(label, None));
        }
        Ok(Self { label: label.to_owned(), ..read })
    }

    /// The figures by the average of the task's main table.
    pub fn figures(&self, average: Option<&str>) -> Vec<Shortcut> {
        let is_main = |metric: &&Metric| metric.average.is_none() || metric.average.as_deref() == average;
        let figures = |baseline: &Baseline| -> Figures {
            let known = baseline.metrics.iter().filter(is_main);
            known.filter_map(|metric| Some((metric.name.clone(), metric.value?))).collect()
        };
        let one = |baseline: &Baseline| Shortcut {
            name: baseline.name.clone(),
            title: baseline.title.clone(),
            n: baseline.n,
            figures: figures(baseline),
        };
        self.baselines.iter().map(one).collect()
    }
}
