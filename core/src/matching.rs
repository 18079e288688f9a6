//! Which chain serves a connection: the matches of a listener's chains, compiled. Pure. Owns the order of the criteria,
//! which is Envoy's; what there is to know about a connection comes from `inspect`.
//!
//! A tree with one level per criterion. On each level the most specific value that the connection has leads on, and there
//! is no way back: a chain for port 443 that wants another server name than the client hides the chains without a port.

use crate::config::{ChainMatch, Cidr, SourceType};
use std::{
    borrow::Borrow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The chains of a listener by what they match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matcher {
    tree: By<u16, Ranges<Names>>,
    asks_local: bool,
}

/// By server name.
type Names = By<Box<str>, Transports>;
/// By transport protocol, then by application protocol.
type Transports = By<Box<str>, By<Box<str>, Ranges<Types>>>;

/// What a connection is matched by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Where the client wanted to go; `None` for Unix sockets, and where [`Matcher::asks_local`] says that nobody asks.
    pub(crate) local: Option<SocketAddr>,
    /// The client; `None` for Unix sockets.
    pub(crate) source: Option<SocketAddr>,
    /// Who is connected.
    pub(crate) direct: Option<IpAddr>,
    /// In lower case; empty if none is known.
    pub(crate) server_name: &'a str,
    /// `tls` or `raw_buffer`.
    pub(crate) transport: &'a str,
    pub(crate) protocols: &'a [Box<str>],
}

impl Matcher {
    /// Compiles the matches of chains.
    ///
    /// # Errors
    /// The pairs of chains, by number, that some connection would match equally well.
    pub(crate) fn new<'a>(matches: impl Iterator<Item = &'a ChainMatch>) -> Result<Matcher, Vec<[usize; 2]>> {
        let (mut matcher, mut overlaps) = (Matcher::default(), Vec::new());
        for (chain, rule) in matches.enumerate() {
            let external = !matches!(rule.source_type, SourceType::Any);
            matcher.asks_local |=
                rule.destination_port.is_some() || !rule.destinations.is_empty() || external;
            let mut first = None;
            matcher.tree.add(&Want { rule, chain }, &mut |other| _ = first.get_or_insert(other));
            overlaps.extend(first.map(|other| [other, chain]));
        }
        if overlaps.is_empty() { Ok(matcher) } else { Err(overlaps) }
    }

    /// Whether it matters where a client wanted to go.
    pub(crate) fn asks_local(&self) -> bool {
        self.asks_local
    }

    /// The number of the chain that serves a connection.
    pub(crate) fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        // On Unix sockets only chains without a port or with any address can match, as in Envoy.
        let local = facts.local.map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |local| local.ip());
        let port = facts.local.map(|local| local.port());
        let names = port.map_or(self.tree.any.as_deref(), |port| self.tree.by(&port))?.around(local)?;
        let transports = names.by_name(facts.server_name)?;
        let protocols = transports.by(facts.transport)?;
        let offered = facts.protocols.iter().find_map(|protocol| protocols.some.get(protocol));
        let types = offered.or(protocols.any.as_deref())?.around(or_any(facts.direct))?;
        let source =
            types.of(|| is_same_ip_or_loopback(facts))?.around(or_any(facts.source.map(|s| s.ip())))?;
        source.by(&facts.source.map_or(0, |source| source.port())).copied()
    }
}

/// Unix sockets have no address; as in Envoy, one that only unrestricted ranges hold stands for it.
fn or_any(ip: Option<IpAddr>) -> IpAddr {
    ip.unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST))
}

fn is_same_ip_or_loopback(facts: &Facts<'_>) -> bool {
    match (facts.source, facts.local) {
        (None, _) => true, // a Unix socket
        (Some(source), local) => {
            let ip = source.ip().to_canonical();
            ip.is_loopback() || local.is_some_and(|local| local.ip().to_canonical() == ip)
        }
    }
}

/// A chain on its way into the tree.
struct Want<'a> {
    rule: &'a ChainMatch,
    chain: usize,
}

/// A level of the tree, or a leaf. `taken` is told which chain was there before.
trait Level: Default {
    fn add(&mut self, want: &Want<'_>, taken: &mut dyn FnMut(usize));
}

/// A level by equal values. What has no place among them is with `any`.
#[derive(Clone, Debug)]
struct By<K: Ord, N> {
    some: BTreeMap<K, N>,
    any: Option<Box<N>>,
}

impl<K: Ord, N> Default for By<K, N> {
    fn default() -> Self {
        By { some: BTreeMap::new(), any: None }
    }
}

impl<K: Ord, N> By<K, N> {
    fn by<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&N>
    where
        K: Borrow<Q>,
    {
        self.some.get(key).or(self.any.as_deref())
    }

