//! What a route does to heads on their way: fields added and removed by every level of its table, host and path rewritten.
//! Envoy's order: header fields first, then the host, then the path. Decides nothing; a route without edits has none of this.

use super::{matcher::Matcher, pattern::Substitution};
use crate::{
    error::{Error, Kind},
    filter::{Cx, Facts, Field, HeaderValue},
};
use corelane_wire::{BadHeader, Headers, RequestHead, ResponseHead, h1::ParseError, path::split_query};
use std::sync::Arc;

/// The edits of one route.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    /// Of each level that has any, in the order of their evaluation: the last one has the last word.
    pub(crate) request: Vec<Arc<FieldEdits>>,
    /// The same for responses.
    pub(crate) response: Vec<Arc<FieldEdits>>,
    /// The host of a weighted cluster. As in Envoy nobody is told of it, and the route's own has the last word.
    pub(crate) share_host: Option<String>,
    pub(crate) host: Option<HostEdit>,
    pub(crate) append_forwarded_host: bool,
    pub(crate) path: Option<PathEdit>,
}

/// What one level says about the fields of one direction.
#[derive(Debug)]
pub(crate) struct FieldEdits {
    /// Names in lower case.
    pub(crate) remove: Vec<String>,
    pub(crate) add: Vec<HeaderValue>,
    /// What values in responses need of the request.
    pub(crate) keep: Vec<Field>,
}

/// What responses need of their request: for each level, the values of its fields.
struct Kept(Vec<Vec<Vec<u8>>>);

/// What a host becomes.
#[derive(Debug)]
pub(crate) enum HostEdit {
    Literal(String),
    Header(String),
    PathRegex(Substitution),
}

/// What a path becomes.
#[derive(Debug)]
pub(crate) enum PathEdit {
    Prefix(String),
    Regex(Substitution),
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        let Edits { request, response, share_host, host, append_forwarded_host: _, path } = self;
        let hosts = share_host.is_none() && host.is_none();
        request.is_empty() && response.is_empty() && hosts && path.is_none()
    }

    /// Edits a request before it goes to an upstream. `tell` has the upstream told what host and path were before.
    ///
    /// # Errors
    /// Host or path became something that no request may have.
    pub(crate) fn request(
        &self,
        head: &mut RequestHead,
        matcher: &Matcher,
        cx: &Cx,
        tell: bool,
    ) -> Result<(), Error> {
        for level in &self.request {
            level.request(head, cx);
        }
        if let Some(host) = &self.share_host {
            // Compiled only if it is one.
            head.set_authority(host.as_bytes()).map_err(|_| Error::local(Kind::Filter))?;
        }
        if let Some(host) = &self.host {
            self.edit_host(host, head, tell)?;
        }
        if let Some(path) = &self.path {
            path.rewrite(head, matcher, tell)?;
        }
        self.keep(head, cx);
        Ok(())
    }

    fn edit_host(&self, host: &HostEdit, head: &mut RequestHead, tell: bool) -> Result<(), Error> {
        let value = match host {
            HostEdit::Literal(host) => host.as_bytes().to_vec(),
            HostEdit::Header(name) => match head.headers().get(name.as_str()) {
                Some(value) if !value.is_empty() => value.to_vec(),
                _ => return Ok(()),
            },
            HostEdit::PathRegex(substitution) => substitution.replace(head.path_without_query()),
        };
        let was = head.authority().to_vec();
        // It may have come from the client, in a header or in the path.
        let bad = Error::downstream(Kind::Head(ParseError::Host));
        head.set_authority(&value).map_err(|_| bad)?;
        tell_host(head, &was, self.append_forwarded_host, tell)
    }

    /// Keeps what the response's edits need of the request, as it is now.
    pub(crate) fn keep(&self, head: &RequestHead, cx: &Cx) {
        if self.response.iter().any(|level| !level.keep.is_empty()) {
            let of = |level: &Arc<FieldEdits>| {
                level.keep.iter().map(|field| field.of_request(head).to_vec()).collect()
            };
            cx.insert(Kept(self.response.iter().map(of).collect()));
        }
    }

    /// Edits a response before it goes to the client.
    #[cold]
    pub(crate) fn response(&self, head: &mut ResponseHead, cx: &Cx) {
        let kept = cx.get::<Kept>();
        for (at, level) in self.response.iter().enumerate() {
            let kept = kept.as_ref().and_then(|kept| kept.0.get(at));
            level.response(head, kept.map_or(&[], Vec::as_slice), cx);
        }
    }
}

impl FieldEdits {
    /// Edits the fields of a request.
    pub(crate) fn request(&self, head: &mut RequestHead, cx: &Cx) {
        for name in &self.remove {
            head.headers_mut().remove(name.as_str());
        }
        let values = self.values(head.headers(), cx, &|value, out| {
            value.fill(&Facts { request: Some(head), kept: &[], response: None, cx }, out);
        });
        values.add_to(head.headers_mut(), &self.add);
        values.recycle(cx);
    }

    fn response(&self, head: &mut ResponseHead, kept: &[Vec<u8>], cx: &Cx) {
        for name in &self.remove {
            head.headers_mut().remove(name.as_str());
        }
        let values = self.values(head.headers(), cx, &|value, out| {
            value.fill(&Facts { request: None, kept, response: Some(head), cx }, out);
        });
        values.add_to(head.headers_mut(), &self.add);
        values.recycle(cx);
    }

