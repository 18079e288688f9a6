//! An accepted connection with what was learnt about it. Reads and writes nothing.

use crate::listener::Open;
use corelane_io::{Instant, Peer, Stream};
use std::{net::SocketAddr, rc::Rc};

/// An accepted connection, before a protocol takes it.
#[derive(Debug)]
pub struct Conn {
    /// Its transport.
    pub stream: Stream,
    /// What is known about it.
    pub meta: ConnMeta,
    /// Its place in the counts of the listener it came by.
    pub(crate) open: Option<Open>,
}

/// What is known about a downstream connection.
#[derive(Clone, Debug)]
pub struct ConnMeta {
    /// The client: who is connected, or whom a PROXY header that was asked for names.
    pub peer: Peer,
    /// Where its listener listens.
    pub listener: Peer,
    /// When it was accepted.
    pub accepted: Instant,
    /// Its number among those of the process, as access logs show it; 0 where nobody counts.
    pub id: u64,
    /// What listener filters found out, where there are any.
    pub learnt: Option<Rc<Learnt>>,
}

/// What listener filters found out about a connection.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// Who is connected, whatever a PROXY header says.
    pub direct: Peer,
    /// The client that a PROXY header names.
    pub(crate) source: Option<SocketAddr>,
    /// Where the client wanted to go, if that is not where it is connected to.
    pub(crate) local: Option<SocketAddr>,
    /// Whether `local` was found out, for listeners that hand connections on by it.
    pub(crate) restored: bool,
    /// Whether the client began TLS.
    pub tls: bool,
    /// The server name that a TLS client asks for, in lower case.
    pub server_name: Option<Box<str>>,
    /// The application protocols that a TLS client offers, its first choice first, or the HTTP that a plain-text client
    /// speaks: `http/1.0`, `http/1.1` or `h2c`.
    pub protocols: Vec<Box<str>>,
}

impl Learnt {
    /// Nothing yet about a connection from `direct`.
    pub(crate) fn nothing(direct: Peer) -> Learnt {
        Learnt {
            direct,
            source: None,
            local: None,
            restored: false,
            tls: false,
            server_name: None,
            protocols: Vec::new(),
        }
    }
}

impl ConnMeta {
    /// Where the client wanted to go, if a listener filter found out that this is not where it is connected to: the
    /// destination before a redirection (`SO_ORIGINAL_DST`), or the one that a PROXY header names.
    pub fn original_destination(&self) -> Option<SocketAddr> {
        self.learnt.as_ref()?.local
    }

    /// The server name that a TLS client asks for, in lower case, if somebody looked.
    pub fn server_name(&self) -> Option<&str> {
        self.learnt.as_ref()?.server_name.as_deref()
    }

    /// Who is connected, whatever a PROXY header says.
    pub fn direct_peer(&self) -> &Peer {
        self.learnt.as_ref().map_or(&self.peer, |learnt| &learnt.direct)
    }
}
