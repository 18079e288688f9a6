//! The libraries that compress: gzip, brotli and zstd, each as a stream that is flushed at every piece. Owns their settings and
//! what of Envoy's fields reaches them; knows no message.

use crate::{
    config::{ConfigError, ConfigValue},
    error::{Error, Kind},
};
use brotli::{CompressorWriter, enc::BrotliEncoderParams, enc::backward_references::BrotliEncoderMode};
use flate2::{Compress, Compression, FlushCompress, Status};
use serde::Deserialize;
use std::{
    io::{self, Write},
    mem,
};

/// A library and how it is used.
#[derive(Debug)]
pub(super) enum Library {
    Gzip { level: Compression, window_bits: u8 },
    Brotli(Box<BrotliSettings>),
    Zstd { level: i32, checksum: bool },
}

/// Of brotli.
#[derive(Debug)]
pub(super) struct BrotliSettings {
    quality: i32,
    mode: BrotliEncoderMode,
    window_bits: i32,
    block_bits: i32,
    disable_literal_context_modeling: bool,
}

/// Envoy's `Gzip`. How much memory zlib takes, and in what pieces it writes, says nothing about what comes out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGzip {
    #[serde(default, rename = "memory_level")]
    _memory_level: Option<u32>,
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
    #[serde(default)]
    compression_level: String,
    window_bits: Option<u8>,
}

/// Envoy's `Brotli`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBrotli {
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
    quality: Option<i32>,
    #[serde(default)]
    encoder_mode: String,
    window_bits: Option<i32>,
    input_block_bits: Option<i32>,
    #[serde(default)]
    disable_literal_context_modeling: bool,
}

/// Envoy's `Zstd`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawZstd {
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<u32>,
    compression_level: Option<i32>,
    #[serde(default)]
    enable_checksum: bool,
}

impl Library {
    /// By the type of its configuration.
    ///
    /// # Errors
    /// No such library, or something is wrong with its settings; the path is inside `raw`.
    pub(super) fn parse(raw: &ConfigValue) -> Result<Library, ConfigError> {
        match raw.type_name() {
            "envoy.extensions.compression.gzip.compressor.v3.Gzip" => raw.deserialize::<RawGzip>()?.check(),
            "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
                raw.deserialize::<RawBrotli>()?.check()
            }
            "envoy.extensions.compression.zstd.compressor.v3.Zstd" => {
                let raw: RawZstd = raw.deserialize()?;
                let level = raw.compression_level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                within("compression_level", level, zstd::compression_level_range())?;
                Ok(Library::Zstd { level, checksum: raw.enable_checksum })
            }
            other => Err(ConfigError::new("", format!("no compressor is configured by {other:?}"))),
        }
    }

    /// The token in `content-encoding`.
    pub(super) fn encoding(&self) -> &'static str {
        match self {
            Library::Gzip { .. } => "gzip",
            Library::Brotli(_) => "br",
            Library::Zstd { .. } => "zstd",
        }
    }

    /// What Envoy calls it in statistics.
    pub(super) fn stat_name(&self) -> &'static str {
        match self {
            Library::Gzip { .. } => "gzip",
            Library::Brotli(_) => "brotli",
            Library::Zstd { .. } => "zstd",
        }
    }

    /// Begins a body.
    ///
    /// # Errors
    /// The library has no memory for it.
    pub(super) fn start(&self) -> Result<Encoder, Error> {
        Ok(match self {
            Library::Gzip { level, window_bits } => {
                Encoder::Gzip(Box::new(Compress::new_gzip(*level, *window_bits)))
            }
            Library::Brotli(settings) => Encoder::Brotli(Box::new(settings.start())),
            Library::Zstd { level, checksum } => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), *level).map_err(failed)?;
                encoder.include_checksum(*checksum).map_err(failed)?;
                Encoder::Zstd(Box::new(encoder))
            }
        })
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    at: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, ConfigError> {
    match range.contains(&value) {
        true => Ok(value),
        false => Err(ConfigError::new(at, format!("must be {} to {}", range.start(), range.end()))),
    }
}

impl RawGzip {
    fn check(self) -> Result<Library, ConfigError> {
        let level = match self.compression_level.as_str() {
            "" | "DEFAULT_COMPRESSION" => 6,
            "BEST_SPEED" => 1,
            "BEST_COMPRESSION" => 9,
            other => match other.strip_prefix("COMPRESSION_LEVEL_").and_then(|level| level.parse().ok()) {
                Some(level) => level,
                None => return Err(ConfigError::new("compression_level", format!("no level is {other:?}"))),
            },
        };
        let window_bits = within("window_bits", self.window_bits.unwrap_or(12), 9..=15)?;
        Ok(Library::Gzip { level: Compression::new(level), window_bits })
    }
}

impl RawBrotli {
    fn check(self) -> Result<Library, ConfigError> {
        let mode = match self.encoder_mode.as_str() {
            "" | "DEFAULT" | "GENERIC" => BrotliEncoderMode::BROTLI_MODE_GENERIC,
            "TEXT" => BrotliEncoderMode::BROTLI_MODE_TEXT,
            "FONT" => BrotliEncoderMode::BROTLI_MODE_FONT,
            other => return Err(ConfigError::new("encoder_mode", format!("no mode is {other:?}"))),
        };
        Ok(Library::Brotli(Box::new(BrotliSettings {
            quality: within("quality", self.quality.unwrap_or(3), 0..=11)?,
            mode,
            window_bits: within("window_bits", self.window_bits.unwrap_or(18), 10..=24)?,
            block_bits: within("input_block_bits", self.input_block_bits.unwrap_or(24), 16..=24)?,
            disable_literal_context_modeling: self.disable_literal_context_modeling,
        })))
    }
}

