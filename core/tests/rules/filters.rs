//! The filter seam.

use crate::lab::{Lab, Setup, Upstream, field, get, response, rules};
use corelane::{
    Lane,
    config::{
        Action, ConfigError, ConfigValue, FilterOverride, HttpConnectionManager, HttpFilter as FilterConfig,
        Terminal, Upgrade,
    },
    error::{Error, Kind},
    filter::{
        Cx, Destination, FilterFactory, Flow, HeadFilter, HttpFilter, Next, Registry, Request, Response,
        Scope,
    },
    http::{Body, BodyStream, Frame},
    io::{Chunk, Peer},
    wire::{RequestHead, ResponseHead, Status},
};
use serde::Deserialize;
use serde_json::json;
use std::{
    cell::Cell,
    future::{Future, pending},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

const WITH: Setup = Setup { lanes: 1, build: |builder| builder.filters(filters) };

rules! {
    filters_see_responses_in_reverse(WITH),
    a_filter_can_answer(WITH),
    an_async_filter_can_wait_and_answer(WITH),
    a_failure_is_a_reply_to_head_filters_and_an_error_to_others(WITH),
    bodies_can_be_transformed_both_ways(WITH),
    a_body_of_another_length_is_reset(WITH),
    a_dropped_exchange_runs_no_filter_code(WITH),
    routes_configure_filters(WITH),
    routes_turn_filters_on_and_off(WITH),
    a_cleared_route_is_resolved_again(WITH),
    an_upgrade_is_asked_for_again_where_a_route_was_cleared(WITH),
    a_filter_chooses_the_upstream(WITH),
    interim_responses_can_be_watched(WITH),
    values_travel_with_the_request(WITH),
    a_body_kept_past_its_exchange_reads_nothing(WITH),
    a_filter_cannot_split_a_response(WITH),
    filters_are_kept_while_their_configuration_is(WITH),
}

fn filters(registry: Registry) -> Registry {
    registry.head::<Tag>().http::<Wrap>().http::<Act>()
}

/// Adds a name to fields on both ways; answers on `/tag-answers`.
struct Tag {
    config: Arc<TagConfig>,
    built: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TagConfig {
    name: String,
}

static BUILT: AtomicU64 = AtomicU64::new(0);

impl FilterFactory for Tag {
    const NAME: &'static str = "test.tag";
    const TYPES: &'static [&'static str] = &["test.Tag"];
    type Config = TagConfig;
    type Filter = Tag;

    fn parse(raw: &ConfigValue, _: Scope) -> Result<TagConfig, ConfigError> {
        raw.deserialize()
    }

    fn build(config: Arc<TagConfig>, _: &Lane, _: Option<Rc<Tag>>) -> Rc<Tag> {
        Rc::new(Tag { config, built: BUILT.fetch_add(1, SeqCst) })
    }
}

impl HeadFilter for Tag {
    fn request_head(&self, head: &mut RequestHead, cx: &Cx) -> Flow {
        let own = cx.route_config::<Tag>();
        let name = own.as_ref().map_or(&self.config.name, |config| &config.name);
        add(head.headers().get("x-tags"), name)
            .apply(|value| head.headers_mut().set("x-tags", value).unwrap());
        if head.path() == b"/tag-answers" {
            let mut answer = ResponseHead::new();
            answer.set_status(Status::TOO_MANY_REQUESTS);
            return Flow::Reply(Response { head: answer, body: Body::full(&b"enough"[..]) });
        }
        Flow::Continue
    }

    fn response_head(&self, head: &mut ResponseHead, cx: &Cx) {
        let failure = cx.failure().map_or("", |e| e.flag());
        let name = format!("{}{failure}", self.config.name);
        add(head.headers().get("x-back"), &name)
            .apply(|value| head.headers_mut().set("x-back", value).unwrap());
        head.headers_mut().set("x-built", self.built.to_string().as_bytes()).unwrap();
    }
}

struct Joined(Vec<u8>);

impl Joined {
    fn apply(&self, f: impl FnOnce(&[u8])) {
        f(&self.0);
    }
}

fn add(to: Option<&[u8]>, name: &str) -> Joined {
    let mut value = to.map_or(Vec::new(), |value| [value, b" "].concat());
    value.extend_from_slice(name.as_bytes());
    Joined(value)
}

/// Doubles every byte of both bodies.
struct Wrap;

struct Doubled(Body);

impl BodyStream for Doubled {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        Poll::Ready(match ready!(self.0.poll_next(cx))? {
            Some(Frame::Data(chunk)) => {
                let doubled = chunk.bytes().iter().flat_map(|b| [*b, *b]).collect();
                Ok(Some(Frame::Data(Chunk::Vec(doubled))))
            }
            other => Ok(other),
        })
    }
}

