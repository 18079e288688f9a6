//! The libraries that expand: gzip, brotli and zstd, each as a stream that gives no more at once than it has room for. Owns their
//! settings and what of Envoy's fields reaches them; knows no message.

use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind},
    limits::{INFLATE_RATIO, ZSTD_WINDOW_LOG},
};
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use flate2::{Decompress, FlushDecompress, Status};
use serde::Deserialize;
use zstd::{
    stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer},
    zstd_safe::DParameter,
};

/// A library and how it is used.
#[derive(Debug)]
pub(super) struct Library {
    kind: LibraryKind,
    /// How many times what was read may be written.
    pub(super) ratio: u32,
}

#[derive(Debug)]
enum LibraryKind {
    Gzip { window_bits: u8 },
    Brotli,
    Zstd,
}

/// Envoy's `Gzip`. In what pieces zlib writes says nothing about what comes out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGzip {
    window_bits: Option<u8>,
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
    max_inflate_ratio: Option<u32>,
}

/// Envoy's `Brotli`. Its ring buffer has the size of the window always.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBrotli {
    #[serde(default, rename = "disable_ring_buffer_reallocation")]
    _disable_ring_buffer_reallocation: bool,
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
}

/// Envoy's `Zstd`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawZstd {
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
}

impl Library {
    /// By the type of its configuration.
    ///
    /// # Errors
    /// No such library, or something is wrong with its settings; the path is inside `raw`.
    pub(super) fn parse(raw: &ConfigValue) -> Result<Library, ConfigError> {
        let (kind, ratio) = match raw.type_name() {
            "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => {
                let raw: RawGzip = raw.deserialize()?;
                let window_bits = raw.window_bits.unwrap_or(15);
                if !(9..=15).contains(&window_bits) {
                    return Err(ConfigError::new("window_bits", "must be 9 to 15"));
                }
                if raw.max_inflate_ratio == Some(0) {
                    return Err(ConfigError::new("max_inflate_ratio", "must be 1 at least"));
                }
                (LibraryKind::Gzip { window_bits }, raw.max_inflate_ratio)
            }
            "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => {
                let RawBrotli { .. } = raw.deserialize()?;
                (LibraryKind::Brotli, None)
            }
            "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => {
                let RawZstd { .. } = raw.deserialize()?;
                (LibraryKind::Zstd, None)
            }
            other => return Err(ConfigError::new("", format!("no decompressor is configured by {other:?}"))),
        };
        Ok(Library { kind, ratio: ratio.unwrap_or(INFLATE_RATIO) })
    }

    /// The token in `content-encoding`.
    pub(super) fn encoding(&self) -> &'static str {
        match self.kind {
            LibraryKind::Gzip { .. } => "gzip",
            LibraryKind::Brotli => "br",
            LibraryKind::Zstd => "zstd",
        }
    }

    /// What Envoy calls it in statistics.
    pub(super) fn stat_name(&self) -> &'static str {
        match self.kind {
            LibraryKind::Gzip { .. } => "gzip",
            LibraryKind::Brotli => "brotli",
            LibraryKind::Zstd => "zstd",
        }
    }

    /// Begins a body.
    ///
    /// # Errors
    /// The library has no memory for it.
    pub(super) fn start(&self) -> Result<Decoder, Error> {
        Ok(match self.kind {
            LibraryKind::Gzip { window_bits } => Decoder::Gzip {
                stream: Box::new(Decompress::new_gzip(window_bits)),
                window_bits,
                between: true,
            },
            LibraryKind::Brotli => {
                let code = HuffmanCode { bits: 0, value: 0 };
                let mut state = BrotliState::new(HeapAlloc::new(0), HeapAlloc::new(0), HeapAlloc::new(code));
                // Windows of up to a gigabyte, which no content coding has (RFC 7932 section 9.1).
                state.large_window = false;
                Decoder::Brotli { state: Box::new(state), began: false, ended: false }
            }
            LibraryKind::Zstd => {
                let mut stream = ZstdDecoder::new().map_err(|_| broken())?;
                stream.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(|_| broken())?;
                Decoder::Zstd { stream: Box::new(stream), between: true }
            }
        })
    }
}

/// A body that is being expanded.
pub(super) enum Decoder {
    /// Of any number of members (RFC 1952 section 2.2).
    Gzip { stream: Box<Decompress>, window_bits: u8, between: bool },
    Brotli {
        state: Box<BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>>,
        began: bool,
        ended: bool,
    },
    /// Of any number of frames (RFC 8878 section 3).
    Zstd { stream: Box<ZstdDecoder<'static>>, between: bool },
}

fn broken() -> Error {
    Error::local(Kind::Filter)
}

impl Decoder {
    /// Reads some of `data` and writes into `out` as far as there is room in front of its capacity. How much was read; if that
    /// is nothing and nothing was written, more is needed.
    ///
    /// # Errors
    /// The data is not of this encoding, or goes on behind its end.
    pub(super) fn step(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<usize, Error> {
        match self {
            Decoder::Gzip { stream, window_bits, between } => {
                if *between && !data.is_empty() && stream.total_in() > 0 {
                    **stream = Decompress::new_gzip(*window_bits);
                }
                let before = stream.total_in();
                let status = stream.decompress_vec(data, out, FlushDecompress::None).map_err(|_| broken())?;
                // No more than what it was given.
                let read = (stream.total_in() - before) as usize;
                *between = status == Status::StreamEnd || *between && read == 0;
                Ok(read)
            }
            Decoder::Brotli { state, began, ended } => {
                if *ended {
                    return if data.is_empty() { Ok(0) } else { Err(broken()) };
                }
                *began |= !data.is_empty();
                let start = out.len();
                out.resize(out.capacity(), 0);
                let (mut left, mut read, mut room, mut written) = (data.len(), 0, out.len() - start, 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut read,
                    data,
                    &mut room,
                    &mut written,
                    &mut out[start..],
                    &mut 0,
                    state,
                );
                out.truncate(start + written);
                match result {
                    BrotliResult::ResultFailure => return Err(broken()),
                    BrotliResult::ResultSuccess => *ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok(read)
            }
            Decoder::Zstd { stream, between } => {
                let mut input = InBuffer::around(data);
                let at = out.len();
                let mut output = OutBuffer::around_pos(out, at);
                let hint = stream.run(&mut input, &mut output).map_err(|_| broken())?;
                let read = input.pos();
                *between = hint == 0 || *between && read == 0;
                Ok(read)
            }
        }
    }

    /// Whether the body may end here. One without a byte may.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Decoder::Gzip { between, .. } | Decoder::Zstd { between, .. } => *between,
            Decoder::Brotli { began, ended, .. } => *ended || !began,
        }
    }
}
