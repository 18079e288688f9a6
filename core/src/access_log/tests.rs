//! Lines of access logs, from records to text, and records from lanes to files.

use super::*;
use crate::{
    config::{
        Comparison, ComparisonOp, HeaderMatch, HeaderMatcher, LogFilter, LogFormat, LogShape, LogSink,
        LogType,
    },
    telemetry::StatsStore,
};
use corelane_io::Peer;
use corelane_wire::{RequestHead, ResponseHead, Status, Version};
use serde_json::json;
use std::{path::PathBuf, sync::atomic::AtomicU32, time::UNIX_EPOCH};

fn peer(port: u16) -> Peer {
    Peer::Tcp(([127, 0, 0, 1], port).into())
}

fn record() -> Record {
    Record {
        why: LogType::DownstreamEnd,
        was_cut: false,
        details: Some(Box::new(details())),
        started: UNIX_EPOCH + Duration::from_millis(1_795_582_553_393),
        took: Took {
            request: Some(Duration::from_millis(1)),
            response: Some(Duration::from_millis(3)),
            all: Duration::from_millis(10),
        },
        received: 4,
        sent: 5,
        status: 200,
        version: Some(Version::Http11),
        outcome: Outcome { details: "via_upstream", ..Outcome::default() },
        ends: Ends {
            direct: peer(1),
            peer: peer(35806),
            client: None,
            local: Some(peer(9851)),
            direct_local: None,
            upstream: Some(Peer::Tcp("[::ffff:127.0.0.1]:9860".parse().unwrap())),
        },
        attempts: 1,
        unreached: None,
        grpc: None,
        matched: 0b10,
        health_check: false,
        connection: 7,
    }
}

fn details() -> Details {
    let extra = crate::config::EndpointExtra { hostname: "be.test:80".into(), ..Default::default() };
    let about = Some(Arc::new(extra));
    let flow = |wire| Flow { wire, fields: 20, trailers: 3 };
    let mut details = Details {
        from_client: flow(100),
        to_client: flow(200),
        from_upstream: flow(300),
        to_upstream: flow(400),
        request_fields: 31,
        response_fields: 32,
        response_trailers: 33,
        waited: Some(Duration::from_millis(2)),
        ..Details::default()
    };
    for connection in [8, 9] {
        let host = peer(9860);
        details.tried.push(Tried { host, about: about.clone(), connection });
    }
    let (local, remote) = (Some(peer(40000)), Some(peer(9860)));
    details.upstream = super::details::Upstream { about, local, remote, connection: 9 };
    details
}

fn request() -> RequestHead {
    let mut head = RequestHead::new();
    head.set_path(b"/x?q=1").unwrap();
    head.set_authority(b"a.example").unwrap();
    for (name, value) in [("user-agent", "curl/8"), ("x-request-id", "id-1"), ("quoted", "a\"b")] {
        head.headers_mut().append(name, value.as_bytes()).unwrap();
    }
    head
}

fn response() -> ResponseHead {
    let mut head = ResponseHead::default();
    head.set_status(Status::OK);
    head.headers_mut().append("x-envoy-upstream-service-time", b"3").unwrap();
    head
}

/// The line that `format` makes of a record.
fn line_of(format: &LogFormat, record: Record) -> String {
    let mut wants = Wants::default();
    let around = Surroundings { hostname: "vm", chain: Some("fc"), variable: &|_| None };
    let line = Line::parse(format, &mut wants, &around).unwrap();
    let mut draft = Draft::default();
    draft.request(&wants, &request(), Some("rx"));
    draft.cluster("be");
    draft.response(&wants, &response());
    let mut trailers = corelane_wire::Headers::new();
    trailers.append("x-t", b"trail").unwrap();
    draft.trailers(&wants, &trailers);
    let mut batch = Batch::default();
    // Behind another one, so that texts are found by their place.
    batch.push(record.clone(), &draft, 0);
    batch.push(record, &draft, 1);
    let now = UNIX_EPOCH + Duration::from_secs(1);
    let renderer = Renderer {
        requests: wants.request.len(),
        responses: wants.response.len(),
        omit_empty: format.omit_empty_values,
        now,
        body: b"",
        random: &|| 0,
    };
    let mut out = Vec::new();
    batch.of(0).for_each(|told| renderer.line(&line, told, &mut out));
    String::from_utf8(out).unwrap()
}

