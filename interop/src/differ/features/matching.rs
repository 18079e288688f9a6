//! What routes match requests by. Pure.

use super::{FIELDS, Feature, Place, string_match};
use serde_json::json;

pub(super) const FEATURES: &[Feature] = &[
    Feature { name: "match.case_sensitive", place: Place::Match, make: |_| json!({"case_sensitive": false}) },
    Feature {
        name: "match.path_separated_prefix",
        place: Place::Match,
        make: |rng| json!({"path_separated_prefix": *rng.pick(&["/a", "/b/c"])}),
    },
    Feature {
        name: "match.safe_regex",
        place: Place::Match,
        make: |rng| json!({"safe_regex": {"regex": *rng.pick(&["/[ab]", "/a/.*", "/(b|c)+", ".*z"])}}),
    },
    Feature {
        name: "match.headers",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": string_match(rng)}]}),
    },
    Feature {
        name: "match.headers.present",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "present_match": rng.chance(50)}]}),
    },
    Feature {
        name: "match.headers.invert",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": string_match(rng), "invert_match": true}]}),
    },
    Feature {
        name: "match.headers.range",
        place: Place::Match,
        make: |rng| json!({"headers": [{"name": *rng.pick(&FIELDS), "range_match": {"start": 40, "end": 43}}]}),
    },
    Feature {
        name: "match.headers.missing_as_empty",
        place: Place::Match,
        make: |rng| {
            json!({"headers": [{"name": *rng.pick(&FIELDS), "string_match": {"exact": "one"}, "invert_match": true,
                "treat_missing_header_as_empty": rng.chance(50)}]})
        },
    },
    Feature {
        name: "match.query_parameters",
        place: Place::Match,
        make: |rng| json!({"query_parameters": [{"name": "q", "string_match": string_match(rng)}]}),
    },
    Feature {
        name: "match.query_parameters.present",
        place: Place::Match,
        make: |rng| json!({"query_parameters": [{"name": "q", "present_match": rng.chance(50)}]}),
    },
];
