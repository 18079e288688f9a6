//! Sans-io codecs of a proxy. Bytes come in as arguments and decisions go out as values.
//!
//! This crate owns how messages look on the wire: heads ([`RequestHead`], [`ResponseHead`], [`Headers`]), the codecs of
//! HTTP/1 ([`h1`]) and HTTP/2 ([`h2`]), and what a connection begins with: the PROXY protocol ([`proxy`]), TLS hellos ([`client_hello`]) and
//! the first line of HTTP ([`sniff`]); and the messages of DNS ([`dns`]). It never reads a clock, a socket or configuration, and it needs no std.
//!
//! # What a head guarantees
//!
//! A head can only hold valid field names and values: every way in checks them, so no CR, LF or NUL is ever inside
//! one. Writers rebuild a message from those parts. Splitting a message by smuggling a line break through the proxy is
//! therefore impossible by type, not by care.
//!
//! # Reading and writing one HTTP/1 message
//!
//! ```
//! use corelane_wire::h1::{self, Framing, Limits, Persist, Progress};
//! use corelane_wire::{Known, RequestHead};
//!
//! let received = b"GET /hello HTTP/1.1\r\nHost: example.org\r\nConnection: x-debug\r\nX-Debug: 1\r\n\r\n";
//! let mut head = RequestHead::new();
//! let Progress::Complete(used) = h1::parse_request(&mut head, received, &Limits::default())? else { panic!() };
//! assert_eq!(used, received.len());
//! assert_eq!(head.path(), b"/hello");
//! assert_eq!(h1::request_framing(&head)?, Framing::None);
//!
//! head.headers_mut().set(Known::XForwardedFor, b"192.0.2.1").unwrap();
//! let mut out = Vec::new();
//! h1::write_request(&mut out, &head, Framing::None, Persist::Default);
//! assert_eq!(out, b"GET /hello HTTP/1.1\r\nHost: example.org\r\nx-forwarded-for: 192.0.2.1\r\n\r\n");
//! # Ok::<(), h1::ParseError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ascii;
pub mod client_hello;
pub mod dns;
pub mod h1;
pub mod h2;
mod head;
mod headers;
mod known;
pub mod path;
mod plain;
pub mod proxy;
mod reader;
mod scan;
pub mod sniff;
mod status;
#[cfg(test)]
mod testing;

pub use ascii::{split_port, write_decimal};
pub use head::{BadHead, Method, RequestHead, ResponseHead, Scheme, Version};
pub use headers::{BadHeader, Headers, StaticField};
pub use known::{Known, Name};
pub use plain::{Decimal, IpText, Plain, Uuid};
pub use status::Status;
