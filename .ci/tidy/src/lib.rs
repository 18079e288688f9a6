//! The invariants of ARCHITECTURE.md that can be read off the tree, each as one [`Check`].
//!
//! Owns the list [`all`] and nothing else: `tree` loads files, `lex` tells code from comments and strings, and `docs`,
//! `layers`, `style` and `unsafety` hold the checks. It reads text only; it never builds, runs or changes anything.
//! Every check carries trees that break it, so that a check which can no longer fail is itself a failing test.
#![forbid(unsafe_code)]

mod docs;
mod layers;
pub mod lex;
mod style;
pub mod tree;
mod unsafety;

use tree::{Finding, Tree};

/// One rule about the tree.
pub struct Check {
    /// The name that ARCHITECTURE.md cites.
    pub name: &'static str,
    /// The rule in one sentence.
    pub rule: &'static str,
    /// Looks at a tree and says where the rule is broken.
    pub run: fn(&Tree) -> Vec<Finding>,
    /// Trees, written as `(path, text)` pairs, in each of which the check must find something.
    pub bad: &'static [&'static [(&'static str, &'static str)]],
    /// A tree in which the check must find nothing.
    pub good: &'static [(&'static str, &'static str)],
}

/// Every check there is.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [layers::CHECKS, unsafety::CHECKS, style::CHECKS, docs::CHECKS].into_iter().flatten()
}

/// Something that a check would refuse and that stays, with the reason why.
pub(crate) struct Exception {
    /// The file, or a folder when it ends in `/`.
    pub(crate) path: &'static str,
    /// The item within it, or empty for all of it.
    pub(crate) item: &'static str,
    /// Why it stays. An empty reason is refused by a test.
    pub(crate) why: &'static str,
}

impl Exception {
    /// Whether this exception speaks of `item` in the file at `path`.
    pub(crate) fn covers(&self, path: &str, item: &str) -> bool {
        let there = if self.path.ends_with('/') { path.starts_with(self.path) } else { path == self.path };
        there && (self.item.is_empty() || self.item == item)
    }
}

/// Whether a list of exceptions covers `item` in the file at `path`.
pub(crate) fn excepted(list: &[Exception], path: &str, item: &str) -> bool {
    list.iter().any(|e| e.covers(path, item))
}

/// Every exception of every check.
fn exceptions() -> impl Iterator<Item = &'static Exception> {
    [layers::EXCEPTIONS, style::EXCEPTIONS].into_iter().flatten().flat_map(|list| list.iter())
}

/// Exceptions that outlived the file they excuse, as `path: why`.
pub fn outlived(tree: &Tree) -> Vec<String> {
    exceptions()
        .filter(|e| !tree.files().iter().any(|f| e.covers(&f.path, e.item)))
        .map(|e| format!("{} {}: {}", e.path, e.item, e.why))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_check_finds_each_of_its_bad_trees() {
        for check in all() {
            assert!(!check.bad.is_empty(), "{} has no tree that breaks it", check.name);
            for (n, bad) in check.bad.iter().enumerate() {
                let found = (check.run)(&Tree::of(bad));
                assert!(!found.is_empty(), "{} finds nothing in its bad tree {n}: {bad:?}", check.name);
            }
        }
    }

    #[test]
    fn every_check_accepts_its_good_tree() {
        for check in all() {
            let found = (check.run)(&Tree::of(check.good));
            assert!(found.is_empty(), "{} refuses its good tree: {found:?}", check.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut seen = BTreeSet::new();
        for check in all() {
            assert!(seen.insert(check.name), "{} stands twice", check.name);
        }
    }

    #[test]
    fn exceptions_give_reasons() {
        for e in exceptions() {
            assert!(e.why.split_whitespace().count() >= 4, "{} {}: say why, in a sentence", e.path, e.item);
        }
    }
}
