//! What routes match on, as the file says it in other words.

use corelane::config::{
    Fraction, HeaderMatch, PathMatch, QueryParameterMatch, RouteMatch, StringMatcher, StringPattern,
};

use super::tests::{FILE, manager, translate};

#[test]
fn routes_match_on_more_than_a_path() {
    let matches = |entry: &str| {
        translate(&FILE.replace("{prefix: /api}", entry))
            .map(|translated| manager(&translated).routes.virtual_hosts[0].routes[0].matches.clone())
    };
    assert_eq!(
        matches("{safe_regex: {regex: '/a.*'}}"),
        Ok(RouteMatch::new(PathMatch::Regex("/a.*".into())))
    );
    let full = matches(
        "{prefix: /, runtime_fraction: {default_value: {numerator: 5, denominator: TEN_THOUSAND}}, headers: [ \
         {name: a}, {name: b, present_match: false}, {name: c, range_match: {start: -1, end: 5}}, \
         {name: d, exact_match: x, invert_match: true}, \
         {name: e, string_match: {suffix: end, ignore_case: true}, treat_missing_header_as_empty: true}], \
         query_parameters: [{name: q}, {name: r, string_match: {contains: z}}]}",
    )
    .unwrap();
    assert_eq!(full.fraction, Some(Fraction { numerator: 5, denominator: 10_000 }));
    let kinds: Vec<_> = full.headers.iter().map(|header| header.matches.clone()).collect();
    let text = |pattern, ignore_case| StringMatcher { pattern, ignore_case };
    assert_eq!(
        kinds,
        [
            HeaderMatch::Present(true),
            HeaderMatch::Present(false),
            HeaderMatch::Range(-1, 5),
            HeaderMatch::Text(text(StringPattern::Exact("x".into()), false)),
            HeaderMatch::Text(text(StringPattern::Suffix("end".into()), true)),
        ]
    );
    assert!(full.headers[3].invert && full.headers[4].missing_is_empty);
    let query: Vec<_> = full.query_parameters.iter().map(|parameter| parameter.matches.clone()).collect();
    let contains = QueryParameterMatch::Text(text(StringPattern::Contains("z".into()), false));
    assert_eq!(query, [QueryParameterMatch::Present(true), contains]);
}
