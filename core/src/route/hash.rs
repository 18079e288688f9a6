//! Hashes of requests: which parts of a request count, and how they become one number. The numbers are Envoy's, so that the
//! same configuration sends the same request the same way in both.

use super::{
    RouteInput,
    matcher::{parameters, query_of},
    pattern::Substitution,
};
use crate::config::{self, ConfigError, HashSource};
use corelane_io::Peer;
use corelane_wire::{Headers, RequestHead};
use std::{
    fmt::{self, Write},
    net::IpAddr,
};

/// The parts of a request's hash, in their order.
#[derive(Clone, Debug)]
pub(crate) struct HashPolicies(Box<[Part]>);

#[derive(Clone, Debug)]
struct Part {
    source: Source,
    terminal: bool,
}

#[derive(Clone, Debug)]
enum Source {
    Authority,
    Method,
    Path,
    Header(String, Option<Substitution>),
    Cookie(Vec<u8>),
    QueryParameter(Vec<u8>),
    ClientIp,
}

impl HashPolicies {
    /// # Errors
    /// What is wrong, with the path beside `hash_policy`.
    pub(crate) fn new(configs: &[config::HashPolicy]) -> Result<HashPolicies, Vec<ConfigError>> {
        let (mut parts, mut problems) = (Vec::new(), Vec::new());
        for (at, config) in configs.iter().enumerate() {
            match Source::new(&config.source) {
                Ok(source) => parts.push(Part { source, terminal: config.terminal }),
                Err(error) => problems.push(error.within(&format!("hash_policy[{at}]"))),
            }
        }
        if problems.is_empty() { Ok(HashPolicies(parts.into())) } else { Err(problems) }
    }

    /// The request's hash, if it has one of the parts.
    pub(crate) fn hash(&self, input: &RouteInput<'_>) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for part in &self.0 {
            if let Some(more) = part.source.hash(input) {
                // Turned, so that two equal parts do not cancel each other out.
                hash = Some(hash.map_or(0, |hash| hash.rotate_left(1)) ^ more);
            }
            if part.terminal && hash.is_some() {
                break;
            }
        }
        hash
    }
}

impl Source {
    fn new(config: &HashSource) -> Result<Source, ConfigError> {
        let required = |field: &str, name: &str| match name.is_empty() {
            true => Err(ConfigError::new(field, "is required")),
            false => Ok(name.as_bytes().to_vec()),
        };
        Ok(match config {
            HashSource::Header { name, rewrite } => {
                let rewrite = rewrite.as_ref().map(|rewrite| {
                    Substitution::new(&rewrite.pattern, &rewrite.substitution).map_err(|(field, what)| {
                        ConfigError::new(format!("header.regex_rewrite.{field}"), what)
                    })
                });
                let rewrite = rewrite.transpose()?;
                match (name.to_ascii_lowercase().as_str(), &rewrite) {
                    (":authority" | "host", None) => Source::Authority,
                    (":path", None) => Source::Path,
                    (":method", None) => Source::Method,
                    (name, _) if Headers::new().append(name, b"").is_ok() => {
                        Source::Header(name.to_owned(), rewrite)
                    }
                    _ => {
                        let what = format!("{name:?} is not the name of a field that can be hashed");
                        return Err(ConfigError::new("header.header_name", what));
                    }
                }
            }
            HashSource::Cookie(name) => Source::Cookie(required("cookie.name", name)?),
            HashSource::QueryParameter(name) => {
                Source::QueryParameter(required("query_parameter.name", name)?)
            }
            HashSource::ClientIp => Source::ClientIp,
        })
    }

    fn hash(&self, input: &RouteInput<'_>) -> Option<u64> {
        let head = input.head;
        match self {
            Source::Authority => (!head.authority().is_empty()).then(|| xxh64(head.authority(), 0)),
            Source::Method => Some(xxh64(head.method_name(), 0)),
            Source::Path => Some(xxh64(head.path(), 0)),
            Source::Header(name, rewrite) => values(head.headers(), name, rewrite.as_ref()),
            Source::Cookie(name) => {
                cookie(head, name).filter(|value| !value.is_empty()).map(|value| xxh64(value, 0))
            }
            Source::QueryParameter(name) => {
                let mut all = parameters(query_of(head.path()));
                all.find(|(parameter, _)| parameter == name).map(|(_, value)| xxh64(value, 0))
            }
            Source::ClientIp => {
                let ip = input.client.or(match &input.conn.peer {
                    Peer::Tcp(addr) => Some(addr.ip()),
                    _ => None,
                });
                ip.map(of_ip)
            }
        }
    }
}

