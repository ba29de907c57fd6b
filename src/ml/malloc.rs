//! Lets the allocator of glibc keep what is freed, so that the next tensor need not ask the system again.
//! It does not know tensors. Other allocators are left as they are.
//!
//! By default memory above 128 KiB, later up to 32 MiB, comes from the system page by page and goes back when it is
//! freed: a quarter of the processor's time when a small model scores, measured with libtorch 2.11.

/// Keeps free memory from here on, until [`give_back`].
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::keep();
}

/// Gives the system what is free.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_back();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::Once;

    /// Above it memory comes from the system and goes back.
    const LARGE: i32 = 1 << 30;
    /// So much is asked for at once.
    const AT_ONCE: i32 = 64 << 20;

    static ONCE: Once = Once::new();

    pub(super) fn keep() {
        ONCE.call_once(|| {
            for (what, value) in
                [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE), (libc::M_TOP_PAD, AT_ONCE)]
            {
                #[expect(unsafe_code, reason = "a function of the C library")]
                // SAFETY: it takes numbers, and an allocator that does not know them says so.
                let _ = unsafe { libc::mallopt(what, value) };
            }
        });
    }

    pub(super) fn give_back() {
        #[expect(unsafe_code, reason = "a function of the C library")]
        // SAFETY: it takes a number, and touches free memory alone.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
