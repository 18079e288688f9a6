//! The table of pages: path, help, whether it reads or acts, and the function that answers. Owns dispatch, `/` and `/help`;
//! knows no page by name.

use super::stream::{self, Asked, Pieces, Sink};
use crate::limits::ADMIN_WRITERS;
use corelane_io::Exported;
use corelane_wire::{Method, Status};
use std::{borrow::Cow, fmt, sync::Arc};

/// What the admin interface serves.
#[derive(Default)]
pub struct Pages {
    pages: Vec<Page>,
    /// Held once more by each page that is being written.
    writers: Arc<()>,
    /// Who speaks HTTP/2.
    http2: Option<Box<dyn Fn(Exported) + Send>>,
}

struct Page {
    path: &'static str,
    help: &'static str,
    acts: bool,
    answer: Answering,
}

/// How a page answers.
enum Answering {
    Whole(Box<dyn Fn(&Query) -> Reply + Send>),
    Streamed(Arc<dyn WritesPage>, &'static str),
}

/// A function that writes a page; see [`Pages::stream`].
trait WritesPage: Fn(&Asked, &mut Sink) -> Result<(), Reply> + Send + Sync {}

impl<F: Fn(&Asked, &mut Sink) -> Result<(), Reply> + Send + Sync> WritesPage for F {}

/// What the server has to send.
pub(super) enum Answer {
    Whole(Reply),
    /// A body of this media type, piece by piece.
    Streamed(Pieces, &'static str),
}

/// The part of a target behind `?`, decoded: names with values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: Status,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Pages {
    /// No page yet but `/` and `/help`.
    pub fn new() -> Pages {
        Pages::default()
    }

    /// Adds a page that shows something, for GET and HEAD. It runs on the admin's thread and must not wait.
    #[must_use]
    pub fn read(
        mut self,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Query) -> Reply + Send + 'static,
    ) -> Pages {
        self.pages.push(Page { path, help, acts: false, answer: Answering::Whole(Box::new(answer)) });
        self
    }

    /// Adds a page as [`Pages::read`] does, that may wait: it runs on a thread of its own, as a [`Pages::stream`].
    #[must_use]
    pub fn wait(
        self,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Query) -> Reply + Send + Sync + 'static,
    ) -> Pages {
        // Nothing is written, so the reply is sent whole, with its own media type.
        self.stream(path, help, false, "text/plain", move |asked, _| Err(answer(&asked.query)))
    }

    /// Adds a page that changes something, for POST only. It runs on the admin's thread and must not wait.
    #[must_use]
    pub fn act(
        mut self,
        path: &'static str,
        help: &'static str,
        answer: impl Fn(&Query) -> Reply + Send + 'static,
    ) -> Pages {
        self.pages.push(Page { path, help, acts: true, answer: Answering::Whole(Box::new(answer)) });
        self
    }

    /// Adds a page whose body may be long: for GET and HEAD, or where it `acts` for POST. It runs on a thread of its own, so
    /// it may wait, and what it writes leaves as the client takes it. The reply that it fails with is sent in its place if it
    /// has written little yet; later, the connection is reset, so that a body that was cut never looks complete. A few of
    /// them are written at one time ([`ADMIN_WRITERS`]); one more is answered 503.
    #[must_use]
    pub fn stream(
        mut self,
        path: &'static str,
        help: &'static str,
        acts: bool,
        content_type: &'static str,
        answer: impl Fn(&Asked, &mut Sink) -> Result<(), Reply> + Send + Sync + 'static,
    ) -> Pages {
        let answer = Answering::Streamed(Arc::new(answer), content_type);
        self.pages.push(Page { path, help, acts, answer });
        self
    }

    /// Gives away connections that begin with the preface of HTTP/2, which is still to be read from them; without a taker they
    /// are refused. It runs on the admin's thread and must not wait.
    ///
    /// The rules for Host and Origin are against web pages, and no browser speaks HTTP/2 without TLS; so there are none here.
    #[must_use]
    pub fn http2(mut self, take: impl Fn(Exported) + Send + 'static) -> Pages {
        self.http2 = Some(Box::new(take));
        self
    }

    /// Who takes a connection that speaks HTTP/2.
    pub(super) fn http2_taker(&self) -> Option<&(dyn Fn(Exported) + Send)> {
        self.http2.as_deref()
    }

    /// The answer to a request that the guard let through.
    pub(super) fn answer(&self, method: Method, target: &str, body: &[u8]) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let reads = matches!(method, Method::Get | Method::Head);
        if reads && matches!(path, "/" | "/help") {
            return Answer::Whole(Reply::text(Status::OK, self.help()));
        }
        let Some(page) = self.pages.iter().find(|page| page.path == path) else {
            let message = format!("invalid path. admin commands are:\n{}", self.help());
            return Answer::Whole(Reply::text(Status::NOT_FOUND, message));
        };
        match (page.acts, reads, method == Method::Post) {
            (false, true, _) | (true, _, true) => self.run(page, Query::parse(query), body),
            (acts, ..) => {
                let method = if acts { "POST" } else { "GET" };
                let message = format!("{path} is for {method} only\n");
                Answer::Whole(Reply::text(METHOD_NOT_ALLOWED, message))
            }
        }
    }

    fn run(&self, page: &Page, query: Query, body: &[u8]) -> Answer {
        let (answer, content_type) = match &page.answer {
            Answering::Whole(answer) => return Answer::Whole(answer(&query)),
            Answering::Streamed(answer, content_type) => (answer.clone(), *content_type),
        };
        // One is the table's own.
        if Arc::strong_count(&self.writers) > ADMIN_WRITERS {
            let message = format!("{ADMIN_WRITERS} pages are being written already: try again\n");
            return Answer::Whole(Reply::text(Status::SERVICE_UNAVAILABLE, message));
        }
        let asked = Asked { query, body: body.to_vec() };
        let write = move |sink: &mut Sink| answer(&asked, sink);
        match stream::write(write, content_type, self.writers.clone()) {
            Ok(pieces) => Answer::Streamed(pieces, content_type),
            Err(error) => {
                let message = format!("no thread for this page: {error}\n");
                Answer::Whole(Reply::text(Status::SERVICE_UNAVAILABLE, message))
            }
        }
    }

    fn help(&self) -> String {
        let mut lines: Vec<String> =
            self.pages.iter().map(|page| line(page.path, page.help, page.acts)).collect();
        lines.push(line("/help", "print this list", false));
        lines.sort();
        lines.concat()
    }
}

