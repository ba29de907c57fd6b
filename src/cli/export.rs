//! `pipe export`: an adapter for other programs, in PEFT's or AdapterHub's format or merged into its base.
//! It does not know the formats: `ml` writes them and certifies a merge.

#[cfg(feature = "torch")]
mod convert;

use std::path::PathBuf;

use super::{Exit, fail};
use crate::error::{Problem, Result};

/// Writes an adapter in another format, without loss or not at all.
///
/// The adapter is a folder of PEFT, of AdapterHub, or of a `train` step. What the other format has no word for is
/// refused, and so is an adapter that its side-car says was changed.
///
/// A merge is certified first: on probe inputs, in f32 and in bf16, the merged weights are compared with the adapter
/// on its base. If the merge loses too much in the dtype in which it is stored, nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipe export cache/results/lora_vs_mlp/lora/adapter --format peft -o my-lora\n  \
    pipe export my-lora --format merged --base models/llama -o my-llama")]
pub struct Args {
    /// The adapter's folder.
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub format: Target,
    /// The folder to write, which must not be there yet [default: `adapter-peft`, `adapter-adapterhub` or `merged`].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// The base's folder in Hugging Face's layout. Only `merged` needs its weights; for the other formats the
    /// side-car of an adapter that `train` wrote is enough.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// The dtype of merged weights [default: that of the base].
    #[arg(long, value_enum)]
    pub dtype: Option<StoredIn>,
    /// A text file; each line is a probe [default: sentences of its own, or drawn ids without a tokenizer].
    #[arg(long, value_name = "FILE")]
    pub probes: Option<PathBuf>,
    /// The most that a merge may lose of the adapter's effect on the logits (root mean square), from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub max_lost: f64,
    /// The largest share of positions at which a merge may give another likeliest id, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub max_flips: f64,
    /// What computes: `cpu`, `cuda:0`, or `auto` for the first GPU that libtorch can use.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// PEFT 0.21: LoRA, DoRA, IA3.
    Peft,
    /// AdapterHub's adapters 1.3: bottlenecks, LoRA, IA3, unions.
    Adapterhub,
    /// The base with the adapter in its weights, in Hugging Face's layout.
    Merged,
}

/// A dtype of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoredIn {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
}

/// Does it.
pub fn main(args: &Args) -> Exit {
    match run(args) {
        Ok(()) => Exit::Done,
        Err(problem) if problem.cancelled => Exit::Interrupted,
        Err(problem) => fail(&problem, Exit::Failed),
    }
}

fn run(args: &Args) -> Result<()> {
    for (name, share) in [("--max-lost", args.max_lost), ("--max-flips", args.max_flips)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Problem::new(format!("{name} is {share}")).expected("a share from 0 to 1"));
        }
    }
    if args.format != Target::Merged && (args.dtype.is_some() || args.probes.is_some()) {
        return Err(Problem::new("--dtype and --probes are for a merge").help("add --format merged"));
    }
    let output = args.output.clone().unwrap_or_else(|| {
        PathBuf::from(match args.format {
            Target::Peft => "adapter-peft",
            Target::Adapterhub => "adapter-adapterhub",
            Target::Merged => "merged",
        })
    });
    if output.exists() {
        return Err(Problem::new(format!("{} is there already", output.display()))
            .help("name another folder with -o, or remove that one"));
    }
    write(args, &output)
}

#[cfg(feature = "torch")]
fn write(args: &Args, output: &std::path::Path) -> Result<()> {
    convert::write(args, output)
}

#[cfg(not(feature = "torch"))]
fn write(args: &Args, _output: &std::path::Path) -> Result<()> {
    super::front::hand_over(&args.device)?;
    Err(Problem::new("this `pipe` was built without libtorch").help("build it with the feature `torch`"))
}
