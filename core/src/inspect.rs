//! What can be learnt about a connection before its chain is chosen: where it was going, whom a proxy in front names as
//! the client, what a TLS client asks for, which HTTP is spoken (Envoy's listener filters). Owns looking at the first
//! bytes, which are given back but for a PROXY header; what they mean is `corelane_wire`'s business, which chain they lead
//! to is `matching`'s.

use crate::{
    compile::Listener,
    config::{DestinationRule, Inspection, Inspector, ProxyProtocol, TlsInspector},
    conn::{ConnMeta, Learnt},
    telemetry::{Cells, HttpInspectorStat, ListenerStat, ProxyProtocolStat, StatsStore, TlsInspectorStat},
};
use corelane_io::{Buf, Stream};
use corelane_wire::{
    client_hello::{self, ClientHello, HelloError, Limits},
    proxy::{self, Accept, ProxyError, Version},
    sniff::{HttpSniff, HttpSniffer},
};
use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

/// The statistics of a listener's filters, over all lanes.
#[derive(Debug)]
pub(crate) struct InspectionStats {
    tls: Option<Arc<crate::telemetry::Stats<TlsInspectorStat>>>,
    http: Option<Arc<crate::telemetry::Stats<HttpInspectorStat>>>,
    proxy: Option<Arc<crate::telemetry::Stats<ProxyProtocolStat>>>,
}

impl InspectionStats {
    /// Those that these filters write; `None` where nothing is looked at.
    pub(crate) fn of(config: &Inspection, stats: &StatsStore) -> Option<InspectionStats> {
        let mut all = InspectionStats { tls: None, http: None, proxy: None };
        for filter in &config.filters {
            match &filter.inspector {
                Inspector::Tls(_) => all.tls = Some(stats.of("")),
                Inspector::Http => all.http = Some(stats.of("")),
                Inspector::ProxyProtocol(config) => all.proxy = Some(stats.of(&config.stat_prefix)),
                Inspector::OriginalDst => {}
            }
        }
        (!config.filters.is_empty() || config.use_original_dst).then_some(all)
    }
}

/// Looks at the connections of a listener on one lane.
#[derive(Debug)]
pub(crate) struct Learner {
    spec: Arc<Listener>,
    stats: Cells<ListenerStat>,
    tls: Option<Cells<TlsInspectorStat>>,
    http: Option<Cells<HttpInspectorStat>>,
    proxy: Option<Cells<ProxyProtocolStat>>,
}

