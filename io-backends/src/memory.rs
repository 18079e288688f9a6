//! The process's heap as the kernel sees it. Owns one call; allocates nothing.

/// Gives freed memory back to the kernel. For after a short need of much, such as reading a configuration: an allocator keeps
/// what was freed below anything still in use, and a proxy that runs for months would carry it along. Takes about a
/// millisecond; off-lane only. Does nothing where the allocator is not glibc's.
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, is thread-safe, and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
