//! A binary without libtorch in front of the one that has it: loading libtorch takes longer than most commands do.
//! It does not know what is computed: who finds that libtorch is needed hands the whole command over.
//!
//! Only `pipe-front` hands over, to `pipe` beside it. Where nothing lies beside it, it is a binary without libtorch
//! like any other.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Problem, Result};
use crate::exec::{self, Decider, Verdict};
use crate::graph::Graph;
use crate::spec::Pipeline;

/// What a library reads before any code of ours, and has no function for.
struct Setting {
    /// Any of them is somebody's choice.
    names: &'static [&'static str],
    /// What the first is set to where nobody chose.
    value: &'static str,
    /// True if it is not set where a GPU may be.
    processors_only: bool,
}

const fn setting(names: &'static [&'static str], value: &'static str) -> Setting {
    Setting { names, value, processors_only: false }
}

const SETTINGS: [Setting; 4] = [
    // So many turns a thread of OpenMP looks for work before it sleeps. By itself it is 300 000: on a quiet machine as
    // fast as this, but where another process wants a core, too, threads wait in vain for one that does not run, and
    // training was measured to take three to four times as long. To sleep at once costs a tenth on a quiet machine.
    setting(&["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"], "1000"),
    // No small pieces of memory in caches of glibc's, where they do not join what is free beside them: an aligned block,
    // as every tensor is, leaves such a piece, and is not found again for the next one of its size (glibc's bug 30723).
    // Measured with glibc 2.36: a fifth less memory in training, and 1 to 3 % faster. A GPU's tensors do not lie there, and
    // what waits for the processor was 13 to 16 % slower on an H200: a thread frees what another has taken.
    Setting {
        names: &["GLIBC_TUNABLES"],
        value: "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0",
        processors_only: true,
    },
    // cuDNN's attention behind the others, which need no preparation: it makes a plan for every new shape, which was
    // measured to take 40 to 150 ms on an H200. Rows are of another width in every batch, and grow with every id that
    // is generated.
    setting(&["TORCH_CUDNN_SDPA_DEPRIORITIZED"], "1"),
    // Memory of a GPU in pieces that grow: batches of other widths leave fewer holes. Measured on the
    // same card: 5 and 22 % less, and over thirty steps 12 and 5 % faster.
    setting(&["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"], "expandable_segments:True"),
];

/// The binary that has libtorch, if this one stands in front of it.
fn behind() -> Option<PathBuf> {
    if cfg!(feature = "torch") {
        return None;
    }
    let this = std::env::current_exe().ok()?;
    let full = this.with_file_name(format!("pipe{}", std::env::consts::EXE_SUFFIX));
    (this.file_stem()? == "pipe-front" && full.is_file()).then_some(full)
}

/// Lets the binary behind this one do the command from its beginning, if there is one. It comes back where there is
/// none, and with a problem where it cannot be started.
pub(super) fn hand_over() -> Result<()> {
    let Some(full) = behind() else { return Ok(()) };
    let mut command = Command::new(&full);
    command.args(std::env::args_os().skip(1));
    for Setting { names, value, processors_only } in SETTINGS {
        let wanted = !processors_only || !has_driver();
        if wanted && names.iter().all(|name| std::env::var_os(name).is_none()) {
            command.env(names[0], value);
        }
    }
    Err(replace(&mut command, &full))
}

#[cfg(unix)]
fn replace(command: &mut Command, full: &Path) -> Problem {
    use std::os::unix::process::CommandExt;
    Problem::io("start", full, &command.exec())
}

#[cfg(not(unix))]
fn replace(command: &mut Command, full: &Path) -> Problem {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => Problem::io("start", full, &error),
    }
}

/// Hands over where only libtorch can tell what computes. Without a driver there is no GPU, and nothing to ask.
pub(super) fn device(wanted: &str) -> Result<()> {
    if wanted != "cpu" && has_driver() { hand_over() } else { Ok(()) }
}

/// True where a GPU may be: NVIDIA's driver, AMD's, or that of Windows behind WSL.
fn has_driver() -> bool {
    let signs = ["/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg"];
    signs.iter().any(|sign| Path::new(sign).exists())
}

/// Hands over where a step that needs libtorch may have to run, also by `force`. What is all there is told without it.
pub(super) fn run(decider: &Decider, force: bool) -> Result<()> {
    if behind().is_none() || !computes(decider.pipeline) {
        return Ok(());
    }
    if force {
        return hand_over();
    }
    let (_, planned) = exec::plan(decider, &|_, _| {});
    let is_there = planned.values().all(|plan| matches!(plan.verdict, Verdict::Reuse(_)));
    if is_there { Ok(()) } else { hand_over() }
}

fn computes(pipeline: &Pipeline) -> bool {
    let order = Graph::of(pipeline).order(&pipeline.targets);
    order.iter().any(|&step| pipeline.steps[step].kind.needs_torch())
}
