//! Lets MKL, which multiplies for libtorch, use all of a processor's instructions whoever made it.
//! It does not know models, nor whether the libtorch at hand was built with MKL.
//!
//! MKL takes its AVX2 code on processors that are not Intel's, even where they have AVX-512: measured on an AMD EPYC
//! with libtorch 2.11, products in f32 then reach 112 GFLOP/s a core instead of 245. It asks this function whose
//! processor it is, and a program's own function comes before that of a library it is linked with. What instructions
//! there are MKL asks the processor itself, so nothing is used that is not there.

use std::ffi::c_int;

/// MKL's question: is this Intel's processor?
#[expect(unsafe_code, reason = "a symbol by which a library finds the function")]
#[unsafe(no_mangle)]
pub extern "C" fn mkl_serv_intel_cpu_true() -> c_int {
    1
}

/// Keeps the function in every program that computes: the linker drops what nobody names.
pub fn keep() {
    std::hint::black_box(mkl_serv_intel_cpu_true as extern "C" fn() -> c_int);
}
