//! Envoy's command operators in the values of headers (`%REQ(X-ID)%`, `%DOWNSTREAM_REMOTE_ADDRESS%`): parsed once, off-lane,
//! into pieces, and put together for each request. Owns which operators there are; one that is not here is refused.

use super::Cx;
use corelane_io::Peer;
use corelane_wire::{Headers, RequestHead, ResponseHead, Version};
use std::{
    fmt::Display,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A value with operators in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Literal(String),
    /// `%REQ(..)%`.
    Request(Field),
    /// `%REQ(..)%` where the request is gone by then: the value with this number among those that were kept.
    Kept(usize),
    /// `%RESP(..)%`.
    Response(Field),
    Operator(Operator),
}

/// A field of a head: `NAME`, `NAME?ALTERNATIVE`, and `:N`, the bytes of it that are wanted.
#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    name: Name,
    alternative: Option<Name>,
    length: Option<usize>,
}

#[derive(Debug, PartialEq)]
enum Name {
    Method,
    Path,
    /// `:authority` or `host`.
    Authority,
    Scheme,
    Status,
    Header(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Address(Side, Part),
    /// `%PROTOCOL%`: the client's version of HTTP.
    Protocol,
    /// `%REQUESTED_SERVER_NAME%`: what a TLS client asks for, if a listener filter looked.
    ServerName,
    RouteName,
}

/// Whose address.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    /// The client's, as far as trusted proxies tell.
    Remote,
    /// Of whoever is connected.
    DirectRemote,
    /// The one that the client connected to.
    Local,
}

/// What of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    WithoutPort,
    Port,
    /// The network that so many bits of it name.
    Masked(u8),
}

const OPERATORS: [(&str, Operator); 12] = [
    ("DOWNSTREAM_REMOTE_ADDRESS", Operator::Address(Side::Remote, Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Operator::Address(Side::Remote, Part::WithoutPort)),
    ("DOWNSTREAM_REMOTE_PORT", Operator::Address(Side::Remote, Part::Port)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Operator::Address(Side::DirectRemote, Part::Whole)),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Operator::Address(Side::DirectRemote, Part::WithoutPort),
    ),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Operator::Address(Side::DirectRemote, Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Operator::Address(Side::Local, Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Operator::Address(Side::Local, Part::WithoutPort)),
    ("DOWNSTREAM_LOCAL_PORT", Operator::Address(Side::Local, Part::Port)),
    ("PROTOCOL", Operator::Protocol),
    ("REQUESTED_SERVER_NAME", Operator::ServerName),
    ("ROUTE_NAME", Operator::RouteName),
];

/// What a format is filled from. What is not there is empty, as in Envoy's header values.
pub(crate) struct Facts<'a> {
    pub(crate) request: Option<&'a RequestHead>,
    /// What [`Format::parse_late`] asked for, in its order.
    pub(crate) kept: &'a [Vec<u8>],
    pub(crate) response: Option<&'a ResponseHead>,
    pub(crate) cx: &'a Cx,
}

