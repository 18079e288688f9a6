//! Switching protocols: which upgrades are let through.

/// A protocol that clients may switch to (Envoy `upgrade_configs`, of a connection manager and of a route).
#[derive(Clone, Debug, PartialEq)]
pub struct Upgrade {
    /// The value of the `upgrade` field, `websocket` for example, compared without case; or `CONNECT`, for the method.
    pub protocol: String,
    /// Whether it is let through. A route's word counts before its connection manager's.
    pub enabled: bool,
    /// On a route, for `CONNECT`: ends it here, so that the upstream gets what is inside and not the request
    /// (Envoy `connect_config`).
    pub terminate: bool,
}

impl Upgrade {
    /// The name of the CONNECT method among protocols.
    pub const CONNECT: &'static str = "CONNECT";

    /// Lets a protocol through.
    pub fn to(protocol: impl Into<String>) -> Upgrade {
        Upgrade { protocol: protocol.into(), enabled: true, terminate: false }
    }

    /// Whether a route with these upgrades, of a connection manager with those, lets `protocol` through.
    pub(crate) fn lets(protocol: &[u8], route: &[Upgrade], manager: &[Upgrade]) -> bool {
        let about = |all: &[Upgrade]| Some(Upgrade::about(protocol, all)?.enabled);
        about(route).or_else(|| about(manager)).unwrap_or(false)
    }

    /// What is said about a protocol.
    pub(crate) fn about<'a>(protocol: &[u8], all: &'a [Upgrade]) -> Option<&'a Upgrade> {
        all.iter().find(|upgrade| upgrade.protocol.as_bytes().eq_ignore_ascii_case(protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_word_counts_first() {
        let (on, off) = (Upgrade::to("websocket"), Upgrade { enabled: false, ..Upgrade::to("WebSocket") });
        for (route, manager, lets) in [
            (None, None, false),
            (None, Some(&on), true),
            (None, Some(&off), false),
            (Some(&on), None, true),
            (Some(&on), Some(&off), true),
            (Some(&off), Some(&on), false),
        ] {
            let list = |upgrade: Option<&Upgrade>| upgrade.cloned().into_iter().collect::<Vec<_>>();
            assert_eq!(Upgrade::lets(b"websocket", &list(route), &list(manager)), lets);
        }
        assert!(!Upgrade::lets(b"h2c", &[], &[on]));
    }
}
