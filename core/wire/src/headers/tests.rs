//! Fields against a model, their bounds and sizes.

use super::*;
use crate::testing::Random;
use std::format;
use std::string::String;

#[test]
fn names_and_values_are_checked_on_every_way_in() {
    let mut headers = Headers::new();
    for name in ["", "a b", "a:", "a\r\nb", "\u{e9}", "a\0", "(a)"] {
        assert_eq!(headers.append(name, b"v"), Err(BadHeader::Name), "{name:?}");
        assert_eq!(headers.set(name, b"v"), Err(BadHeader::Name), "{name:?}");
        assert_eq!(headers.append_decimal(name, 1), Err(BadHeader::Name), "{name:?}");
    }
    let long = "a".repeat(65_536);
    assert_eq!(headers.append(long.as_str(), b"v"), Err(BadHeader::Name));
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f", "\u{1}"] {
        assert_eq!(headers.append("a", value.as_bytes()), Err(BadHeader::Value), "{value:?}");
        assert_eq!(headers.set(Known::Host, value.as_bytes()), Err(BadHeader::Value), "{value:?}");
    }
    // A name that only looks known once its case bits are set: CR is what a hyphen becomes without one.
    assert_eq!(headers.append(b"x\rrequest\rid".as_slice(), b"v"), Err(BadHeader::Name));
    assert!(headers.is_empty());
    headers.append("a", b" \tb\tc\xff ").unwrap();
    assert_eq!(headers.get("A"), Some(b"b\tc\xff".as_slice()));
}

#[test]
fn a_message_has_a_largest_size() {
    let mut headers = Headers::new();
    let value = std::vec![b'v'; ARENA_MAX / 4];
    for _ in 0..3 {
        headers.set("a", &value).unwrap();
    }
    assert_eq!(headers.set("a", &value), Err(BadHeader::TooLarge));
    assert_eq!((headers.len(), headers.get("a")), (1, Some(value.as_slice())));
    headers.clear();
    assert!(headers.arena.capacity() <= ARENA_KEPT && headers.get("a").is_none());
    headers.set("a", &value).unwrap();
}

#[test]
fn clearing_keeps_memory() {
    let mut headers = Headers::new();
    headers.append("a", b"b").unwrap();
    let (arena, slots) = (headers.arena.capacity(), headers.slots.capacity());
    headers.clear();
    assert_eq!((headers.arena.capacity(), headers.slots.capacity()), (arena, slots));
}

#[test]
fn static_and_decimal_fields() {
    const SERVER: StaticField = StaticField::new("Server", "corelane");
    const DATE: StaticField = StaticField::new("date", "");
    let mut headers = Headers::new();
    headers.append_static(SERVER);
    headers.append_static(DATE);
    headers.append_decimal(Known::XEnvoyUpstreamServiceTime, u64::MAX).unwrap();
    headers.append_decimal("zero", 0).unwrap();
    assert_eq!(headers.get(Known::Server), Some(b"corelane".as_slice()));
    assert_eq!(headers.get("x-envoy-upstream-service-time"), Some(b"18446744073709551615".as_slice()));
    assert_eq!(headers.get("zero"), Some(b"0".as_slice()));
    let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"Server"[..], b"date", b"x-envoy-upstream-service-time", b"zero"]);
}