impl Format {
    /// Parses a value that is filled while the request is there.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn parse(text: &str) -> Result<Format, String> {
        Format::parse_pieces(text, &mut |field| Piece::Request(field))
    }

    /// Parses a value that is filled when only the response is there. What it needs of the request is added to `keep`.
    ///
    /// # Errors
    /// As [`Format::parse`].
    pub(crate) fn parse_late(text: &str, keep: &mut Vec<Field>) -> Result<Format, String> {
        Format::parse_pieces(text, &mut |field| {
            keep.push(field);
            Piece::Kept(keep.len() - 1)
        })
    }

    fn parse_pieces(text: &str, request: &mut dyn FnMut(Field) -> Piece) -> Result<Format, String> {
        let pieces = pieces(text, Piece::Literal, |command| command.piece(request))?;
        let good = |piece: &Piece| match piece {
            Piece::Literal(text) => Headers::new().append("x", text.as_bytes()).is_ok(),
            _ => true,
        };
        if !pieces.iter().all(good) {
            return Err("holds characters that a header value may not".into());
        }
        Ok(Format { pieces })
    }

    /// The value, if it is the same for every request.
    pub(crate) fn constant(&self) -> Option<&[u8]> {
        match &self.pieces[..] {
            [] => Some(b""),
            [Piece::Literal(text)] => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Appends the value to `out`.
    pub(crate) fn fill(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Request(field) => {
                    out.extend_from_slice(facts.request.map_or(b"", |head| field.of_request(head)));
                }
                Piece::Kept(at) => out.extend_from_slice(facts.kept.get(*at).map_or(b"", Vec::as_slice)),
                Piece::Response(field) => {
                    if let Some(head) = facts.response {
                        field.in_response(head, out);
                    }
                }
                Piece::Operator(operator) => operator.fill(facts.cx, out),
            }
        }
    }
}

/// The parts of a text, in their order: what `literal` makes of that which stands as it is, and `operator` of its operators.
///
/// # Errors
/// What is no operator, or what `operator` says.
pub(crate) fn pieces<P>(
    text: &str,
    literal: impl Fn(String) -> P,
    mut operator: impl FnMut(&Command<'_>) -> Result<P, String>,
) -> Result<Vec<P>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let command = Command::parse(after)
            .ok_or_else(|| format!("not an operator: %{after:?}; a percent sign is written %%"))?;
        if !plain.is_empty() {
            pieces.push(literal(std::mem::take(&mut plain)));
        }
        pieces.push(operator(&command)?);
        rest = command.rest;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(literal(plain));
    }
    Ok(pieces)
}

/// An operator as it stands in a value.
pub(crate) struct Command<'a> {
    pub(crate) name: &'a str,
    pub(crate) argument: Option<&'a str>,
    pub(crate) length: Option<&'a str>,
    /// What is behind it.
    pub(crate) rest: &'a str,
}

impl<'a> Command<'a> {
    /// Takes `NAME`, `NAME(ARGUMENT)` or `NAME(ARGUMENT):LENGTH` and a percent sign off the front of `text`.
    pub(crate) fn parse(text: &'a str) -> Option<Command<'a>> {
        let in_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let (name, mut rest) = text.split_at(text.find(|c| !in_name(c))?);
        let mut argument = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (inside, behind) = inner.split_once(')')?;
            (argument, rest) = (Some(inside), behind);
        }
        let mut length = None;
        if let Some(digits) = rest.strip_prefix(':') {
            let (number, behind) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit())?);
            (length, rest) = (Some(number), behind);
        }
        let rest = rest.strip_prefix('%')?;
        (!name.is_empty()).then_some(Command { name, argument, length, rest })
    }

    /// The field that `REQ` or `RESP` names, and whether it is the request's; `None` of other operators.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn field(&self) -> Result<Option<(Field, bool)>, String> {
        let Command { name, argument, length, .. } = *self;
        let of_request = match name {
            "REQ" | "REQUEST_HEADER" => true,
            "RESP" | "RESPONSE_HEADER" => false,
            _ => return Ok(None),
        };
        let field = Field::parse(argument.unwrap_or_default(), length, of_request)
            .map_err(|what| format!("%{name}(..)%: {what}"))?;
        Ok(Some((field, of_request)))
    }

    fn piece(&self, request: &mut dyn FnMut(Field) -> Piece) -> Result<Piece, String> {
        let Command { name, argument, length, .. } = *self;
        if let Some((field, of_request)) = self.field()? {
            return Ok(if of_request { request(field) } else { Piece::Response(field) });
        }
        let Some((_, operator)) = OPERATORS.iter().find(|(known, _)| *known == name) else {
            return Err(format!("the operator %{name}% is not implemented"));
        };
        if argument.is_some() || length.is_some() {
            return Err(format!("the operator %{name}% takes no argument and no length"));
        }
        Ok(Piece::Operator(*operator))
    }
}

