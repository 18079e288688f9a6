//! Whether a node is one that is asked for (`envoy.type.matcher.v3.NodeMatcher`). Pure.

use corelane_proto::envoy::{
    config::core::v3::Node,
    r#type::matcher::v3::{
        DoubleMatcher, NodeMatcher, StringMatcher, StructMatcher, ValueMatcher, double_matcher, list_matcher,
        string_matcher, struct_matcher::path_segment::Segment, value_matcher,
    },
};
use prost_types::{Value, value::Kind};
use regex::RegexBuilder;

/// Whether one of the matchers takes the node; without any, everybody is asked.
///
/// # Errors
/// In words: a matcher that says nothing, is not implemented, or is no regular expression.
pub(super) fn matches(matchers: &[NodeMatcher], node: &Node) -> Result<bool, String> {
    for matcher in matchers {
        if takes(matcher, node)? {
            return Ok(true);
        }
    }
    Ok(matchers.is_empty())
}

/// All that it names must fit.
fn takes(matcher: &NodeMatcher, node: &Node) -> Result<bool, String> {
    if let Some(id) = &matcher.node_id
        && !string(id, &node.id)?
    {
        return Ok(false);
    }
    for metadata in &matcher.node_metadatas {
        if !structure(metadata, node)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn structure(matcher: &StructMatcher, node: &Node) -> Result<bool, String> {
    let Some(wanted) = &matcher.value else { return Err("node_metadatas.value must be set".into()) };
    let mut at = None;
    let mut fields = node.metadata.as_ref();
    for segment in &matcher.path {
        let Some(Segment::Key(key)) = &segment.segment else {
            return Err("node_metadatas.path.key must be set".into());
        };
        at = fields.and_then(|fields| fields.fields.get(key));
        fields = match at.and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(inner)) => Some(inner),
            _ => None,
        };
    }
    if matcher.path.is_empty() {
        return Err("node_metadatas.path must not be empty".into());
    }
    value(wanted, at)
}

fn value(matcher: &ValueMatcher, found: Option<&Value>) -> Result<bool, String> {
    use value_matcher::MatchPattern;
    let found = found.and_then(|value| value.kind.as_ref());
    let Some(pattern) = &matcher.match_pattern else {
        return Err("node_metadatas.value.match_pattern must be set".into());
    };
    Ok(match (pattern, found) {
        (MatchPattern::PresentMatch(wanted), found) => *wanted == found.is_some(),
        (MatchPattern::NullMatch(_), Some(Kind::NullValue(_))) => true,
        (MatchPattern::BoolMatch(wanted), Some(Kind::BoolValue(found))) => wanted == found,
        (MatchPattern::DoubleMatch(wanted), Some(Kind::NumberValue(found))) => number(wanted, *found)?,
        (MatchPattern::StringMatch(wanted), Some(Kind::StringValue(found))) => string(wanted, found)?,
        (MatchPattern::ListMatch(wanted), Some(Kind::ListValue(found))) => {
            let Some(list_matcher::MatchPattern::OneOf(one)) = &wanted.match_pattern else {
                return Err("list_match.one_of must be set".into());
            };
            return any(found.values.iter().map(|found| value(one, Some(found))));
        }
        (MatchPattern::OrMatch(wanted), _) => {
            let found = found.map(|kind| Value { kind: Some(kind.clone()) });
            return any(wanted.value_matchers.iter().map(|one| value(one, found.as_ref())));
        }
        _ => false,
    })
}

fn any(mut outcomes: impl Iterator<Item = Result<bool, String>>) -> Result<bool, String> {
    outcomes.find(|outcome| *outcome != Ok(false)).unwrap_or(Ok(false))
}

fn number(matcher: &DoubleMatcher, found: f64) -> Result<bool, String> {
    match &matcher.match_pattern {
        // Both are written down by somebody, so equal means equal.
        Some(double_matcher::MatchPattern::Exact(wanted)) => Ok(found == *wanted),
        Some(double_matcher::MatchPattern::Range(range)) => Ok(range.start <= found && found < range.end),
        None => Err("double_match.match_pattern must be set".into()),
    }
}

