//! Streams over their lives: windows both ways, ends and resets by either side, settings that change, and how connections
//! drain (RFC 9113 sections 5 and 6).

use super::*;
use crate::h1::Framing;

/// A server with one open stream, 1.
fn posted(config: &Config) -> (Played, StreamKey) {
    let mut played = Played::new(Connection::server(config), App::Holds);
    played.feed(&Wire::client().headers(1, OPEN, &POST).0);
    let stream = played.connection.streams.find(1).unwrap();
    played.connection.take_output(Vec::new());
    played.events.clear();
    (played, stream)
}

fn windows(stream: u32, connection: u32, lent: u32) -> Config {
    Config {
        settings: Settings { initial_window_size: stream, ..Config::default().settings },
        connection_window: connection,
        connection_lent: lent,
        stream_window_max: stream,
        connection_window_max: connection,
        ..Config::default()
    }
}

/// The increments in an output, by stream.
fn increments(output: &[u8]) -> Vec<(u32, u32)> {
    let (mut rest, mut found) = (output, Vec::new());
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD>() {
        let head = FrameHead::parse(head);
        let (payload, behind) = behind.split_at(head.len as usize);
        if head.kind == kind::WINDOW_UPDATE {
            found.push((head.stream, u32::from_be_bytes(payload.try_into().unwrap())));
        }
        rest = behind;
    }
    found
}

#[test]
fn data_goes_as_far_as_the_windows() {
    let (mut played, stream) = posted(&Config::default());
    let connection = &mut played.connection;
    assert_eq!(connection.sendable(stream), None, "no head yet");
    connection.respond(stream, &ResponseHead::new(), Framing::None, false);
    let mut sent = 0;
    while let Some(room @ 1..) = played.connection.sendable(stream) {
        assert!(room <= 16_384);
        assert!(played.connection.send_data(stream, room, false));
        sent += room;
    }
    assert_eq!(sent, 65_535);
    // Both windows are empty: each has to be told of.
    played.feed(&Wire::default().number(kind::WINDOW_UPDATE, 1, 10).0);
    assert_eq!(played.events, ["sendable Some(1)"]);
    assert_eq!(played.connection.sendable(stream), Some(0));
    played.feed(&Wire::default().number(kind::WINDOW_UPDATE, 0, 4).0);
    assert_eq!(played.events[1], "sendable None");
    assert_eq!(played.connection.sendable(stream), Some(4));
    // Nobody waits: nobody is told.
    played.feed(&Wire::default().number(kind::WINDOW_UPDATE, 0, 4).number(kind::WINDOW_UPDATE, 1, 1).0);
    assert_eq!(played.events.len(), 2);
    assert!(played.connection.send_data(stream, 8, true));
    assert_eq!(played.connection.sendable(stream), None, "it has ended");
    assert!(!played.connection.send_data(stream, 0, true));
}

/// h2spec 6.5.3/1, 6.9.1/1, 6.9.2/1 and 6.9.2/2.
#[test]
fn a_setting_changes_windows_of_open_streams() {
    let mut played = Played::new(server(), App::Waits);
    played.feed(&Wire::client().settings(&[(4, 100), (4, 1)]).headers(1, END, &GET).0);
    let stream = played.connection.streams.find(1).unwrap();
    played.connection.respond(stream, &ResponseHead::new(), Framing::None, false);
    assert_eq!(played.connection.sendable(stream), Some(1));
    played.connection.send_data(stream, 1, false);
    assert_eq!(played.connection.sendable(stream), Some(0));
    played.feed(&Wire::default().settings(&[(4, 2)]).0);
    assert_eq!(played.events.last().unwrap(), "settings", "which says to look again");
    assert_eq!(played.connection.sendable(stream), Some(1));
    played.connection.send_data(stream, 1, false);
    // Below zero, and up again.
    played.feed(&Wire::default().settings(&[(4, 0)]).0);
    assert_eq!(played.connection.sendable(stream), Some(0));
    played.feed(&Wire::default().number(kind::WINDOW_UPDATE, 1, 2).0);
    assert_eq!(played.connection.sendable(stream), Some(0));
    played.feed(&Wire::default().number(kind::WINDOW_UPDATE, 1, 1).0);
    assert_eq!(played.events.last().unwrap(), "sendable Some(1)");
    assert_eq!(played.connection.sendable(stream), Some(1));
}

