//! Each kind of matcher by a table, as Envoy documents it.

use super::*;
use crate::{
    config::{HeaderMatch, QueryParameterMatch, StringMatcher},
    conn::ConnMeta,
};
use corelane_io::{Config, Peer, sim::World};

fn request(path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_path(path.as_bytes()).unwrap();
    head.set_authority(b"a.test").unwrap();
    for (name, value) in fields {
        head.headers_mut().append(*name, value.as_bytes()).unwrap();
    }
    head
}

fn takes(config: &RouteMatch, head: &RequestHead, random: u64) -> bool {
    let conn = ConnMeta {
        peer: Peer::Tcp(([127, 0, 0, 1], 1).into()),
        listener: Peer::Tcp(([127, 0, 0, 1], 2).into()),
        accepted: World::new(1).lane(&Config::default()).now(),
        learnt: None,
        id: 0,
    };
    let input = RouteInput { head, conn: &conn, client: None, random };
    Matcher::new(config).unwrap().matches(head.path_without_query(), &input)
}

fn text(pattern: StringPattern, ignore_case: bool) -> StringMatcher {
    StringMatcher { pattern, ignore_case }
}

#[test]
fn paths_match_without_their_query() {
    let cases = [
        (PathMatch::Prefix("/a".into()), true, &["/a", "/ab", "/a?q", "/a/b"][..], &["/A", "/", "/b/a"][..]),
        (PathMatch::Prefix("/A".into()), false, &["/a", "/Ab"], &["/b"]),
        (PathMatch::Path("/a".into()), true, &["/a", "/a?q"], &["/ab", "/A", "/a/"]),
        (PathMatch::Path("/a".into()), false, &["/A?q"], &["/ab"]),
        (PathMatch::SeparatedPrefix("/a".into()), true, &["/a", "/a/", "/a/b", "/a?q"], &["/ab", "/A"]),
        (PathMatch::SeparatedPrefix("/a".into()), false, &["/A/b"], &["/Ab"]),
        (PathMatch::Regex("/a/[0-9]+".into()), true, &["/a/12", "/a/1?q=x"], &["/a/1x", "/a/", "/A/1"]),
        // Case is the expression's own business.
        (PathMatch::Regex("/a".into()), false, &["/a"], &["/A"]),
    ];
    for (path, case_sensitive, good, bad) in cases {
        let config = RouteMatch { case_sensitive, ..RouteMatch::new(path) };
        for (paths, want) in [(good, true), (bad, false)] {
            for path in paths {
                assert_eq!(takes(&config, &request(path, &[]), 0), want, "{:?} {path}", config.path);
            }
        }
    }
}

#[test]
fn texts_match_in_five_ways() {
    use StringPattern::{Contains, Exact, Prefix, Regex, Suffix};
    let cases = [
        (Exact("ab".into()), false, &["ab"][..], &["AB", "abc", ""][..]),
        (Exact("ab".into()), true, &["AB", "ab"], &["abc"]),
        (Exact(String::new()), false, &[""], &["a"]),
        (Prefix("ab".into()), false, &["ab", "abc"], &["ABc", "a", "xab"]),
        (Prefix("ab".into()), true, &["ABc"], &["a"]),
        (Suffix("ab".into()), false, &["ab", "xab"], &["xAB", "abx", "b"]),
        (Suffix("ab".into()), true, &["xAB"], &["abx"]),
        (Contains("ab".into()), false, &["ab", "xaby"], &["xABy", "a", ""]),
        (Contains("ab".into()), true, &["xABy"], &["a b"]),
        (Regex("a.*b".into()), false, &["ab", "axxb"], &["abx", "xab", "AB"]),
        (Regex("a.*b".into()), true, &["ab"], &["AB"]),
    ];
    for (pattern, ignore_case, good, bad) in cases {
        let config = text(pattern, ignore_case);
        let matcher = Text::new(&config).unwrap();
        for (texts, want) in [(good, true), (bad, false)] {
            for text in texts {
                assert_eq!(matcher.matches(text.as_bytes()), want, "{config:?} {text:?}");
            }
        }
    }
}

