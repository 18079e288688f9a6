//! Hellos taken and refused, cut at every byte and into records of every size.

use super::fuzz::{fuzz_client_hello, in_records};
use super::*;
use crate::testing::Random;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

const LIMITS: Limits = Limits { bytes: 16 << 10, records: 128 };

/// What OpenSSL 3.0 sends for `Example.COM` with ALPN, without the zeros of its padding at the end.
const OPENSSL: &str = "\
    1603010200010001fc0303669ac623e4da7e6cb42cbb47a072b11c2a3030a95c69749686b48d1010eb308e2071f4846d\
    029ad12f6444707bf7de1c430ce320a2701f991a09d1ce8a1fab198e0024130213031301c02cc030c02bc02fcca9cca8\
    c024c028c023c027009f009e006b006700ff0100018f00000010000e00000b4578616d706c652e434f4d000b00040300\
    0102000a00160014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f31\
    2e310016000000170000000d002a0028040305030603080708080809080a080b08040805080604010501060103030301\
    0302040205020602002b00050403040303002d00020101003300260024001d0020faca3e3ea13528f9eb7793d8ead8a7\
    53831bb11181df26f1f0d3edb9cb125f24001500d0";

/// What it sends when it may go no further than TLS 1.2, without a name.
const OPENSSL_12: &str = "\
    16030100830100007f03039ea5a8aa764fca4dcb4816081d7735446c171313624e2bf7bf2384148e5f8e66000004c02f\
    00ff01000052000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a0028\
    040305030603080708080809080a080b080408050806040105010601030303010302040205020602";

fn bytes(hex: &str, len: usize) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    let mut bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    bytes.resize(len, 0);
    bytes
}

/// Looks at `bytes`, and checks that every beginning of them is incomplete or answered the same, and that what follows
/// them makes no difference.
#[track_caller]
fn look(bytes: &[u8]) -> Result<Sniffed<'_>, HelloError> {
    let whole = sniff(bytes, &LIMITS);
    let mut answered = false;
    for len in 0..bytes.len() {
        match sniff(&bytes[..len], &LIMITS) {
            Ok(Sniffed::Partial) => assert!(!answered),
            other => {
                assert_eq!(other, whole, "{} cut at {len}", bytes.escape_ascii());
                answered = true;
            }
        }
    }
    if whole != Ok(Sniffed::Partial) {
        for tail in [b"\x16\x03\x01\0\x01\0".as_slice(), b"GET /", &[0xff; 300]] {
            let longer = [bytes, tail].concat();
            assert_eq!(sniff(&longer, &LIMITS), whole, "{}", bytes.escape_ascii());
        }
    }
    whole
}

#[track_caller]
fn taken(bytes: &[u8]) -> ClientHello<'_> {
    let looked = look(bytes);
    let Ok(Sniffed::Hello(hello)) = looked else { panic!("{}: {looked:?}", bytes.escape_ascii()) };
    assert_eq!(hello.wire_len(), bytes.len());
    assert_eq!(sniff(&bytes[..bytes.len() - 1], &LIMITS), Ok(Sniffed::Partial), "the end is at the end");
    hello
}

