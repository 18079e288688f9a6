//! The compressor, by what clients and upstreams get, when, and what is counted.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Message, Upstream, field, get, response, route, rules},
};
use corelane::config::{
    Action, ConfigValue, DirectResponse, FilterOverride, HttpConnectionManager, HttpFilter, Route,
};
use serde_json::{Value, json};
use std::io::Read;

rules! {
    a_client_that_wants_it_gets_it_compressed,
    what_a_client_does_not_want_stays_as_it_is,
    what_is_not_worth_it_stays_as_it_is,
    each_piece_is_passed_on_at_once,
    several_compressors_share_by_what_clients_want,
    an_entity_tag_names_other_bytes,
    requests_are_compressed_where_it_is_asked_for,
    routes_turn_it_off_and_change_the_library,
    local_replies_are_compressed_too,
    a_body_that_is_cut_never_looks_complete,
    trailers_follow_a_compressed_body,
}

const NAME: &str = "envoy.filters.http.compressor";
const CHAIN: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
const ROUTE: &str = "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute";

fn library(name: &str) -> Value {
    let kind = match name {
        "gzip" => "gzip.compressor.v3.Gzip",
        "br" => "brotli.compressor.v3.Brotli",
        _ => "zstd.compressor.v3.Zstd",
    };
    let url = format!("type.googleapis.com/envoy.extensions.compression.{kind}");
    json!({"name": "lib", "typed_config": {"@type": url}})
}

