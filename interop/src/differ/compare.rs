//! What two proxies did with one request, compared field by field. Owns what cannot be alike (dates, random numbers, times),
//! and the list of what differs on purpose, each with its reason.

use super::{message::Message, origin::Received, request::Request};
use flate2::read::GzDecoder;
use std::{collections::BTreeMap, io::Read};

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) got: Got,
    pub(super) received: Vec<Received>,
}

/// What its client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Answer(Message),
    /// The connection ended without a byte.
    Closed,
    /// The connection ended in the middle, or nothing came in time.
    Broken(String),
}

impl Seen {
    fn status(&self) -> u16 {
        match &self.got {
            Got::Answer(message) => status(message),
            _ => 0,
        }
    }

    /// Whether the answer has this field.
    fn answers(&self, field: &str) -> bool {
        matches!(&self.got, Got::Answer(message) if message.fields.iter().any(|(name, _)| name == field))
    }
}

fn status(message: &Message) -> u16 {
    message.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A difference that is meant.
struct Intended {
    why: &'static str,
    /// Whether it explains one line of what was found.
    explains: fn(&Request, &Seen, &Seen, &str) -> bool,
}

/// The list. A case is explained where each of its lines is.
const INTENDED: &[Intended] = &[
    Intended {
        why: "a malformed request is refused by both, each with its own words and fields",
        explains: |request, ours, theirs, _| {
            // A client of gRPC is refused with HTTP's 200.
            let refused = |seen: &Seen| (400..500).contains(&seen.status()) || seen.answers("grpc-status");
            !request.wrong.is_empty() && refused(ours) && refused(theirs) && ours.received.is_empty()
        },
    },
    Intended {
        why: "what is answered by its head alone is answered before its body is read, where Envoy has seen that the body is malformed",
        explains: |request, ours, theirs, _| {
            request.wrong == "bad chunk size" && ours.received.is_empty() && theirs.status() == 400
        },
    },
    Intended {
        why: "what is not HTTP/1.1 to the letter is refused (RFC 9112), where Envoy mends it",
        explains: |request, ours, theirs, _| {
            !request.wrong.is_empty()
                && ours.status() == 400
                && ours.received.is_empty()
                && theirs.status() != 400
        },
    },
    Intended {
        why: "fields that Connection names stay on their hop in responses too (RFC 9110 7.6.1)",
        explains: |_, _, _, line| line == "client x-hop: corelane none, envoy [\"1\"]",
    },
    Intended {
        why: "who sends TE names it in Connection (RFC 9110 10.1.4)",
        explains: |_, _, _, line| line == "upstream connection: corelane [\"te\"], envoy none",
    },
    Intended {
        why: "a reason phrase is passed on as it came (RFC 9112 4), where Envoy writes that of its own table",
        explains: |_, ours, theirs, line| {
            let versions = line.contains("corelane \"HTTP/1.1 ") && line.contains("envoy \"HTTP/1.1 ");
            let passed = !ours.received.is_empty() && ours.status() == theirs.status();
            line.starts_with("client: ") && versions && passed
        },
    },
    Intended {
        why: "a client of HTTP/1.0 is told that this is HTTP/1.1 (RFC 9110 6.2), where Envoy repeats the client's version",
        explains: |_, ours, theirs, line| {
            let versions = line.contains("corelane \"HTTP/1.1 ") && line.contains("envoy \"HTTP/1.0 ");
            line.starts_with("client: ") && versions && ours.status() == theirs.status()
        },
    },
    Intended {
        why: "a client of HTTP/1.0 keeps its connection after HEAD, where Envoy cannot say how its answer is framed and closes",
        explains: |request, _, _, line| {
            request.head && line == "client connection: corelane [\"keep-alive\"], envoy [\"close\"]"
        },
    },
    Intended {
        why: "a keep-alive beside other options keeps a connection of HTTP/1.0 (RFC 9112 9.3), where Envoy closes",
        explains: |request, _, _, line| {
            let asked = String::from_utf8_lossy(&request.bytes).to_ascii_lowercase();
            asked.contains(" http/1.0\r\n")
                && asked.contains("connection: x-hop, keep-alive")
                && line == "client connection: corelane [\"keep-alive\"], envoy [\"close\"]"
        },
    },
    Intended {
        why: "HEAD is told the length that GET would have (RFC 9110 8.6), where Envoy says chunked of an empty answer of its own",
        explains: |request, ours, _, line| {
            let fields = [
                "client content-length: corelane [\"0\"], envoy none",
                "client transfer-encoding: corelane none, envoy [\"chunked\"]",
            ];
            request.head && ours.received.is_empty() && fields.contains(&line)
        },
    },
    Intended {
        why: "HEAD is told the message of gRPC that GET would get (RFC 9110 9.3.2), where Envoy leaves it out",
        explains: |request, _, _, line| {
            request.head
                && line.starts_with("client grpc-message: corelane [")
                && line.ends_with("envoy none")
        },
    },
    Intended {
        why: "OPTIONS without content goes on without a length (RFC 9110 8.6), where Envoy adds one of zero",
        explains: |request, _, _, line| {
            request.bytes.starts_with(b"OPTIONS ")
                && line == "upstream content-length: corelane none, envoy [\"0\"]"
        },
    },
    Intended {
        why: "a health check is answered at once, and its body ends the connection, where Envoy waits for the body",
        explains: |_, ours, _, line| {
            ours.answers("x-envoy-upstream-healthchecked-cluster")
                && line == "client connection: corelane [\"close\"], envoy none"
        },
    },
    Intended {
        why: "what another library compresses is as long as that library finds",
        explains: |_, ours, _, line| {
            let compressed = |received: &Received| {
                received
                    .request
                    .fields
                    .iter()
                    .any(|(name, value)| name == "content-encoding" && value == "gzip")
            };
            ours.received.iter().any(compressed)
                && line.starts_with("upstream content-length: corelane [")
                && !line.ends_with("envoy none")
        },
    },
    Intended {
        why: "what a rewrite made of a path and is no host is refused, where Envoy sends it as the host",
        explains: |_, ours, theirs, _| {
            let host = |request: &Message| {
                request.fields.iter().any(|(name, value)| name == "host" && value.starts_with('/'))
            };
            ours.status() == 400
                && ours.received.is_empty()
                && theirs.received.iter().any(|seen| host(&seen.request))
        },
    },
    Intended {
        why: "the host of a copy stays where it is an address in brackets, of which Envoy makes what is no host",
        explains: |_, _, _, line| {
            line.starts_with("upstream host: corelane [\"[") && line.contains("]-shadow")
        },
    },
    Intended {
        why: "slashes that are merged are one, where Envoy leaves two of a path that has nothing else",
        explains: |_, _, _, line| {
            let (ours, theirs) = (" / HTTP/1.1\", envoy ", " // HTTP/1.1\"");
            line.starts_with("upstream: corelane ") && line.contains(ours) && line.ends_with(theirs)
        },
    },
    Intended {
        why: "a local reply to a request of HTTP/1.0 that is not served tells of the request, where Envoy has forgotten it",
        explains: |_, ours, _, line| {
            let about = ["client content-length: ", "client body: "];
            ours.status() == 426 && is_formatted(ours) && about.iter().any(|start| line.starts_with(start))
        },
    },
    Intended {
        why: "what is refused before it is routed passes no filter and no route, where Envoy's passes both on the way back",
        explains: |_, ours, _, line| {
            let by_them = ["vary", "x-powered-by", "x-added", "x-a", "user-agent", "cache-control"];
            matches!(ours.status(), 307 | 400 | 426)
                && ours.received.is_empty()
                && by_them.iter().any(|name| line.starts_with(&format!("client {name}: corelane none")))
        },
    },
    Intended {
        why: "a client on this machine is told by its address, where Envoy tells the machine's own",
        explains: |_, _, _, line| {
            line.strip_prefix("upstream x-forwarded-for: ").is_some_and(own_address_alone)
        },
    },
];

/// Whether the client got a local reply in the format of the feature `local_reply_config`.
fn is_formatted(seen: &Seen) -> bool {
    let Got::Answer(answer) = &seen.got else { return false };
    answer.fields.iter().any(|(name, value)| name == "content-type" && value.starts_with("application/json"))
}

/// Whether two lists differ alone in how they tell of this machine, for the client or, in a copy, for the proxy.
fn own_address_alone(values: &str) -> bool {
    let Some((ours, theirs)) = values.strip_prefix("corelane ").and_then(|rest| rest.split_once(", envoy "))
    else {
        return false;
    };
    let list = |text: &str| -> Vec<String> {
        text.trim_matches(|c| "[]\"".contains(c)).split(',').map(str::to_owned).collect()
    };
    let (ours, theirs) = (list(ours), list(theirs));
    let own =
        |(a, b): (&String, &String)| a == b || a == "127.0.0.1" && b.parse::<std::net::IpAddr>().is_ok();
    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(own)
}

/// Why a pair differs, where that is known.
pub(super) fn intended(
    request: &Request,
    ours: &Seen,
    theirs: &Seen,
    found: &[String],
) -> Option<&'static str> {
    let reason = |line: &String| INTENDED.iter().find(|known| (known.explains)(request, ours, theirs, line));
    let reasons: Option<Vec<_>> = found.iter().map(reason).collect();
    reasons?.first().map(|known| known.why)
}

