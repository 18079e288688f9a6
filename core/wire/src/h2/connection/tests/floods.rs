//! What attacks cost: items 40 to 56 of the list of advisories that the project keeps. Each shows the bound on what is held,
//! and that it ends.

use super::*;

/// Feeds more and more of the same until the connection ends; how many it took, and the most memory in between.
fn until_it_ends(mut played: Played, max: usize, more: impl Fn(usize) -> Wire) -> (usize, usize, Fault) {
    let mut memory = 0;
    for at in 0..max {
        played.feed(&more(at).0);
        memory = memory.max(played.connection.memory());
        if let Some(fault) = played.fault {
            assert!(frames(played.connection.output()).last().unwrap().starts_with("goaway"));
            return (at + 1, memory, fault);
        }
        // Who reads what we say does not get away with it.
        played.connection.take_output(Vec::new());
    }
    panic!("{max} of them and still there");
}

fn opened(app: App) -> Played {
    let mut played = Played::new(server(), app);
    played.feed(&Wire::client().0);
    played
}

fn calm(cause: Cause) -> Fault {
    Fault::calm(cause)
}

const KIB: usize = 1 << 10;

/// 40: CVE-2023-44487.
#[test]
fn rapid_reset() {
    let (count, memory, fault) = until_it_ends(opened(App::Answers), 5000, |at| {
        let id = 1 + 2 * at as u32;
        Wire::default().headers(id, OPEN, &POST).number(kind::RST_STREAM, id, 8)
    });
    assert_eq!((count, fault), (501, calm(Cause::Resets)));
    assert!(memory < 16 * KIB, "{memory}");
    // A client that cancels a few of many is none.
    let mut played = opened(App::Answers);
    for at in 0..4000u32 {
        let id = 1 + 4 * at;
        played.feed(&Wire::default().headers(id, END, &GET).headers(id + 2, OPEN, &POST).0);
        played.feed(&Wire::default().number(kind::RST_STREAM, id + 2, 8).0);
        played.connection.take_output(Vec::new());
    }
    assert_eq!(played.fault, None);
}

/// 41: CVE-2025-8671: the resets are ours, the doing is the peer's.
#[test]
fn made_you_reset() {
    for provoke in [
        |id: u32| Wire::default().headers(id, OPEN, &POST).number(kind::WINDOW_UPDATE, id, 0),
        |id: u32| Wire::default().headers(id, OPEN, &POST).frame(kind::PRIORITY, 0, id, &id.to_be_bytes()),
        |id: u32| Wire::default().headers(id, OPEN, &POST).headers(id, OPEN, &[("x", "y")]),
        |id: u32| Wire::default().headers(id, END, &[("x", "y")]),
        |id: u32| Wire::default().headers(id, OPEN, &[(":method", "GET")]),
    ] {
        let (count, memory, fault) =
            until_it_ends(opened(App::Answers), 5000, |at| provoke(1 + 2 * at as u32));
        assert_eq!((count, fault), (501, calm(Cause::Resets)));
        assert!(memory < 16 * KIB, "{memory}");
    }
}

/// 42: CVE-2024-27919, CVE-2024-30255.
#[test]
fn continuation() {
    // Large ones: what they say can never be a head.
    let begin = || {
        let mut played = opened(App::Answers);
        played.feed(&Wire::default().headers(1, flag::END_STREAM, &GET).0);
        played
    };
    let large = block(&[("x", core::str::from_utf8(&[b'y'; 16_000]).unwrap())]);
    let (count, memory, fault) =
        until_it_ends(begin(), 100, |_| Wire::default().frame(kind::CONTINUATION, 0, 1, &large));
    assert_eq!((count, fault), (8, calm(Cause::BlockTooLarge)));
    assert!(memory < 300 * KIB, "{memory}");
    // Small ones, and empty ones.
    let (count, _, fault) = until_it_ends(begin(), 100, |_| {
        Wire::default().frame(kind::CONTINUATION, 0, 1, &block(&[("a", "b")]))
    });
    assert_eq!((count, fault), (16, calm(Cause::TooManyContinuations)));
    let (count, _, fault) =
        until_it_ends(begin(), 100, |_| Wire::default().frame(kind::CONTINUATION, 0, 1, b""));
    assert_eq!((count, fault), (2, calm(Cause::EmptyFrames)));
}

/// 43: CVE-2026-47774: crumbs count as what they are once decoded. 44: and so does a host that is dropped.
#[test]
fn crumbs_and_dropped_hosts_count() {
    // One entry of 100 bytes, referred to a thousand times: a head of 130 kB in a block of 1 kB.
    for (name, value) in [("cookie", "c".repeat(100)), ("host", "a.test".into())] {
        let mut bomb = block(&GET);
        bomb.push(0x40);
        bomb.extend_from_slice(&block(&[(name, &value)])[1..]);
        bomb.resize(bomb.len() + 2000, 0xbe);
        let mut played = opened(App::Answers);
        played.feed(&Wire::default().frame(1, END, 1, &bomb).0);
        assert!(played.connection.memory() < 12 * KIB, "{}", played.connection.memory());
        let outcome = played.outcome();
        assert_eq!(
            outcome.events[1..],
            [format!("refused 1 {:?} BlockTooLarge", Reason::NO_ERROR)],
            "nobody is asked"
        );
        assert_eq!(outcome.fault, None);
        let status = outcome.sent.iter().find(|sent| sent.starts_with("1 5 1 "));
        assert!(status.is_some(), "{outcome:?}");
    }
}