/// Random operations beside the same on a plain list of pairs.
#[test]
fn operations_match_a_list_of_pairs() {
    const NAMES: [&str; 9] = [
        "host",
        "HOST",
        "x-a",
        "X-A",
        "Content-Length",
        "x-request-id",
        "x-b",
        "connection",
        "x-forwarded-for",
    ];
    let mut random = Random::new(3);
    for _ in 0..if cfg!(miri) { 5 } else { 500 } {
        let (mut headers, mut model): (Headers, Vec<(String, String)>) = Default::default();
        for _ in 0..30 {
            let name = random.pick(&NAMES);
            let same = |pair: &(String, String)| pair.0.eq_ignore_ascii_case(name);
            let value = format!("{}", random.below(100));
            match random.below(4) {
                0 => {
                    headers.append(name, value.as_bytes()).unwrap();
                    model.push((name.into(), value));
                }
                1 => {
                    headers.set(name, value.as_bytes()).unwrap();
                    match model.iter().position(same) {
                        None => model.push((name.into(), value)),
                        Some(first) => {
                            let mut at = 0;
                            model.retain(|pair| {
                                at += 1;
                                !same(pair) || at == first + 1
                            });
                            model[first] = (name.into(), value);
                        }
                    }
                }
                2 => {
                    assert_eq!(headers.remove(name), model.iter().any(same));
                    model.retain(|pair| !same(pair));
                }
                _ => {}
            }
            let expected = model.iter().filter(|pair| same(pair)).map(|pair| pair.1.as_bytes());
            assert!(headers.all(name).eq(expected.clone()));
            assert_eq!(headers.get(name), expected.clone().next());
            assert_eq!(headers.contains(name), expected.clone().next().is_some());
            if let Some(known) = Known::recognise(name.as_bytes()) {
                assert_eq!(headers.has(known), headers.contains(known));
                assert_eq!(headers.get(known), headers.get(name));
            }
            assert_eq!(headers.len(), model.len());
            assert!(headers.iter().eq(model.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))));
            let stays = |name: &str| ["connection", "content-length"].contains(&&*name.to_ascii_lowercase());
            let lines = model.iter().filter(|pair| !stays(&pair.0));
            let mut written = Vec::new();
            headers.write_end_to_end(&mut written, None);
            assert_eq!(written, lines.map(|(n, v)| format!("{n}: {v}\r\n")).collect::<String>().as_bytes());
        }
        let mut copy = Headers::new();
        for (name, value) in headers.iter() {
            copy.append(name.to_ascii_uppercase().as_slice(), value).unwrap();
        }
        assert_eq!(copy, headers);
        copy.append("one-more", b"").unwrap();
        assert_ne!(copy, headers);
    }
}

#[test]
fn fields_are_found_however_many_stand_before_them() {
    for before in [0, 1, 253, 254, 255, 256, 300] {
        let mut headers = Headers::new();
        for n in 0..before {
            headers.append(format!("x-{n}").as_str(), b"other").unwrap();
        }
        headers.append(Known::Server, b"first").unwrap();
        headers.append(Known::Date, b"today").unwrap();
        assert_eq!(headers.sole(Known::Server), Some(b"first".as_slice()));
        headers.append(Known::Server, b"second").unwrap();
        assert_eq!(headers.get(Known::Server), Some(b"first".as_slice()));
        assert_eq!((headers.sole(Known::Server), headers.all(Known::Server).count()), (None, 2));
        assert!(headers.remove("x-0") == (before > 0), "and those behind it move");
        headers.set(Known::Server, b"third").unwrap();
        assert_eq!(headers.sole(Known::Server), Some(b"third".as_slice()));
        assert_eq!(headers.sole(Known::Date), Some(b"today".as_slice()));
        assert!(headers.remove(Known::Server) && !headers.remove(Known::Server));
        assert_eq!(
            (headers.sole(Known::Server), headers.get(Known::Date)),
            (None, Some(b"today".as_slice()))
        );
    }
}

#[test]
fn debug_output_escapes() {
    let mut headers = Headers::new();
    headers.append("a", b"\"").unwrap();
    headers.append("b", b"\xff").unwrap();
    assert_eq!(format!("{headers:?}"), r#"{"a": "\"", "b": "\xff"}"#);
}

#[test]
fn sizes() {
    // One per field, and one per head in every pool.
    assert_eq!((size_of::<Slot>(), size_of::<Headers>()), (16, 104));
}

#[test]
fn a_listed_value_joins_what_is_there_on_one_line() {
    let mut headers = Headers::new();
    headers.append_listed("via", b", ", b"1.1 a").unwrap();
    headers.append("Via", b"1.1 b").unwrap();
    headers.append_listed("via", b", ", b"1.1 c").unwrap();
    assert_eq!(headers.all("via").collect::<Vec<_>>(), [b"1.1 a, 1.1 b, 1.1 c"]);
    assert!(headers.append_listed("via", b", ", b"\n").is_err());
    assert_eq!(headers.get("via"), Some(&b"1.1 a, 1.1 b, 1.1 c"[..]), "nothing has changed");
}