/// A connection is not served. Why is in the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Learner {
    /// `None` where the listener looks at nothing.
    pub(crate) fn new(spec: &Arc<Listener>, lane: usize) -> Option<Rc<Learner>> {
        let InspectionStats { tls, http, proxy } = spec.inspection()?;
        Some(Rc::new(Learner {
            stats: spec.stats().cells(lane),
            tls: tls.as_ref().map(|stats| stats.cells(lane)),
            http: http.as_ref().map(|stats| stats.cells(lane)),
            proxy: proxy.as_ref().map(|stats| stats.cells(lane)),
            spec: spec.clone(),
        }))
    }

    pub(crate) fn config(&self) -> &Inspection {
        &self.spec.config().inspection
    }

    /// Runs the filters over the first bytes of a connection.
    ///
    /// # Errors
    /// A filter refused it, it ended, or it took too long.
    pub(crate) async fn learn(&self, stream: &mut Stream, meta: &mut ConnMeta) -> Result<(), Refused> {
        let _waiting = Waiting::new(&self.stats);
        let config = self.config();
        stream.recv.set_deadline(config.timeout.map(|timeout| meta.accepted + timeout));
        let mut seen = Seen { stream, bytes: Vec::new() };
        let mut learnt = Learnt::of(meta);
        let result = self.run(&mut seen, &mut learnt).await;
        // Given back whole: what is read next begins where the filters stopped.
        let Seen { stream, bytes } = seen;
        if !bytes.is_empty() {
            stream.recv.unread(Buf::copy_of(&bytes));
        }
        stream.recv.set_deadline(None);
        if let Err(stopped) = result {
            let stat = match stopped {
                Stopped::Late => ListenerStat::PreCxTimeout,
                Stopped::Ended => ListenerStat::FilterRemoteClose,
                Stopped::Refused => ListenerStat::FilterError,
            };
            self.stats.inc(stat);
            if stopped != Stopped::Late || !config.continue_on_timeout {
                return Err(Refused);
            }
        }
        if let Some(source) = learnt.source {
            meta.peer = source.into();
        }
        meta.learnt = Some(Rc::new(learnt));
        Ok(())
    }

    async fn run(&self, seen: &mut Seen<'_>, learnt: &mut Learnt) -> Result<(), Stopped> {
        for filter in &self.config().filters {
            if filter.disabled.as_ref().is_some_and(|rule| rule.holds(port(seen.stream, learnt, rule))) {
                continue;
            }
            match &filter.inspector {
                Inspector::OriginalDst => {
                    let wanted = seen.stream.original_destination().and_then(|peer| peer.ip());
                    learnt.restore(wanted, seen.stream);
                }
                Inspector::ProxyProtocol(config) => self.proxy(config, seen, learnt).await?,
                Inspector::Tls(config) => self.tls(config, seen, learnt).await?,
                Inspector::Http => self.http(seen, learnt).await?,
            }
        }
        Ok(())
    }

    async fn proxy(
        &self,
        config: &ProxyProtocol,
        seen: &mut Seen<'_>,
        learnt: &mut Learnt,
    ) -> Result<(), Stopped> {
        let accept = Accept { v1: config.v1, v2: config.v2, ..Accept::default() };
        let count = |stat| self.proxy.iter().for_each(|stats| stats.inc(stat));
        loop {
            let looked = match config.allow_without {
                true => proxy::sniff(&seen.bytes, &accept),
                false => proxy::parse(&seen.bytes, &accept).map(|progress| match progress {
                    proxy::Progress::Partial => proxy::Sniffed::Partial,
                    proxy::Progress::Complete(used, header) => proxy::Sniffed::Complete(used, header),
                }),
            };
            match looked {
                Ok(proxy::Sniffed::Partial) => seen.more().await?,
                Ok(proxy::Sniffed::Absent) => {
                    count(ProxyProtocolStat::NotFoundAllowed);
                    return Ok(());
                }
                Ok(proxy::Sniffed::Complete(used, header)) => {
                    count(match header.version {
                        Version::V1 => ProxyProtocolStat::V1Found,
                        Version::V2 => ProxyProtocolStat::V2Found,
                    });
                    if let Some((source, destination)) = header.addresses.sockets() {
                        learnt.source = Some(source);
                        learnt.restore(Some(destination), seen.stream);
                    }
                    seen.bytes.drain(..used);
                    return Ok(());
                }
                Err(error) => {
                    let v2 = seen.bytes.first() != Some(&b'P');
                    count(match (error, v2) {
                        (ProxyError::Signature, _) => ProxyProtocolStat::NotFoundDisallowed,
                        (ProxyError::Disallowed, false) => ProxyProtocolStat::V1Disallowed,
                        (ProxyError::Disallowed, true) => ProxyProtocolStat::V2Disallowed,
                        (_, false) => ProxyProtocolStat::V1Error,
                        (_, true) => ProxyProtocolStat::V2Error,
                    });
                    return Err(Stopped::Refused);
                }
            }
        }
    }

    async fn tls(
        &self,
        config: &TlsInspector,
        seen: &mut Seen<'_>,
        learnt: &mut Learnt,
    ) -> Result<(), Stopped> {
        let limits = Limits { bytes: config.max_client_hello_size as usize, ..Limits::default() };
        let count = |stat| self.tls.iter().for_each(|stats| stats.inc(stat));
        loop {
            // Nothing yet is no hello yet: the parser says the same, and a client that waits is told by the deadline.
            match client_hello::sniff(&seen.bytes, &limits) {
                Ok(client_hello::Sniffed::Partial) => seen.more().await.inspect_err(|stopped| {
                    if *stopped == Stopped::Ended {
                        count(TlsInspectorStat::ConnectionClosed);
                    }
                })?,
                Ok(client_hello::Sniffed::NotTls) => {
                    count(TlsInspectorStat::TlsNotFound);
                    return Ok(());
                }
                Ok(client_hello::Sniffed::Hello(hello)) => {
                    count(TlsInspectorStat::TlsFound);
                    told_by(&hello, learnt);
                    let (sni, alpn) = (learnt.server_name.is_some(), !learnt.protocols.is_empty());
                    count(if sni { TlsInspectorStat::SniFound } else { TlsInspectorStat::SniNotFound });
                    count(if alpn { TlsInspectorStat::AlpnFound } else { TlsInspectorStat::AlpnNotFound });
                    return Ok(());
                }
                Err(error) => {
                    let too_large = matches!(error, HelloError::TooLarge | HelloError::TooManyRecords);
                    if too_large {
                        count(TlsInspectorStat::ClientHelloTooLarge);
                    }
                    if too_large || config.close_on_error {
                        return Err(Stopped::Refused);
                    }
                    count(TlsInspectorStat::TlsNotFound);
                    return Ok(());
                }
            }
        }
    }

    async fn http(&self, seen: &mut Seen<'_>, learnt: &mut Learnt) -> Result<(), Stopped> {
        if learnt.tls {
            return Ok(()); // what is inside cannot be seen
        }
        let count = |stat| self.http.iter().for_each(|stats| stats.inc(stat));
        let mut sniffer = HttpSniffer::new(HttpSniffer::LINE_BYTES);
        let (stat, protocol) = loop {
            match sniffer.look(&seen.bytes) {
                Ok(HttpSniff::Partial) => seen.more().await.inspect_err(|stopped| {
                    if *stopped == Stopped::Ended {
                        count(HttpInspectorStat::ReadError);
                    }
                })?,
                Ok(HttpSniff::NotHttp) => {
                    count(HttpInspectorStat::HttpNotFound);
                    return Ok(());
                }
                Ok(HttpSniff::Http10) => break (HttpInspectorStat::Http10Found, "http/1.0"),
                Ok(HttpSniff::Http11) => break (HttpInspectorStat::Http11Found, "http/1.1"),
                Ok(HttpSniff::Http2) => break (HttpInspectorStat::Http2Found, "h2c"),
                Err(_) => {
                    count(HttpInspectorStat::ParseError);
                    return Err(Stopped::Refused);
                }
            }
        };
        count(stat);
        learnt.protocols = vec![protocol.into()];
        Ok(())
    }
}