fn text(format: &str) -> String {
    line_of(&LogFormat { shape: LogShape::Text(format.into()), omit_empty_values: false }, record())
}

#[test]
fn the_default_line_is_envoys() {
    let expected = "[2026-11-25T04:55:53.393Z] \"GET /x?q=1 HTTP/1.1\" 200 - 4 5 10 3 \"-\" \"curl/8\" \"id-1\" \
                    \"a.example\" \"127.0.0.1:9860\"\n";
    assert_eq!(text(LogFormat::DEFAULT), expected);
}

#[test]
fn every_operator_has_a_value() {
    let table = [
        ("%REQ(USER-AGENT):4% %REQ(none?:METHOD)% %REQ(none)% %RESP(none)%", "curl GET - -"),
        ("%RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", "via_upstream - -"),
        ("%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "1 3 7"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT%", "127.0.0.1:35806 35806"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "127.0.0.1 9851"),
        ("%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT% %UPSTREAM_CLUSTER%", "127.0.0.1:9860 9860 be"),
        ("%ROUTE_NAME% %CONNECTION_ID% %STREAM_ID% %HOSTNAME% %FILTER_CHAIN_NAME%", "rx 7 id-1 vm fc"),
        ("%UNIQUE_ID%", "00000000-0000-4000-8000-000000000000"),
        ("%START_TIME(%s.%3f)% %EMIT_TIME(%s)%", "1795582553.393 1"),
        ("%PATH(NQ)% %PATH% %PATH(WQ:ORIG)% %QUERY_PARAMS% %QUERY_PARAM(q)%", "/x /x?q=1 - q=1 1"),
        ("%REQ_WITHOUT_QUERY(:PATH)% %REQUEST_HEADER(:METHOD)% %TRAILER(x-t)%", "/x GET trail"),
        ("%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(8)%", "127.0.0.1:40000 127.0.0.0/8"),
        (
            "%UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT% %UPSTREAM_PROTOCOL%",
            "be.test:80 be.test HTTP/1.1",
        ),
        (
            "%UPSTREAM_HOSTS_ATTEMPTED% %UPSTREAM_CONNECTION_IDS_ATTEMPTED%",
            "127.0.0.1:9860,127.0.0.1:9860 8,9",
        ),
        ("%UPSTREAM_CONNECTION_ID% %UPSTREAM_CONNECTION_POOL_READY_DURATION%", "9 2"),
        ("%UPSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_RECEIVED%", "400 100"),
        ("%UPSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED%", "23 20"),
        ("%DOWNSTREAM_HEADER_BYTES_SENT% %DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT%", "23 23"),
        ("%REQUEST_HEADERS_BYTES% %RESPONSE_HEADERS_BYTES% %RESPONSE_TRAILERS_BYTES%", "31 32 33"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)% %BYTES_RETRANSMITTED%", "- 0"),
        ("%ACCESS_LOG_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% [%CUSTOM_FLAGS%]", "DownstreamEnd Normal []"),
        ("%REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME%", "a.example -"),
        ("%COALESCE({\"operators\": [\"REQUESTED_SERVER_NAME\", \"ROUTE_NAME\"]}):1%", "r"),
        ("%UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_PEER_URI_SAN% %METADATA(ROUTE:a)%", "- - -"),
        ("%UPSTREAM_REQUEST_ATTEMPT_COUNT% %GRPC_STATUS% %DYNAMIC_METADATA(a)% 100%%", "1 - - 100%"),
        ("%ENVIRONMENT(NONE):1% %REQ(QUOTED):1%", "- a"),
    ];
    for (format, expected) in table {
        assert_eq!(text(format), expected, "{format}");
    }
}