/// Of all values of a field, whatever their order: each is the seed of the next.
fn values(headers: &Headers, name: &str, rewrite: Option<&Substitution>) -> Option<u64> {
    let mut all = headers.all(name).peekable();
    all.peek()?;
    if let Some(rewrite) = rewrite {
        let mut all: Vec<_> = all.map(|value| rewrite.replace(value)).collect();
        all.sort_unstable();
        return Some(all.iter().fold(0, |seed, value| xxh64(value, seed)));
    }
    let first = all.next()?;
    if all.peek().is_none() {
        return Some(xxh64(first, 0));
    }
    let mut all: Vec<_> = all.chain([first]).collect();
    all.sort_unstable();
    Some(all.iter().fold(0, |seed, value| xxh64(value, seed)))
}

/// The first cookie of this name, without the quotes around its value. Space counts for what it is, but before a name.
fn cookie<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let cookies = head.headers().all("cookie").flat_map(|list| list.split(|byte| *byte == b';'));
    let mut pairs = cookies.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (cookie, value) = (&pair[..equals], &pair[equals + 1..]);
        let start = cookie.iter().position(|byte| *byte != b' ')?;
        Some((&cookie[start..], value))
    });
    let value = pairs.find(|(cookie, _)| *cookie == name)?.1;
    Some(match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    })
}

fn of_ip(ip: IpAddr) -> u64 {
    let mut text = Text { bytes: [0; 48], len: 0 };
    // The longest address is shorter than this.
    let _ = write!(text, "{ip}");
    xxh64(&text.bytes[..text.len], 0)
}