/// What a line of differences is about, without its values: `client set-cookie`.
pub(super) fn subject(line: &str) -> &str {
    line.split(": ").next().unwrap_or(line)
}

/// Everything that differs, one line each.
pub(super) fn differences(ours: &Seen, theirs: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    match (&ours.got, &theirs.got) {
        (Got::Answer(a), Got::Answer(b)) => messages("client", a, b, &mut found),
        (Got::Broken(_), Got::Broken(_)) | (Got::Closed, Got::Closed) => {}
        (a, b) => found.push(format!("client: corelane {a:?}, envoy {b:?}")),
    }
    if ours.received.len() != theirs.received.len() {
        let (a, b) = (ours.received.len(), theirs.received.len());
        found.push(format!("upstream requests: corelane {a}, envoy {b}"));
    }
    for (a, b) in ours.received.iter().zip(&theirs.received) {
        if a.origin != b.origin {
            found.push(format!("upstream: corelane origin{}, envoy origin{}", a.origin, b.origin));
        }
        messages("upstream", &a.request, &b.request, &mut found);
    }
    found
}

fn messages(side: &str, ours: &Message, theirs: &Message, found: &mut Vec<String>) {
    if ours.first != theirs.first {
        found.push(format!("{side}: corelane {:?}, envoy {:?}", ours.first, theirs.first));
    }
    let (a, b) = (by_name(ours), by_name(theirs));
    let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if a.get(name) != b.get(name) {
            let show =
                |values: Option<&Vec<String>>| values.map_or("none".into(), |values| format!("{values:?}"));
            found.push(format!("{side} {name}: corelane {}, envoy {}", show(a.get(name)), show(b.get(name))));
        }
    }
    if content(ours) != content(theirs) {
        let text = |body: &[u8]| String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (a, b) = (text(&ours.body), text(&theirs.body));
        let (la, lb) = (ours.body.len(), theirs.body.len());
        found.push(format!("{side} body: corelane {la} bytes {a:?}, envoy {lb} bytes {b:?}"));
    }
}

