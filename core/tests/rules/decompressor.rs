//! The decompressor, by what clients and upstreams get, and by how bodies end that are not what they say.

use crate::{
    filters::{chain, filter, telling},
    lab::{Lab, Upstream, field, get, response, rules},
};
use corelane::config::{ConfigValue, HttpFilter};
use serde_json::{Value, json};
use std::io::Write;

rules! {
    responses_are_expanded_and_asked_for_compressed,
    what_is_not_of_its_coding_stays_as_it_is,
    requests_are_expanded_for_upstreams,
    a_bomb_ends_and_never_looks_complete,
    a_body_that_is_wrong_or_cut_never_looks_complete,
    lengths_are_told_behind_a_body_where_there_are_trailers,
}

const TYPE: &str = "envoy.extensions.filters.http.decompressor.v3.Decompressor";

fn expanding(name: &str, more: Value) -> HttpFilter {
    let kind = match name {
        "gzip" => "gzip.decompressor.v3.Gzip",
        "br" => "brotli.decompressor.v3.Brotli",
        _ => "zstd.decompressor.v3.Zstd",
    };
    let url = format!("type.googleapis.com/envoy.extensions.compression.{kind}");
    let mut config = json!({"decompressor_library": {"name": "lib", "typed_config": {"@type": url}}});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    filter(&format!("envoy.filters.http.decompressor.{name}"), ConfigValue::new(TYPE, config))
}

fn compressed(name: &str, data: &[u8]) -> Vec<u8> {
    match name {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 18);
            writer.write_all(data).unwrap();
            writer.into_inner()
        }
        _ => zstd::encode_all(data, 3).unwrap(),
    }
}

/// Answers every request with this body, which it says is of these codings, and then the fields of the request.
fn saying(lab: &Lab, fields: String, body: Vec<u8>) -> Upstream {
    lab.upstream(move |mut wire| {
        let (fields, body) = (fields.clone(), body.clone());
        async move {
            while wire.try_head().await.is_some() {
                let length = body.len();
                let head = format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n{fields}\r\n");
                wire.send([head.into_bytes(), body.clone()].concat()).await;
            }
        }
    })
}

async fn proxy(lab: &Lab, upstream: Upstream, filters: Vec<HttpFilter>) {
    lab.http_with(&[upstream.addr], |manager, _| chain(manager, filters)).await;
}

fn count(lab: &Lab, stat: &str) -> u64 {
    lab.stat(&format!("http.test.decompressor.lib.gzip.{stat}"))
}

fn long() -> String {
    (0..20_000).map(|n: u32| format!("{} ", n * n % 9973)).collect()
}

async fn responses_are_expanded_and_asked_for_compressed(lab: Lab) {
    for name in ["gzip", "br", "zstd"] {
        let data = compressed(name, long().as_bytes());
        let length = data.len() as u64;
        let upstream = saying(&lab, format!("content-encoding: {name}\r\n"), data);
        proxy(&lab, upstream, vec![expanding(name, json!({}))]).await;
        let mut client = lab.client().await;
        let answer = client.ask(&get("/")).await;
        assert_eq!((answer.field("content-encoding"), answer.field("content-length")), (None, None));
        assert_eq!(answer.text(), long(), "{name}");
        if name == "gzip" {
            assert_eq!(count(&lab, "response.decompressed"), 1);
            assert_eq!(count(&lab, "response.total_compressed_bytes"), length);
            assert_eq!(count(&lab, "response.total_uncompressed_bytes"), long().len() as u64);
        }
        // A head that only tells of a body stays as it is.
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(field(&client.head().await, "content-encoding"), Some(name));
    }
    let asked = |more: Value, accept: &'static str| (expanding("gzip", more), accept);
    let quiet = json!({"request_direction_config": {"advertise_accept_encoding": false}});
    let off = json!({"response_direction_config": {"common_config": {"enabled": {"default_value": false}}}});
    for ((filter, accept), told) in [
        (asked(json!({}), "br, gzip;q=0.1"), Some("br,gzip")),
        (asked(quiet, "br"), Some("br")),
        (asked(off, "br"), Some("br")),
    ] {
        let upstream = telling(&lab);
        proxy(&lab, upstream, vec![filter]).await;
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: {accept}\r\n\r\n");
        let answer = lab.client().await.ask(&request).await;
        assert_eq!(field(answer.text(), "accept-encoding"), told);
    }
}