impl Field {
    pub(crate) fn parse(argument: &str, length: Option<&str>, of_request: bool) -> Result<Field, String> {
        let mut names = argument.split('?').map(|name| Name::parse(name, of_request));
        // Splitting gives one part at least.
        let name = names.next().unwrap_or_else(|| Err("names no header".into()))?;
        let alternative = names.next().transpose()?;
        if names.next().is_some() {
            return Err("there may be one alternative only".into());
        }
        let length = length.map(|digits| digits.parse().map_err(|_| format!("not a length: {digits:?}")));
        Ok(Field { name, alternative, length: length.transpose()? })
    }

    /// The value in a request, cut to its length; empty if there is none.
    pub(crate) fn of_request<'a>(&self, head: &'a RequestHead) -> &'a [u8] {
        self.in_request(head).unwrap_or_default()
    }

    /// The value in a request, cut to its length.
    pub(crate) fn in_request<'a>(&self, head: &'a RequestHead) -> Option<&'a [u8]> {
        let find = |name: &Name| match name {
            Name::Method => Some(head.method_name()),
            Name::Path => Some(head.path()),
            Name::Authority => Some(head.authority()),
            Name::Scheme => head.scheme().map(|scheme| scheme.name().as_bytes()),
            Name::Header(name) => head.headers().get(name.as_str()),
            Name::Status => None,
        };
        let value = find(&self.name).or_else(|| self.alternative.as_ref().and_then(find))?;
        Some(self.cut(value))
    }

    /// Appends the value in a response, cut to its length; false if there is none.
    pub(crate) fn in_response(&self, head: &ResponseHead, out: &mut Vec<u8>) -> bool {
        let digits = head.status().digits();
        let find = |name: &Name| match name {
            Name::Status => Some(&digits[..]),
            Name::Header(name) => head.headers().get(name.as_str()),
            Name::Method | Name::Path | Name::Authority | Name::Scheme => None,
        };
        let Some(value) = find(&self.name).or_else(|| self.alternative.as_ref().and_then(find)) else {
            return false;
        };
        out.extend_from_slice(self.cut(value));
        true
    }

    /// The value among trailer fields, cut to its length.
    pub(crate) fn in_fields<'a>(&self, fields: &'a Headers) -> Option<&'a [u8]> {
        let find = |name: &Name| match name {
            Name::Header(name) => fields.get(name.as_str()),
            _ => None,
        };
        let value = find(&self.name).or_else(|| self.alternative.as_ref().and_then(find))?;
        Some(self.cut(value))
    }

    fn cut<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        &value[..self.length.map_or(value.len(), |length| length.min(value.len()))]
    }
}

impl Name {
    fn parse(name: &str, of_request: bool) -> Result<Name, String> {
        let name = name.to_ascii_lowercase();
        Ok(match (name.as_str(), of_request) {
            (":method", true) => Name::Method,
            (":path", true) => Name::Path,
            (":authority" | "host", true) => Name::Authority,
            (":scheme", true) => Name::Scheme,
            (":status", false) => Name::Status,
            _ if Headers::new().append(name.as_str(), b"").is_ok() => Name::Header(name),
            _ => return Err(format!("not the name of a header: {name:?}")),
        })
    }
}

impl Operator {
    fn fill(self, cx: &Cx, out: &mut Vec<u8>) {
        match self {
            // What an address does not have is empty.
            Operator::Address(Side::Remote, part) => _ = part.fill(&cx.client(), out),
            Operator::Address(Side::DirectRemote, part) => _ = part.fill(cx.conn().direct_peer(), out),
            Operator::Address(Side::Local, part) => _ = cx.local().map(|local| part.fill(&local, out)),
            Operator::Protocol => out.extend_from_slice(match cx.version() {
                Version::Http10 => b"HTTP/1.0",
                Version::Http11 => b"HTTP/1.1",
                Version::Http2 => b"HTTP/2",
            }),
            Operator::ServerName => {
                out.extend_from_slice(cx.conn().server_name().unwrap_or_default().as_bytes())
            }
            Operator::RouteName => out.extend_from_slice(cx.route_name().unwrap_or_default().as_bytes()),
        }
    }
}

