//! What each crate may know: the layering, the lane's independence, the homes of clocks, bounds and protobuf.

use crate::{
    Check, Exception, excepted,
    lex::{self, words},
    tree::{File, Finding, Tree},
};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "wire_is_pure",
        rule: "corelane-wire is no_std and depends on no other crate of ours, no runtime and no std",
        run: wire_is_pure,
        bad: &[
            &[("core/wire/src/lib.rs", "//! x\n#![forbid(unsafe_code)]")],
            &[
                ("core/wire/src/lib.rs", "//! x\n#![no_std]"),
                ("core/wire/src/a.rs", "use std::time::Instant;"),
            ],
            &[
                ("core/wire/src/lib.rs", "//! x\n#![no_std]"),
                ("core/wire/Cargo.toml", "[dependencies]\ncorelane-io.workspace = true"),
            ],
        ],
        good: &[
            (
                "core/wire/src/lib.rs",
                "//! x\n#![no_std]\nextern crate alloc;\n#[cfg(test)]\nmod tests { use std::vec; }",
            ),
            (
                "core/wire/Cargo.toml",
                "[dependencies]\nhttparse = \"1\"\n[dev-dependencies]\nproptest = \"1\"",
            ),
        ],
    },
    Check {
        name: "dependencies_run_one_way",
        rule: "{wire, io} <- core <- xds, and wire and io do not know each other",
        run: dependencies_run_one_way,
        bad: &[
            &[("io-backends/Cargo.toml", "[dependencies]\ncorelane-wire.workspace = true")],
            &[("core/Cargo.toml", "[dev-dependencies]\ncorelane-xds = { path = \"../xds\" }")],
        ],
        good: &[
            (
                "core/Cargo.toml",
                "[package]\nname = \"corelane\"\n[dependencies]\ncorelane-io.workspace = true",
            ),
            ("xds/Cargo.toml", "[dependencies]\ncorelane.workspace = true\ncorelane-proto.workspace = true"),
        ],
    },
    Check {
        name: "core_knows_no_protobuf",
        rule: "core names neither protobuf nor tonic nor Kubernetes, in code or as a dependency",
        run: core_knows_no_protobuf,
        bad: &[
            &[("core/src/a.rs", "use prost::Message;")],
            &[("core/Cargo.toml", "[dependencies]\ntonic = \"0.1\"")],
            &[("core/src/a.rs", "struct KubernetesPod;")],
        ],
        good: &[
            ("core/src/a.rs", "// protobuf is the translator's business\nstruct Route;"),
            ("core/Cargo.toml", "# tonic stays in xds\n[dependencies]\nbytes = \"1\""),
        ],
    },
    Check {
        name: "protobuf_stays_at_the_edge",
        rule: "in xds only the listed files name protobuf types",
        run: protobuf_stays_at_the_edge,
        bad: &[&[("xds/src/run.rs", "use corelane_proto::envoy::config::cluster::v3::Cluster;")]],
        good: &[("xds/src/translate/cluster.rs", "use corelane_proto::A;"), ("xds/src/run.rs", "// prost\n")],
    },
    Check {
        name: "lanes_neither_block_nor_lock",
        rule: "core's lane code takes no lock, opens no file or socket of std and starts no thread",
        run: lanes_neither_block_nor_lock,
        bad: &[
            &[("core/src/upstream/pool.rs", "use std::sync::Mutex;")],
            &[("core/src/http/exchange.rs", "fn f() { std::fs::read(\"x\"); }")],
            &[("core/src/lane.rs", "fn f() { std::thread::spawn(|| ()); }")],
        ],
        good: &[(
            "core/src/upstream/pool.rs",
            "// no Mutex\nuse std::rc::Rc;\n#[cfg(test)]\nmod tests { use std::sync::Mutex; }",
        )],
    },
    Check {
        name: "lanes_share_only_listed_atomics",
        rule: "in core, atomics stand in the files that say what is shared between lanes",
        run: lanes_share_only_listed_atomics,
        bad: &[&[("core/src/http/exchange.rs", "use std::sync::atomic::AtomicU64;")]],
        good: &[("core/src/upstream/state.rs", "use std::sync::atomic::AtomicU64;")],
    },
    Check {
        name: "clock_and_chance_come_from_io",
        rule: "core and wire read no clock, randomness or environment, seed no hasher, and call no system interface",
        run: clock_and_chance_come_from_io,
        bad: &[
            &[("core/src/a.rs", "fn f() { let t = std::time::Instant::now(); }")],
            &[("core/src/a.rs", "use std::hash::RandomState;")],
            &[("core/src/a.rs", "fn f() { let m: HashMap<u8, u8> = HashMap::new(); }")],
            &[("core/src/a.rs", "fn f() { unix(libc::getpid()); }")],
            &[("core/Cargo.toml", "[dependencies]\nrand = \"0.9\"")],
        ],
        good: &[("core/src/a.rs", "fn f(io: &Io) { let t = io.now(); let r = io.random(); }")],
    },
    Check {
        name: "bounds_stand_in_limits",
        rule: "every bound of core is a constant of core/src/limits.rs",
        run: bounds_stand_in_limits,
        bad: &[
            &[("core/src/a.rs", "const MAX_RETRIES: u32 = 3;")],
            &[("core/src/a.rs", "pub(crate) const HEAD_LIMIT: usize = 1 << 10;")],
        ],
        good: &[
            ("core/src/limits.rs", "pub const MAX_RETRIES: u32 = 3;"),
            ("core/src/a.rs", "const CRLF: &[u8] = b\"x\";\nconst DEFAULT_PORT: u16 = 1;"),
        ],
    },
    Check {
        name: "binaries_hold_no_logic",
        rule: "a binary of xds is at most 15 lines of code",
        run: binaries_hold_no_logic,
        bad: &[&[(
            "xds/src/bin/a.rs",
            "fn main() {\na();\na();\na();\na();\na();\na();\na();\na();\na();\na();\na();\na();\na();\na();\n}",
        )]],
        good: &[("xds/src/bin/a.rs", "//! A\n\n// one\n// two\nfn main() -> ExitCode {\n    run()\n}")],
    },
    Check {
        name: "names_are_the_fields",
        rule: "core and xds say downstream, upstream, cluster, endpoint, listener and filter chain, not other proxies' words",
        run: names_are_the_fields,
        bad: &[&[("core/src/a.rs", "struct Frontend;")], &[("xds/src/a.rs", "fn origin_pool() {}")]],
        good: &[("core/src/a.rs", "struct Listener;\nfn backend() {} // the driver's")],
    },
];

