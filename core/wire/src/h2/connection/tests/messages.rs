//! Heads both ways: what becomes of each pseudo-header and field, and which heads are refused (RFC 9113 section 8).

use super::*;
use crate::h1::Framing;
use crate::h2::Malformed;

/// What a server makes of a request with these fields behind the usual ones; the fields as they are shown.
fn asked(fields: &[(&str, &str)]) -> Outcome {
    let mut all = Vec::from(GET);
    all.extend_from_slice(fields);
    check(server, App::Waits, &Wire::client().headers(1, END, &all))
}

/// The stream was reset for something wrong with its head, and nobody was asked.
fn is_refused(outcome: &Outcome) -> bool {
    let told = format!("refused 1 {:?} Malformed(", Reason::PROTOCOL_ERROR);
    outcome.fault.is_none()
        && outcome.events.len() == 2
        && outcome.events[1].starts_with(&told)
        && outcome.has_sent("rst 1 PROTOCOL_ERROR(1)")
}

/// The same, for this.
fn is_malformed(outcome: &Outcome, what: Malformed) -> bool {
    is_refused(outcome) && outcome.events[1].ends_with(&format!("{:?}", Cause::Malformed(what)))
}

#[test]
fn a_request_becomes_a_head() {
    let outcome = asked(&[("accept", "*/*"), ("x-envoy-attempt-count", "1"), ("te", "trailers")]);
    assert_eq!(
        outcome.events[1],
        "request 1 GET / Some(\"http\") {\"host\": \"a.test\", \"accept\": \"*/*\", \"x-envoy-attempt-count\": \"1\", \
         \"te\": \"trailers\"} true"
    );
}

#[test]
fn crumbs_of_cookies_are_one_field() {
    let outcome = asked(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]);
    assert!(outcome.events[1].contains("\"x\": \"y\", \"cookie\": \"a=1; b=2; c=3\"}"), "{outcome:?}");
    assert_eq!(outcome.events[1].matches("cookie").count(), 1);
}

#[test]
fn one_host_for_everybody() {
    // The same twice is one.
    for host in ["a.test", "A.Test"] {
        let outcome = asked(&[("host", host)]);
        assert!(outcome.events[1].contains("{\"host\": \"a.test\"}"), "{outcome:?}");
    }
    assert!(is_malformed(&asked(&[("host", "b.test")]), Malformed::Authority));
    // Without :authority it is `host` that counts.
    let start = [(":method", "GET"), (":scheme", "https"), (":path", "/x")];
    for (fields, good) in [
        (&[("host", "b.test:80")][..], true),
        (&[("host", "b.test"), ("host", "b.test")], false),
        (&[("host", "b.test,c.test")], false),
        (&[("host", "")], false),
        (&[], false),
    ] {
        let mut all = Vec::from(start);
        all.extend_from_slice(fields);
        let outcome = check(server, App::Waits, &Wire::client().headers(1, END, &all));
        assert_eq!(outcome.events[1].starts_with("request 1 "), good, "{outcome:?}");
        assert_eq!(is_malformed(&outcome, Malformed::Authority), !good, "{outcome:?}");
    }
}

/// CVE-2021-39240 to 39242, 32779, 2023-35944 and their like.
#[test]
fn pseudo_headers_hold_what_they_may() {
    for (at, value, good) in [
        (0, "GET", true),
        (0, "PURGE", true),
        (0, "get", false),
        (0, "GE T", false),
        (0, "GET /admin HTTP/1.1", false),
        (0, "", false),
        (0, "CONNECT", false),
        (1, "https", true),
        (1, "HtTp", false),
        (1, "ftp", false),
        (1, "http://x/?", false),
        (2, "/a?b=c", true),
        (2, "*", false),
        (2, "x", false),
        (2, "/a#b", false),
        (2, "/a b", false),
        (2, "/a\u{e9}", false),
        (2, "//b", true),
        (3, "a:8080", true),
        (3, "[::1]:80", true),
        (3, "u@a", false),
        (3, "a,b", false),
        (3, "a/b", false),
        (3, "", false),
    ] {
        let mut fields = GET;
        fields[at].1 = value;
        let outcome = check(server, App::Waits, &Wire::client().headers(1, END, &fields));
        let what = [Malformed::Method, Malformed::Scheme, Malformed::Path, Malformed::Authority][at];
        let what = if value == "CONNECT" { Malformed::MissingPseudo } else { what };
        assert_eq!(outcome.events[1].starts_with("request 1 "), good, "{at} {value}: {outcome:?}");
        assert_eq!(is_malformed(&outcome, what), !good, "{at} {value}: {outcome:?}");
    }
    let mut options = GET;
    (options[0].1, options[2].1) = ("OPTIONS", "*");
    let outcome = check(server, App::Waits, &Wire::client().headers(1, END, &options));
    assert!(outcome.events[1].starts_with("request 1 OPTIONS * "), "{outcome:?}");
}

