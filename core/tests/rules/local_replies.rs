//! Answers that the proxy gives by itself, as its configuration wants them.

use crate::filters::filter;
use crate::lab::{Lab, Message, field, get, manager, response, rules, table, to_cluster};
use corelane::config::{
    Action, AppendAction, Comparison, ComparisonOp, ConfigValue, DirectResponse, HeaderOption, LocalReplies,
    LogFilter, LogFormat, LogShape, PathMatch, ReplyFormat, ReplyMapper, Route, RouteMatch,
};
use serde_json::json;

rules! {
    an_answer_is_what_the_first_mapper_makes_of_it,
    a_format_is_laid_around_every_own_answer,
    a_refused_head_is_answered_in_the_format_too,
    what_an_upstream_says_is_not_touched,
    bad_replies_are_refused,
    a_client_of_grpc_is_answered_in_its_own_way,
    filters_see_an_answer_as_its_chain_wants_it,
    a_route_that_answers_by_itself_edits_that_answer_alone,
    an_answer_that_leads_elsewhere_names_the_requests_own_uri,
    an_answer_to_a_bad_request_ends_its_connection,
}

fn status(code: u64) -> LogFilter {
    LogFilter::Status(Comparison { op: ComparisonOp::Eq, value: code })
}

fn mapper(filter: LogFilter) -> ReplyMapper {
    ReplyMapper { filter, status: None, body: None, format: None, headers: Vec::new() }
}

fn text(format: &str) -> ReplyFormat {
    let body = LogFormat { shape: LogShape::Text(format.into()), omit_empty_values: false };
    ReplyFormat { body, content_type: None }
}

fn direct(path: &str, status: u16, body: &'static str) -> Route {
    Route::new(
        RouteMatch::new(PathMatch::Path(path.into())),
        Action::DirectResponse(DirectResponse { status, body: body.into() }),
    )
}

async fn an_answer_is_what_the_first_mapper_makes_of_it(lab: Lab) {
    let refusing = lab.refusing();
    let mut config = lab.http(&[refusing]).await;
    let hcm = manager(&mut config);
    hcm.routes.virtual_hosts[0].routes.insert(0, direct("/teapot", 418, "short and stout"));
    let header = HeaderOption {
        name: "x-why".into(),
        value: "%RESPONSE_CODE_DETAILS% %REQ(X-ASK)% %RESPONSE_FLAGS%".into(),
        action: AppendAction::Append,
        keep_empty: false,
    };
    hcm.local_replies = Some(LocalReplies {
        mappers: vec![
            ReplyMapper {
                status: Some(502),
                body: Some("nobody is there\n".into()),
                headers: vec![header],
                ..mapper(LogFilter::Flags(vec!["UF".into()]))
            },
            ReplyMapper {
                format: Some(text("%RESPONSE_CODE%: %LOCAL_REPLY_BODY% at %REQ(:PATH)%")),
                ..mapper(status(418))
            },
            ReplyMapper { body: Some("too late".into()), ..mapper(status(418)) },
        ],
        format: None,
    });
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let failed = client.ask("GET /a HTTP/1.1\r\nhost: a\r\nx-ask: me\r\n\r\n").await;
    assert_eq!((failed.status(), failed.text()), (502, "nobody is there\n"));
    let why = failed.field("x-why").unwrap();
    assert!(why.starts_with("upstream_reset_before_response_started{") && why.ends_with("} me UF"), "{why}");
    assert_eq!(failed.field("content-length"), Some("16"));
    let teapot = client.ask(&get("/teapot")).await;
    assert_eq!((teapot.status(), teapot.text()), (418, "418: short and stout at /teapot"));
    assert_eq!(teapot.field("content-type"), Some("text/plain"));
    // An answer to HEAD announces the length of the new body, and has none.
    client.send("HEAD /teapot HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(field(&client.head().await, "content-length"), Some("31"));
    assert_eq!(client.ask(&get("/teapot")).await.status(), 418);
}

async fn a_format_is_laid_around_every_own_answer(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let hcm = manager(&mut config);
    hcm.routes = table(vec![direct("/empty", 204, ""), direct("/full", 403, "no \"way\"")]);
    let shape = json!({"code": "%RESPONSE_CODE%", "body": "%LOCAL_REPLY_BODY%", "host": "%UPSTREAM_HOST%"});
    let LogShape::Json(fields) = LogShape::Json(shape.as_object().unwrap().clone()) else { unreachable!() };
    let body = LogFormat { shape: LogShape::Json(fields), omit_empty_values: false };
    let format = ReplyFormat { body, content_type: None };
    hcm.local_replies = Some(LocalReplies { mappers: Vec::new(), format: Some(format) });
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let full = client.ask(&get("/full")).await;
    assert_eq!(full.status(), 403);
    assert_eq!(full.text(), "{\"body\":\"no \\\"way\\\"\",\"code\":403,\"host\":null}\n");
    assert_eq!(full.field("content-type"), Some("application/json"));
    let missing = client.ask(&get("/nowhere")).await;
    assert_eq!((missing.status(), missing.text()), (404, "{\"body\":\"\",\"code\":404,\"host\":null}\n"));
    // An empty body from a format is none, and has no type.
    manager(&mut config).local_replies.as_mut().unwrap().format = Some(text(""));
    lab.publish(&config).await;
    let bare = client.ask(&get("/full")).await;
    assert_eq!((bare.status(), bare.text(), bare.field("content-type")), (403, "", None));
}

async fn a_refused_head_is_answered_in_the_format_too(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let mapped = ReplyMapper { status: Some(422), ..mapper(status(400)) };
    let format = ReplyFormat {
        content_type: Some("text/html; charset=UTF-8".into()),
        ..text("<b>%RESPONSE_CODE%</b> %REQ(:PATH)%")
    };
    manager(&mut config).local_replies = Some(LocalReplies { mappers: vec![mapped], format: Some(format) });
    lab.publish(&config).await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost : a\r\n\r\n").await;
    let refused = client.message().await;
    assert_eq!((refused.status(), refused.text()), (422, "<b>422</b> -"));
    assert_eq!(refused.field("content-type"), Some("text/html; charset=UTF-8"));
}

async fn what_an_upstream_says_is_not_touched(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        while wire.try_head().await.is_some() {
            wire.send(response(503, "upstream")).await;
        }
    });
    let mut config = lab.http(&[upstream.addr]).await;
    let hcm = manager(&mut config);
    hcm.routes = to_cluster("up");
    let mapped = ReplyMapper { status: Some(200), body: Some("ours".into()), ..mapper(status(503)) };
    hcm.local_replies = Some(LocalReplies { mappers: vec![mapped], format: Some(text("ours")) });
    lab.publish(&config).await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.text()), (503, "upstream"));
}