/// HPACK bombs: one large entry, referred to again and again.
#[test]
fn hpack_bombs() {
    let value = "b".repeat(4000);
    let mut bomb = block(&GET);
    bomb.push(0x40);
    bomb.extend_from_slice(&block(&[("x", &value)])[1..]);
    bomb.resize(16_000, 0xbe); // 48 MB
    let mut played = opened(App::Answers);
    for id in 0..20 {
        played.feed(&Wire::default().frame(1, END, 1 + 2 * id, &bomb).0);
        assert!(played.connection.memory() < 90 * KIB, "{}", played.connection.memory());
    }
    assert_eq!((played.events.len(), played.fault), (21, None));
    assert!(played.events[1..].iter().all(|event| event.starts_with("refused ")));
    // The limit is answered as such, and the table goes on.
    let outcome = played.outcome();
    assert_eq!(outcome.sent.iter().filter(|sent| sent.starts_with("1 5 ")).count(), 20);
}

/// A head over the limit is answered with 431, with a body on its way too.
#[test]
fn a_large_head_is_answered() {
    let large = "b".repeat(2000);
    let fields: Vec<(&str, &str)> = (0..40).map(|_| ("x", large.as_str())).collect();
    let mut block = block(&POST);
    let rest = super::block(&fields);
    block.extend_from_slice(&rest);
    let mut wire = Wire::client().frame(1, 0, 1, &block[..16_384]);
    for (at, piece) in block[16_384..].chunks(16_384).enumerate() {
        let last = 16_384 * (at + 1) + piece.len() == block.len();
        wire = wire.frame(kind::CONTINUATION, if last { 4 } else { 0 }, 1, piece);
    }
    let outcome = check(server, App::Answers, &wire.data(1, 1, b"body").headers(3, END, &GET));
    assert_eq!(outcome.fault, None);
    assert!(outcome.has_sent("rst 1 NO_ERROR(0)") && outcome.has_sent("1 5 3 1"), "{outcome:?}");
    // And so is one of too many fields.
    let mut many = Vec::from(GET);
    many.resize(105, ("x", "y"));
    let outcome = check(server, App::Answers, &Wire::client().headers(1, END, &many));
    assert!(outcome.sent.iter().any(|sent| sent.starts_with("1 5 1 ")), "{outcome:?}");
    assert_eq!(outcome.events[1..], [format!("refused 1 {:?} BlockTooLarge", Reason::NO_ERROR)]);
}

/// 45: RUSTSEC-2026-0258. Envoy's limit: one in a row.
#[test]
fn empty_data() {
    let mut played = opened(App::Answers);
    played.feed(&Wire::default().headers(1, OPEN, &POST).0);
    for _ in 0..1000 {
        played.feed(&Wire::default().data(1, 0, b"").data(1, 0, b"x").0);
        played.connection.take_output(Vec::new());
    }
    assert_eq!(played.fault, None);
    let (count, _, fault) = until_it_ends(played, 10, |_| Wire::default().data(1, 0, b""));
    assert_eq!((count, fault), (2, calm(Cause::EmptyFrames)));
    // Padding alone is nothing either.
    let mut played = opened(App::Answers);
    played.feed(&Wire::default().headers(1, OPEN, &POST).0);
    let (_, _, fault) = until_it_ends(played, 10, |_| Wire::default().data(1, flag::PADDED, &[3, 0, 0, 0]));
    assert_eq!(fault, calm(Cause::EmptyFrames));
}

/// 46: RUSTSEC-2024-0003, CVE-2023-26964; 47: CVE-2023-35945. Our answers wait while the peer does not read.
#[test]
fn answers_that_nobody_reads() {
    let pings = |_| Wire::default().frame(kind::PING, 0, 0, &[7; 8]);
    let settings = |_| Wire::default().settings(&[(3, 5)]);
    let resets = |at: usize| Wire::default().headers(3 + 2 * at as u32, END, &[("x", "y")]);
    for more in [&pings as &dyn Fn(usize) -> Wire, &settings, &resets] {
        let limits = FloodLimits { outbound_control_frames: 200, ..FloodLimits::default() };
        let config = Config { floods: limits, ..Config::default() };
        let mut played = Played::new(Connection::server(&config), App::Answers);
        played.feed(&Wire::client().0);
        let mut count = 0;
        while played.fault.is_none() && count < 1000 {
            played.feed(&more(count).0);
            count += 1;
        }
        assert_eq!(played.fault, Some(calm(Cause::AnswersUnread)));
        assert!((190..=201).contains(&count), "{count}");
        assert!(played.connection.output().len() < 200 * 20);
    }
}

