//! Documents that name things of the tree, held to name things that exist.

use crate::{
    Check, lex,
    tree::{File, Finding, Tree},
};
use std::collections::BTreeSet;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "invariants_are_held",
        rule: "each numbered invariant of ARCHITECTURE.md is bold and names, after `Held by`, checks, lints or tests that exist",
        run: invariants_are_held,
        bad: &[
            &[("ARCHITECTURE.md", "## Invariants\n\n1. **Wire is pure.** Truly.\n")],
            &[("ARCHITECTURE.md", "## Invariants\n\n1. **Wire is pure.** Held by `no_such_check`.\n")],
            &[("ARCHITECTURE.md", "## Invariants\n\n1. Wire is pure. Held by `wire_is_pure`.\n")],
            &[("ARCHITECTURE.md", "# No such section\n")],
        ],
        good: &[(
            "ARCHITECTURE.md",
            "## Invariants\n\n1. **Wire is pure.**\n   Held by `wire_is_pure`.\n\n## Next\n\n1. x\n",
        )],
    },
    Check {
        name: "rules_name_their_tests",
        rule: "every row of ARCHITECTURE.md's rules table names tests that exist",
        run: rules_name_their_tests,
        bad: &[
            &[(
                "ARCHITECTURE.md",
                "## Rules\n\n| rule | test |\n| --- | --- |\n| FIN is FIN | `nowhere` |\n",
            )],
            &[("ARCHITECTURE.md", "## Rules\n\n| rule | test |\n| --- | --- |\n| FIN is FIN | later |\n")],
            &[
                ("ARCHITECTURE.md", "## Rules\n\n| rule | test |\n| --- | --- |\n| FIN is FIN | `fin` |\n"),
                ("core/src/a.rs", "//! x\nfn fin() {}"),
            ],
        ],
        good: &[
            (
                "ARCHITECTURE.md",
                "## Rules\n\n| rule | test |\n| --- | --- |\n| FIN is FIN | `fin`, `parity` case `half_close` |\n",
            ),
            ("core/tests/a.rs", "//! x\nfn fin() {} fn parity() {} fn half_close() {}"),
        ],
    },
    Check {
        name: "readme_commands_are_run",
        rule: "every cargo command of README.md's code blocks is run by .ci/run",
        run: readme_commands_are_run,
        bad: &[&[("README.md", "```sh\ncargo test --workspace\n```\n"), (".ci/run", "cargo build\n")]],
        good: &[
            ("README.md", "Use `cargo doc`.\n```sh\ncargo test --workspace\n```\n"),
            (".ci/run", "stage tests cargo test --workspace\n"),
        ],
    },
    Check {
        name: "code_map_is_complete",
        rule: "ARCHITECTURE.md's code map names every package, and only folders that exist",
        run: code_map_is_complete,
        bad: &[
            &[
                ("ARCHITECTURE.md", "## Code map\n\nnothing\n"),
                ("core/Cargo.toml", "[package]\nname = \"corelane\""),
            ],
            &[("ARCHITECTURE.md", "## Code map\n\n| `nowhere/` | x |\n")],
            &[("ARCHITECTURE.md", "## Code map\n\n| `b.rs` | x |\n"), ("core/src/ab.rs", "//! x")],
        ],
        good: &[
            (
                "ARCHITECTURE.md",
                "## Code map\n\n| `core/` | `corelane` |\n| `http/` | `http/a.rs` | `core/src/http/a.rs` |\n",
            ),
            ("core/src/http/a.rs", "//! x"),
            ("core/Cargo.toml", "[package]\nname = \"corelane\""),
        ],
    },
];

/// The lines of a Markdown section, without its heading, with the offset each starts at.
fn section<'a>(file: &'a File, heading: &str) -> Option<Vec<(usize, &'a str)>> {
    let mut lines = Vec::new();
    let (mut at, mut inside) = (0, false);
    for line in file.text.split_inclusive('\n') {
        if let Some(title) = line.strip_prefix("## ") {
            if inside {
                break;
            }
            inside = title.trim() == heading;
        } else if inside {
            lines.push((at, line));
        }
        at += line.len();
    }
    inside.then_some(lines).or(None)
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A section of ARCHITECTURE.md: its file and its lines.
struct Section<'a> {
    file: &'a File,
    lines: Vec<(usize, &'a str)>,
}

/// The section under `heading`, or what to report in its place.
fn architecture<'a>(tree: &'a Tree, heading: &str) -> Result<Section<'a>, Vec<Finding>> {
    // A tree without the document is a sample of another check.
    let Some(file) = tree.file("ARCHITECTURE.md") else { return Err(Vec::new()) };
    match section(file, heading) {
        Some(lines) => Ok(Section { file, lines }),
        None => Err(vec![file.whole(format!("no section `## {heading}`"))]),
    }
}

