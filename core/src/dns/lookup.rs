//! One lookup: from a name to its addresses. Owns which names, servers and transports are tried, in which order and for how
//! long; when to look again is the watcher's.

use super::{Resolver, System};
use crate::config::{Dns, DnsFamily};
use corelane_io::{Bind, Chunk, Io, Peer};
use corelane_wire::dns::{Answer, Code, DnsError, Family, Name, Question, read_answer, write_question};
use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// In the order of preference; none where the name does not exist or has no such address.
    pub(super) addrs: Vec<IpAddr>,
    /// How long they hold, where a server has said so.
    pub(super) ttl: Option<Duration>,
}

/// Looks a name up.
///
/// # Errors
/// No server could say whether the name exists.
pub(super) async fn lookup(resolver: &Rc<Resolver>, name: &str, dns: &Dns) -> io::Result<Found> {
    if let Ok(ip) = name.parse() {
        return Ok(Found { addrs: vec![ip], ttl: None });
    }
    let system = resolver.system();
    if let Some(known) = system.known(name) {
        let (v4, v6) = known.into_iter().partition(IpAddr::is_ipv4);
        return Ok(Found { addrs: preferred(dns.family, v4, v6), ttl: None });
    }
    let _place = resolver.place().await;
    let asking = Asking::new(resolver, &system, dns);
    let mut failure = None;
    for name in system.candidates(name, !dns.resolver.no_search) {
        // Too long with this domain behind it: no such name.
        let Ok(name) = Name::new(&name) else { continue };
        match asking.addresses(&name, dns.family).await {
            Ok(found) if found.addrs.is_empty() => {}
            Ok(found) => return Ok(found),
            // Not the next one: with a domain too many it may be another machine.
            Err(e) => {
                failure = Some(e);
                break;
            }
        }
    }
    failure.map_or(Ok(Found { addrs: Vec::new(), ttl: None }), Err)
}

/// The addresses that a family asks for, in its order.
fn preferred(family: DnsFamily, v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::Auto if v6.is_empty() => v4,
        DnsFamily::Auto => v6,
        DnsFamily::V4Preferred if v4.is_empty() => v6,
        DnsFamily::V4Preferred => v4,
        DnsFamily::All => v6.into_iter().chain(v4).collect(),
    }
}

/// Whom to ask, for one lookup.
struct Asking<'a> {
    io: &'a Io,
    servers: Vec<SocketAddr>,
    timeout: Duration,
    tries: u32,
    use_tcp: bool,
}

impl<'a> Asking<'a> {
    fn new(resolver: &'a Resolver, system: &System, dns: &Dns) -> Asking<'a> {
        let own = &dns.resolver;
        let mut servers = if own.servers.is_empty() { system.servers.clone() } else { own.servers.clone() };
        if !servers.is_empty() && (own.rotate || system.rotate) {
            let turn = resolver.turn.get();
            resolver.turn.set(turn.wrapping_add(1));
            let by = turn % servers.len();
            servers.rotate_left(by);
        }
        Asking {
            io: &resolver.io,
            servers,
            timeout: own.timeout.unwrap_or(system.timeout),
            tries: own.tries.unwrap_or(system.attempts),
            use_tcp: own.use_tcp || system.use_tcp,
        }
    }

    /// The addresses of one complete name; both families at once, where both may count.
    async fn addresses(&self, name: &Name, family: DnsFamily) -> io::Result<Found> {
        let (v4, v6) = match family {
            DnsFamily::V4Only => (Some(self.ask(name, Family::V4).await), None),
            DnsFamily::V6Only => (None, Some(self.ask(name, Family::V6).await)),
            DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => {
                let (v4, v6) = both(self.ask(name, Family::V4), self.ask(name, Family::V6)).await;
                (Some(v4), Some(v6))
            }
        };
        let mut failure = None;
        let mut taken = |result: Option<io::Result<Answer>>| match result {
            Some(Ok(answer)) => Some(answer),
            Some(Err(e)) => {
                failure = Some(e);
                None
            }
            None => None,
        };
        let (v4, v6) = (taken(v4), taken(v6));
        let of =
            |answer: &Option<Answer>| answer.as_ref().map_or(Vec::new(), |answer| answer.addresses.clone());
        let addrs = preferred(family, of(&v4), of(&v6));
        // A family that nobody could say anything about matters only where the other has nothing.
        if let (true, Some(failure)) = (addrs.is_empty(), failure) {
            return Err(failure);
        }
        let ttls = [&v4, &v6]
            .into_iter()
            .flatten()
            .filter(|answer| answer.addresses.iter().any(|ip| addrs.contains(ip)));
        let ttl = ttls.map(|answer| Duration::from_secs(answer.ttl.into())).min();
        Ok(Found { addrs, ttl })
    }

    /// One question, until some server has an answer.
    async fn ask(&self, name: &Name, family: Family) -> io::Result<Answer> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no name server is known");
        for _ in 0..self.tries.max(1) {
            for server in &self.servers {
                match self.ask_one(*server, name, family).await {
                    Ok(answer) => match answer.code {
                        Code::NoError | Code::NxDomain => return Ok(answer),
                        Code::Failure(code) => {
                            failure = io::Error::other(format!("{server} answers with code {code}"));
                        }
                    },
                    Err(e) => failure = io::Error::new(e.kind(), format!("{server}: {e}")),
                }
            }
        }
        Err(failure)
    }

    async fn ask_one(&self, server: SocketAddr, name: &Name, family: Family) -> io::Result<Answer> {
        let question = Question { id: self.io.random() as u16, name: name.clone(), family };
        if !self.use_tcp {
            let answer = self.io.timeout(self.timeout, by_udp(self.io, server, &question)).await?;
            if !answer.truncated {
                return Ok(answer);
            }
        }
        self.io.timeout(self.timeout, by_tcp(self.io, server, &question)).await
    }
}

/// Over a socket of its own, whose port nobody else knows. What does not answer the question is not looked at any further.
async fn by_udp(io: &Io, server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut socket = io.udp(&Bind::tcp(SocketAddr::new(any, 0)))?;
    let mut message = Vec::with_capacity(64);
    write_question(&mut message, question);
    socket.send_to(&Chunk::Vec(message), server)?;
    loop {
        let (datagram, from) = socket.recv_from().await?;
        if (from.ip(), from.port()) != (server.ip(), server.port()) {
            continue;
        }
        match read_answer(datagram.bytes(), question) {
            Ok(answer) => return Ok(answer),
            Err(DnsError::NotOurs) => {}
            Err(e @ DnsError::Malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
        }
    }
}

/// Over a connection: RFC 7766, one question each.
async fn by_tcp(io: &Io, server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let mut stream = io.connect(&Peer::Tcp(server)).await?;
    let mut message = vec![0, 0];
    write_question(&mut message, question);
    // A name has 255 bytes at most, so the message is short.
    let length = (message.len() - 2) as u16;
    message[..2].copy_from_slice(&length.to_be_bytes());
    stream.send.push(Chunk::Vec(message));
    stream.send.below(0).await?;
    let mut received = Vec::new();
    loop {
        if let [high, low, rest @ ..] = received.as_slice()
            && let Some(message) = rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
        {
            return read_answer(message, question).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        }
        match stream.recv.recv().await? {
            Some(buf) => received.extend_from_slice(buf.bytes()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Runs two futures at once, to the end of both.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(one), Some(two)) => Poll::Ready((one, two)),
            (one, two) => {
                (first, second) = (one, two);
                Poll::Pending
            }
        }
    })
    .await
}
