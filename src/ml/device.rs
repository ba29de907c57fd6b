//! What computes: the device, its cores, and the precision that is fast on it.
//! It does not know steps or models.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, Result};

/// The machine as far as results or speed depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `cpu` or `cuda:0`.
    pub name: String,
    /// Cores of the machine.
    pub cores: usize,
    /// True if the device multiplies bf16 natively.
    pub bf16: bool,
}

/// The device called `auto`, `cpu` or `cuda:N`. Fails if there is no such device.
pub fn device(wanted: &str) -> Result<Device> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = Device { name: "cpu".to_owned(), cores, bf16: cpu_has_bf16() };
    let gpus = gpus();
    match wanted {
        "cpu" => Ok(cpu),
        "auto" if gpus == 0 => Ok(cpu),
        "auto" | "cuda" => gpu(0, gpus, cores),
        other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(index) => gpu(index, gpus, cores),
            None => Err(Problem::new(format!("unknown device `{other}`")).expected("`auto`, `cpu` or `cuda:0`")),
        },
    }
}

fn gpu(index: usize, gpus: usize, cores: usize) -> Result<Device> {
    if index < gpus {
        return Ok(Device { name: format!("cuda:{index}"), cores, bf16: true });
    }
    Err(Problem::new(format!("there is no device `cuda:{index}`: libtorch sees {gpus} GPUs"))
        .help("use --device cpu, or check the NVIDIA driver and that libtorch is the CUDA build"))
}

#[cfg(feature = "torch")]
fn gpus() -> usize {
    usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
}

#[cfg(not(feature = "torch"))]
fn gpus() -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bf16() -> bool {
    false
}

/// The same device for tch.
#[cfg(feature = "torch")]
pub fn torch_device(name: &str) -> tch::Device {
    match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
        Some(index) => tch::Device::Cuda(index),
        None => tch::Device::Cpu,
    }
}

/// Waits until a device has done what it was given; a processor has when it says so.
#[cfg(feature = "torch")]
pub fn wait(device: tch::Device) {
    if let tch::Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Makes ready for work that begins here: what earlier work left in the allocator goes back, and libtorch uses so many
/// threads from this thread on.
#[cfg(feature = "torch")]
pub fn use_threads(threads: usize) {
    super::mkl::keep();
    super::malloc::keep();
    super::malloc::give_back();
    limit_threads(threads);
}

/// Lets libtorch use so many threads from this thread on. OpenMP keeps the number by calling thread, so that steps
/// beside each other do not change each other's.
#[cfg(feature = "torch")]
pub(super) fn limit_threads(threads: usize) {
    // A thread's first parallel operation sets its number to the last one that any thread asked for, and would undo
    // ours. Asking for the number does that now.
    let _ = tch::get_num_threads();
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// The narrowest model for which bf16 was measured to pay on CPUs that multiply it natively: below, the
/// conversions around small products cost more than the products save.
const BF16_FROM: i64 = 512;

/// The precision of the frozen base; adapters are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// What `pipe bench --dtype --keep` measured to be faster for a base of this shape on this machine; where nothing
    /// was measured, bf16 if a rule expects it to be faster, else f32.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
}

impl Dtype {
    /// The precision on this device for a base of this hidden size, and why `auto` is that. A rule, not a
    /// measurement, so that the same machine always answers the same.
    pub fn choose(self, device: &str, bf16_is_native: bool, hidden_size: i64) -> (Precision, Option<String>) {
        match self {
            Self::F32 => (Precision::F32, None),
            Self::Bf16 => (Precision::Bf16, None),
            Self::Auto if device.starts_with("cuda") => (Precision::Bf16, Some("GPUs multiply it fastest".to_owned())),
            Self::Auto if !bf16_is_native => {
                (Precision::F32, Some("this processor does not multiply bf16 natively".to_owned()))
            }
            Self::Auto if hidden_size < BF16_FROM => {
                (Precision::F32, Some(format!("bf16 is slower below a hidden size of {BF16_FROM}")))
            }
            Self::Auto => (Precision::Bf16, Some("this processor multiplies it natively".to_owned())),
        }
    }
}

/// A [`Dtype`] that is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The same for tch.
    #[cfg(feature = "torch")]
    pub fn kind(self) -> tch::Kind {
        match self {
            Self::F32 => tch::Kind::Float,
            Self::Bf16 => tch::Kind::BFloat16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_bf16_only_where_it_pays() {
        let auto = |device, native, hidden| {
            let (precision, why) = Dtype::Auto.choose(device, native, hidden);
            assert!(why.is_some());
            precision
        };
        assert_eq!(auto("cuda:0", false, 64), Precision::Bf16);
        assert_eq!(auto("cpu", true, 64), Precision::F32);
        assert_eq!(auto("cpu", true, 4096), Precision::Bf16);
        assert_eq!(auto("cpu", false, 4096), Precision::F32);
        assert_eq!(Dtype::Bf16.choose("cpu", false, 64), (Precision::Bf16, None));
    }
}