fn invariants_are_held(tree: &Tree) -> Vec<Finding> {
    let Section { file, lines } = match architecture(tree, "Invariants") {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let mut items: Vec<(usize, String)> = Vec::new();
    for (at, line) in lines {
        if line.split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok()) {
            items.push((at, line.to_owned()));
        } else if let Some((_, item)) = items.last_mut() {
            item.push_str(line);
        }
    }
    let known = known_names(tree);
    let mut found = Vec::new();
    if items.is_empty() {
        found.push(file.whole("the section Invariants lists none"));
    }
    for (at, item) in items {
        if !item.contains("**") {
            found.push(file.at(at, "an invariant that is not bold"));
        }
        let Some((_, held)) = item.split_once("Held by") else {
            found.push(file.at(at, "an invariant that nothing holds"));
            continue;
        };
        found
            .extend(unknown(held, &known).into_iter().map(|n| file.at(at, format!("nothing is called {n}"))));
    }
    found
}

/// Quoted names that nothing bears; a text that quotes none gives one finding.
fn unknown(text: &str, known: &BTreeSet<String>) -> Vec<String> {
    let names: Vec<_> = quoted(text).collect();
    if names.is_empty() {
        return vec!["(no name given)".to_owned()];
    }
    names.into_iter().filter(|n| !known.contains(*n)).map(|n| format!("`{n}`")).collect()
}

/// Checks, lints that the workspace or clippy.toml configures, and tests.
fn known_names(tree: &Tree) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = crate::all().map(|c| c.name.to_owned()).collect();
    names.extend(
        ["disallowed_methods", "disallowed_types", "forbid(unsafe_code)", "no_std"].map(str::to_owned),
    );
    names.extend(tests(tree));
    names
}

/// Every function that only tests run: a parity case is a plain function that the suite's test calls by its name.
fn tests(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in tree.rust("") {
        let harness = file.path.starts_with("interop/");
        let live = lex::functions(&file.code).into_iter().filter(|f| harness || file.in_test(f.span.start));
        names.extend(live.map(|f| f.name.to_owned()));
    }
    names
}

fn rules_name_their_tests(tree: &Tree) -> Vec<Finding> {
    let Section { file, lines } = match architecture(tree, "Rules") {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let known = tests(tree);
    let rows = lines.into_iter().filter(|(_, l)| l.starts_with('|')).skip(2);
    rows.flat_map(|(at, row)| {
        let last = row.trim().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        unknown(last, &known).into_iter().map(move |n| file.at(at, format!("no test is called {n}")))
    })
    .collect()
}

fn readme_commands_are_run(tree: &Tree) -> Vec<Finding> {
    let (Some(readme), Some(ci)) = (tree.file("README.md"), tree.file(".ci/run")) else { return Vec::new() };
    let (mut at, mut inside) = (0, false);
    let mut found = Vec::new();
    for line in readme.text.split_inclusive('\n') {
        let bare = line.trim();
        if bare.starts_with("```") {
            inside = !inside && bare == "```sh";
        } else if inside && bare.starts_with("cargo ") {
            let command = bare.split('#').next().unwrap_or(bare).trim();
            if !ci.text.lines().any(|l| !l.trim_start().starts_with('#') && l.contains(command)) {
                found.push(readme.at(at, format!("`{command}` is not run by .ci/run")));
            }
        }
        at += line.len();
    }
    found
}

fn code_map_is_complete(tree: &Tree) -> Vec<Finding> {
    let Section { file, lines } = match architecture(tree, "Code map") {
        Ok(found) => found,
        Err(findings) => return findings,
    };
    let named: BTreeSet<&str> = lines.iter().flat_map(|(_, l)| quoted(l)).collect();
    let mut found = Vec::new();
    for manifest in tree.files().iter().filter(|f| f.path.ends_with("/Cargo.toml")) {
        let name = manifest.text.lines().find_map(|l| l.strip_prefix("name = "));
        if let Some(name) = name.map(|n| n.trim_matches('"')).filter(|n| !named.contains(n)) {
            found.push(manifest.whole(format!("the code map does not name {name}")));
        }
    }
    for path in named.iter().filter(|n| n.ends_with('/') || n.ends_with(".rs")) {
        // A package's section names its files from its own src/ on.
        let inside = format!("/src/{path}");
        let there = |f: &File| match path.strip_suffix('/') {
            Some(_) => f.path.starts_with(path) || f.path.contains(&inside),
            None => f.path == *path || f.path.ends_with(&inside),
        };
        if !tree.files().iter().any(there) {
            found.push(file.whole(format!("the code map names {path}, which does not exist")));
        }
    }
    found
}
