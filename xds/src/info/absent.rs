//! Envoy's admin pages about what is not here: profilers, another allocator, a runtime that is changed in memory. Each answers
//! plainly, so that who asks a fleet learns it from the answer.

use corelane::admin::{Pages, Query, Reply};
use corelane::wire::Status;

/// Adds them.
pub(super) fn pages(pages: Pages) -> Pages {
    let profiler = |_: &Query| {
        let what = "there is no profiler in here: perf(1) and its like see the process from outside\n";
        Reply::text(Status::NOT_IMPLEMENTED, what)
    };
    pages
        .act(
            "/runtime_modify",
            "change runtime values: not here, where directories hold them",
            runtime_modify,
        )
        .act("/cpuprofiler", "profile the CPU's time: not here", profiler)
        .act("/heapprofiler", "profile the heap: not here", profiler)
        .act("/allocprofiler", "profile allocations: not here", profiler)
        .read("/heap_dump", "print the heap: not here", profiler)
}

/// As Envoy without a layer of its admin.
fn runtime_modify(query: &Query) -> Reply {
    if query.pairs().next().is_none() {
        return Reply::text(Status::BAD_REQUEST, "usage: /runtime_modify?key1=value1&key2=value2\n");
    }
    let what =
        "No admin layer is kept: put values into the directory of a disk_layer, and replace its link\n";
    Reply::text(Status::SERVICE_UNAVAILABLE, what)
}
