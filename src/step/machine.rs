//! What a step may know of the machine: what computes, and how much of it the step wants.
//! It does not know how that is found out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

/// How much of the machine's cores a step wants while it runs. The number of threads depends on the machine
/// alone, never on `-j`, so that results do not depend on it either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// One core.
    One,
    /// Half of the cores, at least one.
    Half,
    /// All of them.
    All,
}

/// What of the machine may change an answer or choose a way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// Cores that libtorch may use.
    pub cores: usize,
    /// True if the device multiplies bf16 natively.
    pub bf16: bool,
    /// The environment variables of the process, for steps that start others. Names that are not UTF-8 are left out.
    pub variables: Arc<BTreeMap<String, OsString>>,
    /// The faster precision of a base, `f32` or `bf16`, where it was measured here; by [`Machine::question`].
    pub precisions: Arc<BTreeMap<String, String>>,
}

impl Machine {
    /// The threads that a share of this machine is.
    pub fn threads(&self, share: Share) -> usize {
        match share {
            Share::One => 1,
            Share::Half => (self.cores / 2).max(1),
            Share::All => self.cores.max(1),
        }
    }

    /// One of which nothing else is known: no native bf16, no variables, nothing measured.
    pub fn plain(device: &str, cores: usize) -> Self {
        let (variables, precisions) = (Arc::default(), Arc::default());
        Self { device: device.to_owned(), cores, bf16: false, variables, precisions }
    }

    /// The precision that was measured to be the faster one for a base of this shape, in steps with so many threads.
    pub fn precision(&self, threads: usize, shape: &str) -> Option<&str> {
        self.precisions.get(&Self::question(threads, shape)).map(String::as_str)
    }

    /// What such an answer is found by.
    pub fn question(threads: usize, shape: &str) -> String {
        format!("{threads} {shape}")
    }

    /// What a step that computes with libtorch puts into its manifest.
    pub fn torch_environment(&self) -> BTreeMap<String, String> {
        let device = self.device.split(':').next().unwrap_or("cpu");
        let mut environment = BTreeMap::from([
            ("device".to_owned(), device.to_owned()),
            ("bf16".to_owned(), if self.bf16 { "native" } else { "emulated" }.to_owned()),
            ("libtorch".to_owned(), LIBTORCH.to_owned()),
        ]);
        if device == "cuda" {
            environment.insert("gpu_arithmetic".to_owned(), GPU_ARITHMETIC.to_owned());
        }
        environment
    }
}

/// Raised when what is computed on a GPU changes, and on a processor nothing does, so that no kind's version need be.
/// 2: adapters compute in the model's dtype, norms round once.
const GPU_ARITHMETIC: &str = "2";

/// The libtorch that tch is pinned to.
pub const LIBTORCH: &str = "2.11.0";