#[test]
fn flags_have_long_names_and_may_be_two() {
    let mut failed = record();
    failed.outcome = Outcome { flag: "UF", tries_exceeded: true, ..Outcome::default() };
    let shape = LogShape::Text("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%".into());
    let line = line_of(&LogFormat { shape, omit_empty_values: false }, failed);
    assert_eq!(line, "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
    // Of requests Envoy notes first that there was no other try, then why the last one failed.
    let mut slow = record();
    let noted = Flags::default().with(Flag::UpstreamRetryLimitExceeded);
    slow.outcome = Outcome { noted, flag: "UT", details: "upstream_per_try_timeout", ..Outcome::default() };
    let shape = LogShape::Text("%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%".into());
    let line = line_of(&LogFormat { shape, omit_empty_values: false }, slow);
    assert_eq!(line, "URX,UT upstream_per_try_timeout");
}

#[test]
fn json_keeps_numbers_and_sorts_names() {
    let fields = json!({
        "status": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "none": "%REQ(none)%", "fixed": 1,
        "mixed": "%PROTOCOL% %RESPONSE_CODE%", "inner": {"quoted": "%REQ(quoted)%", "no": "%REQ(no)%"},
        "list": ["%BYTES_SENT%", "%REQ(no)%"],
    });
    let shape = LogShape::Json(fields.as_object().unwrap().clone());
    let line = line_of(&LogFormat { shape: shape.clone(), omit_empty_values: false }, record());
    let expected = "{\"fixed\":1,\"inner\":{\"no\":null,\"quoted\":\"a\\\"b\"},\"list\":[5,null],\
                    \"mixed\":\"HTTP/1.1 200\",\"none\":null,\"path\":\"/x?q=1\",\"status\":200}\n";
    assert_eq!(line, expected);
    let line = line_of(&LogFormat { shape, omit_empty_values: true }, record());
    assert!(!line.contains("none") && line.contains("\"list\":[5]") && !line.contains("\"no\""), "{line}");
}

#[test]
fn empty_values_may_be_left_out_of_text() {
    let shape = LogShape::Text("<%REQ(none)%>".into());
    assert_eq!(line_of(&LogFormat { shape, omit_empty_values: true }, record()), "<>");
}

#[test]
fn filters_decide_by_the_record() {
    let at_least = |value| LogFilter::Status(Comparison { op: ComparisonOp::Ge, value });
    let slow = |value| LogFilter::Duration(Comparison { op: ComparisonOp::Le, value });
    let mut refused = record();
    refused.outcome = Outcome { flag: "UO", ..Outcome::default() };
    let flags = |flags: &[&str]| LogFilter::Flags(flags.iter().map(|flag| (*flag).into()).collect());
    let half = |random| LogFilter::Sampled { numerator: random, denominator: 100 };
    let table = [
        (at_least(200), true, true),
        (at_least(201), false, false),
        (slow(10), true, true),
        (slow(9), false, false),
        (flags(&[]), false, true),
        (LogFilter::NotHealthCheck, true, true),
        (flags(&["UF", "UO"]), false, true),
        (flags(&["UF"]), false, false),
        (half(49), false, false),
        (half(50), true, true),
        (LogFilter::All(vec![at_least(200), flags(&[])]), false, true),
        (LogFilter::Any(vec![at_least(500), slow(10)]), true, true),
    ];
    for (filter, plain, failed) in table {
        let random = || u64::MAX / 2;
        let compiled = Filter::compile(&filter, &mut Wants::default()).unwrap();
        let admitted = (compiled.admits(&record(), &random), compiled.admits(&refused, &random));
        assert_eq!(admitted, (plain, failed), "{filter:?}");
    }
    let wrong = Filter::compile(&flags(&["XX"]), &mut Wants::default()).unwrap_err();
    assert!(wrong.to_string().contains("XX"));
}

/// The record is of a request that the second matcher of its chain matched.
#[test]
fn a_filter_may_ask_for_header_fields() {
    let mut wants = Wants::default();
    let header = |name: &str| {
        LogFilter::Header(Box::new(HeaderMatcher {
            name: name.into(),
            matches: HeaderMatch::Present(true),
            invert: false,
            missing_is_empty: false,
        }))
    };
    let first = Filter::compile(&header("x-a"), &mut wants).unwrap();
    let both = LogFilter::Any(vec![header("x-b"), header("x-c")]);
    let second = Filter::compile(&both, &mut wants).unwrap();
    assert_eq!(wants.matchers.len(), 3);
    assert_eq!((first.admits(&record(), &|| 0), second.admits(&record(), &|| 0)), (false, true));
    let mut head = RequestHead::new();
    head.headers_mut().append("x-c", b"1").unwrap();
    let mut draft = Draft::default();
    draft.request(&wants, &head, None);
    assert_eq!(draft.matched, 0b100);
    let more = LogFilter::All(vec![header("x"); 62]);
    assert!(Filter::compile(&more, &mut wants).unwrap_err().to_string().contains("64 matchers"));
}

/// A file of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("corelane-access-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Scratch(std::env::temp_dir().join(name))
    }

    #[expect(clippy::disallowed_methods, reason = "the test looks at what the writer's thread wrote")]
    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn compile(logs: &Logs, configs: &[AccessLog]) -> Arc<ChainLog> {
    let mut problems = Vec::new();
    let chain = ChainLog::compile(configs, None, Some(""), logs, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    chain.unwrap()
}

fn log_to(file: &Scratch, format: &str, filter: Option<LogFilter>) -> AccessLog {
    let format = LogFormat { shape: LogShape::Text(format.into()), omit_empty_values: false };
    AccessLog { sink: LogSink::File(file.0.clone()), format, filter }
}

#[test]
fn batches_reach_the_files_that_want_them() {
    let (all, errors) = (Scratch::new(), Scratch::new());
    let store = StatsStore::new(1);
    let logs = Logs::new(&store, Duration::ZERO);
    let failed = LogFilter::Status(Comparison { op: ComparisonOp::Ge, value: 500 });
    let configs =
        [log_to(&all, "%RESPONSE_CODE%\n", None), log_to(&errors, "%RESPONSE_CODE%\n", Some(failed))];
    let chain = compile(&logs, &configs);
    let mut batch = Batch::default();
    for status in [200, 503] {
        let record = Record { status, ..record() };
        let wanted = chain.wanted_by(&record, || 0);
        batch.push(record, &Draft::default(), wanted);
    }
    ChainLog::write_later(&chain, batch);
    logs.close();
    assert_eq!((all.text().as_str(), errors.text().as_str()), ("200\n503\n", "503\n"));
    assert_eq!(chain.under_way(), 0);
    assert_eq!(store.value("filesystem.write_buffered"), Some(3));
    assert_eq!(store.value("filesystem.write_completed"), Some(2));
}

#[test]
fn a_file_that_was_moved_away_is_opened_again() {
    let (file, moved) = (Scratch::new(), Scratch::new());
    let logs = Logs::new(&StatsStore::new(1), Duration::ZERO);
    let output = logs.open(&LogSink::File(file.0.clone())).unwrap().unwrap();
    output.write(b"one\n").unwrap();
    std::fs::rename(&file.0, &moved.0).unwrap();
    output.write(b"two\n").unwrap();
    logs.reopen().unwrap();
    output.write(b"three\n").unwrap();
    assert_eq!((moved.text().as_str(), file.text().as_str()), ("one\ntwo\n", "three\n"));
    let again = logs.open(&LogSink::File(file.0.clone())).unwrap().unwrap();
    assert!(Arc::ptr_eq(&output, &again), "one file is open once");
}

#[test]
fn what_cannot_be_written_or_understood_is_a_problem() {
    let store = StatsStore::new(1);
    let logs = Logs::new(&store, Duration::ZERO);
    let nowhere = Scratch("/nowhere/at/all.log".into());
    let fine = Scratch::new();
    let configs = [
        log_to(&nowhere, "x", None),
        log_to(&fine, "%NO%", None),
        log_to(&fine, "x", Some(LogFilter::Sampled { numerator: 1, denominator: 0 })),
    ];
    let mut problems = Vec::new();
    ChainLog::compile(&configs, None, Some(""), &logs, &mut problems);
    let told: Vec<_> = problems.iter().map(|problem| problem.to_string()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told[0].contains("access_log[0].path") && told[1].contains("access_log[1].log_format"),
        "{told:?}"
    );
    let mut problems = Vec::new();
    ChainLog::compile(&configs[..1], None, Some(""), &Logs::dry(&store), &mut problems);
    assert!(problems.is_empty(), "what is only checked opens nothing");
}
