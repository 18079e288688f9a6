//! Regular expressions over parts of heads, in RE2's dialect, bounded in size: matched in time that is linear in the text
//! (the `regex` crate, as RE2, has no backtracking). Owns how an expression is checked and how matches are replaced.
//!
//! The crate keeps the memory of a search in a pool. A lane that finds another one at it makes new memory and does not wait.

use crate::limits::REGEX_BYTES;
use regex::bytes::{Regex, RegexBuilder};

/// An expression that a whole text has to match.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Regex);

/// An expression whose matches are replaced, wherever they are.
#[derive(Clone, Debug)]
pub(crate) struct Substitution {
    regex: Regex,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Group(usize),
}

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

impl Substitution {
    /// # Errors
    /// What is wrong, with the field it stands in: the expression or the substitution.
    pub(crate) fn new(pattern: &str, substitution: &str) -> Result<Substitution, (&'static str, String)> {
        let regex = compile(pattern).map_err(|what| ("pattern.regex", what))?;
        let pieces = pieces(substitution, regex.captures_len()).map_err(|what| ("substitution", what))?;
        Ok(Substitution { regex, pieces })
    }

    /// `text` with every match replaced.
    pub(crate) fn replace(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 32);
        let mut done = 0;
        for found in self.regex.captures_iter(text) {
            // Group 0 is the match itself, which is always there.
            let Some(whole) = found.get(0) else { continue };
            out.extend_from_slice(&text[done..whole.start()]);
            for piece in &self.pieces {
                match piece {
                    Piece::Literal(bytes) => out.extend_from_slice(bytes),
                    Piece::Group(n) => {
                        out.extend_from_slice(found.get(*n).map_or(b"", |group| group.as_bytes()))
                    }
                }
            }
            done = whole.end();
        }
        out.extend_from_slice(&text[done..]);
        out
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

/// RE2's rewrite strings: `\0` to `\9` are groups, `\\` is a backslash.
fn pieces(text: &str, groups: usize) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal) = (Vec::new(), Vec::new());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            literal.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => literal.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                let n = usize::from(digit - b'0');
                if n >= groups {
                    return Err(format!("\\{n} names a group, of which the expression has {}", groups - 1));
                }
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Group(n));
            }
            _ => return Err("a backslash is followed by a digit or by another backslash".into()),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
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

    #[test]
    fn every_match_is_replaced() {
        let replaced = |pattern: &str, with: &str, text: &str| {
            String::from_utf8(Substitution::new(pattern, with).unwrap().replace(text.as_bytes())).unwrap()
        };
        assert_eq!(
            replaced("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api"),
            "/v1/api/instance/foo"
        );
        assert_eq!(replaced("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
        assert_eq!(replaced("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/one/zzz");
        assert_eq!(replaced("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"), "/aaa/yyy/bbb");
        assert_eq!(replaced("(a)|b", r"<\1\\\0>", "ab"), r"<a\a><\b>");
        assert_eq!(replaced("x", "y", "none"), "none");
    }

    #[test]
    fn substitutions_are_checked() {
        for (bad, what) in
            [(r"\1", "\\1 names a group"), (r"\", "a backslash is followed"), (r"\n", "a backslash")]
        {
            let (field, error) = Substitution::new("a", bad).unwrap_err();
            assert!(field == "substitution" && error.contains(what), "{bad}: {error}");
        }
        assert_eq!(Substitution::new("(", "").unwrap_err().0, "pattern.regex");
    }
}