impl FilterFactory for Wrap {
    const NAME: &'static str = "test.wrap";
    const TYPES: &'static [&'static str] = &["test.Wrap"];
    type Config = ();
    type Filter = Wrap;

    fn parse(_: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        Ok(())
    }

    fn build(_: Arc<()>, _: &Lane, _: Option<Rc<Wrap>>) -> Rc<Wrap> {
        Rc::new(Wrap)
    }
}

impl HttpFilter for Wrap {
    async fn call(self: Rc<Self>, mut req: Request, next: Next) -> Result<Response, Error> {
        let honest = !req.head.headers().contains("x-lie");
        if !req.body.is_empty() {
            req.head.headers_mut().remove("content-length");
            req.body = Body::wrap(Doubled(req.body));
        }
        let mut response = next.run(req).await?;
        if honest {
            response.head.headers_mut().remove("content-length");
        }
        response.body = Body::wrap(Doubled(response.body));
        Ok(response)
    }
}

/// Does what the path says.
struct Act {
    dropped: Rc<Cell<u32>>,
}

/// How often a call of [`Act`] was dropped, and how often it ran on after that, over all tests of a path.
static DROPPED: AtomicU64 = AtomicU64::new(0);
static RAN_ON: AtomicU64 = AtomicU64::new(0);

impl FilterFactory for Act {
    const NAME: &'static str = "test.act";
    const TYPES: &'static [&'static str] = &["test.Act"];
    type Config = ();
    type Filter = Act;

    fn parse(_: &ConfigValue, _: Scope) -> Result<(), ConfigError> {
        Ok(())
    }

    fn build(_: Arc<()>, _: &Lane, _: Option<Rc<Act>>) -> Rc<Act> {
        Rc::new(Act { dropped: Rc::default() })
    }
}

struct OnDrop(Rc<Cell<u32>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        DROPPED.fetch_add(1, SeqCst);
    }
}

#[derive(PartialEq, Debug)]
struct Seen(u32);

impl HttpFilter for Act {
    fn call(self: Rc<Self>, req: Request, next: Next) -> impl Future<Output = Result<Response, Error>> {
        act(self, req, next)
    }
}

