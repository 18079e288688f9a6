//! Regular expressions over parts of heads, in RE2's dialect, bounded in size: matched in time that is linear in the text
//! (the `regex` crate, as RE2, has no backtracking). Owns how an expression is checked.
//!
//! The crate keeps the memory of a search in a pool. A lane that finds another one at it makes new memory and does not wait.

use crate::limits::REGEX_BYTES;
use regex::bytes::{Regex, RegexBuilder};

/// An expression that a whole text has to match.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with the expression, in words.
    pub(crate) fn new(expression: &str) -> Result<Pattern, String> {
        // By itself first: with what is put around it, `a)(b` would be good.
        compile(expression)?;
        compile(&format!(r"\A(?:{expression})\z")).map(Pattern)
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(expression).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!(
                "the expression needs more than {REGEX_BYTES} bytes compiled; make its repetitions smaller"
            )
        }
        // The first line of the crate's drawing says nothing; the last one says what is wrong.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_all_or_nothing() {
        let pattern = Pattern::new("/a|/b+").unwrap();
        for (text, want) in [("/a", true), ("/bb", true), ("/ab", false), ("x/a", false), ("/b\n", false)] {
            assert_eq!(pattern.matches(text.as_bytes()), want, "{text:?}");
        }
        assert!(Pattern::new("(?i)/API/.*").unwrap().matches(b"/api/v1"));
    }

    #[test]
    fn expressions_are_checked_and_bounded() {
        for (bad, what) in [
            ("a)(b", "unopened group"),
            ("(", "unclosed group"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences"),
            ("((a{1000}){1000}){1000}", "make its repetitions smaller"),
        ] {
            let error = Pattern::new(bad).unwrap_err();
            assert!(error.contains(what), "{bad}: {error}");
        }
    }
}