#[test]
fn credit_is_given_when_data_has_gone_on() {
    let (mut played, stream) = posted(&windows(100_000, 200_000, 0));
    played.feed(&Wire::default().times(7, |wire, _| wire.data(1, 0, &[7; 10_000])).0);
    assert_eq!(increments(played.connection.output()), []);
    played.connection.release(stream, 40_000);
    assert_eq!(increments(&played.connection.take_output(Vec::new())), [(1, 40_000)], "the rest is held");
    played.connection.release(stream, 30_000);
    // More than is held is nothing.
    played.connection.release(stream, 30_000);
    assert_eq!(increments(&played.connection.take_output(Vec::new())), []);
    played.feed(&Wire::default().times(6, |wire, _| wire.data(1, 0, &[7; 10_000])).0);
    assert_eq!(increments(&played.connection.take_output(Vec::new())), [], "less than half");
    // What is held when it is closed is given back to all others.
    assert_eq!(played.connection.flow.receive.held(), 60_000);
    played.connection.close(stream);
    assert_eq!(increments(&played.connection.take_output(Vec::new())), [(0, 130_000)]);
    assert_eq!(played.connection.flow.receive.held(), 0);
}

#[test]
fn more_than_the_window_is_an_error() {
    let (mut played, _) = posted(&windows(65_535, 200_000, 0));
    played.feed(&Wire::default().times(4, |wire, _| wire.data(1, 0, &[7; 16_384])).0);
    assert_eq!(played.events.last().unwrap(), "reset 1 FLOW_CONTROL_ERROR(3) Some(Window)");
    let (mut played, _) = posted(&windows(200_000, 65_535, 0));
    played.feed(&Wire::default().times(4, |wire, _| wire.data(1, 0, &[7; 16_384])).0);
    assert_eq!(played.fault, Some(Fault::new(Reason::FLOW_CONTROL_ERROR, Cause::Window)));
}

/// Padding counts, and is nobody's: it must not use up the windows.
#[test]
fn padding_is_given_back_at_once() {
    let (mut played, stream) = posted(&windows(65_535, 65_535, 0));
    let mut payload = Vec::from([255, b'x']);
    payload.resize(257, 0);
    for _ in 0..1000 {
        played.feed(&Wire::default().data(1, flag::PADDED, &payload).0);
        played.connection.release(stream, 1);
        played.connection.take_output(Vec::new());
    }
    assert_eq!(played.fault, None);
    assert_eq!(played.connection.flow.receive.held(), 0);
}

/// Windows of the same size: a stream that nobody reads holds all of one, and the others go on.
#[test]
fn a_stream_that_stands_still_holds_up_no_other() {
    let (mut played, stalled) = posted(&windows(65_535, 65_535, 65_535));
    let mut window = 65_535;
    for len in [16_384, 16_384, 16_384, 16_383] {
        played.feed(&Wire::default().data(1, 0, &[7; 16_384][..len]).0);
        window -= len as i64;
    }
    played.feed(&Wire::default().headers(3, OPEN, &POST).0);
    let other = played.connection.streams.find(3).unwrap();
    for _ in 0..50 {
        for (stream, increment) in increments(&played.connection.take_output(Vec::new())) {
            window += i64::from(if stream == 0 { increment } else { 0 });
        }
        assert!(window >= 16_000, "there is always room for the other: {window}");
        played.feed(&Wire::default().data(3, 0, &[1; 16_000]).0);
        window -= 16_000;
        assert_eq!(played.fault, None);
        played.events.clear();
        played.connection.release(other, 16_000);
    }
    assert_eq!(played.connection.flow.receive.held(), 65_535);
    played.connection.close(stalled);
    assert_eq!(played.connection.flow.receive.held(), 0);
}

