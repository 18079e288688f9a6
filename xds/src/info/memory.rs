//! `/memory`: what the kernel says about this process, under Envoy's names. Owns reading `/proc/self/status`.

use corelane::admin::Reply;
use serde_json::json;

/// Memory of this process, in bytes; zero where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Resident and written to: neither files nor shared.
    pub(super) allocated: u64,
    /// What the heap and the stacks may grow into without asking again.
    pub(super) heap: u64,
    /// Everything resident.
    pub(super) resident: u64,
}

impl Memory {
    pub(super) fn read() -> Memory {
        Memory::parse(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// Reads proc(5)'s `status`.
    fn parse(status: &str) -> Memory {
        let bytes = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Memory { allocated: bytes("RssAnon"), heap: bytes("VmData"), resident: bytes("VmRSS") }
    }
}

/// Envoy's `admin.v3.Memory`. The numbers of its allocator's caches are not there: this allocator has none to tell.
pub(super) fn page() -> Reply {
    let Memory { allocated, heap, resident } = Memory::read();
    Reply::json(&json!({
        "allocated": allocated.to_string(),
        "heap_size": heap.to_string(),
        "total_physical_bytes": resident.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\nVmData:\t   4096 kB\n";
        let expected = Memory { allocated: 512 << 10, heap: 4096 << 10, resident: 2048 << 10 };
        assert_eq!(Memory::parse(status), expected);
        assert_eq!(Memory::parse(""), Memory::default());
        assert!(Memory::read().resident > 0, "this process has pages");
    }
}
