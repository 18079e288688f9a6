//! Questions and answers as servers write them, and what is refused.

use super::*;
use alloc::string::ToString as _;
use alloc::vec;

fn question(family: Family) -> Question {
    Question { id: 0x1234, name: Name::new("www.Example.org.").unwrap(), family }
}

/// An answer's head with so many records, and the question repeated.
fn answer(flags: [u8; 2], records: u8, question: &Question) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, records, 0, 0, 0, 0];
    question.name.write(&mut out);
    out.extend_from_slice(&question.family.kind().to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out
}

/// A record; `name` in a message's form.
fn record(out: &mut Vec<u8>, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// A pointer to the name of the question.
const ASKED: &[u8] = &[0xc0, 12];

#[test]
fn a_question_is_written_whole() {
    let mut out = Vec::new();
    write_question(&mut out, &question(Family::V6));
    let expected = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x03www\x07example\x03org\0\0\x1c\0\x01\
                     \0\0\x29\x04\xd0\0\0\0\0\0\0";
    assert_eq!(out, expected);
}

#[test]
fn addresses_come_with_the_least_ttl() {
    let asked = question(Family::V4);
    let mut message = answer([0x81, 0x80], 2, &asked);
    record(&mut message, ASKED, 1, 300, &[192, 0, 2, 1]);
    record(&mut message, ASKED, 1, 60, &[192, 0, 2, 2]);
    let read = read_answer(&message, &asked).unwrap();
    assert_eq!((read.code, read.truncated, read.ttl), (Code::NoError, false, 60));
    assert_eq!(read.addresses, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
}

#[test]
fn aliases_are_followed_and_strangers_left_out() {
    let asked = question(Family::V6);
    let mut message = answer([0x81, 0x80], 4, &asked);
    let alias = b"\x04edge\x03cdn\0";
    record(&mut message, ASKED, TYPE_CNAME, 20, alias);
    let at = message.len() - alias.len();
    let to = [0xc0, at as u8];
    record(&mut message, b"\x05other\0", 28, 1, &[9; 16]);
    record(&mut message, &to, 28, 300, &[1; 16]);
    record(&mut message, &to, 1, 300, &[1; 4]);
    let read = read_answer(&message, &asked).unwrap();
    assert_eq!(read.addresses, [IpAddr::from([1u8; 16])]);
    assert_eq!(read.ttl, 20, "the alias may not be believed any longer");
}

#[test]
fn an_alias_of_itself_ends() {
    let asked = question(Family::V4);
    let mut message = answer([0x81, 0x80], 1, &asked);
    record(&mut message, ASKED, TYPE_CNAME, 20, ASKED);
    assert!(read_answer(&message, &asked).unwrap().addresses.is_empty());
}

#[test]
fn codes_and_truncation_are_told() {
    let asked = question(Family::V4);
    for (flags, code, truncated) in [
        ([0x81, 0x80], Code::NoError, false),
        ([0x81, 0x83], Code::NxDomain, false),
        ([0x81, 0x82], Code::Failure(2), false),
        ([0x83, 0x80], Code::NoError, true),
    ] {
        let read = read_answer(&answer(flags, 0, &asked), &asked).unwrap();
        assert_eq!((read.code, read.truncated, read.ttl), (code, truncated, 0));
    }
    let bare = [0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read_answer(&bare, &asked).unwrap().code, Code::Failure(5), "refused without the question");
}

#[test]
fn what_does_not_answer_the_question_is_not_ours() {
    let asked = question(Family::V4);
    let message = answer([0x81, 0x80], 0, &asked);
    let others = [
        Question { id: 1, ..asked.clone() },
        Question { family: Family::V6, ..asked.clone() },
        Question { name: Name::new("www.example.com").unwrap(), ..asked.clone() },
    ];
    for other in others {
        assert_eq!(read_answer(&message, &other), Err(DnsError::NotOurs), "{other:?}");
    }
    let mut query = message.clone();
    query[2] = 0x01;
    assert_eq!(read_answer(&query, &asked), Err(DnsError::NotOurs), "a question is no answer");
}

#[test]
fn every_cut_is_malformed() {
    let asked = question(Family::V4);
    let mut message = answer([0x81, 0x80], 1, &asked);
    record(&mut message, ASKED, 1, 300, &[192, 0, 2, 1]);
    for len in 0..message.len() {
        let read = read_answer(&message[..len], &asked);
        assert!(read.is_err(), "{len} bytes");
    }
}

#[test]
fn pointers_go_backwards_only() {
    let asked = question(Family::V4);
    for name in [&[0xc0, 33][..], &[0xc0, 0xff], &[0x41, b'a', 0]] {
        let mut message = answer([0x81, 0x80], 1, &asked);
        assert_eq!(message.len(), 33, "where the record's name begins");
        record(&mut message, name, 1, 300, &[192, 0, 2, 1]);
        assert_eq!(read_answer(&message, &asked), Err(DnsError::Malformed), "{name:?}");
    }
}

#[test]
fn names_have_limits() {
    assert_eq!(Name::new("A.b.").unwrap().to_string(), "a.b");
    assert_eq!(Name::new("_grpc._tcp.x-1").unwrap().to_string(), "_grpc._tcp.x-1");
    let label = "a".repeat(63);
    let longest = [&*label, &*label, &*label, &label[..61]].join(".");
    assert!(Name::new(&longest).is_ok(), "253 bytes");
    for (text, why) in [
        ("", BadName::EmptyLabel),
        (".", BadName::EmptyLabel),
        ("a..b", BadName::EmptyLabel),
        ("a b", BadName::Byte(b' ')),
        ("\u{e4}", BadName::Byte(0xc3)),
        (&*"a".repeat(64), BadName::LongLabel),
        (&*[&longest, "a"].join("."), BadName::TooLong),
    ] {
        assert_eq!(Name::new(text), Err(why), "{text}");
    }
}

/// Messages with bytes changed, cut and repeated: the invariants hold on each.
#[test]
fn mutated_messages_keep_the_invariants() {
    let asked = question(Family::V4);
    let mut seed = answer([0x81, 0x80], 2, &asked);
    record(&mut seed, ASKED, TYPE_CNAME, 20, b"\x04edge\xc0\x10");
    record(&mut seed, b"\x04edge\xc0\x10", 1, 300, &[192, 0, 2, 1]);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut message = seed.clone();
        message.insert(0, random(256) as u8);
        for _ in 0..random(4) {
            let at = random(message.len());
            message[at] = random(256) as u8;
        }
        message.truncate(message.len() - random(message.len()) * (random(4) / 3));
        fuzz::fuzz_dns(&message);
    }
}