/// The parts of a hello, which `message` puts together without looking at them.
#[derive(Clone)]
struct Parts {
    session: Vec<u8>,
    cipher_suites: Vec<u8>,
    compression: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Parts {
    fn new(extensions: &[(u16, &[u8])]) -> Parts {
        Parts {
            session: vec![],
            cipher_suites: vec![0x13, 1, 0x1a, 0x1a],
            compression: vec![0],
            extensions: extensions.iter().map(|(kind, content)| (*kind, content.to_vec())).collect(),
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        for (kind, content) in &self.extensions {
            extensions.extend_from_slice(&kind.to_be_bytes());
            extensions.extend_from_slice(&vec16(content));
        }
        let mut message = vec![3, 3];
        message.extend_from_slice(&[7; 32]);
        message.extend_from_slice(&vec8(&self.session));
        message.extend_from_slice(&vec16(&self.cipher_suites));
        message.extend_from_slice(&vec8(&self.compression));
        message.extend_from_slice(&vec16(&extensions));
        message
    }
}

fn vec8(content: &[u8]) -> Vec<u8> {
    [&[u8::try_from(content.len()).unwrap()], content].concat()
}

fn vec16(content: &[u8]) -> Vec<u8> {
    [u16::try_from(content.len()).unwrap().to_be_bytes().as_slice(), content].concat()
}

/// The content of a `server_name` extension with this one name.
fn name(name: &[u8]) -> Vec<u8> {
    vec16(&[&[0], vec16(name).as_slice()].concat())
}

/// Refused for `why` in one record and in many.
#[track_caller]
fn refused(message: &[u8], why: HelloError) {
    for size in [usize::MAX, 100, 7] {
        assert_eq!(look(&in_records(message, size)), Err(why), "{}", message.escape_ascii());
    }
    fuzz_client_hello(&[&[3], message].concat());
}

#[track_caller]
fn extension_refused(kind: u16, content: &[u8], why: HelloError) {
    refused(&Parts::new(&[(0x2a2a, b"x"), (kind, content), (0xff01, b"\0")]).message(), why);
}

#[test]
fn real_hellos_are_read() {
    let received = bytes(OPENSSL, 517);
    let hello = taken(&received);
    assert!(matches!(hello.message.body, Cow::Borrowed(_)), "one record is read in place");
    assert_eq!(hello.server_name(), Some("Example.COM"));
    assert_eq!(hello.server_name_lower().as_deref(), Some("example.com"));
    assert!(hello.alpn().eq([b"h2".as_slice(), b"http/1.1"]));
    assert!(hello.supported_versions().eq([0x0304, 0x0303]));
    assert_eq!((hello.legacy_version(), hello.highest_version()), (0x0303, 0x0304));
    assert_eq!((hello.cipher_suites().count(), hello.cipher_suites().next()), (18, Some(0x1302)));
    assert!(hello.groups().eq([0x1d, 0x17, 0x1e, 0x19, 0x18, 0x100, 0x101, 0x102, 0x103, 0x104]));
    assert_eq!(
        (hello.signature_algorithms().count(), hello.signature_algorithms().last()),
        (20, Some(0x0602))
    );
    assert_eq!(hello.point_formats(), [0, 1, 2]);
    let kinds: Vec<u16> = hello.extensions().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [0, 11, 10, 35, 16, 22, 23, 13, 43, 45, 51, 21]);
    assert!(hello.has_extension(45) && !hello.has_pre_shared_key() && !hello.has_encrypted_hello());

    let received = bytes(OPENSSL_12, 136);
    let hello = taken(&received);
    assert_eq!((hello.server_name(), hello.server_name_lower()), (None, None));
    assert_eq!(hello.alpn().count() + hello.supported_versions().count(), 0);
    assert_eq!(hello.highest_version(), 0x0303);
    assert!(hello.cipher_suites().eq([0xc02f, 0x00ff]));
}

#[test]
fn a_hello_may_come_in_records_of_any_size() {
    let received = bytes(OPENSSL, 517);
    let message = &received[9..];
    let whole = taken(&received);
    for size in 4..=517 {
        let records = in_records(message, size);
        let hello = taken(&records);
        assert_eq!((&hello.message.body, hello.fields), (&whole.message.body, whole.fields), "{size}");
        assert_eq!(hello.server_name(), Some("Example.COM"));
    }
    // The headers themselves may be cut: so small that there are too many.
    for size in 1..4 {
        assert_eq!(look(&in_records(message, size)), Err(HelloError::TooManyRecords), "{size}");
        let many = Limits { records: 1000, ..LIMITS };
        assert!(
            matches!(sniff(&in_records(message, size), &many), Ok(Sniffed::Hello(hello)) if hello.fields == whole.fields)
        );
    }
}

#[test]
fn what_is_not_tls_is_known_early() {
    for (bytes, known_at) in [
        (b"GET / HTTP/1.1\r\n".as_slice(), 1),
        (b"\x80\x2e\x01\x03\x01", 1),
        (b"\x17\x03\x03\0\x05", 1),
        (b"\x15\x03\x01\0\x02\x01\0", 1),
        (b"\x16\x02\0\0\x05\x01", 2),
        (b"\x16\xfe\xff\0\0", 2),
        (b"\x16\x03\x01\x41\0", 4),
        (b"\x16\x03\x01\x40\x01\x01", 5),
        (b"\x16\x03\x01\0\0\x01", 5),
        (b"\x16\x03\x01\0\x05\x02\0", 6),
        (b"\x16\x03\x01\0\x05\0\0", 6),
    ] {
        assert_eq!(look(bytes), Ok(Sniffed::NotTls), "{}", bytes.escape_ascii());
        assert_eq!(sniff(&bytes[..known_at - 1], &LIMITS), Ok(Sniffed::Partial));
        assert_eq!(sniff(&bytes[..known_at], &LIMITS), Ok(Sniffed::NotTls));
    }
    // The minor version of the record is nobody's business.
    for minor in [0, 1, 3, 4, 0xff] {
        let mut received = bytes(OPENSSL, 517);
        received[2] = minor;
        taken(&received);
    }
}

#[test]
fn broken_records_are_refused() {
    use HelloError::*;
    let message = Parts::new(&[]).message();
    let whole = in_records(&message, usize::MAX);
    let pieces = in_records(&message, 20);
    let with = |at: usize, byte: u8| {
        let mut bytes = pieces.clone();
        bytes[at] = byte;
        bytes
    };
    let mut longer = [whole.as_slice(), b"x"].concat();
    longer[4] += 1;
    let mut longer_at_last = [pieces.as_slice(), b"x"].concat();
    longer_at_last[54] += 1;
    for (bytes, why) in [
        (with(25, 20), Record),
        (with(25, 23), Record),
        (with(26, 2), Record),
        (with(28, 0x40), Record),
        (with(29, 0), Record),
        (longer, TrailingData),
        (longer_at_last, TrailingData),
        // A hello shorter than its record says.
        (b"\x16\x03\x01\0\x05\x01\0\0\0".to_vec(), TrailingData),
        (b"\x16\x03\x01\0\x04\x01\0\0\0".to_vec(), Malformed),
    ] {
        assert_eq!(look(&bytes), Err(why), "{}", bytes.escape_ascii());
    }
    assert_eq!(look(&with(29, 21)[..50]), Ok(Sniffed::Partial));
}

#[test]
fn size_and_number_are_bounded() {
    let message = Parts::new(&[(21, &[0; 900])]).message();
    let records = in_records(&message, 100);
    let of = |bytes, records| Limits { bytes, records };
    let (len, count) = (records.len(), message.len().div_ceil(100));
    assert!(matches!(sniff(&records, &of(len, count)), Ok(Sniffed::Hello(_))));
    assert_eq!(sniff(&records, &of(len, count - 1)), Err(HelloError::TooManyRecords));
    assert_eq!(sniff(&records, &of(len - 1, count)), Err(HelloError::TooLarge));
    assert_eq!(sniff(&records[..len - 2], &of(len - 1, count)), Ok(Sniffed::Partial));
    assert_eq!(sniff(&records[..len - 1], &of(len - 1, count)), Err(HelloError::TooLarge));
    // What the message says of its length is enough to know.
    assert_eq!(sniff(&records[..9], &of(message.len() + 4, count)), Ok(Sniffed::Partial));
    assert_eq!(sniff(&records[..9], &of(message.len() + 3, count)), Err(HelloError::TooLarge));
    assert_eq!(look(b"\x16\x03\x01\x40\0\x01\xff\xff\xff"), Err(HelloError::TooLarge));
    for bytes in 0..5 {
        assert_eq!(sniff(&records, &of(bytes, 1)), Err(HelloError::TooLarge));
    }
}

#[test]
fn messages_are_refused() {
    use HelloError::*;
    let good = Parts::new(&[]);
    let end = good.message().len();
    let cut = |len: usize| good.message()[..len].to_vec();
    let longer = [good.message(), vec![0]].concat();
    refused(&longer, Malformed);
    for len in (0..end).filter(|len| *len != end - 2) {
        refused(&cut(len), Malformed);
    }
    taken(&in_records(&cut(end - 2), usize::MAX));
    refused(&Parts { session: vec![1; 33], ..good.clone() }.message(), Malformed);
    taken(&in_records(&Parts { session: vec![1; 32], ..good.clone() }.message(), 60));
    refused(&Parts { cipher_suites: vec![], ..good.clone() }.message(), Malformed);
    refused(&Parts { cipher_suites: vec![0x13, 1, 0x13], ..good.clone() }.message(), Malformed);
    refused(&Parts { compression: vec![], ..good.clone() }.message(), Malformed);
    // The extensions' own lengths.
    let mut message = Parts::new(&[(21, b"abc")]).message();
    let at = message.len() - 4;
    message[at] = 4;
    refused(&message, Malformed);
    message[at] = 2;
    refused(&message, Malformed);
}

#[test]
fn extensions_are_refused() {
    use HelloError::*;
    extension_refused(0x2a2a, b"", RepeatedExtension);
    for kind in [0x0a0a, 51, 0xfe0d, 0xffff] {
        refused(&Parts::new(&[(kind, b""), (22, b""), (kind, b"")]).message(), RepeatedExtension);
    }
    refused(&Parts::new(&[(0, &name(b"a")), (0, &name(b"b"))]).message(), RepeatedExtension);
    extension_refused(41, b"", PreSharedKeyNotLast);
    for (kind, contents) in [
        (
            16,
            &[
                b"".as_slice(),
                b"\0",
                b"\0\0",
                b"\0\x01\0",
                b"\0\x03\x02h2x",
                b"\0\x02\x02h2",
                b"\0\x04\x02h2\0",
                b"\0\x04\x02h2\x01",
            ] as &[&[u8]],
        ),
        (43, &[b"", b"\0", b"\x01\x03", b"\x02\x03\x04\0", b"\x03\x03\x04\x03", b"\x04\x03\x04"]),
        (10, &[b"", b"\0\0", b"\0\x01\0", b"\0\x02\0\x1d\0", b"\0\x04\0\x1d"]),
        (13, &[b"", b"\0\0", b"\0\x01\0", b"\0\x02\x04\x03\0", b"\0\x04\x04\x03"]),
        (11, &[b"", b"\0", b"\x01", b"\x01\0\0"]),
    ] {
        for content in contents {
            extension_refused(kind, content, Extension);
        }
    }
}

#[test]
fn server_names_are_taken_or_refused() {
    let label = [b'a'; 63];
    let longest = [label.as_slice(), b".", &label, b".", &label, b".", &label[..61]].concat();
    for (sent, taken_as) in [
        (b"a".as_slice(), "a"),
        (b"example.org", "example.org"),
        (b"EXAMPLE.org.", "EXAMPLE.org"),
        (b"_a.b-c.1", "_a.b-c.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (&label, str::from_utf8(&label).unwrap()),
        (&longest, str::from_utf8(&longest).unwrap()),
        (&[longest.as_slice(), b"."].concat(), str::from_utf8(&longest).unwrap()),
    ] {
        let records = in_records(&Parts::new(&[(0, &name(sent))]).message(), usize::MAX);
        let hello = taken(&records);
        assert_eq!(hello.server_name(), Some(taken_as));
        let lower = hello.server_name_lower().unwrap();
        assert_eq!(lower, taken_as.to_ascii_lowercase());
        assert_eq!(matches!(lower, Cow::Borrowed(_)), lower == taken_as, "copied only where it must be");
    }
    for bad in [
        b"".as_slice(),
        b".",
        b"..",
        b"a..b",
        b".a",
        b"a..",
        b"a b",
        b"a\0",
        b"a\0.example.org",
        b"a\n",
        b"a:443",
        b"::1",
        b"[::1]",
        b"*.example.org",
        b"a/b",
        b"b\xc3\xbccher.example",
        &[b'a'; 64],
        &[longest.as_slice(), b"a"].concat(),
        &[longest.as_slice(), b"aa"].concat(),
    ] {
        extension_refused(0, &name(bad), HelloError::ServerName);
    }
    let one = [&[0], vec16(b"a").as_slice()].concat();
    let other_type = [&[1], vec16(b"a").as_slice()].concat();
    for list in [
        vec![],
        vec16(b""),
        vec16(&[one.as_slice(), &one].concat()),
        vec16(&[one.as_slice(), &other_type].concat()),
        vec16(&other_type),
        vec16(&[one.as_slice(), b"x"].concat()),
        [vec16(&one).as_slice(), b"x"].concat(),
        vec16(b"\0\0\x02a"),
        vec16(b"\0"),
    ] {
        extension_refused(0, &list, HelloError::ServerName);
    }
}

#[test]
fn what_nobody_knows_is_tolerated() {
    let message = Parts {
        cipher_suites: vec![0x4a, 0x4a, 0x13, 1],
        ..Parts::new(&[
            (0x8a8a, b""),
            (16, b"\0\x06\x02\xca\xca\x02h2"),
            (43, b"\x06\xfa\xfa\x03\x04\x03\x03"),
            (10, b"\0\x04\xda\xda\0\x1d"),
            (0xfe0d, b"grease"),
            (0x1234, b"?"),
            (0xbaba, b"\0"),
            (41, b"psk"),
        ])
    }
    .message();
    let records = in_records(&message, 90);
    let hello = taken(&records);
    assert!(hello.alpn().eq([b"\xca\xca".as_slice(), b"h2"]));
    assert!(hello.supported_versions().eq([0xfafa, 0x0304, 0x0303]));
    assert_eq!(hello.highest_version(), 0x0304, "GREASE is no version");
    assert!(hello.cipher_suites().filter(|suite| !is_grease(*suite)).eq([0x1301]));
    assert!(hello.has_encrypted_hello() && hello.has_pre_shared_key());
    assert_eq!(hello.extensions().nth(5), Some((0x1234, b"?".as_slice())));
    let grease: Vec<String> = (0..=u16::MAX).filter(|n| is_grease(*n)).map(|n| format!("{n:04x}")).collect();
    assert_eq!(
        grease.join(" "),
        "0a0a 1a1a 2a2a 3a3a 4a4a 5a5a 6a6a 7a7a 8a8a 9a9a aaaa baba caca dada eaea fafa"
    );
}

#[test]
fn mutated_hellos_keep_the_invariants() {
    let small = Parts::new(&[
        (0, &name(b"a.example")),
        (16, b"\0\x03\x02h2"),
        (43, b"\x02\x03\x04"),
        (11, b"\x01\0"),
        (41, b""),
    ]);
    let corpus = [
        bytes(OPENSSL, 517),
        bytes(OPENSSL_12, 136),
        in_records(&small.message(), 30),
        // A cut and a message, for the second form.
        [&[9], small.message().as_slice()].concat(),
        [&[40], &bytes(OPENSSL_12, 136)[9..]].concat(),
    ];
    let mut random = Random::new(13);
    for round in 0..3_000 {
        fuzz_client_hello(&random.mutate(&corpus[round % corpus.len()]));
    }
}
