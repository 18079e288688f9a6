//! What Prometheus calls labels: the parts of a statistic's name that say whose it is, taken out of it as Envoy's default tag
//! extraction does. Pure.

/// A name without its tags, and the tags in the order in which Envoy writes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) name: String,
    pub(super) tags: Vec<(&'static str, String)>,
}

/// Roots whose next part is a tag: `cluster.web.upstream_rq_total` is `cluster.upstream_rq_total` of the cluster `web`.
const ROOTS: [(&str, &str); 4] = [
    ("cluster", "envoy_cluster_name"),
    ("http", "envoy_http_conn_manager_prefix"),
    ("tcp", "envoy_tcp_prefix"),
    ("udp", "envoy_udp_prefix"),
];

/// Takes the tags out of `name`. Like Envoy, of a name with dots in it (`cluster.a.b.upstream_rq_total`) only the first part
/// is the tag.
pub(super) fn extract(name: &str) -> Tagged {
    let mut tags = Vec::new();
    let mut name = codes(name, &mut tags);
    if let Some(rest) = name.strip_prefix("listener.") {
        name = format!("listener.{}", listener(rest, &mut tags));
    } else if let Some((before, after)) = name.split_once(".http_local_rate_limit.") {
        tags.push(("envoy_local_http_ratelimit_prefix", before.to_owned()));
        name = format!("http_local_rate_limit.{after}");
    } else if let Some((root, tag)) = ROOTS.iter().find(|(root, _)| first(&name).0 == *root) {
        let (_, rest) = first(&name);
        let (value, rest) = first(rest);
        // With nothing behind it the part is not a resource but the statistic itself.
        if !rest.is_empty() {
            tags.push((tag, value.to_owned()));
            name = format!("{root}.{rest}");
        }
    }
    Tagged { name, tags }
}

/// `.._rq_404` and `.._rq_4xx`: the code, or its class.
fn codes(name: &str, tags: &mut Vec<(&'static str, String)>) -> String {
    let Some((before, code)) = name.rsplit_once('_').filter(|(before, _)| before.ends_with("_rq")) else {
        return name.to_owned();
    };
    let digit = |c: &u8| c.is_ascii_digit();
    match code.as_bytes() {
        [a, b, c] if [a, b, c].into_iter().all(digit) => {
            tags.push(("envoy_response_code", code.to_owned()));
            before.to_owned()
        }
        [class, b'x', b'x'] if digit(class) => {
            tags.push(("envoy_response_code_class", code[..1].to_owned()));
            format!("{before}_xx")
        }
        _ => name.to_owned(),
    }
}

/// What follows `listener.`: an address is a tag, the prefix that a listener was given is not, as in Envoy.
fn listener(rest: &str, tags: &mut Vec<(&'static str, String)>) -> String {
    let is_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '_' | '.' | '[' | ']');
    // The address has dots itself, so it ends where letters of a statistic begin.
    let mut end = 0;
    for (at, _) in rest.match_indices('.') {
        let part = &rest[..at];
        if part.chars().all(is_address) && part.contains('_') {
            end = at;
        }
    }
    if end == 0 {
        return rest.to_owned();
    }
    tags.push(("envoy_listener_address", rest[..end].to_owned()));
    rest[end + 1..].to_owned()
}

/// The part before the first dot, and what follows it.
fn first(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Envoy 1.40 makes of the same names.
    #[test]
    fn tags_are_envoys() {
        let cluster = |name: &str| ("envoy_cluster_name", name.to_owned());
        let table = [
            ("cluster.web.upstream_rq_total", "cluster.upstream_rq_total", vec![cluster("web")]),
            ("cluster.a.b.upstream_rq_total", "cluster.b.upstream_rq_total", vec![cluster("a")]),
            (
                "cluster.web.upstream_rq_404",
                "cluster.upstream_rq",
                vec![("envoy_response_code", "404".into()), cluster("web")],
            ),
            (
                "cluster.web.upstream_rq_5xx",
                "cluster.upstream_rq_xx",
                vec![("envoy_response_code_class", "5".into()), cluster("web")],
            ),
            (
                "http.ingress.http.downstream_rq_2xx",
                "http.http.downstream_rq_xx",
                vec![
                    ("envoy_response_code_class", "2".into()),
                    ("envoy_http_conn_manager_prefix", "ingress".into()),
                ],
            ),
            (
                "listener.127.0.0.1_9851.downstream_cx_total",
                "listener.downstream_cx_total",
                vec![("envoy_listener_address", "127.0.0.1_9851".into())],
            ),
            (
                "listener.[__1]_80.downstream_cx_active",
                "listener.downstream_cx_active",
                vec![("envoy_listener_address", "[__1]_80".into())],
            ),
            ("listener.edge.downstream_cx_total", "listener.edge.downstream_cx_total", vec![]),
            ("tcp.db.idle_timeout", "tcp.idle_timeout", vec![("envoy_tcp_prefix", "db".into())]),
            (
                "api.http_local_rate_limit.ok",
                "http_local_rate_limit.ok",
                vec![("envoy_local_http_ratelimit_prefix", "api".into())],
            ),
            ("server.live", "server.live", vec![]),
            ("cluster.alone", "cluster.alone", vec![]),
        ];
        for (name, rest, tags) in table {
            assert_eq!(extract(name), Tagged { name: rest.into(), tags }, "{name}");
        }
    }
}