/// A body without what compressed it: two libraries find two ways to say the same.
fn content(message: &Message) -> Vec<u8> {
    let mut expanded = Vec::new();
    let compressed = message.fields.iter().any(|(name, value)| name == "content-encoding" && value == "gzip");
    match compressed && GzDecoder::new(&*message.body).read_to_end(&mut expanded).is_ok() {
        true => expanded,
        false => message.body.clone(),
    }
}

/// Values by name, with what is different each time put out of sight.
fn by_name(message: &Message) -> BTreeMap<&str, Vec<String>> {
    let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &message.fields {
        let value = match name.as_str() {
            "date" if value != "Thu, 01 Jan 1970 00:00:00 GMT" => "a date".into(),
            "x-request-id" if is_uuid(value) && !value.starts_with("3d3a5f3e") => "a UUID".into(),
            // What is left of it in a later try. Half a second is more than the tries of a case take.
            "x-envoy-expected-rq-timeout-ms" => match value.parse::<u64>() {
                Ok(millis) => format!("{} or a little less", millis.next_multiple_of(500)),
                Err(_) => value.clone(),
            },
            "x-envoy-upstream-service-time" if value.bytes().all(|b| b.is_ascii_digit()) => "a time".into(),
            _ => value.clone(),
        };
        fields.entry(name).or_default().push(value);
    }
    // Several lines are one list (RFC 9110 5.3), which Envoy writes as one line and Corelane leaves as it came.
    for name in ["x-forwarded-for", "accept-encoding", "cache-control"] {
        if let Some(values) = fields.get_mut(name) {
            *values = vec![values.join(",")];
        }
    }
    fields
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(first: &str, fields: &[(&str, &str)]) -> Seen {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let message = Message { first: first.into(), fields, body: Vec::new() };
        Seen { got: Got::Answer(message), received: Vec::new() }
    }

    #[test]
    fn only_the_machines_own_address_may_differ() {
        assert!(own_address_alone("corelane [\"127.0.0.1\"], envoy [\"192.0.2.2\"]"));
        assert!(own_address_alone("corelane [\"10.0.0.1,127.0.0.1\"], envoy [\"10.0.0.1,192.0.2.2\"]"));
        for other in [
            "corelane [\"10.0.0.1,127.0.0.1\"], envoy [\"192.0.2.2\"]",
            "corelane [\"127.0.0.1\"], envoy none",
            "corelane [\"10.0.0.1\"], envoy [\"10.0.0.2\"]",
        ] {
            assert!(!own_address_alone(other), "{other}");
        }
    }

    #[test]
    fn what_differs_is_named_and_what_must_differ_is_not() {
        let a = answer("HTTP/1.1 200 OK", &[("date", "now"), ("x", "1"), ("y", "1")]);
        let b = answer("HTTP/1.1 200 OK", &[("date", "then"), ("x", "1"), ("x", "2")]);
        let found = differences(&a, &b);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("client x: ") && found[1].starts_with("client y: "), "{found:?}");
        assert_eq!(differences(&a, &a), Vec::<String>::new());
        let closed = Seen { got: Got::Closed, received: Vec::new() };
        assert_eq!(differences(&a, &closed).len(), 1);
    }
}