pub(crate) const EXCEPTIONS: &[&[Exception]] = &[PROTOBUF_HOMES, BLOCKING_HOMES, ATOMIC_HOMES, BOUND_HOMES];

const PROTOBUF_HOMES: &[Exception] = &[];
const BLOCKING_HOMES: &[Exception] = &[
    Exception {
        path: "core/src/upstream/state.rs",
        item: "OnceLock",
        why: "an endpoint's record, made when a lane first uses it: one allocation, once",
    },
    Exception {
        path: "core/src/control.rs",
        item: "",
        why: "the handle and the control task, on threads that may wait; a lane only posts to them",
    },
    Exception {
        path: "core/src/control/",
        item: "OnceLock",
        why: "the outcome of an order, set once by whoever carries it out; nobody waits on it",
    },
    Exception {
        path: "core/src/proxy.rs",
        item: "",
        why: "starts the lanes' threads and waits for their first word, before they serve",
    },
    Exception {
        path: "core/src/admin.rs",
        item: "mpsc",
        why: "the admin's own thread reports once whether its address could be bound",
    },
    Exception {
        path: "core/src/admin.rs",
        item: "thread::Builder",
        why: "starts the admin's own thread, so that no lane ever formats a page",
    },
    Exception {
        path: "core/src/admin/stream.rs",
        item: "",
        why: "a long page is written on a thread of its own, held back by a bounded channel that the admin's thread empties",
    },
    Exception {
        path: "core/src/dns/system.rs",
        item: "std::fs",
        why: "resolv.conf and hosts, read on the resolver's own thread; a proxy on somebody's lanes is given them",
    },
    Exception {
        path: "core/src/telemetry.rs",
        item: "Mutex",
        why: "guards the list of stats that publishing extends and the admin reads; lanes touch cells only",
    },
    Exception {
        path: "core/src/telemetry/membership.rs",
        item: "Mutex",
        why: "the endpoints that the statistics count, set by publishes and read by the admin; no lane comes here",
    },
    Exception {
        path: "core/src/telemetry.rs",
        item: "OnceLock",
        why: "each lane's cells, set once by that lane alone, so nobody waits for it",
    },
    Exception {
        path: "core/src/access_log/writer.rs",
        item: "",
        why: "the writer's own thread, and opening files where a configuration is compiled; a lane only posts to it",
    },
    Exception {
        path: "core/src/telemetry/histogram.rs",
        item: "OnceLock",
        why: "rows of a lane's histogram, set once by that lane alone, so nobody waits for it",
    },
];
const ATOMIC_HOMES: &[Exception] = &[
    Exception {
        path: "core/src/places.rs",
        item: "",
        why: "how many connections are open, where there is a limit; touched when one comes and when it goes",
    },
    Exception {
        path: "core/src/upstream/record.rs",
        item: "",
        why: "an endpoint's counters, each lane its own, and what outlier detection counts exactly over all of them",
    },
    Exception {
        path: "core/src/filter/health_check/cache.rs",
        item: "",
        why: "the answer to the last health check, so that one upstream check serves all lanes; touched by checks only",
    },
    Exception {
        path: "core/src/filter/fault/active.rs",
        item: "",
        why: "how many faults are under way, so that their limit is one over all lanes; touched where one is injected",
    },
    Exception {
        path: "core/src/telemetry/membership.rs",
        item: "",
        why: "a counter that publishes write and the admin reads, off the lanes",
    },
    Exception {
        path: "core/src/telemetry.rs",
        item: "",
        why: "single-writer cells of a lane, read from outside without its help",
    },
    Exception {
        path: "core/src/access_log.rs",
        item: "",
        why: "how many records wait for the writer, added up once a batch",
    },
    Exception {
        path: "core/src/telemetry/histogram.rs",
        item: "",
        why: "single-writer bins of a lane, read from outside without its help",
    },
    Exception {
        path: "core/src/control.rs",
        item: "",
        why: "the proxy's state and who waits for a publish, off the lanes",
    },
    Exception {
        path: "core/src/control/",
        item: "",
        why: "the proxy's state, set by the control task off the lanes",
    },
    Exception {
        path: "core/src/lane/apply.rs",
        item: "",
        why: "the barrier that every lane passes once a publish, never for a request",
    },
    Exception { path: "core/src/proxy.rs", item: "", why: "the proxy's state, made before there are lanes" },
    Exception {
        path: "core/src/filter/local_ratelimit/values.rs",
        item: "",
        why: "whose bucket is whose, where values have one each: one limit over all lanes; touched where it is configured",
    },
    Exception {
        path: "core/src/filter/local_ratelimit/bucket.rs",
        item: "",
        why: "a rate limit's tokens: one word for all lanes, so that the limit is exact",
    },
];
const BOUND_HOMES: &[Exception] = &[
    Exception {
        path: "core/src/config.rs",
        item: "",
        why: "Envoy's defaults of fields that a file may set, named after those fields",
    },
    Exception {
        path: "core/src/config/",
        item: "",
        why: "Envoy's defaults of fields that a file may set, named after those fields",
    },
];