async fn bad_replies_are_refused(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let header = |name: &str, value: &str| HeaderOption {
        name: name.into(),
        value: value.into(),
        action: AppendAction::Append,
        keep_empty: false,
    };
    let bad = ReplyMapper {
        status: Some(100),
        format: Some(text("%NO_SUCH%")),
        headers: vec![header("host", "a"), header("x", "%NO%")],
        ..mapper(LogFilter::Flags(vec!["QQ".into()]))
    };
    manager(&mut config).local_replies = Some(LocalReplies { mappers: vec![bad], format: Some(text("50%")) });
    let problems = lab.handle.compile(&config).unwrap_err().to_string();
    let at = "listeners[\"web\"].filter_chains[0].local_reply_config";
    for expected in [
        "mappers[0].filter: \"QQ\" is not a response flag",
        "mappers[0].status_code: 100 is no status of an answer",
        "mappers[0].headers_to_add[0].header.key: ",
        "mappers[0].headers_to_add[1].header.value: the operator %NO% is not implemented",
        "mappers[0].body_format_override: the operator %NO_SUCH% is not implemented",
        "body_format: ",
    ] {
        assert!(problems.contains(&format!("{at}.{expected}")), "{expected} in {problems}");
    }
}

const CALL: &str = "POST /s/m HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n";

/// Of every kind: the route's own, the router's, a limit's, the connection manager's.
async fn a_client_of_grpc_is_answered_in_its_own_way(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let hcm = manager(&mut config);
    hcm.routes.virtual_hosts[0].routes.insert(0, direct("/direct", 403, "50% off\n"));
    lab.publish(&config).await;
    let mut client = lab.client().await;
    let told = |answer: &Message| {
        let fields = ["grpc-status", "content-type", "content-length"];
        let fields = fields.map(|name| answer.field(name).unwrap_or_default().to_owned());
        (answer.status(), answer.text().to_owned(), fields.join(" "))
    };
    let direct = CALL.replace("/s/m", "/direct") + "content-length: 0\r\n\r\n";
    let direct = client.ask(&direct).await;
    assert_eq!(told(&direct), (200, "".into(), "7 application/grpc 0".into()));
    assert_eq!(direct.field("grpc-message"), Some("50%25 off%0A"));
    let failed = client.ask(&(CALL.to_owned() + "content-length: 0\r\n\r\n")).await;
    assert_eq!(told(&failed), (200, "".into(), "14 application/grpc 0".into()));
    assert!(failed.field("grpc-message").unwrap().starts_with("upstream connect error"));
    let upgrade = CALL.to_owned() + "connection: upgrade\r\nupgrade: other\r\n\r\n";
    let refused = lab.client().await.ask(&upgrade).await;
    assert_eq!(told(&refused), (200, "".into(), "7 application/grpc 0".into()));
    // A parameter makes another type of it.
    let other = CALL.replace("grpc", "grpc;v=1") + "content-length: 0\r\n\r\n";
    assert_eq!(client.ask(&other).await.status(), 503);
    // A line of JSON is told without its end.
    let format = ReplyFormat { content_type: Some("application/json".into()), ..text("1\n") };
    manager(&mut config).local_replies = Some(LocalReplies { mappers: Vec::new(), format: Some(format) });
    lab.publish(&config).await;
    let told_in_json = client.ask(&(CALL.to_owned() + "content-length: 0\r\n\r\n")).await;
    assert_eq!(told_in_json.field("grpc-message"), Some("1"));
    // What a mapper says counts for the status, and what it writes is the message.
    let mapped = ReplyMapper {
        status: Some(401),
        body: Some("who?".into()),
        ..mapper(LogFilter::Flags(vec!["UF".into()]))
    };
    manager(&mut config).local_replies = Some(LocalReplies { mappers: vec![mapped], format: None });
    lab.publish(&config).await;
    let mapped = client.ask(&(CALL.to_owned() + "content-length: 0\r\n\r\n")).await;
    assert_eq!(told(&mapped), (200, "".into(), "16 application/grpc 0".into()));
    assert_eq!(mapped.field("grpc-message"), Some("who?"));
}

