//! The files of the tree, as text. Owns loading and looking up; knows no rule.

use crate::lex::{self, TestModule};
use std::{fmt, fs, io, path::Path};

/// Folders that are never read: build output, version control, fuzzing corpora.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts", "coverage"];

/// One file.
pub struct File {
    /// From the repository's root, with `/` between the parts.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// For Rust files the text with comments and the insides of literals blanked, offsets unchanged; else empty.
    pub code: String,
    /// The modules in it that only tests have.
    tests: Vec<TestModule>,
    /// Whether only tests have this file.
    only_tests: bool,
}

impl File {
    fn new(path: String, text: String) -> File {
        let code = if path.ends_with(".rs") { lex::code(&text) } else { String::new() };
        let tests = lex::test_modules(&code);
        let only_tests = path.contains("/tests/");
        File { path, text, code, tests, only_tests }
    }

    /// Whether this is Rust source.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether `at` lies in code that only tests run: an integration test, or a module under `#[cfg(test)]`.
    pub fn in_test(&self, at: usize) -> bool {
        let here = |m: &TestModule| matches!(m, TestModule::Here(span) if span.contains(&at));
        self.only_tests || self.tests.iter().any(here)
    }

    /// The paths, without `.rs`, of this file's test modules that have files of their own.
    fn test_files(&self) -> impl Iterator<Item = String> + '_ {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        // The modules of a crate root lie beside it, those of any other file in the folder of its name.
        let home = if ["lib", "main", "mod"].contains(&name) { folder } else { stem };
        self.tests.iter().filter_map(move |m| match m {
            TestModule::Elsewhere(name) => Some(format!("{home}/{name}")),
            TestModule::Here(_) => None,
        })
    }

    /// The 1-based line of a byte offset.
    pub fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count() + 1
    }

    /// A finding at a byte offset of this file.
    pub fn at(&self, at: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: self.line(at), what: what.into() }
    }

    /// A finding about the file as a whole.
    pub fn whole(&self, what: impl Into<String>) -> Finding {
        self.at(0, what)
    }
}

/// Where a rule is broken, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All files that the checks may look at, ordered by path.
pub struct Tree(Vec<File>);

impl Tree {
    /// Reads the tree under `root`: Rust, TOML, Markdown and the files of `.ci`.
    ///
    /// # Errors
    /// Whatever reading a folder or a file gives. A file that is not UTF-8 is an error too: source is text.
    pub fn load(root: &Path) -> io::Result<Tree> {
        let mut files = Vec::new();
        walk(root, root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree::marked(files))
    }

    /// A tree made of `(path, text)` pairs.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree::marked(files.iter().map(|(p, t)| File::new((*p).to_owned(), (*t).to_owned())).collect())
    }

    /// Marks the files that another file declares as test modules, and those below them.
    fn marked(mut files: Vec<File>) -> Tree {
        let declared: Vec<String> = files.iter().flat_map(File::test_files).collect();
        for file in &mut files {
            let below = |d: &String| {
                file.path.strip_prefix(d.as_str()).is_some_and(|r| r == ".rs" || r.starts_with('/'))
            };
            file.only_tests |= declared.iter().any(below);
        }
        Tree(files)
    }

    /// Every file.
    pub fn files(&self) -> &[File] {
        &self.0
    }

    /// The file at exactly this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|f| f.path == path)
    }

    /// The Rust files below a folder (or the one file at that path); the empty prefix is all of them.
    pub fn rust<'a>(&'a self, under: &'a str) -> impl Iterator<Item = &'a File> {
        self.0.iter().filter(move |f| f.is_rust() && f.path.starts_with(under))
    }
}

fn walk(root: &Path, dir: &Path, out: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if SKIPPED.contains(&name.as_str()) || (name.starts_with('.') && name != ".ci") {
            continue;
        }
        if kind.is_dir() {
            walk(root, &entry.path(), out)?;
        } else if kind.is_file() {
            let path = entry.path();
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let wanted = [".rs", ".toml", ".md"].iter().any(|e| path.ends_with(e)) || path == ".ci/run";
            if wanted {
                out.push(File::new(path, fs::read_to_string(entry.path())?));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let tree = Tree::of(&[("a.rs", "x\ny\nz")]);
        let file = &tree.files()[0];
        assert_eq!((file.line(0), file.line(2), file.line(4)), (1, 2, 3));
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n";
        let tree = Tree::of(&[("x/src/a.rs", text), ("x/tests/b.rs", "fn d() {}")]);
        let file = tree.file("x/src/a.rs").expect("it was put there");
        let at = |what: &str| text.find(what).expect("it is in the text");
        assert!(!file.in_test(at("fn a")) && file.in_test(at("fn b")) && !file.in_test(at("fn c")));
        assert!(tree.file("x/tests/b.rs").is_some_and(|f| f.in_test(0)));
        let tree = Tree::of(&[
            ("x/src/a.rs", "#[cfg(test)]\nmod lab;\nmod real;"),
            ("x/src/lib.rs", "#[cfg(test)]\nmod testing;"),
            ("x/src/a/lab.rs", ""),
            ("x/src/a/lab/deep.rs", ""),
            ("x/src/a/real.rs", ""),
            ("x/src/testing.rs", ""),
        ]);
        let tests: Vec<_> = tree.files().iter().filter(|f| f.in_test(0)).map(|f| f.path.as_str()).collect();
        assert_eq!(
            tests,
            ["x/src/a.rs", "x/src/lib.rs", "x/src/a/lab.rs", "x/src/a/lab/deep.rs", "x/src/testing.rs"][2..]
        );
    }
}
