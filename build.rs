//! Tells the linker where libtorch is, so that the binary finds it without any environment variable.
//! It does not get libtorch: `./pipe` and `make` do.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
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