async fn act(filter: Rc<Act>, mut req: Request, next: Next) -> Result<Response, Error> {
    let path = String::from_utf8(req.head.path().to_vec()).unwrap();
    let cx = req.cx.clone();
    match path.as_str() {
        "/wait" => {
            cx.lane().io().sleep(Duration::from_millis(10)).await;
            let mut head = ResponseHead::new();
            head.set_status(Status::FORBIDDEN);
            return Ok(Response { head, body: Body::empty() });
        }
        "/never" => {
            let _guard = OnDrop(filter.dropped.clone());
            pending::<()>().await;
            RAN_ON.fetch_add(1, SeqCst);
        }
        "/slow" => {
            let _guard = OnDrop(filter.dropped.clone());
            let response = next.run(req).await;
            RAN_ON.fetch_add(1, SeqCst);
            return response;
        }
        "/clear" => {
            req.head.set_path(b"/two").unwrap();
            cx.clear_route();
        }
        "/hints" => {
            let count = Rc::new(Cell::new(0));
            let (counted, inner) = (count.clone(), cx.clone());
            cx.on_interim(move |head| {
                assert_eq!(head.status().code(), 103);
                counted.set(counted.get() + 1);
                inner.insert(Seen(counted.get()));
            });
            let mut response = next.run(req).await?;
            response.head.headers_mut().append_decimal("x-hints", count.get().into()).unwrap();
            assert_eq!(cx.get::<Seen>().as_deref(), Some(&Seen(2)));
            return Ok(response);
        }
        "/values" => {
            assert_eq!(cx.get::<Seen>(), None);
            cx.insert(Seen(1));
            cx.insert(Seen(7));
            let mut response = next.run(req).await?;
            let seen = cx.get::<Seen>().unwrap();
            response.head.headers_mut().append_decimal("x-seen", seen.0.into()).unwrap();
            return Ok(response);
        }
        "/keep" => {
            // A body that outlives its exchange, in a task of its own.
            let body = std::mem::take(&mut req.body);
            req.head.headers_mut().remove("content-length");
            let io = cx.lane().io().clone();
            cx.lane().io().spawn(async move {
                io.sleep(Duration::from_millis(30)).await;
                let mut body = body;
                assert_eq!(body.next().await.unwrap_err(), Error::downstream(Kind::Reset));
                DROPPED.fetch_add(1, SeqCst);
            });
        }
        "/split" => {
            let mut response = next.run(req).await?;
            let fields = response.head.headers_mut();
            assert!(fields.append("x-evil", b"a\r\nset-cookie: b").is_err());
            assert!(fields.append("x evil", b"a").is_err());
            return Ok(response);
        }
        path if path.starts_with("/to/") => {
            let addr = path["/to/".len()..].parse().map(Peer::Tcp).unwrap();
            cx.set_upstream(Destination { addr });
        }
        _ => {}
    }
    match next.run(req).await {
        Err(e) if path == "/rescue" => {
            let mut head = ResponseHead::new();
            head.headers_mut().append("x-rescued", e.flag().as_bytes()).unwrap();
            Ok(Response { head, body: Body::full(&b"rescued"[..]) })
        }
        other => other,
    }
}

fn tag(name: &str) -> FilterConfig {
    filter(name, ConfigValue::new("test.Tag", json!({ "name": name })))
}

pub(crate) fn filter(name: &str, config: ConfigValue) -> FilterConfig {
    FilterConfig { name: name.into(), config, disabled: false }
}

fn act_filter() -> FilterConfig {
    filter("act", ConfigValue::empty("test.Act"))
}

pub(crate) fn chain(manager: &mut HttpConnectionManager, filters: Vec<FilterConfig>) {
    manager.filters = filters;
    manager.filters.push(FilterConfig::router());
}

/// An upstream that answers with the head it got, or with a body of the request's if there is one.
pub(crate) fn telling(lab: &Lab) -> Upstream {
    lab.upstream(|mut wire| async move {
        while let Some(head) = wire.try_head().await {
            let body = wire.body_of(head.clone()).await.unwrap().body;
            let body = if body.is_empty() { head } else { String::from_utf8(body).unwrap() };
            wire.send(response(200, &body)).await;
        }
    })
}

async fn filters_see_responses_in_reverse(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![tag("a"), tag("b"), act_filter(), tag("c")])).await;
    let answer = lab.client().await.ask(&get("/")).await;
    assert_eq!(field(answer.text(), "x-tags"), Some("a b c"));
    assert_eq!(answer.field("x-back"), Some("c b a"));
}

async fn a_filter_can_answer(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr.clone()], |m, _| chain(m, vec![tag("a"), act_filter(), tag("b")])).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/tag-answers")).await;
    assert_eq!((answer.status(), answer.text(), answer.field("x-back")), (429, "enough", Some("a")));
    // A body that nobody reads ends the connection.
    let answer = client.ask("POST /tag-answers HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(upstream.accepted.get(), 0);
}

async fn an_async_filter_can_wait_and_answer(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![tag("a"), act_filter()])).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/wait")).await;
    assert_eq!(
        (answer.status(), answer.field("x-back"), answer.field("content-length")),
        (403, Some("a"), Some("0"))
    );
    assert_eq!(client.ask(&get("/")).await.status(), 200);
}