    /// All values are made of the fields as they are before any of them is added.
    fn values(&self, headers: &Headers, cx: &Cx, fill: &dyn Fn(&HeaderValue, &mut Vec<u8>)) -> Values {
        let mut values = Values { bytes: cx.lane().io().vec(), ends: Vec::with_capacity(self.add.len()) };
        for value in &self.add {
            let from = values.bytes.len();
            fill(value, &mut values.bytes);
            let wanted = value.wants(headers, &values.bytes[from..]);
            values.ends.push((values.bytes.len(), wanted));
        }
        values
    }
}

/// Values of fields that are to be added, one behind the other.
struct Values {
    bytes: Vec<u8>,
    /// Where each ends, and whether it is added at all.
    ends: Vec<(usize, bool)>,
}

impl Values {
    /// First those that replace, then the others.
    fn add_to(&self, headers: &mut Headers, fields: &[HeaderValue]) {
        for replaces in [true, false] {
            let mut from = 0;
            for (field, (end, wanted)) in fields.iter().zip(&self.ends) {
                if *wanted && field.replaces() == replaces {
                    field.put(headers, &self.bytes[from..*end]);
                }
                from = *end;
            }
        }
    }

    fn recycle(self, cx: &Cx) {
        cx.lane().io().recycle(self.bytes);
    }
}

impl PathEdit {
    /// Rewrites the path of a request; `tell` has it say what it was before.
    ///
    /// # Errors
    /// It became something that no request may have.
    pub(crate) fn rewrite(&self, head: &mut RequestHead, matcher: &Matcher, tell: bool) -> Result<(), Error> {
        let was = head.path().to_vec();
        head.set_path(&self.applied(&was, matcher)).map_err(|_| Error::local(Kind::Filter))?;
        if tell {
            set(head, "x-envoy-original-path", &was)?;
        }
        Ok(())
    }

    /// What the path becomes, its query kept.
    pub(crate) fn applied(&self, path: &[u8], matcher: &Matcher) -> Vec<u8> {
        let (before, query) = split_query(path);
        match self {
            // Another route may have matched than the one that is taken, if a filter chose it: never past the end.
            PathEdit::Prefix(prefix) => {
                let rest = &before[matcher.covered(before).min(before.len())..];
                [prefix.as_bytes(), rest, query].concat()
            }
            PathEdit::Regex(substitution) => {
                let mut path = substitution.replace(before);
                path.extend_from_slice(query);
                path
            }
        }
    }
}

/// Tells the upstream what the host was: in the list of all that it was, and in a field of its own.
///
/// # Errors
/// The head got too large.
pub(crate) fn tell_host(head: &mut RequestHead, was: &[u8], append: bool, tell: bool) -> Result<(), Error> {
    if append && !was.is_empty() {
        append_forwarded_host(head.headers_mut(), was).map_err(|_| too_large())?;
    }
    if tell {
        set(head, "x-envoy-original-host", was)?;
    }
    Ok(())
}

/// Appends the host that was, unless it stands at the end already.
fn append_forwarded_host(headers: &mut Headers, host: &[u8]) -> Result<(), BadHeader> {
    const NAME: &str = "x-forwarded-host";
    let last = headers.all(NAME).last().and_then(|list| list.rsplit(|byte| *byte == b',').next());
    if last.is_some_and(|last| last.trim_ascii() == host) {
        return Ok(());
    }
    headers.append_listed(NAME, b",", host)
}

fn set(head: &mut RequestHead, name: &str, value: &[u8]) -> Result<(), Error> {
    head.headers_mut().set(name, value).map_err(|_| too_large())
}

/// What was a valid part of the head is a valid value: only a head of 16 MiB refuses it.
fn too_large() -> Error {
    Error::local(Kind::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PathMatch, RouteMatch};

    #[test]
    fn a_rewritten_prefix_stands_for_what_matched() {
        let cases = [
            (PathMatch::Prefix("/prefix".into()), "/", "/prefix/a?q", "//a?q"),
            (PathMatch::Prefix("/prefix/".into()), "/", "/prefix/a?q=/prefix/", "/a?q=/prefix/"),
            (PathMatch::Prefix("/".into()), "/x/", "/a", "/x/a"),
            (PathMatch::Path("/whole".into()), "/new", "/whole?q", "/new?q"),
            (PathMatch::SeparatedPrefix("/api".into()), "/v2", "/api/x", "/v2/x"),
            (PathMatch::Regex("/a.*".into()), "/new", "/abc?q", "/new?q"),
        ];
        for (matches, with, path, want) in cases {
            let matcher = Matcher::new(&RouteMatch::new(matches)).unwrap();
            let edited = PathEdit::Prefix(with.into()).applied(path.as_bytes(), &matcher);
            assert_eq!(String::from_utf8(edited).unwrap(), want, "{path}");
        }
    }

    #[test]
    fn a_regex_rewrites_the_path_and_not_the_query() {
        let matcher = Matcher::new(&RouteMatch::prefix("/")).unwrap();
        let edit = PathEdit::Regex(Substitution::new("o", "0").unwrap());
        assert_eq!(edit.applied(b"/foo?o=o", &matcher), b"/f00?o=o");
    }

    #[test]
    fn a_forwarded_host_is_told_once() {
        let mut headers = Headers::new();
        for host in ["a.test", "a.test", "b.test"] {
            append_forwarded_host(&mut headers, host.as_bytes()).unwrap();
        }
        assert_eq!(headers.get("x-forwarded-host"), Some(&b"a.test,b.test"[..]));
    }
}
