//! Where `unsafe` may stand, and what has to stand beside it. Soundness itself is Miri's and the sanitizers' work.

use crate::{
    Check,
    lex::{self, words},
    tree::{File, Finding, Tree},
};

/// Folders that may hold unsafe code. Adding one changes the second invariant of ARCHITECTURE.md.
const HOMES: &[&str] = &["io-backends/"];

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "unsafe_lives_in_io_backends",
        rule: "no `unsafe` outside io-backends",
        run: unsafe_lives_in_io_backends,
        bad: &[
            &[("core/src/a.rs", "fn f(p: *const u8) -> u8 { unsafe { *p } }")],
            &[("xds/tests/a.rs", "unsafe extern \"C\" { fn getpid() -> i32; }")],
        ],
        good: &[
            ("io-backends/src/a.rs", "// SAFETY: never called.\nunsafe impl Send for A {}"),
            ("core/src/a.rs", "// not unsafe\nconst A: &str = \"unsafe\";"),
        ],
    },
    Check {
        name: "crate_roots_forbid_unsafe",
        rule: "every crate root outside io-backends forbids unsafe code",
        run: crate_roots_forbid_unsafe,
        bad: &[
            &[("core/src/lib.rs", "//! x\n// #![forbid(unsafe_code)]\n")],
            &[("xds/src/bin/a.rs", "//! x\n#![deny(unsafe_code)]\nfn main() {}")],
        ],
        good: &[("core/src/lib.rs", "//! x\n#![forbid(unsafe_code)]"), ("io-backends/src/lib.rs", "//! x\n")],
    },
    Check {
        name: "unsafe_says_why_it_is_sound",
        rule: "an unsafe block or impl has a SAFETY comment, an unsafe fn a `# Safety` section",
        run: unsafe_says_why_it_is_sound,
        bad: &[
            &[("io-backends/src/a.rs", "fn f() {\n    unsafe { g() }\n}")],
            &[("io-backends/src/a.rs", "/// Does it.\npub unsafe fn f() {}")],
            &[("io-backends/src/a.rs", "// SAFETY: of another item\nstruct A;\nunsafe impl Send for A {}")],
        ],
        good: &[(
            "io-backends/src/a.rs",
            "fn f() {\n    // SAFETY: g has no\n    // precondition.\n    let x =\n        unsafe { g() };\n}\n\
             /// Does it.\n///\n/// # Safety\n/// Call it once.\n#[inline]\npub unsafe fn h() {}\ntype P = unsafe fn();",
        )],
    },
];

fn unsafe_lives_in_io_backends(tree: &Tree) -> Vec<Finding> {
    let abroad = tree.rust("").filter(|f| !HOMES.iter().any(|h| f.path.starts_with(h)));
    abroad
        .flat_map(|f| words(&f.code, "unsafe").map(|at| f.at(at, "unsafe code outside io-backends")))
        .collect()
}

fn crate_roots_forbid_unsafe(tree: &Tree) -> Vec<Finding> {
    let roots = tree.rust("").filter(|f| is_root(&f.path) && !HOMES.iter().any(|h| f.path.starts_with(h)));
    roots
        .filter(|f| !f.code.contains("#![forbid(unsafe_code)]"))
        .map(|f| f.whole("a crate root without #![forbid(unsafe_code)]"))
        .collect()
}

fn is_root(path: &str) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.contains("/src/bin/")
}

fn unsafe_says_why_it_is_sound(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for at in words(&file.code, "unsafe") {
            let next = lex::ident(&file.code, at + "unsafe".len());
            let (note, what) = match next {
                "fn" if !lex::ident(&file.code, after(&file.code, at, "fn")).is_empty() => {
                    ("# Safety", "an unsafe fn")
                }
                // A function pointer type, or a declaration inside an extern block, promises nothing here.
                "fn" | "extern" => continue,
                "impl" => ("SAFETY", "an unsafe impl"),
                "trait" => ("# Safety", "an unsafe trait"),
                _ => ("SAFETY", "an unsafe block"),
            };
            if !noted(file, at, note) {
                found.push(file.at(at, format!("{what} without its {note} note")));
            }
        }
    }
    found
}

/// The offset past the next occurrence of `word` at or after `at`.
fn after(code: &str, at: usize, word: &str) -> usize {
    code[at..].find(word).map_or(code.len(), |n| at + n + word.len())
}

/// Whether the comments around a statement hold `note`: on its own line, or in the lines above it, back to the last line
/// that ended another statement or item.
fn noted(file: &File, at: usize, note: &str) -> bool {
    let line = file.line(at) - 1;
    let (text, code): (Vec<_>, Vec<_>) = (file.text.lines().collect(), file.code.lines().collect());
    if text[line].contains(note) {
        return true;
    }
    for n in (0..line).rev() {
        let bare = code[n].trim_end();
        if bare.trim_start().starts_with("#[") || bare.is_empty() {
            if text[n].trim().is_empty() {
                return false;
            }
        } else if bare.ends_with([';', '{', '}']) {
            return text[n].contains(note);
        }
        if text[n].contains(note) {
            return true;
        }
    }
    false
}