fn compressing(name: &str, more: Value) -> HttpFilter {
    let mut config = json!({"compressor_library": library(name), "response_direction_config": {}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    filter(&format!("{NAME}.{name}"), ConfigValue::new(CHAIN, config))
}

/// A body that is worth compressing.
fn long() -> String {
    "the same words again, ".repeat(100)
}

/// Answers every request with `fields` and a long body.
fn saying(lab: &Lab, fields: &'static str) -> Upstream {
    lab.upstream(move |mut wire| async move {
        while wire.try_head().await.is_some() {
            let answer = response(200, &long()).replacen("\r\n", &format!("\r\n{fields}"), 1);
            wire.send(answer).await;
        }
    })
}

async fn proxy(
    lab: &Lab,
    upstream: Upstream,
    filters: Vec<HttpFilter>,
    change: impl FnOnce(&mut HttpConnectionManager),
) {
    lab.http_with(&[upstream.addr], |manager, _| {
        chain(manager, filters);
        change(manager);
    })
    .await;
}

async fn ask(lab: &Lab, path: &str, accept: &str) -> Message {
    let accept = if accept.is_empty() { String::new() } else { format!("accept-encoding: {accept}\r\n") };
    lab.client().await.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{accept}\r\n")).await
}

fn expand(encoding: &str, data: &[u8]) -> std::io::Result<String> {
    let mut out = String::new();
    match encoding {
        "gzip" => flate2::read::GzDecoder::new(data).read_to_string(&mut out)?,
        "br" => brotli::Decompressor::new(data, 4096).read_to_string(&mut out)?,
        _ => zstd::stream::read::Decoder::new(data)?.read_to_string(&mut out)?,
    };
    Ok(out)
}

/// Of gzip's responses.
fn count(lab: &Lab, stat: &str) -> u64 {
    let of_heads = stat.starts_with("header_") || stat == "no_accept_header";
    let direction = if of_heads { "" } else { "response." };
    lab.stat(&format!("http.test.compressor.lib.gzip.{direction}{stat}"))
}

const TEXT: &str = "content-type: text/plain\r\n";

async fn a_client_that_wants_it_gets_it_compressed(lab: Lab) {
    let names = ["gzip", "br", "zstd"];
    proxy(&lab, saying(&lab, TEXT), names.map(|name| compressing(name, json!({}))).into(), |_| {}).await;
    for encoding in names {
        let answer = ask(&lab, "/", encoding).await;
        assert_eq!(answer.field("content-encoding"), Some(encoding));
        assert_eq!((answer.field("content-length"), answer.field("vary")), (None, Some("Accept-Encoding")));
        assert_eq!(expand(encoding, &answer.body).unwrap(), long());
        assert!(answer.body.len() < 200);
    }
    assert_eq!(count(&lab, "compressed"), 1);
    assert_eq!(count(&lab, "total_uncompressed_bytes"), long().len() as u64);
    assert!((20..200).contains(&count(&lab, "total_compressed_bytes")));
    assert_eq!(
        [count(&lab, "header_compressor_used"), count(&lab, "header_compressor_overshadowed")],
        [1, 2]
    );
    let head = "HEAD / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n";
    let mut client = lab.client().await;
    client.send(head).await;
    let head = client.head().await;
    assert_eq!((field(&head, "content-encoding"), field(&head, "vary")), (None, Some("Accept-Encoding")));
}

async fn what_a_client_does_not_want_stays_as_it_is(lab: Lab) {
    proxy(&lab, saying(&lab, TEXT), vec![compressing("gzip", json!({}))], |_| {}).await;
    for (accept, stat) in [
        ("", "no_accept_header"),
        ("br", "header_not_valid"),
        ("gzip;q=0, *", "header_not_valid"),
        ("identity, gzip;q=0.5", "header_identity"),
    ] {
        let before = count(&lab, stat);
        let answer = ask(&lab, "/", accept).await;
        assert_eq!((answer.text(), answer.field("content-encoding")), (&*long(), None), "{accept}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"), "others may get it in another way");
        assert_eq!(count(&lab, stat), before + 1, "{accept}");
    }
    assert_eq!(count(&lab, "not_compressed"), 4);
    assert_eq!(ask(&lab, "/", "*").await.field("content-encoding"), Some("gzip"));
    assert_eq!(count(&lab, "header_wildcard"), 1);
}

async fn what_is_not_worth_it_stays_as_it_is(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let (status, fields, body) = match path.as_str() {
                "/short" => (200, TEXT, "x".repeat(29)),
                "/image" => (200, "content-type: image/png\r\n", long()),
                "/done" => (200, "content-type: text/plain\r\ncontent-encoding: x\r\n", long()),
                "/fixed" => (200, "content-type: text/css\r\ncache-control: a, No-Transform\r\n", long()),
                "/code" => (206, TEXT, long()),
                _ => (200, "content-type: text/html; charset=x\r\nvary: Origin\r\n", "x".repeat(30)),
            };
            wire.send(response(status, &body).replacen("\r\n", &format!("\r\n{fields}"), 1)).await;
        }
    });
    let more = json!({"response_direction_config": {"uncompressible_response_codes": [206]}});
    proxy(&lab, upstream, vec![compressing("gzip", more)], |_| {}).await;
    for path in ["/short", "/image", "/done", "/fixed", "/code"] {
        let answer = ask(&lab, path, "gzip").await;
        assert!(answer.field("content-encoding") != Some("gzip") && answer.field("vary").is_none(), "{path}");
    }
    assert_eq!([count(&lab, "not_compressed"), count(&lab, "content_length_too_small")], [5, 1]);
    let answer = ask(&lab, "/", "gzip").await;
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    assert_eq!(answer.field("vary"), Some("Origin, Accept-Encoding"));
}

async fn each_piece_is_passed_on_at_once(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        // Goes on once the client has seen this much.
        wire.io.sleep(std::time::Duration::from_millis(200)).await;
        wire.send("6\r\n world\r\n0\r\n\r\n").await;
    });
    proxy(&lab, upstream, vec![compressing("gzip", json!({}))], |_| {}).await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    client.head().await;
    let begun = lab.io.now();
    // The chunk's size, and more than the header of gzip.
    let first = client.bytes(20).await.unwrap();
    assert!(lab.io.now() - begun < std::time::Duration::from_millis(150));
    assert!(first.len() == 20);
}