/// CVE-2023-27491: nothing gets into a head that would break it apart in HTTP/1.
#[test]
fn fields_hold_what_they_may() {
    for (name, value, good) in [
        ("x", "", true),
        ("x", "a\tb", true),
        ("x", "\u{e9}", true),
        ("x", "a\r\nb: c", false),
        ("x", "a\nb", false),
        ("x", "a\0", false),
        ("x", "\u{7f}", false),
        ("x", " a", false),
        ("x", "a ", false),
        ("x", "a\t", false),
        ("", "a", false),
        ("X", "a", false),
        ("a b", "c", false),
        ("a\r\nb", "c", false),
        ("a:", "c", false),
        ("te", "trailers", true),
        ("te", "gzip", false),
        ("te", "trailers, gzip", false),
        ("connection", "close", false),
        ("keep-alive", "1", false),
        ("proxy-connection", "close", false),
        ("transfer-encoding", "chunked", false),
        ("upgrade", "h2c", false),
        ("content-length", "0", true),
        ("content-length", "+0", false),
        ("content-length", "1", false),
        ("content-length", "0, 0", false),
        ("cookie", "a\r\n", false),
    ] {
        let outcome = asked(&[(name, value)]);
        assert_eq!(outcome.events[1].starts_with("request 1 "), good, "{name} {value:?}: {outcome:?}");
        assert_eq!(is_refused(&outcome), !good, "{name} {value:?}: {outcome:?}");
    }
    assert!(is_malformed(
        &asked(&[("content-length", "0"), ("content-length", "0")]),
        Malformed::ContentLength
    ));
}

/// The table is kept whatever is wrong with a head: the next one refers to what the refused one has put there.
#[test]
fn a_refused_head_leaves_the_table_right() {
    let mut bad = block(&GET);
    bad.extend_from_slice(b"\x40\x01X\x01y\x40\x01k\x01v"); // an upper-case name, and a field that is right
    let mut good = block(&GET);
    good.push(0xbe);
    let outcome = check(server, App::Waits, &Wire::client().frame(1, END, 1, &bad).frame(1, END, 3, &good));
    assert!(
        outcome.events[2].contains("\"k\": \"v\"") && outcome.has_sent("rst 1 PROTOCOL_ERROR(1)"),
        "{outcome:?}"
    );
    // And what is wrong stays wrong when it is referred to.
    let mut again = block(&GET);
    again.push(0xbf);
    let outcome = check(server, App::Waits, &Wire::client().frame(1, END, 1, &bad).frame(1, END, 3, &again));
    assert!(outcome.has_sent("rst 3 PROTOCOL_ERROR(1)"), "{outcome:?}");
}

#[test]
fn connect_has_its_own_form() {
    let connect = [(":method", "CONNECT"), (":authority", "a.test:443")];
    let outcome = check(server, App::Waits, &Wire::client().headers(1, OPEN, &connect).data(1, 0, b"raw"));
    assert_eq!(outcome.events[1], "request 1 CONNECT  None {\"host\": \"a.test:443\"} false");
    for fields in [
        &[(":method", "CONNECT"), (":authority", "a.test")][..],
        &[(":method", "CONNECT"), (":authority", "a.test:")],
        &[(":method", "CONNECT"), (":authority", "a.test:1"), (":path", "/")],
        &[(":method", "CONNECT"), (":authority", "a.test:1"), (":scheme", "http")],
        // Extended CONNECT that was not allowed.
        &[
            (":method", "CONNECT"),
            (":authority", "a.test"),
            (":path", "/"),
            (":scheme", "http"),
            (":protocol", "x"),
        ],
    ] {
        let outcome = check(server, App::Waits, &Wire::client().headers(1, OPEN, fields));
        assert!(is_refused(&outcome), "{outcome:?}");
    }
}

fn websockets() -> Config {
    Config {
        settings: Settings { connect_protocol: true, ..Config::default().settings },
        ..Config::default()
    }
}

