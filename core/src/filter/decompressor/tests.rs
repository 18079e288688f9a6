//! Every library at every cut of its input, what is refused, and what heads say. What becomes of bodies that are wrong is tested
//! with the proxy around it.

use super::*;
use serde_json::{Value, json};
use std::io::Write;

fn library(name: &str) -> Value {
    let kind = match name {
        "gzip" => "gzip.decompressor.v3.Gzip",
        "br" => "brotli.decompressor.v3.Brotli",
        _ => "zstd.decompressor.v3.Zstd",
    };
    json!({"@type": format!("type.googleapis.com/envoy.extensions.compression.{kind}")})
}

fn compressed(name: &str, data: &[u8]) -> Vec<u8> {
    match name {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 18);
            writer.write_all(data).unwrap();
            writer.into_inner()
        }
        _ => zstd::encode_all(data, 3).unwrap(),
    }
}

/// What comes out of these pieces, and whether they may end there.
fn expand(name: &str, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Error> {
    let raw = library(name);
    let kind = raw["@type"].as_str().unwrap().rsplit('/').next().unwrap();
    let mut decoder = Library::parse(&ConfigValue::new(kind, json!({}))).unwrap().start().unwrap();
    let mut all = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            // Little room, so that it is used up.
            let mut out = Vec::with_capacity(64);
            let read = decoder.step(rest, &mut out)?;
            rest = &rest[read..];
            all.extend_from_slice(&out);
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
    }
    Ok((all, decoder.may_end()))
}

const NAMES: [&str; 3] = ["gzip", "br", "zstd"];

fn text() -> Vec<u8> {
    (0..2000_u32).flat_map(|n| (n * n % 977).to_string().into_bytes()).collect()
}

#[test]
fn what_was_compressed_comes_out_at_every_split() {
    for name in NAMES {
        let (text, data) = (text(), compressed(name, &text()));
        for at in (0..=data.len()).step_by(17).chain([data.len()]) {
            let (out, ended) = expand(name, &[&data[..at], &data[at..]]).unwrap();
            assert!(out == text && ended, "{name} at {at}: {} bytes", out.len());
        }
        let each: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(expand(name, &each).unwrap(), (text, true), "{name} byte by byte");
    }
}

#[test]
fn what_is_cut_may_not_end_and_what_is_wrong_is_told() {
    for name in NAMES {
        let data = compressed(name, &text());
        assert_eq!(expand(name, &[]).unwrap(), (Vec::new(), true), "{name}: nothing");
        for at in 1..data.len() {
            let ended = expand(name, &[&data[..at]]).is_ok_and(|(_, ended)| ended);
            assert!(!ended, "{name} cut at {at} of {}", data.len());
        }
        assert!(expand(name, &[b"no such coding, whatever the head says of it"]).is_err(), "{name}");
    }
}

#[test]
fn members_and_frames_follow_each_other_and_nothing_else() {
    for name in ["gzip", "zstd"] {
        let (one, two) = (compressed(name, b"one "), compressed(name, b"two"));
        assert_eq!(expand(name, &[&one, &two]).unwrap(), (b"one two".to_vec(), true));
        assert_eq!(expand(name, &[&[one, two].concat()]).unwrap(), (b"one two".to_vec(), true));
    }
    for name in NAMES {
        let more = [compressed(name, b"one"), b"<html>".to_vec()].concat();
        assert!(expand(name, &[&more]).is_err(), "{name}");
    }
}

fn parse(raw: Value) -> Result<Config, ConfigError> {
    DecompressorFactory::parse(&ConfigValue::new(DecompressorFactory::TYPES[0], raw), Scope::Listener)
}

#[test]
fn fields_have_envoys_defaults_and_what_is_wrong_is_refused_with_its_path() {
    let of = |typed: Value| json!({"decompressor_library": {"name": "g", "typed_config": typed}});
    let config = parse(of(library("gzip"))).unwrap();
    assert!(config.request.enabled && config.response.enabled && config.advertise);
    assert_eq!(config.library.ratio, 100);
    let with = |field: &str, value: Value| {
        let mut typed = library("gzip");
        typed[field] = value;
        of(typed)
    };
    assert_eq!(parse(with("max_inflate_ratio", json!(7))).unwrap().library.ratio, 7);
    let mut off = of(library("br"));
    off["request_direction_config"] =
        json!({"advertise_accept_encoding": false, "common_config": {"enabled": {"default_value": false}}});
    let off = parse(off).unwrap();
    assert!(!off.request.enabled && off.response.enabled && !off.advertise);
    let mut dictionary = library("zstd");
    dictionary["dictionaries"] = json!([]);
    let at = "decompressor_library.typed_config";
    for (raw, path) in [
        (json!({}), String::new()),
        (of(json!({"@type": "x/y"})), at.to_owned()),
        (with("window_bits", json!(8)), format!("{at}.window_bits")),
        (with("max_inflate_ratio", json!(0)), format!("{at}.max_inflate_ratio")),
        (of(dictionary), format!("{at}.dictionaries")),
        (
            json!({"decompressor_library": {"name": "a b", "typed_config": library("gzip")}}),
            "decompressor_library.name".to_owned(),
        ),
    ] {
        assert_eq!(parse(raw.clone()).unwrap_err().path, path, "{raw}");
    }
    let value = ConfigValue::new(DecompressorFactory::TYPES[0], of(library("gzip")));
    assert!(DecompressorFactory::parse(&value, Scope::Route).is_err());
}

#[test]
fn heads_say_what_is_left_and_what_is_wanted() {
    let head = |name: &str, value: &str| {
        let mut headers = Headers::new();
        if !value.is_empty() {
            headers.append(name, value.as_bytes()).unwrap();
        }
        headers
    };
    for (codings, is, left) in [
        ("gzip", true, None),
        ("GZIP ", true, None),
        ("br, gzip", true, Some("br")),
        ("br, deflate,gzip", true, Some("br, deflate")),
        ("gzip, br", false, Some("gzip")),
        ("", false, None),
    ] {
        let mut headers = head("content-encoding", codings);
        assert_eq!(is_coded(&headers, "gzip"), is, "{codings}");
        take_off(&mut headers).unwrap();
        assert_eq!(headers.get("content-encoding"), left.map(str::as_bytes), "{codings}");
    }
    for (accepted, list) in [
        ("", "gzip"),
        ("br", "br,gzip"),
        ("gzip", "gzip"),
        ("gzip;q=0.3, br;q=0.5", "br;q=0.5,gzip"),
        ("gzipped, *", "gzipped,*,gzip"),
    ] {
        let mut headers = head("accept-encoding", accepted);
        advertise(&mut headers, "gzip").unwrap();
        assert_eq!(headers.get("accept-encoding"), Some(list.as_bytes()), "{accepted}");
    }
}
