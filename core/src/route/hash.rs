//! Hashes of requests: which parts of a request count, and how they become one number. The numbers are Envoy's, so that the
//! same configuration sends the same request the same way in both.

use super::{
    RouteInput,
    matcher::{parameters, query_of},
    pattern::Substitution,
};
use crate::{
    config::{self, ConfigError, ConnectionHash, HashCookie, HashSource},
    digest::xxh64,
};
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
    Cookie { name: Vec<u8>, made: Option<Made> },
    QueryParameter(Vec<u8>),
    ClientIp,
}

/// How a cookie is made.
#[derive(Clone, Debug)]
struct Made {
    /// What stands before its value.
    before: String,
    /// What stands behind it.
    after: String,
}

/// The cookies that were made for a request, for its response to set.
#[derive(Debug, Default)]
pub(crate) struct MadeCookies(pub(crate) Vec<String>);

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

    /// The request's hash, if it has one of the parts. Where one is a cookie that the client has not and that is to be made, it
    /// is, provided somebody collects what was made.
    pub(crate) fn hash(&self, input: &RouteInput<'_>, mut made: Option<&mut MadeCookies>) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for part in &self.0 {
            if let Some(more) = part.source.hash(input, made.as_deref_mut()) {
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
            HashSource::Cookie(cookie) => {
                Source::Cookie { name: required("cookie.name", &cookie.name)?, made: Made::new(cookie)? }
            }
            HashSource::QueryParameter(name) => {
                Source::QueryParameter(required("query_parameter.name", name)?)
            }
            HashSource::ClientIp => Source::ClientIp,
        })
    }

    fn hash(&self, input: &RouteInput<'_>, cookies: Option<&mut MadeCookies>) -> Option<u64> {
        let head = input.head;
        match self {
            Source::Authority => (!head.authority().is_empty()).then(|| xxh64(head.authority(), 0)),
            Source::Method => Some(xxh64(head.method_name(), 0)),
            Source::Path => Some(xxh64(head.path(), 0)),
            Source::Header(name, rewrite) => values(head.headers(), name, rewrite.as_ref()),
            Source::Cookie { name, made } => match cookie(head, name).filter(|value| !value.is_empty()) {
                Some(value) => Some(xxh64(value, 0)),
                None => Some(made.as_ref()?.cookie(input, cookies?)),
            },
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

impl Made {
    fn new(config: &HashCookie) -> Result<Option<Made>, ConfigError> {
        let Some(ttl) = config.ttl else { return Ok(None) };
        let mut after = String::from("\"");
        let mut attribute = |name: &str, value: &str| {
            let equals = if value.is_empty() { "" } else { "=" };
            // Writing into a string does not fail.
            let _ = write!(after, "; {name}{equals}{value}");
        };
        if ttl.as_secs() > 0 {
            attribute("Max-Age", &ttl.as_secs().to_string());
        }
        if !config.path.is_empty() {
            attribute("Path", &config.path);
        }
        config.attributes.iter().for_each(|(name, value)| attribute(name, value));
        attribute("HttpOnly", "");
        let made = Made { before: format!("{}=\"", config.name), after };
        let whole = [made.before.as_str(), &made.after].concat();
        match Headers::new().append("set-cookie", whole.as_bytes()) {
            Ok(()) => Ok(Some(made)),
            Err(_) => Err(ConfigError::new("cookie", "a cookie made of this cannot be sent in a response")),
        }
    }

    /// Makes the cookie of a connection, the same for all of its requests, and gives the hash of its value.
    #[cold]
    fn cookie(&self, input: &RouteInput<'_>, made: &mut MadeCookies) -> u64 {
        let ends = format!("{}{}", input.conn.peer, input.conn.listener);
        let value = format!("{:016x}", xxh64(ends.as_bytes(), 0));
        made.0.push([&self.before, value.as_str(), &self.after].concat());
        xxh64(value.as_bytes(), 0)
    }
}

/// The hash of a connection, or of a session of datagrams, from `ip`; `None` where that is not known and is what counts.
pub(crate) fn of_connection(hash: &ConnectionHash, ip: Option<IpAddr>) -> Option<u64> {
    match hash {
        ConnectionHash::SourceIp => ip.map(of_ip),
        ConnectionHash::Key(key) => Some(xxh64(key.as_bytes(), 0)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{HashPolicy, RegexRewrite},
        conn::ConnMeta,
    };
    use corelane_io::{Config, sim::World};

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
        HashPolicies::new(&policies).unwrap().hash(&input, None)
    }

    fn header(name: &str) -> HashSource {
        HashSource::Header { name: name.into(), rewrite: None }
    }

    #[test]
    fn parts_of_requests_are_hashed() {
        let cookie = |name: &str| HashSource::Cookie(HashCookie::named(name));
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
        assert!(bad(HashSource::Cookie(HashCookie::default())).starts_with("hash_policy[0].cookie.name: "));
        let rewrite = Some(RegexRewrite { pattern: "(".into(), substitution: String::new() });
        let regex = HashSource::Header { name: "x".into(), rewrite };
        assert!(bad(regex).starts_with("hash_policy[0].header.regex_rewrite.pattern.regex: "));
    }
}