fn string(matcher: &StringMatcher, found: &str) -> Result<bool, String> {
    use string_matcher::MatchPattern;
    let fold = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let text = fold(found);
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => Ok(text == fold(wanted)),
        Some(MatchPattern::Prefix(wanted)) => Ok(text.starts_with(&fold(wanted))),
        Some(MatchPattern::Suffix(wanted)) => Ok(text.ends_with(&fold(wanted))),
        Some(MatchPattern::Contains(wanted)) => Ok(text.contains(&fold(wanted))),
        // The whole text, whatever its case: ignore_case has no effect on it, as in Envoy.
        Some(MatchPattern::SafeRegex(wanted)) => RegexBuilder::new(&format!("^(?:{})$", wanted.regex))
            .build()
            .map(|regex| regex.is_match(found))
            .map_err(|error| format!("safe_regex.regex: {error}")),
        Some(MatchPattern::Custom(_)) => Err("custom is not implemented".into()),
        None => Err("a StringMatcher must have a match_pattern".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message::{decode, json, schema::Schema},
        problem::Path,
    };
    use corelane_proto::envoy::service::status::v3::ClientStatusRequest;

    fn asked(schema: &Schema, matchers: &str) -> Result<bool, String> {
        let node = r#"{"id": "Sidecar~1", "metadata": {"a": {"b": "c", "n": 3}, "list": ["x", true], "none": null}}"#;
        let node = decode::message::<Node>(schema, &json::parse(node).unwrap(), Path::root("")).unwrap();
        let request = json::parse(&format!(r#"{{"node_matchers": {matchers}}}"#)).unwrap();
        let request = decode::message::<ClientStatusRequest>(schema, &request, Path::root("")).unwrap();
        matches(&request.node_matchers, &node)
    }

    #[test]
    fn one_matcher_must_fit_with_all_it_names() {
        let schema = Schema::load();
        let metadata = |path: &str, value: &str| {
            let path: Vec<_> = path.split('.').map(|key| format!(r#"{{"key": "{key}"}}"#)).collect();
            format!(r#"[{{"node_metadatas": [{{"path": [{}], "value": {value}}}]}}]"#, path.join(","))
        };
        let table = [
            ("[]".to_owned(), true),
            ("[{}]".to_owned(), true),
            (r#"[{"node_id": {"exact": "Sidecar~1"}}]"#.to_owned(), true),
            (r#"[{"node_id": {"exact": "sidecar~1"}}]"#.to_owned(), false),
            (r#"[{"node_id": {"exact": "sidecar~1", "ignore_case": true}}]"#.to_owned(), true),
            (r#"[{"node_id": {"prefix": "x"}}, {"node_id": {"prefix": "Side"}}]"#.to_owned(), true),
            (r#"[{"node_id": {"suffix": "~1"}}]"#.to_owned(), true),
            (r#"[{"node_id": {"contains": "car"}}]"#.to_owned(), true),
            (r#"[{"node_id": {"safe_regex": {"regex": "Side.*"}}}]"#.to_owned(), true),
            (r#"[{"node_id": {"safe_regex": {"regex": "Side"}}}]"#.to_owned(), false),
            (metadata("a.b", r#"{"string_match": {"exact": "c"}}"#), true),
            (metadata("a.x", r#"{"string_match": {"exact": "c"}}"#), false),
            (metadata("a.x", r#"{"present_match": false}"#), true),
            (metadata("a.n", r#"{"double_match": {"exact": 3}}"#), true),
            (metadata("a.n", r#"{"double_match": {"range": {"start": 3, "end": 4}}}"#), true),
            (metadata("a.n", r#"{"double_match": {"range": {"start": 1, "end": 3}}}"#), false),
            (metadata("list", r#"{"list_match": {"one_of": {"bool_match": true}}}"#), true),
            (metadata("list", r#"{"list_match": {"one_of": {"string_match": {"exact": "y"}}}}"#), false),
            (metadata("none", r#"{"null_match": {}}"#), true),
            (
                metadata(
                    "a.b",
                    r#"{"or_match": {"value_matchers": [{"bool_match": true}, {"string_match": {"exact": "c"}}]}}"#,
                ),
                true,
            ),
        ];
        for (matchers, expected) in table {
            assert_eq!(asked(&schema, &matchers), Ok(expected), "{matchers}");
        }
        for wrong in [r#"[{"node_id": {}}]"#, r#"[{"node_id": {"safe_regex": {"regex": "("}}}]"#] {
            assert!(asked(&schema, wrong).is_err(), "{wrong}");
        }
    }
}