async fn several_compressors_share_by_what_clients_want(lab: Lab) {
    let filters = vec![compressing("gzip", json!({})), compressing("br", json!({"choose_first": true}))];
    proxy(&lab, saying(&lab, TEXT), filters, |_| {}).await;
    for (accept, encoding) in
        [("gzip, br", "br"), ("gzip, br;q=0.9", "gzip"), ("*", "gzip"), ("br;q=0, *", "gzip")]
    {
        let answer = ask(&lab, "/", accept).await;
        assert_eq!(answer.field("content-encoding"), Some(encoding), "{accept}");
        assert_eq!(expand(encoding, &answer.body).unwrap(), long());
    }
}

async fn an_entity_tag_names_other_bytes(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let tag = if head.starts_with("GET /weak") { "W/\"1\"" } else { "\"1\"" };
            let fields = format!("\r\ncontent-type: text/plain\r\netag: {tag}\r\n");
            wire.send(response(200, &long()).replacen("\r\n", &fields, 1)).await;
        }
    });
    let filters = [
        ("gzip", json!({})),
        ("br", json!({"weaken_etag_on_compress": true, "disable_on_etag_header": true})),
        ("zstd", json!({"disable_on_etag_header": true})),
    ];
    let filters =
        filters.map(|(name, config)| compressing(name, json!({"response_direction_config": config})));
    proxy(&lab, upstream, filters.into(), |_| {}).await;
    for (path, accept, encoding, tag) in [
        ("/strong", "gzip", Some("gzip"), None),
        ("/weak", "gzip", Some("gzip"), Some("W/\"1\"")),
        ("/strong", "br", Some("br"), Some("W/\"1\"")),
        ("/strong", "zstd", None, Some("\"1\"")),
    ] {
        let answer = ask(&lab, path, accept).await;
        assert_eq!(
            (answer.field("content-encoding"), answer.field("etag")),
            (encoding, tag),
            "{path} {accept}"
        );
    }
    assert_eq!(lab.stat("http.test.compressor.lib.zstd.not_compressed_etag"), 4);
}

async fn requests_are_compressed_where_it_is_asked_for(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let body = wire.body_of(head.clone()).await.unwrap().body;
            let body = match field(&head, "content-encoding") {
                Some("gzip") => expand("gzip", &body).unwrap(),
                _ => String::from_utf8(body).unwrap(),
            };
            wire.send(response(200, &format!("{head}\r\n\r\n{body}"))).await;
        }
    });
    let more = json!({"request_direction_config": {"common_config": {"enabled": {"default_value": true}}},
        "response_direction_config": {"common_config": {"enabled": {"default_value": false}}}});
    proxy(&lab, upstream, vec![compressing("gzip", more)], |_| {}).await;
    let post = |kind: &str, body: &str| {
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let mut client = lab.client().await;
    let answer = client.ask(&post("application/json", &long())).await;
    assert_eq!(field(answer.text(), "content-encoding"), Some("gzip"));
    assert_eq!(field(answer.text(), "content-length"), None);
    assert!(answer.text().ends_with(&long()));
    for (kind, body) in [("application/json", "short"), ("image/png", &long())] {
        let answer = client.ask(&post(kind, body)).await;
        assert_eq!(field(answer.text(), "content-encoding"), None);
        assert!(answer.text().ends_with(body));
    }
    let stat = |name: &str| lab.stat(&format!("http.test.compressor.lib.gzip.request.{name}"));
    assert_eq!([stat("compressed"), stat("not_compressed"), stat("content_length_too_small")], [1, 2, 1]);
}

