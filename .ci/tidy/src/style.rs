//! The house style of CONTRIBUTING.md, as far as it can be read off the text. rustfmt and clippy hold the rest.

use crate::{
    Check, Exception, excepted,
    lex::{self, words},
    tree::{Finding, Tree},
};

/// Lines of a file, tests included.
const FILE_LINES: usize = 800;
/// Lines of a function, signature and closing brace included.
const FUNCTION_LINES: usize = 70;
/// The same for a function that only tests run: a scenario reads best from top to bottom.
const TEST_FUNCTION_LINES: usize = 110;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "files_say_what_they_own",
        rule: "a Rust file opens with `//!`",
        run: files_say_what_they_own,
        bad: &[&[("core/src/a.rs", "use std::rc::Rc;\n//! late")], &[("core/src/b.rs", "")]],
        good: &[("core/src/a.rs", "//! Owns a.\nuse std::rc::Rc;")],
    },
    Check {
        name: "no_mod_rs",
        rule: "a module's file carries its name",
        run: no_mod_rs,
        bad: &[&[("core/src/http/mod.rs", "//! x")]],
        good: &[("core/src/http.rs", "//! x"), ("core/tests/support/mod.rs", "//! shared by the tests")],
    },
    Check {
        name: "files_stay_readable",
        rule: "a file has at most 800 lines",
        run: files_stay_readable,
        bad: &[&[("core/src/a.rs", LONG)]],
        good: &[("core/src/a.rs", "//! short")],
    },
    Check {
        name: "functions_stay_readable",
        rule: "a function has at most 70 lines, a test's at most 110",
        run: functions_stay_readable,
        bad: &[&[("core/src/a.rs", LONG_FUNCTION)]],
        good: &[("core/src/a.rs", "//! x\nfn f() {\n}\n")],
    },
    Check {
        name: "no_getters",
        rule: "no function is called get_something",
        run: no_getters,
        bad: &[&[("core/src/a.rs", "fn get_name() {}")]],
        good: &[("core/src/a.rs", "fn name() {} fn get() {} fn target_name() {}")],
    },
    Check {
        name: "no_type_aliases",
        rule: "no public type alias: one name for one type",
        run: no_type_aliases,
        bad: &[&[("core/src/a.rs", "pub type Map = Vec<u8>;")]],
        good: &[("core/src/a.rs", "impl A for B { type Config = u8; }")],
    },
    Check {
        name: "nothing_is_unfinished",
        rule: "no todo!, no unimplemented!, no TODO, no test that is switched off",
        run: nothing_is_unfinished,
        bad: &[
            &[("core/src/a.rs", "fn f() { todo!() }")],
            &[("core/src/a.rs", "fn f() { unimplemented!(\"later\") }")],
            &[("core/src/a.rs", "// TODO: later\n")],
            &[("core/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}")],
        ],
        good: &[("core/src/a.rs", "// A list of what is to be done stands in the issues.\nfn ignore() {}")],
    },
    Check {
        name: "tests_do_not_sleep",
        rule: "no thread::sleep: a test waits for what it needs",
        run: tests_do_not_sleep,
        bad: &[&[("core/tests/a.rs", "fn f() { std::thread::sleep(d); }")]],
        good: &[("core/tests/a.rs", "fn f(io: &Io) { io.sleep(d); }")],
    },
    Check {
        name: "exceptions_give_their_reason",
        rule: "every allow and expect attribute has a reason",
        run: exceptions_give_their_reason,
        bad: &[
            &[("core/src/a.rs", "#[allow(dead_code)]\nfn f() {}")],
            &[("core/src/a.rs", "#![allow(clippy::all)]\n")],
            &[("core/src/a.rs", "#[cfg_attr(test, allow(dead_code))]\nfn f() {}")],
        ],
        good: &[("core/src/a.rs", "#[allow(dead_code, reason = \"kept for the C ABI\")]\nfn f() {}")],
    },
];

pub(crate) const EXCEPTIONS: &[&[Exception]] = &[LONG_FUNCTIONS, SLEEPERS];