/// RFC 8441, as HTTP/1 says it on this side.
#[test]
fn extended_connect_is_an_upgrade() {
    fn server() -> Connection {
        Connection::server(&websockets())
    }
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ];
    let outcome = check(server, App::Waits, &Wire::client().headers(1, OPEN, &fields));
    assert_eq!(
        outcome.events[1],
        "request 1 GET /chat Some(\"https\") {\"host\": \"a.test\", \"sec-websocket-version\": \"13\", \
         \"upgrade\": \"websocket\", \"connection\": \"upgrade\"} false"
    );
    let mut played = Played::new(server(), App::Waits);
    played.feed(&Wire::client().headers(1, OPEN, &fields).0);
    let stream = played.connection.streams.find(1).unwrap();
    let mut head = ResponseHead::new();
    head.set_status(crate::Status::SWITCHING_PROTOCOLS);
    head.headers_mut().append("upgrade", b"websocket").unwrap();
    head.headers_mut().append("connection", b"upgrade").unwrap();
    head.headers_mut().append("sec-websocket-accept", b"x").unwrap();
    assert!(played.connection.respond(stream, &head, Framing::None, false));
    assert!(!played.connection.respond(stream, &head, Framing::None, false), "once");
    let outcome = played.outcome();
    assert_eq!(outcome.sent.last().unwrap(), "1 4 1 1", "200 and nothing of the handshake");

    // And as a client.
    let mut played = Played::new(client(), App::Waits);
    let mut head = RequestHead::new();
    head.set_authority(b"a.test").unwrap();
    head.headers_mut().append("Upgrade", b"websocket").unwrap();
    head.headers_mut().append("Connection", b"Upgrade").unwrap();
    head.headers_mut().append("Sec-WebSocket-Key", b"abc").unwrap();
    assert_eq!(played.connection.open(&head, Framing::None, false), Err(OpenError::NoConnectProtocol));
    played.feed(&Wire::default().settings(&[(8, 1)]).0);
    let stream = played.connection.open(&head, Framing::None, false).unwrap();
    played.feed(&Wire::default().headers(1, OPEN, &[(":status", "200")]).data(1, 0, b"raw").0);
    assert_eq!(
        played.events[1..],
        ["response 1 101 {\"upgrade\": \"websocket\", \"connection\": \"upgrade\"} false", "data 1 raw"]
    );
    assert_eq!(played.connection.sendable(stream), Some(16_384));
}

#[test]
fn responses_become_heads() {
    let ok = (":status", "200");
    for (fields, flags, expected) in [
        (&[ok, ("x", "y")][..], OPEN, "response 1 200 {\"x\": \"y\"} false"),
        (&[ok, ("content-length", "0")], END, "response 1 200 {\"content-length\": \"0\"} true"),
        (&[(":status", "103"), ("link", "</a>")], OPEN, "response 1 103 {\"link\": \"</a>\"} false"),
        (
            &[(":status", "304"), ("content-length", "9")],
            END,
            "response 1 304 {\"content-length\": \"9\"} true",
        ),
    ] {
        let outcome = check(asking, App::Waits, &Wire::server().headers(1, flags, fields));
        assert_eq!(outcome.events[1], expected);
    }
    for (fields, flags, what) in [
        (&[ok, ("content-length", "9")][..], END, Malformed::ContentLength),
        (&[(":status", "100")], END, Malformed::Order),
        (&[(":status", "101")], OPEN, Malformed::Status),
        (&[(":status", "20")], OPEN, Malformed::Status),
        (&[(":status", "2000")], OPEN, Malformed::Status),
        (&[(":status", "+20")], OPEN, Malformed::Status),
        (&[("x", "y")], OPEN, Malformed::MissingPseudo),
        (&[ok, ok], OPEN, Malformed::Pseudo),
        (&[("x", "y"), ok], OPEN, Malformed::Pseudo),
        (&[ok, (":path", "/")], OPEN, Malformed::Pseudo),
        (&[ok, ("connection", "close")], OPEN, Malformed::ConnectionSpecific),
    ] {
        let outcome = check(asking, App::Waits, &Wire::server().headers(1, flags, fields));
        let cause = Some(Cause::Malformed(what));
        assert_eq!(
            outcome.events[1],
            format!("reset 1 {:?} {cause:?}", Reason::PROTOCOL_ERROR),
            "{fields:?}"
        );
        assert!(outcome.has_sent("rst 1 PROTOCOL_ERROR(1)"));
    }
    // The response to HEAD says a length and has no body.
    let head = [ok, ("content-length", "9")];
    let outcome = check(asking, App::Waits, &Wire::server().headers(3, END, &head));
    assert!(outcome.events[1].starts_with("response 3 200"), "{outcome:?}");
    let outcome = check(asking, App::Waits, &Wire::server().headers(3, OPEN, &head).data(3, 1, b"x"));
    assert!(outcome.has_sent("rst 3 PROTOCOL_ERROR(1)"), "{outcome:?}");
    // Data in front of the head, and a whole exchange.
    let outcome = check(asking, App::Waits, &Wire::server().data(1, 0, b"x"));
    assert!(outcome.has_sent("rst 1 PROTOCOL_ERROR(1)"), "{outcome:?}");
    let wire = Wire::server()
        .headers(1, OPEN, &[(":status", "100")])
        .headers(1, OPEN, &[ok])
        .data(1, 0, b"ab")
        .data(1, 0, b"c");
    let outcome = check(asking, App::Waits, &wire.headers(1, END, &[("grpc-status", "0"), ("age", "1")]));
    let told = [
        "response 1 100 {} false",
        "response 1 200 {} false",
        "data 1 abc",
        "trailers 1 {\"grpc-status\": \"0\"}",
    ];
    assert_eq!(outcome.events[1..], told);
}