#[test]
fn windows_grow_for_who_keeps_up() {
    let config =
        Config { stream_window_max: 1 << 20, connection_window_max: 1 << 20, ..windows(65_535, 65_535, 0) };
    let (mut played, stream) = posted(&config);
    let (mut stream_window, mut window) = (65_535i64, 65_535i64);
    let mut largest = (0, 0);
    for _ in 0..600 {
        played.feed(&Wire::default().data(1, 0, &[7; 16_000]).0);
        played.events.clear();
        played.connection.release(stream, 16_000);
        (stream_window, window) = (stream_window - 16_000, window - 16_000);
        for (id, increment) in increments(&played.connection.take_output(Vec::new())) {
            *if id == 0 { &mut window } else { &mut stream_window } += i64::from(increment);
        }
        assert!(window > 0 && stream_window > 0);
        largest = (largest.0.max(stream_window), largest.1.max(window));
    }
    assert_eq!(largest, (1 << 20, 1 << 20));
}

/// Until the peer knows of a smaller window, it may use what it knows.
#[test]
fn a_smaller_window_holds_from_its_acknowledgement_on() {
    let (mut played, _) = posted(&windows(10, 65_535, 0));
    played.feed(&Wire::default().data(1, 0, &[7; 100]).0);
    assert_eq!(played.events, [format!("data 1 {}", "\\x07".repeat(100))]);
    played.feed(
        &Wire::default()
            .frame(kind::SETTINGS, flag::ACK, 0, b"")
            .headers(3, OPEN, &POST)
            .data(3, 0, &[7; 11])
            .0,
    );
    assert_eq!(played.events.last().unwrap(), "reset 3 FLOW_CONTROL_ERROR(3) Some(Window)");
    played.feed(&Wire::default().data(1, 0, &[7; 1]).0);
    assert_eq!(played.events.last().unwrap(), "reset 1 FLOW_CONTROL_ERROR(3) Some(Window)");
}

#[test]
fn a_stream_ends_however_either_side_likes() {
    // The peer resets: nothing can be said any more, once it is closed it is gone.
    let (mut played, stream) = posted(&Config::default());
    played.feed(&Wire::default().number(kind::RST_STREAM, 1, 8).number(kind::RST_STREAM, 1, 8).0);
    assert_eq!(played.events, ["reset 1 CANCEL(8) None"], "told once");
    assert!(!played.connection.respond(stream, &ResponseHead::new(), Framing::None, true));
    played.connection.reset(stream, Reason::CANCEL);
    played.connection.close(stream);
    assert_eq!((played.connection.streams(), frames(played.connection.output())), (0, Vec::new()));

    // We reset: what is on its way is passed over, and its credit comes back.
    let (mut played, stream) = posted(&windows(65_535, 65_535, 0));
    played.connection.close(stream);
    assert_eq!(frames(&played.connection.take_output(Vec::new())), ["rst 1 CANCEL(8)"]);
    let late =
        Wire::default().times(3, |wire, _| wire.data(1, 0, &[7; 16_384])).headers(1, END, &[("x", "y")]);
    played.feed(&late.number(kind::WINDOW_UPDATE, 1, 5).number(kind::RST_STREAM, 1, 5).0);
    assert_eq!((played.events.len(), played.fault), (0, None));
    assert!(!increments(played.connection.output()).is_empty());

    // In the middle of a frame.
    let (mut played, stream) = posted(&Config::default());
    let wire = Wire::default().data(1, 0, &[b'x'; 10]).headers(3, END, &GET);
    played.feed(&wire.0[..HEAD + 5]);
    played.connection.close(stream);
    played.feed(&wire.0[HEAD + 5..]);
    assert_eq!(played.events.len(), 2, "{:?}", played.events);

    // A response in full before the request's end: the rest is not needed, and not wrong.
    let (mut played, stream) = posted(&Config::default());
    played.connection.respond(stream, &ResponseHead::new(), Framing::Length(0), true);
    played.connection.close(stream);
    assert_eq!(frames(&played.connection.take_output(Vec::new()))[1..], ["rst 1 NO_ERROR(0)"]);
    assert_eq!(played.connection.streams(), 0);
    played.connection.close(stream);
    assert!(played.connection.output().is_empty());
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let (mut played, stream) = posted(&Config::default());
    let mut head = ResponseHead::new();
    for (code, sent) in [(100, true), (103, true), (101, false), (200, true), (100, false), (200, false)] {
        head.set_status(crate::Status::new(code).unwrap());
        assert_eq!(played.connection.respond(stream, &head, Framing::None, code == 100), sent, "{code}");
    }
    assert_eq!(
        frames(played.connection.output()).iter().filter(|sent| sent.starts_with("1 4 1 ")).count(),
        3
    );
}