impl Part {
    /// Appends this part of an address; false if it has none.
    pub(crate) fn fill(self, address: &Peer, out: &mut Vec<u8>) -> bool {
        let Some(ip) = address.ip() else {
            let named = self != Part::Port;
            if named {
                write_to(out, address);
            }
            return named;
        };
        // An IPv4 client of a socket for both is an IPv4 client.
        let canonical: IpAddr = ip.ip().to_canonical();
        match self {
            Part::Whole => write_to(out, SocketAddr::new(canonical, ip.port())),
            Part::WithoutPort => write_to(out, canonical),
            Part::Port => write_to(out, ip.port()),
            Part::Masked(bits) => write_network(out, canonical, bits),
        }
        true
    }
}

/// `10.1.0.0/16`. More bits than an address has are all of its bits.
fn write_network(out: &mut Vec<u8>, ip: IpAddr, bits: u8) {
    let (all, bytes) = match ip {
        IpAddr::V4(ip) => (32, u128::from(ip.to_bits()) << 96),
        IpAddr::V6(ip) => (128, ip.to_bits()),
    };
    let bits = bits.min(all);
    let network = bytes & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    let network: IpAddr = match ip {
        // The upper 32 bits.
        IpAddr::V4(_) => Ipv4Addr::from_bits((network >> 96) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(network).into(),
    };
    write_to(out, format_args!("{network}/{bits}"));
}

fn write_to(out: &mut Vec<u8>, what: impl Display) {
    // A vector takes whatever it is given.
    let _ = write!(out, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str) -> Name {
        Name::Header(name.into())
    }

    fn field(name: Name, alternative: Option<Name>, length: Option<usize>) -> Field {
        Field { name, alternative, length }
    }

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.into())
    }

    #[test]
    fn values_become_pieces() {
        let request = |name, alternative, length| Piece::Request(field(name, alternative, length));
        let cases = [
            ("", vec![]),
            ("plain", vec![literal("plain")]),
            ("100%%", vec![literal("100%")]),
            ("%%%%", vec![literal("%%")]),
            ("%%REQ(A)%%", vec![literal("%REQ(A)%")]),
            ("%REQ(X-Id)%", vec![request(header("x-id"), None, None)]),
            ("a%REQ(x)%b", vec![literal("a"), request(header("x"), None, None), literal("b")]),
            ("%REQ(X?:Path):7%", vec![request(header("x"), Some(Name::Path), Some(7))]),
            ("%REQ(HOST)%", vec![request(Name::Authority, None, None)]),
            ("%RESP(:STATUS)%", vec![Piece::Response(field(Name::Status, None, None))]),
            ("%PROTOCOL%%%", vec![Piece::Operator(Operator::Protocol), literal("%")]),
            (
                "%DOWNSTREAM_LOCAL_PORT%%ROUTE_NAME%",
                vec![
                    Piece::Operator(Operator::Address(Side::Local, Part::Port)),
                    Piece::Operator(Operator::RouteName),
                ],
            ),
        ];
        for (text, pieces) in cases {
            assert_eq!(Format::parse(text), Ok(Format { pieces }), "{text}");
        }
    }

    #[test]
    fn what_a_late_value_needs_of_the_request_is_kept() {
        let mut keep = vec![field(Name::Method, None, None)];
        let late = Format::parse_late("%REQ(a)%-%REQ(b)%", &mut keep).unwrap();
        assert_eq!(late.pieces, [Piece::Kept(1), literal("-"), Piece::Kept(2)]);
        assert_eq!(keep[1..], [field(header("a"), None, None), field(header("b"), None, None)]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let cases = [
            ("50%", "written %%"),
            ("%", "written %%"),
            ("%req(x)%", "written %%"),
            ("%REQ(x)", "written %%"),
            ("%REQ(x%", "written %%"),
            ("%REQ(x):%", "not a length"),
            ("%REQ(x):99999999999999999999%", "not a length"),
            ("%()%", "written %%"),
            ("%REQ()%", "not the name of a header: \"\""),
            ("%REQ%", "not the name of a header: \"\""),
            ("%REQ(a b)%", "not the name of a header: \"a b\""),
            ("%REQ(a?b?c)%", "one alternative only"),
            ("%REQ(:status)%", "not the name of a header: \":status\""),
            ("%RESP(:path)%", "not the name of a header: \":path\""),
            ("%PROTOCOL(x)%", "takes no argument"),
            ("%PROTOCOL:3%", "takes no argument"),
            ("%START_TIME%", "%START_TIME% is not implemented"),
            ("%DYNAMIC_METADATA(a:b)%", "%DYNAMIC_METADATA% is not implemented"),
            ("a\r\nb: c", "characters that a header value may not"),
        ];
        for (text, what) in cases {
            let error = Format::parse(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn fields_are_found_and_cut() {
        let mut head = RequestHead::new();
        head.set_path(b"/a?b").unwrap();
        head.set_authority(b"a.test:80").unwrap();
        head.headers_mut().append("x", b"first").unwrap();
        head.headers_mut().append("x", b"second").unwrap();
        head.headers_mut().append("empty", b"").unwrap();
        let of = |text: &str| {
            let mut keep = Vec::new();
            Format::parse_late(text, &mut keep).unwrap();
            String::from_utf8(keep[0].of_request(&head).to_vec()).unwrap()
        };
        assert_eq!(of("%REQ(:path)%"), "/a?b");
        assert_eq!(of("%REQ(:METHOD)%"), "GET");
        assert_eq!(of("%REQ(:authority):6%"), "a.test");
        assert_eq!(of("%REQ(X)%"), "first");
        assert_eq!(of("%REQ(none?x):2%"), "fi");
        assert_eq!(of("%REQ(none?:path)%"), "/a?b");
        assert_eq!(of("%REQ(empty?x)%"), "", "it is there");
        assert_eq!(of("%REQ(none)%"), "");
    }

    #[test]
    fn addresses_are_written_in_parts() {
        let cases = [
            ("192.0.2.1:80", "192.0.2.1:80", "192.0.2.1", "80"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", "2001:db8::1", "443"),
            ("[::ffff:192.0.2.1]:8080", "192.0.2.1:8080", "192.0.2.1", "8080"),
        ];
        let written = |part: Part, peer: &Peer| {
            let mut out = Vec::new();
            part.fill(peer, &mut out);
            String::from_utf8(out).unwrap()
        };
        for (address, whole, ip, port) in cases {
            let peer = Peer::Tcp(address.parse().unwrap());
            let parts = [Part::Whole, Part::WithoutPort, Part::Port].map(|part| written(part, &peer));
            assert_eq!(parts, [whole, ip, port]);
        }
        for (address, bits, network) in [
            ("10.1.10.23:1", 16, "10.1.0.0/16"),
            ("10.1.10.23:1", 0, "0.0.0.0/0"),
            ("10.1.10.23:1", 33, "10.1.10.23/32"),
            ("[2001:db8:1234:5678:9abc:def0:1234:5678]:1", 64, "2001:db8:1234:5678::/64"),
        ] {
            let peer = Peer::Tcp(address.parse().unwrap());
            assert_eq!(written(Part::Masked(bits), &peer), network);
        }
        let unix = Peer::Unix("@mesh".into());
        let parts = [Part::Whole, Part::WithoutPort, Part::Port].map(|part| written(part, &unix));
        assert_eq!(parts, ["@mesh", "@mesh", ""]);
    }
}