fn told_by(hello: &ClientHello<'_>, learnt: &mut Learnt) {
    learnt.tls = true;
    learnt.server_name = hello.server_name_lower().map(|name| name.into_owned().into());
    // What is no text cannot be configured, and matches nothing.
    learnt.protocols = hello.alpn().filter_map(|name| str::from_utf8(name).ok().map(Into::into)).collect();
}

/// The port that a rule about the destination is about.
fn port(stream: &Stream, learnt: &Learnt, rule: &DestinationRule) -> Option<u16> {
    if matches!(rule, DestinationRule::Any) {
        return None; // nobody asks
    }
    learnt.local.or_else(|| stream.local().ok()?.ip()).map(|local| local.port())
}

impl Learnt {
    fn of(meta: &ConnMeta) -> Learnt {
        match &meta.learnt {
            // Handed on by another listener, whose filters were first.
            Some(before) => Learnt::clone(before),
            None => Learnt::nothing(meta.peer.clone()),
        }
    }

    /// The client wanted to go there.
    fn restore(&mut self, wanted: Option<SocketAddr>, stream: &Stream) {
        let local = self.local.or_else(|| stream.local().ok()?.ip());
        if wanted.is_some() && wanted != local {
            self.local = wanted;
            self.restored = true;
        }
    }
}

/// Why looking ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Late,
    /// The client closed, or is gone.
    Ended,
    Refused,
}

/// A connection and its first bytes, without PROXY headers that were taken.
struct Seen<'a> {
    stream: &'a mut Stream,
    bytes: Vec<u8>,
}

impl Seen<'_> {
    async fn more(&mut self) -> Result<(), Stopped> {
        match self.stream.recv.recv().await {
            Ok(Some(buf)) => {
                self.bytes.extend_from_slice(buf.bytes());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(Stopped::Late),
            Ok(None) | Err(_) => Err(Stopped::Ended),
        }
    }
}

/// Counts a connection while it is looked at.
struct Waiting<'a>(&'a Cells<ListenerStat>);

impl Waiting<'_> {
    fn new(stats: &Cells<ListenerStat>) -> Waiting<'_> {
        stats.inc(ListenerStat::PreCxActive);
        Waiting(stats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec(ListenerStat::PreCxActive);
    }
}
