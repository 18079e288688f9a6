//! What routes and chains say about filters: which configuration reaches which, and what is left out.

use corelane::config::{Action, FilterOverride};

use super::tests::{FILE, manager, translate};

#[test]
fn per_route_configuration_reaches_the_filter_by_name() {
    let router = "'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let wrapper = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let over = |entry: &str| {
        let text = FILE.replace(
            "- match: {prefix: /api}",
            &format!(
                "- match: {{prefix: /api}}\n                typed_per_filter_config: {{a: {{{entry}}}}}"
            ),
        );
        translate(&text).map(|translated| {
            manager(&translated).routes.virtual_hosts[0].routes[0].per_filter_config["a"].clone()
        })
    };
    let bare = over(&format!("{router}, dynamic_stats: true")).unwrap();
    assert_eq!(bare.config.unwrap().value(), &serde_json::json!({"dynamic_stats": true}));
    assert_eq!(
        over(&format!("{wrapper}, disabled: true")),
        Ok(FilterOverride { config: None, disabled: Some(true) })
    );
    let wrapped = over(&format!("{wrapper}, config: {{{router}}}")).unwrap();
    assert_eq!(
        (wrapped.config.unwrap().type_name(), wrapped.disabled),
        ("envoy.extensions.filters.http.router.v3.Router", Some(false))
    );
    let optional = format!("{wrapper}, is_optional: true");
    assert_eq!(over(&optional), Ok(FilterOverride { config: None, disabled: Some(false) }));
    let of = |kind: &str| {
        format!("{optional}, config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{kind}}}")
    };
    assert_eq!(over(&of("cors.v3.CorsPolicy")).unwrap().disabled, Some(false));
    let problems = over(&of("rbac.v3.RBACPerRoute")).unwrap_err();
    assert!(
        problems[0].contains(
            "typed_per_filter_config[\"a\"].config: the filter of type \"envoy.extensions.filters.http.rbac"
        ),
        "{problems:?}"
    );
}

#[test]
fn optional_filters_are_left_out_unless_they_may_decide_who_passes() {
    let chain = |filter: &str| {
        let router = "- name: envoy.filters.http.router";
        let text = FILE.replacen(router, &format!("- {filter}\n          {router}"), 1);
        assert_ne!(text, FILE);
        translate(&text).map(|translated| {
            let names = manager(&translated).filters.iter().map(|filter| filter.name.clone());
            names.collect::<Vec<_>>()
        })
    };
    let of = |kind: &str| {
        format!("{{name: x, is_optional: true, typed_config: {{'@type': type.googleapis.com/{kind}}}}}")
    };
    let http = "envoy.extensions.filters.http.";
    let with = chain(&of(&format!("{http}cors.v3.Cors"))).unwrap();
    assert_eq!(with[0], "x");
    // One whose type has no descriptor can only be spelt.
    let spelt = |kind: &str| of(&format!("xds.type.v3.TypedStruct, type_url: type.googleapis.com/{kind}"));
    for filter in [of(&format!("{http}grpc_stats.v3.FilterConfig")), spelt("stats.PluginConfig")] {
        assert_eq!(chain(&filter).unwrap(), with[1..], "{filter}");
    }
    for filter in [of(&format!("{http}rbac.v3.RBAC")), spelt("acme.Authentication")] {
        let problems = chain(&filter).unwrap_err();
        assert!(problems[0].ends_with("it may decide who passes, and is not left out"), "{problems:?}");
    }
}

#[test]
fn what_limits_go_by_reaches_routes_and_hosts() {
    let actions = "actions: [{remote_address: {}}]";
    let text = FILE.replace(
        "route: {cluster: backend",
        &format!("route: {{rate_limits: [{{stage: 2, {actions}}}], cluster: backend"),
    );
    assert_ne!(text, FILE);
    let translated = translate(&text).unwrap();
    let Action::Forward(forward) = &manager(&translated).routes.virtual_hosts[0].routes[0].action else {
        panic!()
    };
    let limits = forward.rate_limits.as_ref().unwrap();
    let list = &limits.list;
    assert_eq!(list[0].value(), &serde_json::json!({"stage": 2, "actions": [{"remote_address": {}}]}));
    assert!(!limits.include_host);
}
