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

/// What a library reads before any code of ours, and has no function for: names, any of which is somebody's choice, what
/// the first is set to where nobody chose, and whether that holds where a GPU may compute, too.
const SETTINGS: [(&[&str], &str, bool); 4] = [
    // So many turns a thread of OpenMP looks for work before it sleeps. By itself it is 300 000: on a quiet machine as
    // fast as this, but where another process wants a core, too, threads wait in vain for one that does not run, and
    // training was measured to take three to four times as long. To sleep at once costs a tenth on a quiet machine.
    (&["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"], "1000", true),
    // No small pieces of memory in caches of glibc's, where they do not join what is free beside them: an aligned block,
    // as every tensor is, leaves such a piece, and is not found again for the next one of its size (glibc's bug 30723).
    // Measured with glibc 2.36: a fifth less memory in training, and 1 to 3 % faster. A GPU's tensors do not lie there, and
    // what has to wait for the processor was measured to be 13 to 16 % slower beside an H200.
    (&["GLIBC_TUNABLES"], "glibc.malloc.mxfast=0:glibc.malloc.tcache_count=0", false),
    // cuDNN's attention behind the others, which need no preparation: it makes a plan for every new shape, which was
    // measured to take 40 to 150 ms on an H200. Rows are of another width in every batch, and grow with every id that
    // is generated.
    (&["TORCH_CUDNN_SDPA_DEPRIORITIZED"], "1", true),
    // Memory of a GPU in pieces that grow: batches of other widths leave fewer holes. Measured on the
    // same card: 5 and 22 % less, and over thirty steps 12 and 5 % faster.
    (&["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"], "expandable_segments:True", true),
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

/// Lets the binary behind this one do the command from its beginning, if there is one; `wanted` computes. It comes back
/// where there is none, and with a problem where it cannot be started.
pub(super) fn hand_over(wanted: &str) -> Result<()> {
    let Some(full) = behind() else { return Ok(()) };
    let mut command = Command::new(&full);
    command.args(std::env::args_os().skip(1));
    for (names, value, beside_gpu) in SETTINGS {
        let holds = beside_gpu || !may_be_gpu(wanted);
        if holds && names.iter().all(|name| std::env::var_os(name).is_none()) {
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
    if may_be_gpu(wanted) { hand_over(wanted) } else { Ok(()) }
}

/// True if a GPU may compute: it is not forbidden, and there is NVIDIA's driver, AMD's, or that of Windows behind WSL.
fn may_be_gpu(wanted: &str) -> bool {
    let signs = ["/dev/nvidiactl", "/dev/nvidia0", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg"];
    wanted != "cpu" && signs.iter().any(|sign| Path::new(sign).exists())
}

/// Hands over where a step that needs libtorch may have to run, also by `force`. What is all there is told without it.
pub(super) fn run(decider: &Decider, force: bool) -> Result<()> {
    if behind().is_none() || !computes(decider.pipeline) {
        return Ok(());
    }
    if force {
        return hand_over(&decider.machine.device);
    }
    let (_, planned) = exec::plan(decider, &|_, _| {});
    let is_there = planned.values().all(|plan| matches!(plan.verdict, Verdict::Reuse(_)));
    if is_there { Ok(()) } else { hand_over(&decider.machine.device) }
}

fn computes(pipeline: &Pipeline) -> bool {
    let order = Graph::of(pipeline).order(&pipeline.targets);
    order.iter().any(|&step| pipeline.steps[step].kind.needs_torch())
}
