//! The codec against the examples of RFC 7541 appendix C, against what must be refused, and against itself.

use super::decode::BadBlock;
use super::*;
use crate::testing::Random;
use alloc::vec::Vec;
use std::{format, string::String, vec};

/// Keeps what comes, as lines, with a mark for fields that are never to be indexed.
#[derive(Default)]
struct Lines(Vec<(String, bool)>);

impl Sink for Lines {
    fn field(&mut self, line: &[u8], name_len: usize, facts: Facts) {
        assert_eq!(&line[name_len..name_len + 2], b": ");
        assert_eq!(&line[line.len() - 2..], b"\r\n");
        let line = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
        self.0.push((line, facts.is_never_indexed()));
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, BadBlock> {
    let mut lines = Lines::default();
    decoder.decode(block, &mut lines)?;
    Ok(lines.0.into_iter().map(|(line, _)| line).collect())
}

fn check(decoder: &mut Decoder, block: &str, fields: &[&str], size: usize) {
    assert_eq!(decoded(decoder, &hex(block)).unwrap(), fields);
    assert_eq!(decoder.sizes().1, size);
}

/// Appendix C.2.
#[test]
fn single_fields_of_the_appendix() {
    for (block, field, never, size) in [
        (
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key: custom-header",
            false,
            55,
        ),
        ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", false, 0),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", true, 0),
        ("82", ":method: GET", false, 0),
    ] {
        let (mut decoder, mut lines) = (Decoder::new(4096), Lines::default());
        decoder.decode(&hex(block), &mut lines).unwrap();
        assert_eq!(lines.0, [(String::from(field), never)]);
        assert_eq!(decoder.sizes().1, size);
    }
}

const REQUESTS: [&[&str]; 3] = [
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"],
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

/// Appendix C.3 and C.4.
#[test]
fn requests_of_the_appendix() {
    for blocks in [
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        for ((block, fields), size) in blocks.iter().zip(REQUESTS).zip([57, 110, 164]) {
            check(&mut decoder, block, fields, size);
        }
    }
}

/// Appendix C.5 and C.6: a table of 256 bytes, in which entries make place for others.
#[test]
fn responses_of_the_appendix() {
    const COOKIE: &str = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let private = [
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:21 GMT",
        "location: https://www.example.com",
    ];
    let responses = [
        vec![":status: 302", private[0], private[1], private[2]],
        vec![":status: 307", private[0], private[1], private[2]],
        vec![
            ":status: 200",
            private[0],
            "date: Mon, 21 Oct 2013 20:13:22 GMT",
            private[2],
            "content-encoding: gzip",
            COOKIE,
        ],
    ];
    for blocks in [
        [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
             3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
             7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
             6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ],
        [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ],
    ] {
        let mut decoder = Decoder::new(4096);
        assert_eq!(decoded(&mut decoder, &hex("3fe101")), Ok(vec![])); // 256
        for ((block, fields), size) in blocks.iter().zip(&responses).zip([222, 222, 215]) {
            check(&mut decoder, block, fields, size);
        }
    }
}

#[test]
fn broken_blocks_are_refused() {
    for block in [
        "80",                  // number zero
        "be",                  // nothing in the table yet
        "ff",                  // a number without its end
        "ffffffffff7f",        // a number over 32 bits
        "7e",                  // a name that is not there
        "40",                  // no name
        "4003 6161",           // a name cut off
        "4001 61",             // no value
        "4001 6105 62",        // a value cut off
        "0085 ffffffffff 00",  // the end of the code in a name
        "0081 00 00",          // filled with zeros
        "82 20",               // a size behind a field
        "3fe21f",              // over the limit: 4097
        "4001 61ffffffffff7f", // a length over 32 bits
    ] {
        assert_eq!(decoded(&mut Decoder::new(4096), &hex(block)), Err(BadBlock), "{block}");
    }
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(4096);
    // 64 bytes, then an entry of 34, then one of 67.
    assert_eq!(decoded(&mut decoder, &hex("3f21 4001 6101 62")).unwrap(), ["a: b"]);
    assert_eq!(decoder.sizes(), (64, 34));
    let mut block = hex("4001 6122");
    block.extend_from_slice(&[b'c'; 34]);
    assert_eq!(decoded(&mut decoder, &block).unwrap(), [format!("a: {}", "c".repeat(34))]);
    assert_eq!(decoder.sizes(), (64, 0));
    assert_eq!(decoded(&mut decoder, &hex("be")), Err(BadBlock));
}

/// RFC 7541 section 4.2 and RFC 9113 section 4.3.1.
#[test]
fn a_smaller_limit_has_to_be_followed_in_the_next_block() {
    let mut decoder = Decoder::new(100);
    // Not acknowledged: 4,096 is right.
    assert_eq!(decoded(&mut decoder, &hex("4001 6101 62")).unwrap(), ["a: b"]);
    decoder.limit(100);
    assert_eq!(decoded(&mut decoder, &hex("82")), Err(BadBlock));
    let mut decoder = Decoder::new(100);
    decoder.limit(100);
    assert_eq!(decoded(&mut decoder, &hex("3f45 82")).unwrap(), [":method: GET"]); // 100
    assert_eq!(decoded(&mut decoder, &hex("3f46")), Err(BadBlock));
    // Down to nothing and up again.
    assert_eq!(decoded(&mut decoder, &hex("20 3f45 82")).unwrap(), [":method: GET"]);
}

fn line(name: &str, value: &str) -> Vec<u8> {
    format!("{name}: {value}\r\n").into_bytes()
}

/// Encodes lines and decodes them again.
fn through(encoder: &mut Encoder, decoder: &mut Decoder, fields: &[(String, String, bool)]) -> usize {
    let mut block = Vec::new();
    encoder.begin(&mut block);
    for (name, value, never) in fields {
        encoder.field(&mut block, &line(name, value), name.len(), *never);
    }
    let mut lines = Lines::default();
    decoder.decode(&block, &mut lines).unwrap();
    let expected: Vec<String> = fields.iter().map(|(name, value, _)| format!("{name}: {value}")).collect();
    assert_eq!(lines.0.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>(), expected);
    for ((_, never), (name, _, wanted)) in lines.0.iter().zip(fields) {
        let secret =
            ["authorization", "proxy-authorization", "cookie", "set-cookie"].contains(&name.as_str());
        assert_eq!(*never, *wanted || secret, "{name}");
    }
    assert_eq!(encoder.sizes().1, decoder.sizes().1, "both tables are the same");
    block.len()
}

#[test]
fn what_comes_again_is_one_byte() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let fields = [("user-agent", "curl/8.9.1"), ("accept", "*/*"), ("x-own", "1")]
        .map(|(name, value)| (name.into(), value.into(), false));
    assert!(through(&mut encoder, &mut decoder, &fields) > 3);
    assert_eq!(through(&mut encoder, &mut decoder, &fields), 3);
    // What is new each time takes no place in the table, its name aside.
    for id in 0..100 {
        let fields =
            [(String::from("x-request-id"), format!("{id}"), false), ("etag".into(), format!("{id}"), false)];
        through(&mut encoder, &mut decoder, &fields);
    }
    assert_eq!(encoder.sizes().0, 4);
    assert_eq!(through(&mut encoder, &mut decoder, &fields), 3);
}

#[test]
fn secrets_are_never_indexed_and_stay_so() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    for (name, never) in [("authorization", false), ("cookie", false), ("set-cookie", false), ("x-key", true)]
    {
        let field = [(name.into(), "Basic Zm9v".into(), never)];
        let first = through(&mut encoder, &mut decoder, &field);
        assert_eq!(through(&mut encoder, &mut decoder, &field), first, "spelt out each time");
    }
    assert_eq!(encoder.sizes(), (0, 0));
    // Even where the same field was put in the table before.
    let mut block = Vec::new();
    encoder.field(&mut block, &line("x-other", "1"), 7, false);
    let indexed = block.len();
    encoder.field(&mut block, &line("x-other", "1"), 7, true);
    assert_eq!(block[indexed] & 0xf0, 0x10);
}

