//! Redirects: the URI that a client is sent to. Pure.

use super::{
    edit::PathEdit,
    matcher::{Matcher, scheme_of},
};
use crate::error::Error;
use corelane_wire::{Known, RequestHead, Status, path::split_query, split_port};

/// A compiled redirect.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) status: Status,
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<RedirectPath>,
    pub(crate) strip_query: bool,
    /// Leaves a port with its host, also where the scheme changes: as Envoy does where a virtual host requires TLS.
    pub(crate) keeps_port: bool,
}

/// The path of a redirect.
#[derive(Debug)]
pub(crate) enum RedirectPath {
    Whole(String),
    Edit(PathEdit),
}

impl Redirect {
    /// To the same URI.
    pub(crate) const fn to_itself(status: Status) -> Redirect {
        Redirect {
            status,
            scheme: None,
            host: None,
            port: None,
            path: None,
            strip_query: false,
            keeps_port: false,
        }
    }

    /// What `location` says to this request, which came by a route with this matcher.
    pub(crate) fn location(&self, head: &RequestHead, matcher: &Matcher) -> Vec<u8> {
        let scheme = self.scheme.as_ref().map_or_else(|| scheme_of(head), |scheme| scheme.as_bytes());
        let host = match &self.host {
            Some(host) => host.as_bytes(),
            None => self.own_host(head, scheme),
        };
        let mut uri = [scheme, b"://", host].concat();
        if let Some(port) = self.port {
            uri.extend_from_slice(format!(":{port}").as_bytes());
        }
        self.append_path(head, matcher, &mut uri);
        uri
    }

    /// Rewrites the path of the request itself, where the redirect rewrites one.
    ///
    /// # Errors
    /// It became something that no request may have.
    pub(crate) fn rewrite(&self, head: &mut RequestHead, matcher: &Matcher, tell: bool) -> Result<(), Error> {
        match &self.path {
            Some(RedirectPath::Edit(edit)) => edit.rewrite(head, matcher, tell),
            _ => Ok(()),
        }
    }

    /// The request's host, without a port that would be wrong from now on.
    fn own_host<'a>(&self, head: &'a RequestHead, scheme: &[u8]) -> &'a [u8] {
        let authority = head.authority();
        let (host, port) = split_port(authority);
        if self.keeps_port {
            return authority;
        }
        let came_by = head.headers().get(Known::XForwardedProto).unwrap_or_default();
        let default_of_another =
            scheme != came_by && matches!((came_by, port), (b"http", b":80") | (b"https", b":443"));
        if self.port.is_some() || default_of_another { host } else { authority }
    }

    fn append_path(&self, head: &RequestHead, matcher: &Matcher, uri: &mut Vec<u8>) {
        let (path, query) = split_query(head.path());
        match &self.path {
            Some(RedirectPath::Whole(whole)) => {
                uri.extend_from_slice(whole.as_bytes());
                if whole.contains('?') {
                    return;
                }
            }
            Some(RedirectPath::Edit(edit)) => uri.extend_from_slice(&edit.applied(path, matcher)),
            None => uri.extend_from_slice(path),
        }
        if !self.strip_query {
            uri.extend_from_slice(query);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::RouteMatch, route::pattern::Substitution};

    const NONE: Redirect = Redirect::to_itself(Status::MOVED_PERMANENTLY);

    fn whole(path: &str) -> Option<RedirectPath> {
        Some(RedirectPath::Whole(path.into()))
    }

    fn location(redirect: &Redirect, proto: &str, host: &str, path: &str) -> String {
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes()).unwrap();
        head.set_authority(host.as_bytes()).unwrap();
        head.headers_mut().set(Known::XForwardedProto, proto.as_bytes()).unwrap();
        let matcher = Matcher::new(&RouteMatch::prefix("/old")).unwrap();
        String::from_utf8(redirect.location(&head, &matcher)).unwrap()
    }

    #[test]
    fn each_part_replaces_its_own() {
        let https = || Some("https".to_owned());
        let prefix = Some(RedirectPath::Edit(PathEdit::Prefix("/new".into())));
        let regex = Substitution::new("^/old/(.)", r"/\1/x").unwrap();
        let cases = [
            (NONE, "http://h:8080/old/a?q"),
            (Redirect { scheme: https(), ..NONE }, "https://h:8080/old/a?q"),
            (Redirect { host: Some("other".into()), ..NONE }, "http://other/old/a?q"),
            (Redirect { port: Some(9), ..NONE }, "http://h:9/old/a?q"),
            (Redirect { host: Some("o".into()), port: Some(9), ..NONE }, "http://o:9/old/a?q"),
            (Redirect { path: whole("/x"), ..NONE }, "http://h:8080/x?q"),
            (Redirect { path: whole("/x?own"), ..NONE }, "http://h:8080/x?own"),
            (Redirect { path: whole("/x?own"), strip_query: true, ..NONE }, "http://h:8080/x?own"),
            (Redirect { path: whole("/x"), strip_query: true, ..NONE }, "http://h:8080/x"),
            (Redirect { path: prefix, ..NONE }, "http://h:8080/new/a?q"),
            (
                Redirect { path: Some(RedirectPath::Edit(PathEdit::Regex(regex))), ..NONE },
                "http://h:8080/a/x?q",
            ),
            (Redirect { strip_query: true, ..NONE }, "http://h:8080/old/a"),
        ];
        for (redirect, want) in cases {
            assert_eq!(location(&redirect, "http", "h:8080", "/old/a?q"), want);
        }
    }

    #[test]
    fn the_default_port_of_a_scheme_that_is_left_goes() {
        let https = Redirect { scheme: Some("https".into()), ..NONE };
        let http = Redirect { scheme: Some("http".into()), ..NONE };
        let port = Redirect { port: Some(1), ..NONE };
        let tls = Redirect { scheme: Some("https".into()), keeps_port: true, ..NONE };
        let cases = [
            (&https, "http", "h:80", "https://h/"),
            (&https, "http", "[::1]:80", "https://[::1]/"),
            (&https, "http", "[::80]", "https://[::80]/"),
            (&https, "http", "h:81", "https://h:81/"),
            (&https, "https", "h:443", "https://h:443/"),
            (&http, "https", "h:443", "http://h/"),
            (&NONE, "http", "h:80", "http://h:80/"),
            (&port, "http", "h:80", "http://h:1/"),
            (&tls, "http", "h:80", "https://h:80/"),
        ];
        for (redirect, proto, host, want) in cases {
            assert_eq!(location(redirect, proto, host, "/"), want, "{redirect:?}");
        }
    }
}
