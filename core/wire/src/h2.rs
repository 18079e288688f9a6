//! HTTP/2 (RFC 9113), sans-io, both sides.

mod hpack;
mod huffman;