#[test]
fn frames_of_the_wrong_side_end_the_connection() {
    for wire in [
        Wire::server().headers(2, END, &GET),
        Wire::server().headers(7, END, &[(":status", "200")]),
        Wire::server().data(7, 1, b"x"),
        Wire::server().data(2, 1, b"x"),
        Wire::server().frame(kind::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]),
        Wire::default().settings(&[(2, 1)]),
        Wire::default().frame(kind::PING, 0, 0, &[0; 8]),
    ] {
        let outcome = check(asking, App::Waits, &wire);
        assert_eq!(outcome.fault.map(|fault| fault.reason), Some(Reason::PROTOCOL_ERROR), "{outcome:?}");
    }
}

/// What goes out of this side comes in on the other, fields of the hop aside.
#[test]
fn heads_are_written_for_the_next_hop() {
    let mut head = RequestHead::new();
    let text = b"PUT /x?y HTTP/1.1\r\nHost: a.test\r\nX-Own: 1\r\nConnection: x-hop\r\nX-Hop: 2\r\nTE: trailers, gzip\r\n\
        Keep-Alive: 5\r\nCookie: a=b\r\nContent-Length: 3\r\nProxy-Connection: x\r\n\r\n";
    crate::h1::parse_request(&mut head, text, &Limits::default()).unwrap();
    let mut from = client();
    from.open(&head, Framing::Length(3), false).unwrap();
    let mut to = Played::new(server(), App::Waits);
    to.feed(&from.take_output(Vec::new()));
    assert_eq!(
        to.events[1],
        "request 1 PUT /x?y Some(\"http\") {\"host\": \"a.test\", \"x-own\": \"1\", \"content-length\": \"3\", \
         \"te\": \"trailers\", \"cookie\": \"a=b\"} false"
    );
    // The other way round, secrets are marked and stay so over the next hop.
    let stream = to.connection.streams.find(1).unwrap();
    let mut response = ResponseHead::new();
    let text = b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nLocation: /\r\n\r\n";
    crate::h1::parse_response(&mut response, text, &Limits::default()).unwrap();
    assert!(to.connection.respond(stream, &response, Framing::Chunked, false));
    let mut back = Played::new(from, App::Waits);
    back.feed(&to.connection.take_output(Vec::new()));
    assert_eq!(back.events[1], "response 1 302 {\"set-cookie\": \"a=b\", \"location\": \"/\"} false");
}

#[test]
fn trailers_hold_what_may_come_late() {
    let wire = |fields: &[(&str, &str)]| Wire::client().headers(1, OPEN, &POST).headers(1, END, fields);
    let outcome =
        check(server, App::Waits, &wire(&[("grpc-status", "0"), ("set-cookie", "a"), ("cookie", "b")]));
    assert_eq!(outcome.events[2], "trailers 1 {\"grpc-status\": \"0\"}");
    for bad in [
        ("content-length", "0"),
        ("host", "a"),
        ("transfer-encoding", "x"),
        ("connection", "x"),
        ("cookie", "a\n"),
    ] {
        let outcome = check(server, App::Waits, &wire(&[bad]));
        assert!(outcome.has_sent("rst 1 PROTOCOL_ERROR(1)"), "{bad:?} {outcome:?}");
    }
    // None that may be sent: the end alone.
    let mut played = Played::new(server(), App::Waits);
    played.feed(&Wire::client().headers(1, END, &GET).0);
    let stream = played.connection.streams.find(1).unwrap();
    assert!(!played.connection.send_trailers(stream, &Headers::new()), "no head yet");
    played.connection.respond(stream, &ResponseHead::new(), Framing::None, false);
    assert!(played.connection.send_trailers(stream, &Headers::new()));
    assert_eq!(played.outcome().sent.last().unwrap(), "0 1 1 0");
}
