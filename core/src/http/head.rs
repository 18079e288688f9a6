//! Heads from connections: received bytes are accumulated until a head is complete. Owns nothing between two heads; what
//! is refused is `corelane_wire`'s business.

use super::{body::failure, downstream::Downstream};
use crate::{
    compile,
    error::{Error, Kind, Timeout},
    upstream::Lease,
};
use corelane_io::{Buf, Io};
use corelane_wire::{
    RequestHead, ResponseHead,
    h1::{self, Limits, ParseError, Progress},
};
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

/// Reads a request's head, of which `first` has arrived, into `head`.
///
/// # Errors
/// It is not valid, too large or too late, or the client is gone.
pub(crate) async fn request(
    from: &Downstream,
    chain: &compile::HttpChain,
    first: Buf,
    head: &mut RequestHead,
) -> Result<(), Error> {
    let config = &chain.config;
    let limits = Limits {
        head_bytes: config.max_request_headers_kb as usize * 1024,
        fields: config.max_headers_count as usize,
    };
    let bad = |e| Error::downstream(Kind::Head(e));
    from.head_received(first.len());
    match h1::parse_request(head, first.bytes(), &limits).map_err(bad)? {
        Progress::Complete(used) => {
            from.head_received(used);
            from.unread(behind(first, used));
            return Ok(());
        }
        Progress::Partial => {}
    }
    let deadline = config.request_headers_timeout.map(|timeout| from.lane.io().now() + timeout);
    from.set_deadline(deadline);
    let io = from.lane.io();
    let parse = |bytes: &[u8]| h1::parse_request(head, bytes, &limits);
    let rest = accumulate(io, first, parse, limits.head_bytes, |cx| from.poll_recv(cx));
    // Most heads come in one piece: what the others need is boxed, and so no part of every exchange.
    let (buf, used, all) = io.boxed_local(rest).pin().await.map_err(|e| match e {
        Failed::Parse(e) => bad(e),
        Failed::End => Error::downstream(Kind::Reset),
        Failed::Io(e) => match failure(&e) {
            Kind::Timeout(_) => Error::downstream(Kind::Timeout(Timeout::Headers)),
            kind => Error::downstream(kind),
        },
    })?;
    from.head_received(all);
    from.unread(behind(buf, used));
    Ok(())
}

/// Reads a response's head, interim or final, into `head`. `said_nothing` tells whether any byte of a response came on
/// this connection in this exchange before.
///
/// # Errors
/// It is not valid or too large, or the upstream is gone.
pub(crate) async fn response(
    from: &Lease,
    io: &Io,
    head: &mut ResponseHead,
    said_nothing: bool,
) -> Result<(), Error> {
    let limits = from.pool().response_limits();
    let bad = |e| Error::upstream(Kind::Head(e));
    let first = match poll_fn(|cx| from.poll_recv(cx)).await {
        Ok(Some(buf)) => buf,
        // Not a byte: if the connection had been idle before, it may have been closed just then.
        Ok(None) => {
            return Err(Error { reused: said_nothing && from.reused(), ..Error::upstream(Kind::Reset) });
        }
        Err(e) => {
            return Err(Error { reused: said_nothing && from.reused(), ..Error::upstream(failure(&e)) });
        }
    };
    match h1::parse_response(head, first.bytes(), &limits).map_err(bad)? {
        Progress::Complete(used) => {
            from.head_received(head, used);
            from.unread(behind(first, used));
            return Ok(());
        }
        Progress::Partial => {}
    }
    let parse = |bytes: &[u8]| h1::parse_response(head, bytes, &limits);
    let rest = accumulate(io, first, parse, limits.head_bytes, |cx| from.poll_recv(cx));
    let (buf, used, all) = io.boxed_local(rest).pin().await.map_err(|e| match e {
        Failed::Parse(e) => bad(e),
        Failed::End => Error::upstream(Kind::Reset),
        Failed::Io(e) => Error::upstream(failure(&e)),
    })?;
    from.head_received(head, all);
    from.unread(behind(buf, used));
    Ok(())
}

enum Failed {
    Parse(ParseError),
    /// FIN in the middle of a head.
    End,
    Io(io::Error),
}

/// Receives until a head is complete. Gives back the last buffer, how much of it the head took, and the head's length.
async fn accumulate(
    io: &Io,
    first: Buf,
    mut parse: impl FnMut(&[u8]) -> Result<Progress, ParseError>,
    limit: usize,
    mut recv: impl FnMut(&mut Context<'_>) -> Poll<io::Result<Option<Buf>>>,
) -> Result<(Buf, usize, usize), Failed> {
    let mut all = io.vec();
    all.extend_from_slice(first.bytes());
    drop(first);
    loop {
        let buf = match poll_fn(&mut recv).await {
            Ok(Some(buf)) => buf,
            Ok(None) => return Err(Failed::End),
            Err(e) => return Err(Failed::Io(e)),
        };
        let seen = all.len();
        all.extend_from_slice(buf.bytes());
        if !h1::head_may_end(&all, seen) && all.len() <= limit {
            continue;
        }
        match parse(&all) {
            Ok(Progress::Complete(used)) => {
                io.recycle(all);
                // The end was not in what had been seen before, or it would have been found then.
                return Ok((buf, used - seen, used));
            }
            Ok(Progress::Partial) => {}
            Err(e) => return Err(Failed::Parse(e)),
        }
    }
}

fn behind(mut buf: Buf, used: usize) -> Buf {
    buf.advance(used);
    buf
}