#[test]
fn a_server_drains_in_two_steps() {
    let (mut played, stream) = posted(&Config::default());
    played.connection.drain();
    played.connection.drain();
    assert_eq!(frames(&played.connection.take_output(Vec::new())), ["goaway 2147483647 NO_ERROR(0)"]);
    // What was on its way is taken.
    played.feed(&Wire::default().headers(3, END, &GET).0);
    assert_eq!(played.connection.streams(), 2);
    played.connection.drain_rest();
    played.connection.drain_rest();
    assert_eq!(frames(&played.connection.take_output(Vec::new())), ["goaway 3 NO_ERROR(0)"]);
    // What comes now is not, and not answered; its table is kept.
    played.feed(&Wire::default().headers(5, OPEN, &POST).data(5, 1, b"x").headers(7, END, &GET).0);
    assert_eq!((played.connection.streams(), played.fault), (2, None));
    assert!(frames(played.connection.output()).is_empty() && played.connection.is_draining());
    assert!(played.connection.respond(stream, &ResponseHead::new(), Framing::None, true));
}

/// GOAWAY tells which streams were not taken: they may be sent again elsewhere. CVE-2021-32780: and then nothing more.
#[test]
fn a_client_learns_what_was_not_taken() {
    let mut played = Played::new(asking(), App::Waits);
    let goaway = |last: u32, reason: u32| [last.to_be_bytes(), reason.to_be_bytes()].concat();
    played.feed(&Wire::server().frame(kind::GOAWAY, 0, 0, &goaway(0x7fff_ffff, 0)).0);
    assert_eq!(played.events[1..], ["goaway NO_ERROR(0)"]);
    assert_eq!(played.connection.open(&RequestHead::new(), Framing::None, true), Err(OpenError::Draining));
    played.feed(&Wire::default().frame(kind::GOAWAY, 0, 0, &goaway(1, 11)).settings(&[(3, 0)]).0);
    let refused = [3, 5].map(|id| format!("reset {id} REFUSED_STREAM(7) None"));
    assert_eq!(played.events[2..], ["goaway ENHANCE_YOUR_CALM(11)", &refused[0], &refused[1], "settings"]);
    // Told again, nothing is told again; and what was not taken is not taken later.
    played.feed(&Wire::default().frame(kind::GOAWAY, 0, 0, &goaway(9, 0)).0);
    assert_eq!(played.events[6..], ["goaway NO_ERROR(0)"]);
    played.feed(&Wire::default().headers(1, END, &[(":status", "200")]).0);
    assert!(played.events[7].starts_with("response 1 200"));
    // CVE-2023-35945: RST_STREAM behind GOAWAY, for streams of which both sides have let go.
    played.feed(&Wire::default().number(kind::RST_STREAM, 3, 7).number(kind::RST_STREAM, 5, 7).0);
    assert_eq!(played.events.len(), 8);
    while let Some(key) = played.connection.streams.next(0) {
        played.connection.close(key);
    }
    assert_eq!((played.connection.streams(), played.fault), (0, None));
}

