//! Pinning lanes to CPUs.

use core_affinity::CoreId;

/// The CPUs this process may run on, by number, in order.
pub fn cores() -> Vec<usize> {
    let mut ids: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    ids.sort_unstable();
    ids
}

/// Binds the calling thread to one CPU. `false` when the kernel refuses; the thread then runs where it did.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
}