async fn a_failure_is_a_reply_to_head_filters_and_an_error_to_others(lab: Lab) {
    lab.http_with(&[lab.refusing()], |m, _| chain(m, vec![tag("a"), act_filter()])).await;
    let mut client = lab.client().await;
    let answer = client.ask(&get("/")).await;
    assert_eq!((answer.status(), answer.field("x-back")), (503, Some("aUF")));
    let answer = client.ask(&get("/rescue")).await;
    assert_eq!((answer.status(), answer.field("x-rescued"), answer.text()), (200, Some("UF"), "rescued"));
    assert_eq!(answer.field("x-back"), Some("a"));
}

async fn bodies_can_be_transformed_both_ways(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![filter("w", ConfigValue::empty("test.Wrap"))]))
        .await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        let answer = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        assert_eq!((answer.field("transfer-encoding"), answer.text()), (Some("chunked"), "aaaabbbbcccc"));
    }
}

async fn a_body_of_another_length_is_reset(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![filter("w", ConfigValue::empty("test.Wrap"))]))
        .await;
    let mut client = lab.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-lie: 1\r\n\r\n").await;
    // More than the head announced would be the beginning of another response to the client.
    assert!(client.rest().await.1.is_err());
}

async fn a_dropped_exchange_runs_no_filter_code(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![act_filter()])).await;
    let (dropped, ran_on) = (DROPPED.load(SeqCst), RAN_ON.load(SeqCst));
    for path in ["/never", "/slow"] {
        let mut client = lab.client().await;
        client.send(get(path)).await;
        lab.until_stat("http.test.downstream_rq_active", 1).await;
        client.abort();
        lab.until_stat("http.test.downstream_rq_active", 0).await;
    }
    lab.io.sleep(Duration::from_millis(20)).await;
    assert!(DROPPED.load(SeqCst) >= dropped + 2);
    assert_eq!(RAN_ON.load(SeqCst), ran_on);
}

fn with_override(
    manager: &mut HttpConnectionManager,
    filter: &str,
    config: Option<ConfigValue>,
    disabled: Option<bool>,
) {
    let mut one = crate::lab::route("/one", "up");
    one.per_filter_config.insert(filter.into(), FilterOverride { config, disabled });
    let host = &mut manager.routes.virtual_hosts[0];
    host.routes.insert(0, one);
}

async fn routes_configure_filters(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| {
        chain(m, vec![tag("a"), tag("b")]);
        let config = |name: &str| ConfigValue::new("test.Tag", json!({ "name": name }));
        with_override(m, "b", Some(config("of-route")), None);
        let host = &mut m.routes.virtual_hosts[0];
        let both = |name: &str| FilterOverride { config: Some(config(name)), disabled: None };
        host.per_filter_config.insert("a".into(), both("of-host"));
        m.routes.per_filter_config.insert("a".into(), both("of-table"));
        m.routes.per_filter_config.insert("b".into(), both("of-table"));
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(field(client.ask(&get("/one")).await.text(), "x-tags"), Some("of-host of-route"));
    assert_eq!(field(client.ask(&get("/")).await.text(), "x-tags"), Some("of-host of-table"));
}

async fn routes_turn_filters_on_and_off(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| {
        let off = FilterConfig { disabled: true, ..tag("off") };
        chain(m, vec![tag("a"), off, tag("b")]);
        with_override(m, "off", None, Some(false));
        let one = &mut m.routes.virtual_hosts[0].routes[0];
        one.per_filter_config.insert("a".into(), FilterOverride { config: None, disabled: Some(true) });
    })
    .await;
    let mut client = lab.client().await;
    assert_eq!(field(client.ask(&get("/one")).await.text(), "x-tags"), Some("off b"));
    assert_eq!(field(client.ask(&get("/")).await.text(), "x-tags"), Some("a b"));
}

async fn a_cleared_route_is_resolved_again(lab: Lab) {
    let (one, two) = (telling(&lab), telling(&lab));
    let mut config = lab.http_with(&[one.addr.clone()], |m, _| chain(m, vec![act_filter()])).await;
    config.clusters.push(corelane::config::Cluster::new("two", [two.addr.clone()]));
    let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
    manager.routes.virtual_hosts[0].routes.insert(0, crate::lab::route("/two", "two"));
    lab.publish(&config).await;
    assert_eq!(lab.client().await.ask(&get("/clear")).await.status(), 200);
    assert_eq!((one.accepted.get(), two.accepted.get()), (0, 1));
}

