//! HTTP/2 (RFC 9113) with HPACK (RFC 7541), sans-io, both sides: [`Connection`] is fed what has come and gives [`Event`]s, is
//! told what to say and gives bytes. Owns no socket, no clock and no body: data is told by where it is in the input, so that
//! whoever has the input sends it on uncopied, and data goes out behind a frame's head that is made here.
//!
//! Heads are those of HTTP/1 ([`RequestHead`](crate::RequestHead), [`ResponseHead`](crate::ResponseHead)): `:authority` is
//! `host`, crumbs of cookies are one field, extended CONNECT is GET with `upgrade` and its success is 101 (RFC 8441).
//!
//! ```
//! use corelane_wire::h1::Framing;
//! use corelane_wire::h2::{Config, Connection, Event, FreshHeads};
//! use corelane_wire::{RequestHead, ResponseHead};
//!
//! let mut client = Connection::client(&Config::default());
//! let mut head = RequestHead::new();
//! head.set_authority(b"example.org").unwrap();
//! client.open(&head, Framing::None, true).unwrap();
//!
//! let mut server = Connection::server(&Config::default());
//! let sent = client.take_output(Vec::new());
//! let mut rest = sent.as_slice();
//! loop {
//!     let received = server.receive(rest, &mut FreshHeads).unwrap();
//!     rest = &rest[received.used..];
//!     match received.event {
//!         Some(Event::Request { stream, head, end: true }) => {
//!             assert_eq!((head.path(), head.authority()), (&b"/"[..], &b"example.org"[..]));
//!             server.respond(stream, &ResponseHead::new(), Framing::Length(5), false);
//!             assert!(server.sendable(stream) >= Some(5));
//!             server.send_data(stream, 5, true);
//!             server.output().extend_from_slice(b"hello"); // or sent behind the output, as it is
//!             server.close(stream);
//!         }
//!         Some(_) => {}
//!         None => break,
//!     }
//! }
//! assert!(server.take_output(Vec::new()).ends_with(b"hello"));
//! ```
//!
//! # What ends what
//!
//! A broken head resets its stream with PROTOCOL_ERROR and its table is kept ([`Malformed`]); one over the limits is answered
//! with 431. What breaks the connection's state ends the connection ([`Fault`], [`Cause`]). What is allowed and costs more than
//! it brings is counted ([`FloodLimits`]) and ends it with ENHANCE_YOUR_CALM.
//!
//! # What is held
//!
//! Of a peer's doing: a frame that is not complete (up to `max_frame_size`), a block that goes on (up to twice the limit of a
//! head), two tables, a slot for each stream that is not [closed](Connection::close) here, and output that is not taken. Data is
//! held by whoever took it from the input, within the windows of [`Config`].

mod connection;
mod error;
mod flood;
mod flow;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod head;
mod hpack;
mod huffman;
mod settings;
mod stream;
mod write;

pub use connection::{Config, Connection, Event, FreshHeads, Heads, OpenError, Received};
pub use error::{Cause, Fault, Reason};
pub use flood::FloodLimits;
pub use head::Malformed;
pub use settings::Settings;
pub use stream::StreamKey;