#[test]
fn headers_match_as_envoy_says() {
    let exact = |value: &str| HeaderMatch::Text(StringMatcher::new(StringPattern::Exact(value.into())));
    let head = request("/p?q", &[("x", "1"), ("list", "a"), ("List", "b"), ("empty", ""), ("n", " -7 ")]);
    // Name, match, inverted, missing is empty: whether it matches.
    let cases = [
        ("x", HeaderMatch::Present(true), false, false, true),
        ("x", HeaderMatch::Present(true), true, false, false),
        ("x", HeaderMatch::Present(false), false, false, false),
        ("none", HeaderMatch::Present(true), false, false, false),
        ("none", HeaderMatch::Present(true), true, false, true),
        ("none", HeaderMatch::Present(false), false, false, true),
        ("empty", HeaderMatch::Present(true), false, false, true),
        ("X", exact("1"), false, false, true),
        ("x", exact("2"), false, false, false),
        ("x", exact("2"), true, false, true),
        ("list", exact("a,b"), false, false, true),
        ("list", exact("a"), false, false, false),
        // One that is not there does not match, inverted or not, unless it counts as empty.
        ("none", exact("2"), false, false, false),
        ("none", exact("2"), true, false, false),
        ("none", exact("2"), true, true, true),
        ("none", exact(""), false, true, true),
        ("x", HeaderMatch::Range(0, 2), false, false, true),
        ("x", HeaderMatch::Range(0, 1), false, false, false),
        ("x", HeaderMatch::Range(0, 1), true, false, true),
        ("n", HeaderMatch::Range(-10, 0), false, false, true),
        ("list", HeaderMatch::Range(0, 9), false, false, false),
        ("none", HeaderMatch::Range(0, 10), true, true, true),
        ("none", HeaderMatch::Range(0, 10), true, false, false),
        (":method", exact("GET"), false, false, true),
        (":path", exact("/p?q"), false, false, true),
        (":authority", exact("a.test"), false, false, true),
        ("host", exact("a.test"), false, false, true),
        (":scheme", exact("http"), false, false, true),
    ];
    for (name, matches, invert, missing_is_empty, want) in cases {
        let config = config::HeaderMatcher { name: name.into(), matches, invert, missing_is_empty };
        let config = RouteMatch { headers: vec![config], ..RouteMatch::prefix("/") };
        assert_eq!(takes(&config, &head, 0), want, "{:?}", config.headers[0]);
    }
}

#[test]
fn query_parameters_match_as_they_are_written() {
    let exact =
        |value: &str| QueryParameterMatch::Text(StringMatcher::new(StringPattern::Exact(value.into())));
    let cases = [
        ("a", QueryParameterMatch::Present(true), "/?a", true),
        ("a", QueryParameterMatch::Present(true), "/?b&a=1", true),
        ("a", QueryParameterMatch::Present(true), "/a", false),
        ("a", QueryParameterMatch::Present(false), "/?b", true),
        ("a", exact("1"), "/?a=1&a=2", true),
        ("a", exact("2"), "/?a=1&a=2", false),
        ("a", exact(""), "/?&&a", true),
        ("a", exact("1=2"), "/?a=1=2", true),
        ("a", exact(" "), "/?a=%20", false),
        ("a", exact(""), "/", false),
    ];
    for (name, matches, path, want) in cases {
        let parameter = config::QueryParameterMatcher { name: name.into(), matches };
        let config = RouteMatch { query_parameters: vec![parameter], ..RouteMatch::prefix("/") };
        assert_eq!(takes(&config, &request(path, &[]), 0), want, "{:?} {path}", config.query_parameters[0]);
    }
}

#[test]
fn a_fraction_takes_its_share() {
    let config = RouteMatch {
        fraction: Some(Fraction { numerator: 25, denominator: 100 }),
        ..RouteMatch::prefix("/")
    };
    let head = request("/", &[]);
    assert_eq!((0..10_000).filter(|random| takes(&config, &head, *random)).count(), 2_500);
}

#[test]
fn every_problem_is_told_with_its_path() {
    let header = |name: &str, pattern| config::HeaderMatcher {
        name: name.into(),
        matches: HeaderMatch::Text(StringMatcher::new(pattern)),
        invert: false,
        missing_is_empty: false,
    };
    let config = RouteMatch {
        headers: vec![
            header("x", StringPattern::Exact("1".into())),
            header(":status", StringPattern::Exact("1".into())),
            header("x", StringPattern::Regex("(".into())),
        ],
        fraction: Some(Fraction { numerator: 1, denominator: 0 }),
        ..RouteMatch::new(PathMatch::Regex("[".into()))
    };
    let problems = Matcher::new(&config).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "safe_regex.regex",
            "headers[1].name",
            "headers[2].string_match.safe_regex.regex",
            "runtime_fraction"
        ]
    );
}