async fn routes_turn_it_off_and_change_the_library(lab: Lab) {
    let level = |path: &str, raw: Value| -> Route {
        let about = FilterOverride { config: Some(ConfigValue::new(ROUTE, raw)), disabled: None };
        let mut route = route(path, "up");
        route.per_filter_config.insert(format!("{NAME}.gzip"), about);
        route
    };
    let removes = json!({"response_direction_config": {"remove_accept_encoding_header": true}});
    proxy(&lab, saying(&lab, TEXT), vec![compressing("gzip", removes)], |m| {
        let routes = &mut m.routes.virtual_hosts[0].routes;
        routes.insert(0, level("/off", json!({"disabled": true})));
        routes.insert(0, level("/br", json!({"overrides": {"compressor_library": library("br")}})));
    })
    .await;
    assert_eq!(ask(&lab, "/off", "gzip, br").await.field("content-encoding"), None);
    assert_eq!(ask(&lab, "/br", "gzip;q=0.9, br").await.field("content-encoding"), Some("br"));
    assert_eq!(ask(&lab, "/", "gzip, br").await.field("content-encoding"), Some("gzip"));
    // What an upstream is told of it.
    let told = telling(&lab);
    lab.handle.publish(lab.handle.compile(&Default::default()).unwrap()).await.unwrap();
    let removes = json!({"response_direction_config": {"remove_accept_encoding_header": true}});
    proxy(&lab, told, vec![compressing("gzip", removes)], |m| {
        let keeps =
            json!({"overrides": {"response_direction_config": {"remove_accept_encoding_header": false}}});
        m.routes.virtual_hosts[0].routes.insert(0, level("/keeps", keeps));
    })
    .await;
    let told = |answer: &Message| {
        let text = match answer.field("content-encoding") {
            Some(_) => expand("gzip", &answer.body).unwrap(),
            None => answer.text().to_owned(),
        };
        field(&text, "accept-encoding").map(str::to_owned)
    };
    assert_eq!(told(&ask(&lab, "/keeps", "gzip").await).as_deref(), Some("gzip"));
    assert_eq!(told(&ask(&lab, "/", "gzip").await), None);
}

async fn local_replies_are_compressed_too(lab: Lab) {
    let gone = lab.refusing();
    lab.http_with(&[gone], |manager, _| {
        chain(manager, vec![compressing("gzip", json!({}))]);
        let mut here = route("/here", "up");
        here.action = Action::DirectResponse(DirectResponse { status: 200, body: long().into_bytes() });
        manager.routes.virtual_hosts[0].routes.insert(0, here);
    })
    .await;
    let mut client = lab.client().await;
    for (path, status, text) in [
        ("/here", 200, long()),
        (
            "/",
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure".into(),
        ),
    ] {
        let request = get(path).replace("\r\n\r\n", "\r\naccept-encoding: gzip\r\n\r\n");
        let answer = client.ask(&request).await;
        assert_eq!((answer.status(), answer.field("content-encoding")), (status, Some("gzip")));
        assert_eq!(expand("gzip", &answer.body).unwrap(), text);
    }
    client.send("HEAD /here HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!((field(&head, "content-encoding"), field(&head, "content-length")), (None, Some("2200")));
}

async fn a_body_that_is_cut_never_looks_complete(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\nabc").await;
    });
    proxy(&lab, upstream, vec![compressing("gzip", json!({}))], |_| {}).await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    let (rest, end) = client.rest().await;
    assert!(end.is_err() && !rest.ends_with(b"0\r\n\r\n"));
}

async fn trailers_follow_a_compressed_body(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(
                "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-end: 1\r\n\r\n",
            )
            .await;
        }
    });
    lab.http_with(&[upstream.addr], |manager, cluster| {
        chain(manager, vec![compressing("gzip", json!({}))]);
        (manager.enable_trailers, cluster.enable_trailers) = (true, true);
    })
    .await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    client.head().await;
    let (body, trailers) = client.chunks().await.unwrap();
    assert_eq!((expand("gzip", &body).unwrap().as_str(), trailers.as_str()), ("abc", "x-end: 1\n"));
}