impl BrotliSettings {
    fn start(&self) -> CompressorWriter<Vec<u8>> {
        let params = BrotliEncoderParams {
            quality: self.quality,
            mode: self.mode,
            lgwin: self.window_bits,
            lgblock: self.block_bits,
            disable_literal_context_modeling: self.disable_literal_context_modeling.into(),
            ..BrotliEncoderParams::default()
        };
        CompressorWriter::with_params(Vec::new(), PIECE, &params)
    }
}

/// Room for what comes out at once.
const PIECE: usize = 4096;

/// A body that is being compressed.
pub(super) enum Encoder {
    Gzip(Box<Compress>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

fn failed(_: io::Error) -> Error {
    Error::local(Kind::Filter)
}

impl Encoder {
    /// A piece of the body: what comes of it, flushed, so that the recipient has all of it.
    ///
    /// # Errors
    /// The library failed, for want of memory.
    pub(super) fn piece(&mut self, data: &[u8]) -> Result<Vec<u8>, Error> {
        let written = match self {
            Encoder::Gzip(stream) => return deflate(stream, data, FlushCompress::Sync),
            Encoder::Brotli(writer) => {
                writer.write_all(data).and_then(|()| writer.flush()).map_err(failed)?;
                writer.get_mut()
            }
            Encoder::Zstd(writer) => {
                writer.write_all(data).and_then(|()| writer.flush()).map_err(failed)?;
                writer.get_mut()
            }
        };
        Ok(mem::take(written))
    }

    /// The end.
    ///
    /// # Errors
    /// As [`Encoder::piece`].
    pub(super) fn finish(self) -> Result<Vec<u8>, Error> {
        match self {
            Encoder::Gzip(mut stream) => deflate(&mut stream, &[], FlushCompress::Finish),
            Encoder::Brotli(writer) => Ok(writer.into_inner()),
            Encoder::Zstd(writer) => writer.finish().map_err(failed),
        }
    }
}

fn deflate(stream: &mut Compress, mut data: &[u8], flush: FlushCompress) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    loop {
        out.reserve(PIECE);
        let before = stream.total_in();
        let status = stream.compress_vec(data, &mut out, flush).map_err(|_| Error::local(Kind::Filter))?;
        // No more than what it was given.
        data = &data[(stream.total_in() - before) as usize..];
        // With room left, nothing is held back.
        let flushed = data.is_empty() && out.len() < out.capacity() && matches!(flush, FlushCompress::Sync);
        if status == Status::StreamEnd || flushed {
            return Ok(out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io::Read;

    pub(in crate::filter::compressor) fn library(
        name: &str,
        settings: Value,
    ) -> Result<Library, ConfigError> {
        let kind = match name {
            "gzip" => "envoy.extensions.compression.gzip.compressor.v3.Gzip",
            "br" => "envoy.extensions.compression.brotli.compressor.v3.Brotli",
            "zstd" => "envoy.extensions.compression.zstd.compressor.v3.Zstd",
            other => other,
        };
        Library::parse(&ConfigValue::new(kind, settings))
    }

    /// What can be read so far, and whether that is all.
    fn expand(encoding: &str, data: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let read = match encoding {
            "gzip" => flate2::read::GzDecoder::new(data).read_to_end(&mut out).map(drop),
            "br" => brotli::Decompressor::new(data, 4096).read_to_end(&mut out).map(drop),
            _ => zstd::stream::copy_decode(data, &mut out),
        };
        (out, read.is_ok())
    }

    #[test]
    fn what_is_compressed_comes_out_again_and_each_piece_at_once() {
        let pieces: Vec<Vec<u8>> =
            (0_u32..16).map(|n| (0..n * n * 131).map(|i| ((i * i) >> 7) as u8).collect()).collect();
        for (name, settings) in [
            ("gzip", json!({})),
            ("gzip", json!({"compression_level": "BEST_COMPRESSION", "window_bits": 15, "memory_level": 9})),
            ("br", json!({"quality": 11, "window_bits": 10, "encoder_mode": "TEXT"})),
            ("br", json!({})),
            ("zstd", json!({"compression_level": 1, "enable_checksum": true})),
            ("zstd", json!({})),
        ] {
            let library = library(name, settings).unwrap();
            let mut encoder = library.start().unwrap();
            let (mut out, mut put) = (Vec::new(), Vec::new());
            for piece in &pieces {
                put.extend_from_slice(piece);
                out.extend(encoder.piece(piece).unwrap());
                let (read, _) = expand(library.encoding(), &out);
                assert!(read == put, "{name}: {} of {} bytes", read.len(), put.len());
            }
            out.extend(encoder.finish().unwrap());
            assert!(expand(library.encoding(), &out) == (put.clone(), true), "{name}");
            assert!(out.len() < put.len());
        }
    }

    #[test]
    fn settings_that_no_library_has_are_refused() {
        for (name, settings, path) in [
            ("gzip", json!({"compression_strategy": "RLE"}), "compression_strategy"),
            ("gzip", json!({"compression_level": "COMPRESSION_LEVEL_X"}), "compression_level"),
            ("gzip", json!({"window_bits": 8}), "window_bits"),
            ("br", json!({"quality": 12}), "quality"),
            ("br", json!({"encoder_mode": "LOUD"}), "encoder_mode"),
            ("zstd", json!({"dictionary": {}}), "dictionary"),
            ("zstd", json!({"compression_level": 1000}), "compression_level"),
            ("other", json!({}), ""),
        ] {
            assert_eq!(library(name, settings.clone()).unwrap_err().path, path, "{name} {settings}");
        }
    }
}
