//! Who may talk to the admin interface. Owns the rules for Host and Origin; pure.

use corelane_io::Peer;
use std::net::IpAddr;

/// The rules of one admin listener.
pub(super) struct Guard {
    /// `None` for a Unix socket: no browser and no name leads there, so any host will do.
    bound: Option<IpAddr>,
}

impl Guard {
    pub(super) fn new(local: &Peer) -> Guard {
        Guard { bound: local.ip().map(|addr| addr.ip()) }
    }

    /// Whether a request may name `authority` (a Host field, so with or without a port).
    ///
    /// A name other than localhost would let a web page in: its owner points the name at this machine and the browser then
    /// takes the page's answers for the owner's own. An address cannot be turned like that.
    pub(super) fn host(&self, authority: &[u8]) -> bool {
        let Some(bound) = self.bound else { return true };
        let Some(host) = std::str::from_utf8(authority).ok().and_then(without_port) else { return false };
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == bound || bound.is_unspecified(),
            Err(_) => {
                let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                host == "localhost" || host.ends_with(".localhost")
            }
        }
    }

    /// Whether a page with this Origin may press a button: only one that was served from here. No field: no browser.
    pub(super) fn origin(&self, origin: Option<&[u8]>) -> bool {
        let Some(origin) = origin else { return true };
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_some_and(|authority| self.host(authority))
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`, without brackets.
fn without_port(authority: &str) -> Option<&str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(host);
    }
    match authority.split_once(':') {
        Some((host, port)) => is_port(port).then_some(host),
        None => Some(authority),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(bound: &str) -> Guard {
        Guard::new(&Peer::Tcp(bound.parse().unwrap()))
    }

    #[test]
    fn only_this_machine_may_be_named() {
        let table = [
            ("localhost", true),
            ("LOCALHOST:9901", true),
            ("a.localhost", true),
            ("localhost.:1", true),
            ("127.0.0.1:9901", true),
            ("127.1.2.3", true),
            ("[::1]:9901", true),
            ("[::1]", true),
            ("10.0.0.1", false),
            ("evil.example", false),
            ("evil.example:9901", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("localhost:9901@evil", false),
            ("[::1]x", false),
            ("[::1", false),
            ("", false),
        ];
        for (host, admitted) in table {
            assert_eq!(guard("127.0.0.1:9901").host(host.as_bytes()), admitted, "{host}");
        }
    }

    #[test]
    fn the_bound_address_may_be_named_and_any_address_of_a_wildcard() {
        assert!(guard("10.0.0.1:1").host(b"10.0.0.1:1"));
        assert!(!guard("10.0.0.1:1").host(b"10.0.0.2:1"));
        assert!(guard("0.0.0.0:1").host(b"10.0.0.2:1"));
        assert!(!guard("0.0.0.0:1").host(b"evil.example"));
        assert!(Guard::new(&Peer::Unix("@admin".into())).host(b"anything"));
    }

    #[test]
    fn a_foreign_page_presses_no_button() {
        let guard = guard("127.0.0.1:9901");
        assert!(guard.origin(None));
        assert!(guard.origin(Some(b"http://127.0.0.1:9901")));
        for origin in ["null", "http://evil.example", "https://evil.example:9901", "file://"] {
            assert!(!guard.origin(Some(origin.as_bytes())), "{origin}");
        }
    }
}