/// The form is laid around the answer before the filters see it, and with the request as they left it.
async fn filters_see_an_answer_as_its_chain_wants_it(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let hcm = manager(&mut config);
    hcm.routes = table(vec![direct("/full", 403, "no way")]);
    let mutation = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let mutations = json!({"mutations": {
        "request_mutations": [{"append": {"header": {"key": "x-by", "value": "filter"}}}],
        "response_mutations": [{"append": {"header": {"key": "x-saw", "value": "%RESP(content-type)%"}}}],
    }});
    hcm.filters.insert(0, filter("mutate", ConfigValue::new(mutation, mutations)));
    let format = ReplyFormat { content_type: Some("text/html".into()), ..text("%REQ(X-BY)%") };
    hcm.local_replies = Some(LocalReplies { mappers: Vec::new(), format: Some(format) });
    lab.publish(&config).await;
    let answer = lab.client().await.ask(&get("/full")).await;
    assert_eq!((answer.text(), answer.field("x-saw")), ("filter", Some("text/html")));
}

fn added(name: &str, value: &str) -> HeaderOption {
    HeaderOption { name: name.into(), value: value.into(), action: AppendAction::Append, keep_empty: false }
}

async fn a_route_that_answers_by_itself_edits_that_answer_alone(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    let hcm = manager(&mut config);
    let mut own = direct("/own", 403, "no way");
    own.headers.response_add.push(added("x-route", "was here"));
    hcm.routes.virtual_hosts[0].routes[0].headers.response_add.push(added("x-route", "was here"));
    hcm.routes.virtual_hosts[0].routes.insert(0, own);
    let fault = json!({
        "abort": {"http_status": 429, "percentage": {"numerator": 100}},
        "headers": [{"name": "x-fail", "present_match": true}]});
    let fault = ConfigValue::new("envoy.extensions.filters.http.fault.v3.HTTPFault", fault);
    hcm.filters.insert(0, filter("fault", fault));
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for (path, fails, status, edited) in [
        ("/own", "", 403, true),
        ("/own", "x-fail: 1\r\n", 429, false),
        ("/", "", 503, true),
        ("/", "x-fail: 1\r\n", 429, true),
    ] {
        let answer = client.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fails}\r\n")).await;
        assert_eq!((answer.status(), answer.field("x-route").is_some()), (status, edited), "{path} {fails}");
    }
}

async fn an_answer_that_leads_elsewhere_names_the_requests_own_uri(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    manager(&mut config).routes =
        table(vec![direct("/new", 201, "made"), direct("/old", 302, ""), direct("/here", 200, "")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    for (path, location) in
        [("/new", Some("http://a.test/new")), ("/old", Some("http://a.test/old")), ("/here", None)]
    {
        assert_eq!(client.ask(&get(path)).await.field("location"), location, "{path}");
    }
}

async fn an_answer_to_a_bad_request_ends_its_connection(lab: Lab) {
    let mut config = lab.http(&[lab.refusing()]).await;
    manager(&mut config).routes = table(vec![direct("/bad", 400, "how?"), direct("/gone", 410, "")]);
    lab.publish(&config).await;
    let mut client = lab.client().await;
    assert_eq!(client.ask(&get("/gone")).await.field("connection"), None);
    let bad = client.ask(&get("/bad")).await;
    assert_eq!((bad.status(), bad.field("connection")), (400, Some("close")));
    assert!(client.rest().await.0.is_empty());
}