/// 405, with which Envoy answers a GET of a page that acts.
const METHOD_NOT_ALLOWED: Status = match Status::new(405) {
    Some(status) => status,
    None => Status::BAD_REQUEST,
};

fn line(path: &str, help: &str, acts: bool) -> String {
    format!("  {path}: {help}{}\n", if acts { " (POST)" } else { "" })
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pages.iter().map(|page| page.path)).finish()
    }
}

impl Query {
    /// `a=1&b&c=%2F` as the URL standard reads form data: `+` is a space, a broken escape stands for itself.
    pub fn parse(query: &str) -> Query {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Query(pairs.collect())
    }

    /// All parameters, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of the first parameter of that name; empty where it has none.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = escaped.and_then(|hex| Some(digit(hex[0])? << 4 | digit(hex[1])?));
        match (value, bytes[at]) {
            (Some(value), _) => {
                out.push(value);
                at += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    match String::from_utf8_lossy(&out) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl Reply {
    /// Plain text.
    pub fn text(status: Status, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, content_type: "text/plain; charset=UTF-8", body: body.into() }
    }

    /// 200 with JSON, indented for reading.
    pub fn json(value: &serde_json::Value) -> Reply {
        Reply {
            status: Status::OK,
            content_type: "application/json",
            body: format!("{value:#}\n").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        Pages::new()
            .read("/b", "show b", |query| Reply::text(Status::OK, query.value("x").unwrap_or("none")))
            .act("/a", "do a", |_| Reply::text(Status::OK, "done"))
    }

    fn whole(answer: Answer) -> Reply {
        match answer {
            Answer::Whole(reply) => reply,
            Answer::Streamed(..) => panic!("no page of these streams"),
        }
    }

    #[test]
    fn pages_are_found_by_path_and_method() {
        let table = [
            (Method::Get, "/b", 200, "none"),
            (Method::Head, "/b", 200, "none"),
            (Method::Get, "/b?x=1&x=2", 200, "1"),
            (Method::Post, "/b", 405, "/b is for GET only\n"),
            (Method::Post, "/a?x", 200, "done"),
            (Method::Get, "/a", 405, "/a is for POST only\n"),
            (Method::Get, "/", 200, "  /a: do a (POST)\n  /b: show b\n  /help: print this list\n"),
        ];
        for (method, target, status, body) in table {
            let reply = whole(pages().answer(method, target, b""));
            assert_eq!((reply.status.code(), reply.body.as_slice()), (status, body.as_bytes()), "{target}");
        }
        let missing = whole(pages().answer(Method::Get, "/c", b""));
        assert_eq!(missing.status, Status::NOT_FOUND);
        assert!(missing.body.starts_with(b"invalid path. admin commands are:\n  /a"));
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("filter=cluster%5C.a%2B&usedonly&bad=%zz%4&s=a+b&&utf=%ff");
        assert_eq!(query.value("filter"), Some("cluster\\.a+"));
        assert_eq!(query.value("usedonly"), Some(""));
        assert_eq!(query.value("bad"), Some("%zz%4"));
        assert_eq!(query.value("s"), Some("a b"));
        assert_eq!(query.value("utf"), Some("\u{fffd}"));
        assert_eq!(query.value("none"), None);
    }
}