fn wire_is_pure(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(root) = tree.file("core/wire/src/lib.rs")
        && !root.code.contains("#![no_std]")
    {
        found.push(root.whole("corelane-wire is not no_std"));
    }
    for file in tree.rust("core/wire/src/") {
        let stray =
            words(&file.code, "std").filter(|at| !file.in_test(*at) && !is_test_only_extern(file, *at));
        found.extend(stray.map(|at| file.at(at, "wire uses std")));
    }
    let runtimes =
        ["corelane-io", "corelane", "tokio", "mio", "io-uring", "libc", "rustix", "rand", "getrandom"];
    found.extend(dependencies(tree, "core/wire/Cargo.toml", Kinds::Shipped, &runtimes));
    found
}

/// `#[cfg(test)] extern crate std;` gives only the tests a std.
fn is_test_only_extern(file: &File, at: usize) -> bool {
    let before = file.code[..at].trim_end();
    before.ends_with("extern crate")
        && before.trim_end_matches("extern crate").trim_end().ends_with(']')
        && before.rsplit("#[").next().is_some_and(|a| a.starts_with("cfg(") && a.contains("test"))
}

fn dependencies_run_one_way(tree: &Tree) -> Vec<Finding> {
    let above = [
        ("io-backends/Cargo.toml", &["corelane-wire", "corelane", "corelane-xds", "corelane-proto"][..]),
        ("core/wire/Cargo.toml", &["corelane-io", "corelane", "corelane-xds", "corelane-proto"]),
        ("core/Cargo.toml", &["corelane-xds", "corelane-proto"]),
        ("xds/proto/Cargo.toml", &["corelane-io", "corelane-wire", "corelane", "corelane-xds"]),
    ];
    above.iter().flat_map(|(path, names)| dependencies(tree, path, Kinds::All, names)).collect()
}

