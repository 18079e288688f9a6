//! YAML text to a [`Node`], with the scalar rules that Envoy has: not those of YAML 1.2, nor quite those of 1.1. Owns the
//! syntax and these rules; never knows which field a scalar lands in.
//!
//! A plain scalar is taken for a boolean (`yes`, `On`, `TRUE`, `n`), then for a whole number (`10`, `0x10`, `012` is octal), then
//! for null (`~`, `null`, nothing); anything else, a fraction included, is text that the field may still read as a number.
//! A quoted scalar or a block scalar is text. Of a key given twice the last one wins.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::{
    message::node::{Node, Value},
    problem::{Position, Problem},
};

/// Deepest nesting. Envoy's deepest real configurations stay under 40; the decoder recurses once a level.
const DEPTH_MAX: usize = 128;
/// Most nodes, aliases counted as often as they are used: a file of nine lines of aliases must not fill the memory. 2 million
/// are some 80,000 clusters, in about 200 MB.
const NODES_MAX: usize = 2 << 20;

/// Parses one YAML document. An empty text is an empty object.
///
/// # Errors
/// One problem with line and column, where the text is not YAML, holds several documents, uses a tag other than `!!str`, has a
/// key that is no scalar, or is nested or multiplied by aliases beyond reason.
pub fn parse(text: &str) -> Result<Node, Problem> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    reader.expect_start()?;
    let (event, span) = reader.next()?;
    if matches!(event, Event::StreamEnd) {
        return Ok(Node { value: Value::Map(Vec::new()), at: None });
    }
    let (event, span) = if matches!(event, Event::DocumentStart(_)) { reader.next()? } else { (event, span) };
    let mut tree = reader.node(event, span, 0)?;
    if tree.value == Value::Null {
        tree.value = Value::Map(Vec::new());
    }
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(tree),
            (Event::DocumentStart(_), span) => {
                return Err(problem(span, "a second document: one file holds one configuration"));
            }
            _ => {}
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Finished anchors, each with the number of nodes it holds.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                Err(Problem {
                    path: String::new(),
                    what: format!("not YAML: {}", error.info()),
                    at: Some(at),
                })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn expect_start(&mut self) -> Result<(), Problem> {
        match self.next()? {
            (Event::StreamStart, _) => Ok(()),
            (_, span) => Err(problem(span, "not YAML: no stream")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Problem> {
        if depth > DEPTH_MAX {
            return Err(problem(span, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let size = self.anchors.get(&anchor).map(|(_, size)| *size);
                let size =
                    size.ok_or_else(|| problem(span, "an alias of an anchor that is not complete here"))?;
                // Counted before it is copied, so that the limit bounds the memory.
                self.count(size, span)?;
                let node = self.anchors[&anchor].0.clone();
                return Ok(Node { at: Some(position(span)), ..node });
            }
            Event::Scalar(text, style, anchor, tag) => (scalar(text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                no_tag(tag.as_deref(), span)?;
                (Value::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                no_tag(tag.as_deref(), span)?;
                (Value::Map(self.map(depth)?), anchor)
            }
            _ => return Err(problem(span, "not YAML: a value was expected")),
        };
        self.count(1, span)?;
        let node = Node { value, at: Some(position(span)) };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(list),
                (event, span) => list.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(String, Node)>, Problem> {
        let mut map: Vec<(String, Node)> = Vec::new();
        let mut places = HashMap::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(map),
                (Event::Scalar(key, ..), _) => key.into_owned(),
                (_, span) => return Err(problem(span, "a key must be a scalar")),
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match places.get(&key) {
                Some(&place) => map[place] = (key, value),
                None => {
                    places.insert(key.clone(), map.len());
                    map.push((key, value));
                }
            }
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            Err(problem(span, format!("more than {NODES_MAX} values")))
        } else {
            Ok(())
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, Problem> {
    let as_text = tag.is_some_and(|tag| {
        tag.handle == "!" && tag.suffix.is_empty() || tag.is_yaml_core_schema() && tag.suffix == "str"
    });
    if as_text || style != ScalarStyle::Plain {
        if !as_text {
            no_tag(tag, span)?;
        }
        return Ok(Value::Text(text.into_owned()));
    }
    no_tag(tag, span)?;
    Ok(match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        plain => match (boolean(plain), integer(plain)) {
            (Some(value), _) => Value::Bool(value),
            (_, Some(value)) => Value::Int(value),
            _ => Value::Text(text.into_owned()),
        },
    })
}

/// `yes` in any of three cases: `yes`, `Yes`, `YES`.
fn boolean(text: &str) -> Option<bool> {
    let mut letters = text.chars();
    let first = letters.next()?;
    let rest = letters.as_str();
    let lower = |text: &str| text.chars().all(|letter| letter.is_ascii_lowercase());
    let upper = |text: &str| text.chars().all(|letter| letter.is_ascii_uppercase());
    if !(lower(text) || first.is_ascii_uppercase() && (lower(rest) || upper(rest))) {
        return None;
    }
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// As C's `strtol` with base 0: a leading `0x` is hexadecimal, a leading `0` octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    // `from_str_radix` would take a second sign.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn no_tag(tag: Option<&Tag>, span: Span) -> Result<(), Problem> {
    match tag {
        Some(tag) => Err(problem(span, format!("the tag {tag} means nothing here"))),
        None => Ok(()),
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

fn problem(span: Span, what: impl Into<String>) -> Problem {
    Problem { path: String::new(), what: what.into(), at: Some(position(span)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(scalar: &str) -> Value {
        let Value::Map(mut entries) = parse(&format!("key: {scalar}\n")).unwrap().value else {
            panic!("an object")
        };
        entries.remove(0).1.value
    }

    /// What Envoy 1.40 makes of each scalar, as `/config_dump` shows it.
    #[test]
    fn plain_scalars_are_read_as_envoy_reads_them() {
        let text = |text: &str| Value::Text(text.into());
        let table = [
            ("yes", Value::Bool(true)),
            ("On", Value::Bool(true)),
            ("TRUE", Value::Bool(true)),
            ("n", Value::Bool(false)),
            ("tRue", text("tRue")),
            ("\"yes\"", text("yes")),
            ("'1'", text("1")),
            ("!!str 1", text("1")),
            ("10", Value::Int(10)),
            ("-10", Value::Int(-10)),
            ("0", Value::Int(0)),
            ("0x10", Value::Int(16)),
            ("012", Value::Int(10)),
            ("08", text("08")),
            ("1_0", text("1_0")),
            ("1.50", text("1.50")),
            ("1e3", text("1e3")),
            ("+-1", text("+-1")),
            ("9223372036854775808", text("9223372036854775808")),
            ("~", Value::Null),
            ("NULL", Value::Null),
            ("", Value::Null),
            ("0.25s", text("0.25s")),
            ("|-\n  yes", text("yes")),
        ];
        for (scalar, expected) in table {
            assert_eq!(one(scalar), expected, "{scalar}");
        }
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        let Value::Map(entries) = parse("a: 1\nb: 2\na: 3\n").unwrap().value else { panic!("an object") };
        let short: Vec<_> = entries.iter().map(|(key, node)| (key.as_str(), node.value.clone())).collect();
        assert_eq!(short, [("a", Value::Int(3)), ("b", Value::Int(2))]);
    }

    #[test]
    fn aliases_are_copies_with_their_own_place() {
        let Value::Map(entries) = parse("a: &x {b: 1}\nc: *x\n").unwrap().value else { panic!("an object") };
        assert_eq!(entries[0].1.value, entries[1].1.value);
        assert_eq!(entries[1].1.at, Some(Position { line: 2, column: 4 }));
    }

    #[test]
    fn an_empty_file_is_an_empty_object() {
        for text in ["", "# nothing\n", "---\n", "{}"] {
            assert_eq!(parse(text).unwrap().value, Value::Map(vec![]), "{text:?}");
        }
    }

    #[test]
    fn errors_say_where() {
        let table = [
            ("a: 1\nb: [1, 2\n", 3),
            ("a: 1\n\tb: 2\n", 1),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: 1\n? [x]\n: 2\n", 2),
            ("a: !custom 1\n", 1),
            ("a: &x [*x]\n", 1),
        ];
        for (text, line) in table {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.at.map(|at| at.line), Some(line), "{text:?}: {problem}");
        }
    }

    #[test]
    fn alias_bombs_and_endless_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let previous = level - 1;
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{previous}"); 10].join(", "));
        }
        assert!(parse(&bomb).unwrap_err().what.contains("values"));
        assert!(parse(&"[".repeat(200)).unwrap_err().what.contains("nested"));
    }
}
