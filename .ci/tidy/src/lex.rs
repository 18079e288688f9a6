//! Just enough of Rust's lexical grammar to tell code from comments and literals, and to find functions.
//!
//! Owns no rule and builds no syntax tree: a check that needs one belongs into a compiler lint.

use std::ops::Range;

/// The source with every comment and the inside of every literal turned into spaces; offsets and lines stay.
pub fn code(text: &str) -> String {
    let s = text.as_bytes();
    let mut out = s.to_vec();
    let mut i = 0;
    while i < s.len() {
        let end = match s[i] {
            b'/' if s[i..].starts_with(b"//") => line_end(s, i),
            b'/' if s[i..].starts_with(b"/*") => block_end(s, i),
            b'"' => quoted_end(s, i),
            b'r' if raw_hashes(s, i).is_some() => raw_end(s, i),
            b'\'' => char_end(s, i),
            _ => i + 1,
        };
        // One plain byte is code; anything longer is a comment or a literal.
        if end > i + 1 {
            for b in &mut out[i..end] {
                if *b != b'\n' {
                    *b = b' ';
                }
            }
        }
        i = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(s: &[u8], from: usize) -> usize {
    s[from..].iter().position(|b| *b == b'\n').map_or(s.len(), |n| from + n)
}

fn block_end(s: &[u8], from: usize) -> usize {
    let (mut i, mut depth) = (from, 0);
    while i < s.len() {
        if s[i..].starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if s[i..].starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    s.len()
}

fn quoted_end(s: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < s.len() {
        match s[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    s.len()
}

/// The number of `#` of a raw string that starts at `at` (on its `r`), unless that `r` ends an identifier.
fn raw_hashes(s: &[u8], at: usize) -> Option<usize> {
    // `br"` and `cr"` are raw strings as well; `foor"` is nothing.
    let before = if at > 0 && matches!(s[at - 1], b'b' | b'c') { at - 1 } else { at };
    if before > 0 && is_word(s[before - 1]) {
        return None;
    }
    let hashes = s[at + 1..].iter().take_while(|b| **b == b'#').count();
    (s.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(s: &[u8], from: usize) -> usize {
    let hashes = raw_hashes(s, from).unwrap_or(0);
    let mut i = from + hashes + 2;
    while i < s.len() {
        if s[i] == b'"' && s[i + 1..].iter().take_while(|b| **b == b'#').count() >= hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    s.len()
}

/// The end of a character literal; a lifetime is code, so it is one byte long here.
fn char_end(s: &[u8], from: usize) -> usize {
    match s.get(from + 1) {
        Some(b'\\') => s[from + 3..].iter().position(|b| *b == b'\'').map_or(s.len(), |n| from + n + 4),
        Some(_) => {
            // One character of up to four bytes, then the closing quote; anything else is a lifetime.
            let width = (2..=5).find(|n| s.get(from + n) == Some(&b'\''));
            match width {
                Some(n) if n == 2 || s[from + 1] >= 0x80 => from + n + 1,
                _ => from + 1,
            }
        }
        None => from + 1,
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// Where `word` stands in `code` as a whole word (its own ends are words' ends), as byte offsets.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let s = code.as_bytes();
    let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let left = *at == 0 || !is_word(s[at - 1]) || !is_word(first);
        let right = s.get(at + word.len()).is_none_or(|b| !is_word(*b) || !is_word(last));
        left && right
    })
}

/// The identifier that starts at or after `at`, past blanks.
pub fn ident(code: &str, at: usize) -> &str {
    let rest = code[at..].trim_start();
    let end = rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len());
    &rest[..end]
}

/// The offset just past the bracket that closes the one at `open`.
pub fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (n, b) in code.as_bytes()[open..].iter().enumerate() {
        match b {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return open + n + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// A function with a body.
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// From its `fn` to past its closing brace.
    pub span: Range<usize>,
}

/// Every function with a body, nested ones too.
pub fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name = ident(code, at + 2);
        // `fn(` is a pointer type; a declaration ends in `;` before any brace.
        if name.is_empty() || !code[at + 2..].starts_with(char::is_whitespace) {
            continue;
        }
        if let Some(open) = body(code, at) {
            found.push(Function { name, span: at..closing(code, open) });
        }
    }
    found
}

/// The offset of the brace that opens a function's body; `None` for a declaration.
fn body(code: &str, from: usize) -> Option<usize> {
    let mut i = from;
    let s = code.as_bytes();
    while i < s.len() {
        match s[i] {
            b'{' => return Some(i),
            b';' => return None,
            b'(' | b'[' => i = closing(code, i),
            _ => i += 1,
        }
    }
    None
}

/// A module that only tests have.
#[derive(Debug, PartialEq, Eq)]
pub enum TestModule {
    /// `#[cfg(test)] mod name { … }`, and where.
    Here(Range<usize>),
    /// `#[cfg(test)] mod name;`, and its name.
    Elsewhere(String),
}

/// The modules of a file that stand under `#[cfg(test)]` or a condition that needs it, such as `all(test, …)`.
pub fn test_modules(code: &str) -> Vec<TestModule> {
    let mut found = Vec::new();
    for at in code.match_indices("#[cfg(").map(|(at, _)| at) {
        let end = closing(code, at + 1);
        let mut condition = code[at..end].split(|c: char| !c.is_alphanumeric() && c != '_');
        if !condition.any(|w| w == "test") || code[at..end].contains("not(test)") {
            continue;
        }
        let mut rest = end;
        while code[rest..].trim_start().starts_with("#[") {
            let attribute = rest + (code[rest..].len() - code[rest..].trim_start().len());
            rest = closing(code, attribute + 1);
        }
        let item = code[rest..].trim_start();
        let Some(item) = ["mod ", "pub mod ", "pub(crate) mod "].iter().find_map(|m| item.strip_prefix(m))
        else {
            continue;
        };
        found.push(match body(code, rest) {
            Some(open) => TestModule::Here(at..closing(code, open)),
            None => TestModule::Elsewhere(ident(item, 0).to_owned()),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* unsafe */ y */ b", "a                        b"),
            ("f(\"un\\\"safe\") b", "f(          ) b"),
            ("r#\"a\"b\"# c", "         c"),
            ("br\"unsafe\" c", "b         c"),
            ("'x' '\\n' '\\'' 'é' c", "            c"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("var\"s\"", "var   "),
        ];
        for (text, want) in cases {
            let got = code(text);
            assert_eq!(
                got.split_whitespace().collect::<Vec<_>>(),
                want.split_whitespace().collect::<Vec<_>>()
            );
            assert_eq!(got.len(), text.len(), "offsets must stay in {text:?}");
        }
    }

    #[test]
    fn words_are_whole() {
        let found: Vec<_> = words("unsafe_op unsafe not_unsafe unsafe{", "unsafe").collect();
        assert_eq!(found, [10, 28]);
    }

    #[test]
    fn functions_have_names_and_ends() {
        let text = "fn a(x: [u8; 2]) -> u8 { if true { 1 } else { 2 } } trait T { fn b(); } type P = fn(u8); async fn c() {}";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, text[f.span].to_owned())).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, "a");
        assert!(found[0].1.ends_with("{ 2 } }"));
        assert_eq!(found[1].0, "c");
    }

    #[test]
    fn test_modules_are_found_behind_attributes() {
        let text = "#[cfg(all(test, unix))] #[rustfmt::skip] mod t { fn x() {} } fn y() {} #[cfg(not(test))] mod u { }";
        let found = test_modules(text);
        let [TestModule::Here(span)] = &found[..] else { panic!("{found:?}") };
        assert!(text[span.clone()].ends_with("fn x() {} }"));
        let found = test_modules("#[cfg(test)]\nmod tests;\nmod other;");
        assert_eq!(found, [TestModule::Elsewhere("tests".to_owned())]);
    }
}
