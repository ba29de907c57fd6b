//! Which machine this is: the device that computes, its cores, and whether it multiplies bf16 natively.
//! It does not know what is computed.

use crate::error::{Problem, Result};
use crate::step::Machine;

/// The machine as `--device` wants it.
pub fn detect(device: &str) -> Result<Machine> {
    match device {
        "auto" | "cpu" => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(Machine { device: "cpu".to_owned(), cores, bf16: cpu_bf16() })
        }
        other => Err(Problem::new(format!("the device `{other}` cannot be used")).help("use `--device cpu`")),
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_bf16() -> bool {
    false
}