fn core_knows_no_protobuf(tree: &Tree) -> Vec<Finding> {
    let banned = ["prost", "protobuf", "tonic", "kubernetes", "k8s", "kube"];
    let mut found = Vec::new();
    for file in tree.rust("core/src/") {
        let lower = file.code.to_ascii_lowercase();
        for word in banned {
            let live = lower.match_indices(word).map(|(at, _)| at).filter(|at| !file.in_test(*at));
            found.extend(live.map(|at| file.at(at, format!("core names {word}"))));
        }
    }
    let names =
        ["prost", "prost-types", "prost-reflect", "protobuf", "tonic", "kube", "k8s-openapi", "envoy-types"];
    found.extend(dependencies(tree, "core/Cargo.toml", Kinds::All, &names));
    found
}

fn protobuf_stays_at_the_edge(tree: &Tree) -> Vec<Finding> {
    let inside = |path: &str| {
        let edge = [
            "xds/src/translate",
            "xds/src/session",
            "xds/src/bootstrap",
            "xds/src/message",
            "xds/src/dump",
            "xds/src/lkg/file",
            "xds/src/csds",
        ];
        edge.iter().any(|e| path.starts_with(e)) || excepted(PROTOBUF_HOMES, path, "")
    };
    let mut found = Vec::new();
    for file in tree.rust("xds/src/").filter(|f| !inside(&f.path)) {
        for word in ["corelane_proto", "prost", "prost_reflect"] {
            found.extend(
                words(&file.code, word)
                    .map(|at| file.at(at, format!("{word} outside the translator's edge"))),
            );
        }
    }
    found
}

fn lanes_neither_block_nor_lock(tree: &Tree) -> Vec<Finding> {
    let blocking = [
        "Mutex",
        "RwLock",
        "Condvar",
        "OnceLock",
        "LazyLock",
        "mpsc",
        "std::fs",
        "std::process",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "to_socket_addrs",
        "thread::sleep",
        "thread::spawn",
        "thread::Builder",
        "thread::park",
        "block_on",
    ];
    let mut found = Vec::new();
    for file in tree.rust("core/src/") {
        for word in blocking.iter().filter(|w| !excepted(BLOCKING_HOMES, &file.path, w)) {
            let live = words(&file.code, word).filter(|at| !file.in_test(*at));
            found.extend(live.map(|at| file.at(at, format!("{word} is reachable from a lane"))));
        }
    }
    found
}

fn lanes_share_only_listed_atomics(tree: &Tree) -> Vec<Finding> {
    let homes = |path: &str| path == "core/src/upstream/state.rs" || excepted(ATOMIC_HOMES, path, "");
    let strangers = tree.rust("core/src/").filter(|f| !homes(&f.path));
    strangers
        .flat_map(|f| {
            let live = words(&f.code, "atomic").filter(|at| !f.in_test(*at));
            live.map(|at| f.at(at, "an atomic outside the files that share between lanes"))
        })
        .collect()
}