/// 48: CVE-2021-32778: many streams, reset one by one and all at once, is work that grows with their number only.
#[test]
fn resets_of_many_streams() {
    let settings = Settings { max_concurrent_streams: 20_000, ..Config::default().settings };
    let config = Config {
        settings,
        floods: FloodLimits { resets: u32::MAX, ..FloodLimits::default() },
        ..Config::default()
    };
    let mut played = Played::new(Connection::server(&config), App::Answers);
    played.feed(&Wire::client().times(20_000, |wire, at| wire.headers(1 + 2 * at as u32, OPEN, &POST)).0);
    assert_eq!(played.connection.streams(), 20_000);
    // A few steps for each, or this does not end.
    played.feed(
        &Wire::default().times(20_000, |wire, at| wire.number(kind::RST_STREAM, 1 + 2 * at as u32, 8)).0,
    );
    assert_eq!((played.connection.streams(), played.fault), (0, None));
    assert!(played.connection.memory() < 16 * KIB, "{}", played.connection.memory());
}

/// 50: CVE-2026-73513.
#[test]
fn trailers_that_do_not_end() {
    let wire = Wire::client().headers(1, OPEN, &POST).headers(1, OPEN, &[("x", "y")]).data(1, 1, b"z");
    let outcome = check(server, App::Waits, &wire);
    assert_eq!(outcome.events.len(), 3, "{outcome:?}");
    assert!(outcome.has_sent("rst 1 PROTOCOL_ERROR(1)"));
}

/// 51: the small frames.
#[test]
fn small_frames() {
    let (count, memory, fault) =
        until_it_ends(opened(App::Answers), 5000, |_| Wire::default().frame(6, 0, 0, &[0; 8]));
    assert_eq!((count, fault), (1000, calm(Cause::ControlFrames)), "SETTINGS were one");
    assert!(memory < 4 * KIB);
    let (count, _, fault) =
        until_it_ends(opened(App::Answers), 5000, |_| Wire::default().settings(&[(4, 9)]));
    assert_eq!((count, fault), (1000, calm(Cause::ControlFrames)));
    let (count, _, fault) =
        until_it_ends(opened(App::Answers), 5000, |_| Wire::default().frame(0xfe, 0, 0, b"xyz"));
    assert_eq!((count, fault), (1000, calm(Cause::ControlFrames)));
    let (count, _, fault) =
        until_it_ends(opened(App::Answers), 5000, |_| Wire::default().frame(2, 0, 3, &[0; 5]));
    assert_eq!((count, fault), (101, calm(Cause::PriorityFrames)));
    let (count, _, fault) = until_it_ends(opened(App::Answers), 5000, |_| Wire::default().number(8, 0, 1));
    assert_eq!((count, fault), (6, calm(Cause::WindowUpdates)));
}

/// A connection that is kept alive for days is no flood.
#[test]
fn what_comes_slowly_may_come_for_ever() {
    let mut played = opened(App::Answers);
    for second in 0..100_000 {
        played.connection.tick(second);
        played.feed(&Wire::default().frame(kind::PING, 0, 0, &[0; 8]).settings(&[(3, 7)]).0);
        played.connection.take_output(Vec::new());
    }
    assert_eq!(played.fault, None);
}

/// A setting in each of which all streams have to be looked at.
#[test]
fn settings_are_one_look_at_all_streams() {
    let many: Vec<(u16, u32)> = (0..2700).map(|at| (4, at)).collect();
    let mut played = opened(App::Waits);
    played.feed(&Wire::default().times(1000, |wire, at| wire.headers(1 + 2 * at as u32, OPEN, &POST)).0);
    // 2,700 looks at 1,000 streams for each frame would be billions of steps.
    for _ in 0..900 {
        played.feed(&Wire::default().settings(&many).0);
        played.connection.take_output(Vec::new());
    }
    assert_eq!(played.fault, None);
}

/// Zero-window readers: what is not read stays with whoever has it, here is nothing of it.
#[test]
fn a_reader_that_gives_no_window() {
    let mut played = opened(App::Waits);
    played.feed(
        &Wire::default()
            .settings(&[(4, 0)])
            .times(100, |wire, at| wire.headers(1 + 2 * at as u32, END, &GET))
            .0,
    );
    played.connection.take_output(Vec::new());
    for at in 0..100 {
        let stream = played.connection.streams.find(1 + 2 * at).unwrap();
        played.connection.respond(stream, &ResponseHead::new(), crate::h1::Framing::None, false);
        assert_eq!(played.connection.sendable(stream), Some(0));
    }
    played.connection.take_output(Vec::new());
    assert!(played.connection.memory() < 40 * KIB, "{}", played.connection.memory());
}