#[test]
fn a_client_keeps_to_what_the_server_allows() {
    let mut connection = client();
    let mut head = RequestHead::new();
    head.set_authority(b"a").unwrap();
    let mut opened = 0;
    while connection.open(&head, Framing::None, true).is_ok() {
        opened += 1;
    }
    assert_eq!(opened, 100, "before anything was said");
    let mut played = Played::new(client(), App::Waits);
    played.feed(&Wire::default().settings(&[(3, 1), (1, 0)]).0);
    let first = played.connection.open(&head, Framing::None, true).unwrap();
    assert_eq!(played.connection.open(&head, Framing::None, true), Err(OpenError::Saturated));
    played.feed(&Wire::default().headers(1, END, &[(":status", "200")]).0);
    assert_eq!(played.connection.can_open(), Err(OpenError::Saturated), "until it is closed");
    played.connection.close(first);
    let second = played.connection.open(&head, Framing::None, true).unwrap();
    assert_eq!((first.id(), second.id()), (1, 3));
    played.connection.life.next = 0x8000_0001;
    played.connection.close(second);
    assert_eq!(played.connection.can_open(), Err(OpenError::Exhausted));
}

#[test]
fn a_ping_is_answered() {
    let (mut from, mut to) = (Played::new(client(), App::Waits), Played::new(server(), App::Waits));
    from.connection.ping(*b"keepaliv");
    to.feed(&from.connection.take_output(Vec::new()));
    from.feed(&to.connection.take_output(Vec::new()));
    assert_eq!(from.events, ["settings".into(), format!("pong {:?}", b"keepaliv")]);
    // Settings are acknowledged both ways with that.
    assert!(!to.connection.is_acknowledged());
    to.feed(&from.connection.take_output(Vec::new()));
    assert!(from.connection.is_acknowledged() && to.connection.is_acknowledged());
    assert!(from.connection.is_established() && to.connection.is_established());
}

/// One that carried heads as they are, at rest.
#[test]
fn a_connection_at_rest_is_small() {
    let (mut from, mut to) = (Played::new(client(), App::Waits), Played::new(server(), App::Answers));
    let mut head = RequestHead::new();
    head.set_authority(b"shop.example.org").unwrap();
    let value = [b'v'; 40];
    for name in 0..8 {
        head.headers_mut().append(format!("x-field-{name}").as_str(), &value).unwrap();
    }
    for round in 0..50 {
        let stream = from.connection.open(&head, Framing::None, true).unwrap();
        to.feed(&from.connection.take_output(Vec::new()));
        from.feed(&to.connection.take_output(Vec::new()));
        from.connection.close(stream);
        if round % 10 == 0 {
            from.connection.rest();
            to.connection.rest();
        }
    }
    let heads = to.events.iter().filter(|event| event.matches("x-field-").count() == 8).count();
    assert_eq!((heads, from.fault, to.fault), (50, None, None), "nothing that is needed is given back");
    from.connection.rest();
    to.connection.rest();
    for connection in [from.connection, to.connection] {
        assert!(connection.memory() < 3 << 10, "{}", connection.memory());
    }
}

/// A connection that does nothing is small, and is small again after it did much.
#[test]
fn an_idle_connection_is_small() {
    let mut played = Played::new(server(), App::Answers);
    let requests = |from: usize| move |wire: Wire, at: usize| wire.headers((from + 2 * at) as u32, END, &GET);
    played.feed(&Wire::client().times(10, requests(1)).0);
    played.connection.take_output(Vec::new());
    assert!(played.connection.memory() < 4 << 10, "{}", played.connection.memory());
    played.app = App::Waits;
    played.feed(&Wire::default().times(1000, requests(21)).0);
    assert_eq!(played.connection.streams(), 1000);
    while let Some(key) = played.connection.streams.next(0) {
        played.connection.close(key);
        played.connection.take_output(Vec::new());
    }
    assert!(played.connection.memory() < 6 << 10, "{}", played.connection.memory());
}