#[test]
fn changes_of_the_size_are_told_smallest_first() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(1 << 16));
    let fields = [(String::from("a"), String::from("b"), false)];
    through(&mut encoder, &mut decoder, &fields);
    encoder.limit(0);
    encoder.limit(1 << 16);
    let mut block = Vec::new();
    encoder.begin(&mut block);
    assert_eq!(block, hex("20 3fe11f"), "nothing, then our own ceiling");
    assert_eq!(decoded(&mut decoder, &block), Ok(vec![]));
    assert_eq!(decoder.sizes(), (4096, 0));
    through(&mut encoder, &mut decoder, &fields);
    encoder.limit(0);
    assert_eq!(through(&mut encoder, &mut decoder, &fields), 1 + 5);
    assert_eq!(through(&mut encoder, &mut decoder, &fields), 5, "told once");
    assert_eq!(encoder.sizes(), (0, 0));
}

#[test]
fn random_heads_are_there_and_back_under_any_sizes() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let ceiling = [0, 60, 300, 4096, 20_000][random.below(5)];
        let (mut encoder, mut decoder) = (Encoder::new(ceiling), Decoder::new(1 << 16));
        for _ in 0..120 {
            if random.below(8) == 0 {
                encoder.limit(random.below(6000));
            }
            let mut fields = Vec::new();
            for _ in 0..random.below(12) {
                let name = *random.pick(&[
                    &"accept",
                    &"x-request-id",
                    &"cookie",
                    &":path",
                    &"content-type",
                    &"x-a",
                    &"x-envoy-attempt-count",
                    &"authorization",
                    &"date",
                ]);
                let value = match random.below(4) {
                    0 => String::new(),
                    1 => format!("v{}", random.below(5)),
                    2 => format!("{:x}", random.number()),
                    _ => "z".repeat(random.below(900)),
                };
                fields.push((String::from(name), value, random.below(9) == 0));
            }
            through(&mut encoder, &mut decoder, &fields);
            // Lines are kept with little around them.
            assert!(encoder.memory() <= 2 * ceiling.min(6000) + 16 * 300 + 600, "{}", encoder.memory());
        }
    }
}

