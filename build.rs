//! Tells the linker where libtorch is, so that the binary finds it without any environment variable.
//! It does not get libtorch: `./pipe` and `make` do. And it names the build by its sources.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=PIPE_BUILD={:016x}", sources());
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // Only a build with the feature `torch` has it.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // Another libtorch may have come to the same place.
    println!("cargo:rerun-if-changed={lib}/libtorch.so");
    // The real place, so that libraries beside it are found even through a link.
    let lib = Path::new(&lib).canonicalize().unwrap_or_else(|_| lib.into());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    for nvidia in nvidia_libraries(&lib) {
        println!("cargo:rustc-link-arg=-Wl,-rpath-link,{}", nvidia.display());
    }
    // No symbol of the CUDA part is named by the code: without this the linker would leave it out, and with it the GPU.
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
    // See `ml::mkl`: libtorch has to find the program's function.
    println!("cargo:rustc-link-arg=-Wl,--export-dynamic-symbol=mkl_serv_intel_cpu_true");
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-ltorch_cuda");
    }
}

/// The CUDA libraries that lie beside the `torch` folder of a Python installation.
fn nvidia_libraries(lib: &Path) -> Vec<PathBuf> {
    let Some(nvidia) = lib.ancestors().nth(2).map(|site| site.join("nvidia")) else {
        return Vec::new();
    };
    let packages = nvidia.read_dir().into_iter().flatten().flatten();
    packages.map(|package| package.path().join("lib")).filter(|path| path.is_dir()).collect()
}

/// A number that is another one for other sources, FNV-1a over them: what one build has worked out, another build may
/// work out differently.
fn sources() -> u64 {
    let (mut files, mut open) =
        (vec![PathBuf::from("Cargo.lock"), PathBuf::from("Cargo.toml")], vec![PathBuf::from("src")]);
    while let Some(folder) = open.pop() {
        println!("cargo:rerun-if-changed={}", folder.display());
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut number: u64 = 0xcbf2_9ce4_8422_2325;
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        let text = fs::read(&file).unwrap_or_default();
        let name = file.to_string_lossy().into_owned();
        for byte in name.bytes().chain([0]).chain(text).chain([0]) {
            number = (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    number
}