    /// The places of a chain: with each of its values, or with `any` without one.
    fn places(&mut self, values: impl Iterator<Item = K>, mut at: impl FnMut(&mut N))
    where
        N: Default,
    {
        let mut values = values.peekable();
        if values.peek().is_none() {
            at(self.any.get_or_insert_default());
        }
        values.for_each(|value| at(self.some.entry(value).or_default()));
    }
}

impl Names {
    /// The exact name, then the wildcards from the longest to the shortest.
    fn by_name(&self, name: &str) -> Option<&Transports> {
        if let Some(found) = self.some.get(name) {
            return Some(found);
        }
        let mut dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        dots.find_map(|at| self.some.get(&name[at..])).or(self.any.as_deref())
    }
}

/// A level by ranges of addresses, of which the longest prefix counts.
#[derive(Clone, Debug)]
struct Ranges<N> {
    /// By length, the longest first.
    lengths: Vec<u8>,
    of_v4: BTreeMap<Cidr, N>,
    of_v6: BTreeMap<Cidr, N>,
}

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Ranges { lengths: Vec::new(), of_v4: BTreeMap::new(), of_v6: BTreeMap::new() }
    }
}

impl<N> Ranges<N> {
    fn around(&self, ip: IpAddr) -> Option<&N> {
        let ip = ip.to_canonical();
        let ranges = if ip.is_ipv4() { &self.of_v4 } else { &self.of_v6 };
        self.lengths.iter().find_map(|len| ranges.get(&Cidr::new(ip, *len)?))
    }

    fn places(&mut self, ranges: &[Cidr], mut at: impl FnMut(&mut N))
    where
        N: Default,
    {
        const ALL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let all = ALL.into_iter().filter_map(|ip| Cidr::new(ip, 0)).filter(|_| ranges.is_empty());
        for range in all.chain(ranges.iter().copied()) {
            let of = if range.ip().is_ipv4() { &mut self.of_v4 } else { &mut self.of_v6 };
            at(of.entry(range).or_default());
            if !self.lengths.contains(&range.prefix_len()) {
                self.lengths.push(range.prefix_len());
                self.lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
    }
}

/// By where the client is.
#[derive(Clone, Debug, Default)]
struct Types {
    any: Option<Box<Sources>>,
    local: Option<Box<Sources>>,
    external: Option<Box<Sources>>,
}

/// By the client's address and port; the chain.
type Sources = Ranges<By<u16, usize>>;

impl Types {
    fn of(&self, is_local: impl FnOnce() -> bool) -> Option<&Sources> {
        let special = match (&self.local, &self.external) {
            (None, None) => None,
            (local, external) => {
                if is_local() {
                    local.as_deref()
                } else {
                    external.as_deref()
                }
            }
        };
        special.or(self.any.as_deref())
    }
}

impl Level for By<u16, Ranges<Names>> {
    fn add(&mut self, want: &Want<'_>, taken: &mut dyn FnMut(usize)) {
        self.places(want.rule.destination_port.into_iter(), |next| {
            next.places(&want.rule.destinations, |next| next.add(want, taken));
        });
    }
}

impl Level for Names {
    fn add(&mut self, want: &Want<'_>, taken: &mut dyn FnMut(usize)) {
        let ChainMatch { server_names, transport_protocol, application_protocols, direct_sources, .. } =
            want.rule;
        // `*.example.com` is kept as `.example.com`, which no client can ask for.
        let names =
            server_names.iter().map(|name| name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase());
        let transport = Some(transport_protocol).filter(|transport| !transport.is_empty());
        self.places(names.map(Into::into), |next| {
            next.places(transport.into_iter().map(|name| name.as_str().into()), |next| {
                next.places(application_protocols.iter().map(|name| name.as_str().into()), |next| {
                    next.places(direct_sources, |next| next.add(want, taken));
                });
            });
        });
    }
}

impl Level for Types {
    fn add(&mut self, want: &Want<'_>, taken: &mut dyn FnMut(usize)) {
        let place = match want.rule.source_type {
            SourceType::Any => &mut self.any,
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
        };
        let ChainMatch { sources, source_ports, .. } = want.rule;
        place.get_or_insert_default().places(sources, |next| {
            let ports = source_ports.iter().map(|port| Some(*port));
            let any = source_ports.is_empty().then_some(None);
            for port in ports.chain(any) {
                let before = match port {
                    Some(port) => next.some.insert(port, want.chain),
                    None => next.any.replace(Box::new(want.chain)).map(|chain| *chain),
                };
                before.into_iter().filter(|other| *other != want.chain).for_each(&mut *taken);
            }
        });
    }
}

#[cfg(test)]
mod tests;