const LONG_FUNCTIONS: &[Exception] = &[];
const SLEEPERS: &[Exception] = &[Exception {
    path: "interop/src/process.rs",
    item: "",
    why: "the one place that polls processes which cannot be waited on, and lets time pass where time is what a case is about",
}];

/// A file of 801 lines.
const LONG: &str = match std::str::from_utf8(&[b'\n'; FILE_LINES + 1]) {
    Ok(text) => text,
    Err(_) => panic!("line feeds are UTF-8"),
};

/// A function of 72 lines.
const LONG_FUNCTION: &str = concat!(
    "//! x\nfn f() {\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n}"
);

fn files_say_what_they_own(tree: &Tree) -> Vec<Finding> {
    let silent = tree.rust("").filter(|f| !f.text.starts_with("//! "));
    silent.map(|f| f.whole("a file opens with `//!`: what it owns, what it never does")).collect()
}

fn no_mod_rs(tree: &Tree) -> Vec<Finding> {
    // Cargo takes every file directly under tests/ for a test of its own, so shared test code has no other name.
    let named = tree.rust("").filter(|f| f.path.ends_with("/mod.rs") && !f.path.contains("/tests/"));
    named.map(|f| f.whole("mod.rs: name the file after its module")).collect()
}

fn files_stay_readable(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            found.push(file.whole(format!("{lines} lines: split it by what it owns")));
        }
    }
    found
}

fn functions_stay_readable(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for f in lex::functions(&file.code) {
            let lines = file.line(f.span.end) - file.line(f.span.start) + 1;
            let most = if file.in_test(f.span.start) { TEST_FUNCTION_LINES } else { FUNCTION_LINES };
            if lines > most && !excepted(LONG_FUNCTIONS, &file.path, f.name) {
                found.push(file.at(f.span.start, format!("{} has {lines} lines, more than {most}", f.name)));
            }
        }
    }
    found
}

fn no_getters(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for at in words(&file.code, "fn") {
            let name = lex::ident(&file.code, at + 2);
            if name.starts_with("get_") {
                found.push(file.at(at, format!("{name}: name it after what it gives")));
            }
        }
    }
    found
}

fn no_type_aliases(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for at in words(&file.code, "type") {
            if file.code[..at].trim_end().ends_with("pub") && !file.in_test(at) {
                let name = lex::ident(&file.code, at + 4);
                found.push(file.at(at, format!("the type alias {name}: one name for one type")));
            }
        }
    }
    found
}

fn nothing_is_unfinished(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for word in ["todo!", "unimplemented!", "#[ignore", "#[should_panic]"] {
            found.extend(
                file.code.match_indices(word).map(|(at, _)| file.at(at, format!("{word} in the tree"))),
            );
        }
        // These two stand in comments, so the text is searched; what is inside a literal is not meant.
        for word in ["TODO", "FIXME"] {
            let said = words(&file.text, word).filter(|at| comment(&file.text, *at));
            found.extend(said.map(|at| file.at(at, format!("{word}: open an issue instead"))));
        }
    }
    found
}

/// Whether the byte at `at` follows a `//` on its line.
fn comment(text: &str, at: usize) -> bool {
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    text[start..at].trim_start().starts_with("//")
}

fn tests_do_not_sleep(tree: &Tree) -> Vec<Finding> {
    let awake = tree.rust("").filter(|f| !excepted(SLEEPERS, &f.path, ""));
    awake
        .flat_map(|f| {
            words(&f.code, "thread::sleep").map(|at| f.at(at, "thread::sleep: wait for what is needed"))
        })
        .collect()
}

fn exceptions_give_their_reason(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("") {
        for (word, open) in ["allow(", "expect("].iter().flat_map(|w| words(&file.code, w).map(|at| (*w, at)))
        {
            let before = file.code[..open].trim_end();
            let attribute = before.ends_with("#[")
                || before.ends_with("#![")
                || (before.ends_with(',')
                    && before.rsplit('\n').next().is_some_and(|l| l.contains("cfg_attr(")));
            let end = lex::closing(&file.code, open + word.len() - 1);
            if attribute && !file.code[open..end].contains("reason") {
                found.push(file.at(open, format!("{word}…) without a reason")));
            }
        }
    }
    found
}