async fn an_upgrade_is_asked_for_again_where_a_route_was_cleared(lab: Lab) {
    let upstream = telling(&lab);
    let mut config = lab
        .http_with(&[upstream.addr], |m, _| {
            chain(m, vec![act_filter()]);
            m.upgrades = vec![Upgrade::to("websocket")];
        })
        .await;
    let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
    let mut two = crate::lab::route("/two", "up");
    let Action::Forward(forward) = &mut two.action else { panic!("it forwards") };
    forward.upgrades = vec![Upgrade { enabled: false, ..Upgrade::to("websocket") }];
    manager.routes.virtual_hosts[0].routes.insert(0, two);
    lab.publish(&config).await;
    let ask = "GET /clear HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(lab.client().await.ask(ask).await.status(), 403);
}

async fn a_filter_chooses_the_upstream(lab: Lab) {
    let (declared, chosen) = (telling(&lab), telling(&lab));
    lab.http_with(&[declared.addr.clone()], |m, _| chain(m, vec![act_filter()])).await;
    let mut client = lab.client().await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get(&format!("/to/{}", chosen.addr))).await.status(), 200);
    }
    assert_eq!((declared.accepted.get(), chosen.accepted.get()), (0, 1), "pooled like a cluster's");
    assert_eq!(lab.stat("cluster.set_upstream.upstream_rq_total"), 3);
}

async fn interim_responses_can_be_watched(lab: Lab) {
    let upstream = lab.upstream(|mut wire| async move {
        wire.head().await;
        wire.send(
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        )
        .await;
        let _ = wire.rest().await;
    });
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![act_filter()])).await;
    let mut client = lab.client().await;
    client.send(get("/hints")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 103"));
    assert!(client.head().await.starts_with("HTTP/1.1 103"));
    let head = client.head().await;
    assert_eq!(field(&head, "x-hints"), Some("2"));
}

async fn values_travel_with_the_request(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![act_filter()])).await;
    let mut client = lab.client().await;
    for _ in 0..2 {
        assert_eq!(client.ask(&get("/values")).await.field("x-seen"), Some("7"));
    }
}

async fn a_body_kept_past_its_exchange_reads_nothing(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![act_filter()])).await;
    let dropped = DROPPED.load(SeqCst);
    let mut client = lab.client().await;
    let answer = client.ask("POST /keep HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    client.finish().await;
    for _ in 0..200 {
        if DROPPED.load(SeqCst) > dropped {
            return;
        }
        lab.io.sleep(Duration::from_millis(5)).await;
    }
    panic!("the body's keeper waits for ever, or failed");
}

async fn a_filter_cannot_split_a_response(lab: Lab) {
    let upstream = telling(&lab);
    lab.http_with(&[upstream.addr], |m, _| chain(m, vec![act_filter()])).await;
    let answer = lab.client().await.ask(&get("/split")).await;
    assert_eq!((answer.status(), answer.field("set-cookie")), (200, None));
}

async fn filters_are_kept_while_their_configuration_is(lab: Lab) {
    let upstream = telling(&lab);
    let mut config = lab.http_with(&[upstream.addr], |m, _| chain(m, vec![tag("a"), tag("b")])).await;
    let mut client = lab.client().await;
    let first = client.ask(&get("/")).await.field("x-built").unwrap().to_owned();
    let Terminal::Http(manager) = &mut config.listeners[0].chains[0].terminal else { panic!() };
    manager.filters[1] =
        FilterConfig { config: ConfigValue::new("test.Tag", json!({ "name": "c" })), ..tag("b") };
    lab.publish(&config).await;
    // The outermost writes last: it is the same object as before.
    assert_eq!(client.ask(&get("/")).await.field("x-built"), Some(&*first));
    assert_eq!(client.ask(&get("/")).await.field("x-back"), Some("c a"));
}