async fn what_is_not_of_its_coding_stays_as_it_is(lab: Lab) {
    let data = compressed("gzip", b"abc");
    for (fields, expanded) in [
        ("content-encoding: gzip\r\ncache-control: no-transform\r\n", false),
        ("content-encoding: gzip, br\r\n", false),
        ("", false),
        ("content-encoding: x, gzip\r\n", true),
    ] {
        let upstream = saying(&lab, fields.to_owned(), data.clone());
        proxy(&lab, upstream, vec![expanding("gzip", json!({}))]).await;
        let answer = lab.client().await.ask(&get("/")).await;
        assert_eq!(answer.body == b"abc", expanded, "{fields}");
        assert_eq!(answer.body == data, !expanded, "{fields}");
    }
    assert_eq!(count(&lab, "response.not_decompressed"), 3);
    let ignoring =
        json!({"response_direction_config": {"common_config": {"ignore_no_transform_header": true}}});
    let fields = "content-encoding: gzip\r\ncache-control: no-transform\r\n".to_owned();
    let upstream = saying(&lab, fields, data);
    proxy(&lab, upstream, vec![expanding("gzip", ignoring)]).await;
    assert_eq!(lab.client().await.ask(&get("/")).await.body, b"abc");
}

async fn requests_are_expanded_for_upstreams(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let body = wire.body_of(head.clone()).await.unwrap().body;
            let body = String::from_utf8_lossy(&body).into_owned();
            wire.send(response(200, &format!("{head}\r\n\r\n{body}"))).await;
        }
    });
    proxy(&lab, upstream, vec![expanding("gzip", json!({}))]).await;
    let mut client = lab.client().await;
    for (encoding, expanded) in [("gzip", true), ("deflate", false)] {
        let body = compressed("gzip", b"what was meant");
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n"
        );
        client.send([head.into_bytes(), body].concat()).await;
        let answer = client.message().await;
        let text = answer.text().to_owned();
        assert_eq!(text.ends_with("what was meant"), expanded);
        assert_eq!(field(&text, "content-encoding"), (!expanded).then_some("deflate"));
        assert_eq!(field(&text, "content-length").is_none(), expanded);
    }
    assert_eq!([count(&lab, "request.decompressed"), count(&lab, "request.not_decompressed")], [1, 1]);
}

async fn a_bomb_ends_and_never_looks_complete(lab: Lab) {
    for name in ["gzip", "br", "zstd"] {
        // Some kilobytes that stand for 4 MiB.
        let bomb = compressed(name, &vec![b'a'; 4 << 20]);
        let most = 100 * bomb.len() + (300 << 10);
        let upstream = saying(&lab, format!("content-encoding: {name}\r\n"), bomb);
        proxy(&lab, upstream, vec![expanding(name, json!({}))]).await;
        let mut client = lab.client().await;
        client.send(get("/")).await;
        let (rest, end) = client.rest().await;
        assert!(end.is_err() && !rest.ends_with(b"0\r\n\r\n"), "{name}");
        assert!(rest.len() < most.min(2 << 20), "{name}: {} bytes", rest.len());
    }
}

async fn a_body_that_is_wrong_or_cut_never_looks_complete(lab: Lab) {
    let whole = compressed("gzip", long().as_bytes());
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    for body in [whole[..whole.len() - 3].to_vec(), flipped, b"not at all".to_vec()] {
        let upstream = saying(&lab, "content-encoding: gzip\r\n".into(), body);
        proxy(&lab, upstream, vec![expanding("gzip", json!({}))]).await;
        let mut client = lab.client().await;
        client.send(get("/")).await;
        let (rest, end) = client.rest().await;
        assert!(end.is_err() && !rest.ends_with(b"0\r\n\r\n"));
    }
}

async fn lengths_are_told_behind_a_body_where_there_are_trailers(lab: Lab) {
    let body = compressed("gzip", b"abcabcabcabc");
    let length = body.len();
    let upstream = saying(&lab, "content-encoding: gzip\r\n".into(), body);
    lab.http_with(&[upstream.addr], |manager, cluster| {
        chain(manager, vec![expanding("gzip", json!({}))]);
        (manager.enable_trailers, cluster.enable_trailers) = (true, true);
    })
    .await;
    let mut client = lab.client().await;
    client.send(get("/")).await;
    client.head().await;
    let (body, trailers) = client.chunks().await.unwrap();
    assert_eq!(body, b"abcabcabcabc");
    let told = format!(
        "x-envoy-decompressor-lib-compressed-bytes: {length}\nx-envoy-decompressor-lib-uncompressed-bytes: 12\n"
    );
    assert_eq!(trailers, told);
}