/// An address as text, on the stack.
struct Text {
    bytes: [u8; 48],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// XXH64, the hash that Envoy takes for all this.
pub(crate) fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let mut stripes = bytes.chunks_exact(32);
    let mut hash = if bytes.len() < 32 {
        seed.wrapping_add(p5)
    } else {
        let mut lanes =
            [seed.wrapping_add(p1).wrapping_add(p2), seed.wrapping_add(p2), seed, seed.wrapping_sub(p1)];
        for stripe in &mut stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, little(word));
            }
        }
        let turned = lanes.iter().zip([1, 7, 12, 18]).map(|(lane, by)| lane.rotate_left(by));
        let sum = turned.fold(0, u64::wrapping_add);
        lanes.iter().fold(sum, |hash, lane| (hash ^ round(0, *lane)).wrapping_mul(p1).wrapping_add(p4))
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = stripes.remainder().chunks_exact(8);
    for word in &mut words {
        hash = (hash ^ round(0, little(word))).rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
    }
    let mut halves = words.remainder().chunks_exact(4);
    for half in &mut halves {
        hash = (hash ^ little(half).wrapping_mul(p1)).rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
    }
    for byte in halves.remainder() {
        hash = (hash ^ u64::from(*byte).wrapping_mul(p5)).rotate_left(11).wrapping_mul(p1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(p2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(p3);
    hash ^ (hash >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

/// Up to eight bytes as a number, the first the lowest.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{HashPolicy, RegexRewrite},
        conn::ConnMeta,
    };
    use corelane_io::{Config, sim::World};

    #[test]
    fn xxh64_gives_the_published_values() {
        let cases: [(&[u8], u64, u64); 5] = [
            (b"", 0, 0xef46_db37_51d8_e999),
            (b"a", 0, 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0, 0x44bc_2cf5_ad77_0999),
            (b"Nobody inspects the spammish repetition", 0, 0xfbce_a83c_8a37_8bf1),
            (b"", 0x9e37_79b1, 0xac75_fda2_929b_17ef),
        ];
        for (bytes, seed, want) in cases {
            assert_eq!(xxh64(bytes, seed), want, "{bytes:?}");
        }
    }

    fn hash(sources: &[(HashSource, bool)], path: &str, fields: &[(&str, &str)]) -> Option<u64> {
        let policies: Vec<_> = sources
            .iter()
            .map(|(source, terminal)| HashPolicy { source: source.clone(), terminal: *terminal })
            .collect();
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        for (name, value) in fields {
            head.headers_mut().append(*name, value.as_bytes()).unwrap();
        }
        let conn = ConnMeta {
            peer: Peer::Tcp(([127, 0, 0, 1], 1).into()),
            listener: Peer::Tcp(([127, 0, 0, 1], 2).into()),
            accepted: World::new(1).lane(&Config::default()).now(),
            id: 0,
            learnt: None,
        };
        let input = RouteInput { head: &head, conn: &conn, client: None, random: 0 };
        HashPolicies::new(&policies).unwrap().hash(&input)
    }

    fn header(name: &str) -> HashSource {
        HashSource::Header { name: name.into(), rewrite: None }
    }

    #[test]
    fn parts_of_requests_are_hashed() {
        let cookie = |name: &str| HashSource::Cookie(name.into());
        let query = |name: &str| HashSource::QueryParameter(name.into());
        let rewrite = Some(RegexRewrite { pattern: "^(.).*".into(), substitution: r"\1".into() });
        let first = HashSource::Header { name: "x-a".into(), rewrite };
        let is = |source: HashSource, path: &str, fields: &[(&str, &str)], want: Option<&[u8]>| {
            let found = hash(&[(source.clone(), false)], path, fields);
            assert_eq!(found, want.map(|bytes| xxh64(bytes, 0)), "{source:?} {path} {fields:?}");
        };
        is(header("X-A"), "/", &[("x-a", "abc")], Some(b"abc"));
        is(header("x-a"), "/", &[("x-a", "")], Some(b""));
        is(header("x-a"), "/", &[("x-b", "abc")], None);
        is(header(":path"), "/p?q", &[], Some(b"/p?q"));
        is(first, "/", &[("x-a", "abc")], Some(b"a"));
        is(cookie("c"), "/", &[("cookie", "b=1; c=abc; c=2")], Some(b"abc"));
        is(cookie("c"), "/", &[("cookie", "b=1"), ("cookie", "c=\"abc\"")], Some(b"abc"));
        is(cookie("c"), "/", &[("cookie", "c=; c=abc")], None);
        is(cookie("c"), "/", &[("cookie", "c =abc")], None);
        is(cookie("c"), "/", &[("cookie", "c= abc ;")], Some(b" abc "));
        is(cookie("c"), "/", &[("cookie", "c=\"")], Some(b"\""));
        is(query("q"), "/?p=1&q=a%20b&q=2", &[], Some(b"a%20b"));
        is(query("q"), "/?q", &[], Some(b""));
        is(query("q"), "/", &[], None);
        is(HashSource::ClientIp, "/", &[], Some(b"127.0.0.1"));
    }

    #[test]
    fn values_count_in_any_order() {
        let of = |fields: &[(&str, &str)]| hash(&[(header("x"), false)], "/", fields);
        assert_eq!(of(&[("x", "foo"), ("x", "bar")]), Some(xxh64(b"foo", xxh64(b"bar", 0))));
        assert_eq!(of(&[("x", "foo"), ("x", "bar")]), of(&[("x", "bar"), ("x", "foo")]));
        assert_ne!(of(&[("x", "foo"), ("x", "bar")]), of(&[("x", "foo")]));
    }

    #[test]
    fn parts_are_put_together_up_to_a_terminal_one() {
        let fields = [("a", "1"), ("b", "2")];
        let of = |terminal| hash(&[(header("a"), terminal), (header("b"), false)], "/", &fields);
        assert_eq!(of(true), Some(xxh64(b"1", 0)));
        assert_eq!(of(false), Some(xxh64(b"1", 0).rotate_left(1) ^ xxh64(b"2", 0)));
        let absent = hash(&[(header("c"), true), (header("b"), false)], "/", &fields);
        assert_eq!(absent, Some(xxh64(b"2", 0)));
        assert_eq!(hash(&[(header("c"), false)], "/", &fields), None);
    }

    #[test]
    fn what_cannot_be_hashed_is_refused() {
        let bad = |source| {
            let problems = HashPolicies::new(&[HashPolicy { source, terminal: false }]).unwrap_err();
            problems[0].to_string()
        };
        assert!(bad(header("x y")).starts_with("hash_policy[0].header.header_name: "));
        assert!(bad(HashSource::Cookie(String::new())).starts_with("hash_policy[0].cookie.name: "));
        let rewrite = Some(RegexRewrite { pattern: "(".into(), substitution: String::new() });
        let regex = HashSource::Header { name: "x".into(), rewrite };
        assert!(bad(regex).starts_with("hash_policy[0].header.regex_rewrite.pattern.regex: "));
    }
}
