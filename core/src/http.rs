//! HTTP connections of clients: one loop that takes one exchange after the other off a connection. Owns the connection's
//! life between exchanges; the exchange itself is in `exchange`, the spine.

pub(crate) mod attempts;
pub(crate) mod body;
pub(crate) mod clock;
pub(crate) mod downstream;
mod duration;
mod exchange;
mod forwarded;
mod grpc;
pub(crate) mod head;
mod log;
mod measure;
pub(crate) mod mirror;
mod normalize;
pub(crate) mod pump;
mod replay;
pub(crate) mod reply;
mod retry;
pub(crate) mod router;
mod timeouts;
pub(crate) mod upgrade;

pub use body::{Body, BodyStream, Frame};

use crate::{
    conn::Conn,
    lane::{ChainCell, Current, Lane},
    limits::{SEND_HIGH, SEND_LOW},
};
use downstream::{Downstream, Idle};
use exchange::{After, exchange};
use std::rc::Rc;

/// Serves one HTTP/1 connection until it ends. Every request takes filters and routes from what is newest in `cell`.
///
/// Its future stays small, because an idle connection consists of little else: an exchange is boxed while it lasts.
pub async fn serve(conn: Conn, cell: Rc<ChainCell>, lane: Rc<Lane>) {
    // A chain that changed its kind drains this cell, so a connection never sees both kinds.
    let Current::Http(chain) = cell.current() else { return };
    let downstream = Downstream::new(conn, &cell, lane, &chain);
    drop((cell, chain));
    loop {
        let Idle::Request(first) = downstream.idle().await else { break };
        match exchange(&downstream, first).await {
            Ok(After::Keep) => {}
            Ok(After::Close) => break,
            Err(_) => return downstream.abort(),
        }
        if downstream.queued() > SEND_HIGH && downstream.below(SEND_LOW).await.is_err() {
            return downstream.abort();
        }
    }
    downstream.close().await;
}

#[cfg(test)]
mod tests;