/// The longest work for the fewest bytes: numbers of one large entry.
#[test]
fn a_bomb_costs_no_memory_in_the_decoder() {
    let mut decoder = Decoder::new(4096);
    let mut block = hex("400161");
    integer::write(&mut block, 0, 7, 4000);
    block.resize(block.len() + 4000, b'x');
    block.resize(block.len() + 16_000, 0xbe);
    struct Count(usize);
    impl Sink for Count {
        fn field(&mut self, _: &[u8], _: usize, _: Facts) {
            self.0 += 1;
        }
    }
    let mut count = Count(0);
    decoder.decode(&block, &mut count).unwrap();
    assert_eq!(count.0, 16_001);
    assert!(decoder.memory() < 16 << 10, "{}", decoder.memory());
}

/// Names and values that differ little, and many of them: none drives another out of where it is noted.
#[test]
fn fields_that_look_alike_are_found() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let fields: Vec<_> = (0..40).map(|at| (format!("x-field-{at:02}"), "v".repeat(40), false)).collect();
    through(&mut encoder, &mut decoder, &fields);
    // So are names of fields that are new each time.
    let plain =
        ["x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "grpc-timeout"];
    let ids = |round: usize| plain.map(|name| (name.into(), format!("{round}"), false));
    let first = through(&mut encoder, &mut decoder, &ids(0));
    let entries = encoder.sizes().0;
    assert_eq!(entries, 40 + plain.len());
    for round in 1..20 {
        assert!(through(&mut encoder, &mut decoder, &ids(round)) < first / 2);
    }
    assert_eq!(encoder.sizes().0, entries);
    for shift in 0..40 {
        let mut fields = fields.clone();
        fields.rotate_left(shift);
        assert_eq!(through(&mut encoder, &mut decoder, &fields), 40, "one byte each, in any order");
    }
}

/// Heads that resemble each other, with something new in between: what was noted of one must not be taken for another.
#[test]
fn heads_that_come_again_are_the_same() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (mut encoder, mut decoder) = (Encoder::new([4096, 200][random.below(2)]), Decoder::new(4096));
        for step in 0..300 {
            let mut fields = Vec::new();
            // One of a few clients, each with fields of its own, some of which it leaves out at times.
            let client = random.below(3);
            for field in 0..8 {
                if random.below(20) > 0 {
                    fields.push((format!("x-{field}"), format!("{}", client * field / 4), false));
                }
            }
            match random.below(12) {
                0 => {
                    fields.insert(random.below(fields.len() + 1), ("x-new".into(), format!("{step}"), false))
                }
                1 => fields.insert(random.below(fields.len() + 1), ("etag".into(), format!("{step}"), false)),
                2 => fields.insert(random.below(fields.len() + 1), ("cookie".into(), "a=b".into(), false)),
                3 => encoder.limit([4096, 100][random.below(2)]),
                _ => {}
            }
            through(&mut encoder, &mut decoder, &fields);
        }
        assert!(decoder.memory() < 24 << 10, "{}", decoder.memory());
    }
}