fn clock_and_chance_come_from_io(tree: &Tree) -> Vec<Finding> {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "RandomState",
        "DefaultHasher",
        "HashMap::new",
        "HashSet::new",
        "HashMap::with_capacity",
        "HashSet::with_capacity",
        "HashMap::default",
        "HashSet::default",
        "libc",
        "rustix",
        "nix",
        "getrandom",
        "env::var",
        "env::args",
    ];
    let mut found = Vec::new();
    for file in tree.rust("core/src/").chain(tree.rust("core/wire/src/")) {
        for word in banned {
            let live = words(&file.code, word).filter(|at| !file.in_test(*at));
            found.extend(live.map(|at| file.at(at, format!("{word}: ask Io"))));
        }
    }
    let crates =
        ["rand", "getrandom", "fastrand", "libc", "rustix", "nix", "mio", "tokio", "chrono", "time", "ahash"];
    found.extend(dependencies(tree, "core/Cargo.toml", Kinds::Shipped, &crates));
    found
}

fn bounds_stand_in_limits(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let home = |path: &str| path == "core/src/limits.rs" || excepted(BOUND_HOMES, path, "");
    for file in tree.rust("core/src/").filter(|f| !home(&f.path)) {
        for at in words(&file.code, "const").filter(|at| !file.in_test(*at)) {
            let name = lex::ident(&file.code, at + "const".len());
            let bound = name
                .split('_')
                .any(|part| ["MAX", "MIN", "LIMIT", "BOUND", "CAP", "CAPACITY"].contains(&part));
            if bound {
                found.push(file.at(at, format!("the bound {name} belongs into core/src/limits.rs")));
            }
        }
    }
    found
}

fn binaries_hold_no_logic(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("xds/src/bin/") {
        let lines = file.code.lines().filter(|l| !l.trim().is_empty()).count();
        if lines > 15 {
            found.push(file.whole(format!("{lines} lines of code in a binary")));
        }
    }
    found
}

fn names_are_the_fields(tree: &Tree) -> Vec<Finding> {
    let foreign =
        ["frontend", "origin_pool", "originpool", "server_pool", "serverpool", "realserver", "real_server"];
    let mut found = Vec::new();
    for file in tree.rust("core/").chain(tree.rust("xds/src/")) {
        let lower = file.code.to_ascii_lowercase();
        for word in foreign {
            found.extend(
                lower
                    .match_indices(word)
                    .map(|(at, _)| file.at(at, format!("{word} is not the field's word"))),
            );
        }
    }
    found
}

/// Which dependencies of a manifest to look at.
#[derive(PartialEq)]
enum Kinds {
    /// Those that end up in what links the crate.
    Shipped,
    /// Those of tests and build scripts as well.
    All,
}

/// Findings for every dependency of the manifest at `path` whose name is one of `names`.
fn dependencies(tree: &Tree, path: &str, kinds: Kinds, names: &[&str]) -> Vec<Finding> {
    let Some(file) = tree.file(path) else { return Vec::new() };
    let mut inside = false;
    let mut at = 0;
    let mut found = Vec::new();
    for line in file.text.lines() {
        let bare = line.trim();
        if let Some(table) = bare.strip_prefix('[') {
            let table = table.trim_matches(['[', ']']);
            inside = table.contains("dependencies")
                && (kinds == Kinds::All || !(table.contains("dev-") || table.contains("build-")));
            // `[dependencies.tonic]` names its crate in the header.
            let named = table.rsplit_once("dependencies.").map(|(_, name)| name);
            if inside && named.is_some_and(|n| names.contains(&n)) {
                found.push(file.at(at, format!("{bare} is above this crate")));
            }
        } else if inside && !bare.starts_with('#') {
            let name = bare.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
            if names.contains(&name) {
                found.push(file.at(at, format!("the dependency {name} is not for this crate")));
            }
        }
        at += line.len() + 1;
    }
    found
}
