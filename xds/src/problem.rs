//! What is wrong with a configuration, and where: every message an operator reads about a file or a resource is a [`Problem`].
//! Owns paths and their spelling; decides nothing about right and wrong.

use std::fmt;

/// A place in a text, both counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One thing that is wrong, with the place an operator has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field in Envoy's spelling, e.g. `static_resources.clusters[0].connect_timeout`; empty for the whole file.
    pub path: String,
    /// What is wrong with it, in a sentence without a capital and without a full stop.
    pub what: String,
    /// Where the field stands in the text, where a text is at hand.
    pub at: Option<Position>,
}

impl Problem {
    /// A problem at `path`, with no place in a text.
    pub fn new(path: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { path: path.to_string(), what: what.into(), at: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.at, self.path.is_empty()) {
            (Some(at), true) => write!(f, "line {}, column {}: {}", at.line, at.column, self.what),
            (Some(at), false) => {
                write!(f, "{} (line {}, column {}): {}", self.path, at.line, at.column, self.what)
            }
            (None, true) => f.write_str(&self.what),
            (None, false) => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

/// The way from a root message to a field, as a list on the stack: nothing is allocated until there is a problem to spell out.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// A name given by the caller, possibly empty: where the path begins.
    Root(&'a str),
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// Where a path begins. `name` is empty for a file, or names a resource.
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Root(name) }
    }

    /// A field of the message at this path.
    pub const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the repeated field at this path, from zero.
    pub const fn index(&'a self, at: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(at) }
    }

    /// A value of the map field at this path.
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root(name) => f.write_str(name),
            Step::Field(name) => match self.parent {
                Some(Path { parent: None, step: Step::Root("") }) => f.write_str(name),
                _ => write!(f, ".{name}"),
            },
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_spelt_as_envoy_spells_it() {
        let file = Path::root("");
        let (resources, named) = (file.field("static_resources"), Path::root("listener ingress"));
        let listeners = resources.field("listeners");
        let listener = listeners.index(2);
        let filters = listener.field("typed_per_filter_config");
        assert_eq!(
            filters.key("envoy.filters.http.rbac").field("rules").to_string(),
            "static_resources.listeners[2].typed_per_filter_config[\"envoy.filters.http.rbac\"].rules"
        );
        assert_eq!(named.field("name").to_string(), "listener ingress.name");
    }

    #[test]
    fn a_problem_says_where() {
        let mut problem = Problem::new(Path::root("").field("node"), "no such field");
        assert_eq!(problem.to_string(), "node: no such field");
        problem.at = Some(Position { line: 3, column: 1 });
        assert_eq!(problem.to_string(), "node (line 3, column 1): no such field");
        problem.path.clear();
        assert_eq!(problem.to_string(), "line 3, column 1: no such field");
    }
}
