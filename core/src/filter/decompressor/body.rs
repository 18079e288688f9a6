//! A body that is expanded as it flows: no more at once than its recipient takes, and no more altogether than so many times what
//! came. Owns the end of bombs.

use super::{Told, codec::Decoder};
use crate::{
    error::{Error, Kind},
    http::{Body, BodyStream, Frame},
    limits::INFLATE_FREE,
    telemetry::{Cells, DecompressorStat},
};
use corelane_io::Chunk;
use corelane_wire::Headers;
use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

/// The expanded body.
pub(super) struct Expanded {
    body: Body,
    /// Until the end.
    decoder: Option<Decoder>,
    /// What came and was not read to its end.
    chunk: Option<(Chunk, usize)>,
    /// Whether the decoder may have more to give before it needs more.
    more: bool,
    read: u64,
    written: u64,
    ratio: u64,
    trailers: Option<Box<Headers>>,
    told: Option<Rc<Told>>,
    stats: Cells<DecompressorStat>,
}

/// What is written at once.
const PIECE: usize = 16 << 10;

impl Expanded {
    /// `told` is for the fields behind the body, if there may be any.
    pub(super) fn new(
        body: Body,
        decoder: Decoder,
        ratio: u32,
        told: Option<Rc<Told>>,
        stats: Cells<DecompressorStat>,
    ) -> Expanded {
        Expanded {
            body,
            decoder: Some(decoder),
            chunk: None,
            more: false,
            read: 0,
            written: 0,
            ratio: ratio.into(),
            trailers: None,
            told,
            stats,
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, Error>> {
        while let Some(decoder) = &mut self.decoder {
            if self.chunk.is_none() && !self.more {
                match ready!(self.body.poll_next(cx))? {
                    Some(Frame::Data(chunk)) => self.chunk = Some((chunk, 0)),
                    end => {
                        if !decoder.may_end() {
                            return Poll::Ready(Err(Error::local(Kind::Filter)));
                        }
                        self.decoder = None;
                        self.finish(end);
                        break;
                    }
                }
            }
            let out = self.step()?;
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(out)));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// One step of the decoder: what it wrote.
    fn step(&mut self) -> Result<Vec<u8>, Error> {
        let Some(decoder) = &mut self.decoder else { return Ok(Vec::new()) };
        let data = self.chunk.as_ref().map_or(&[][..], |(chunk, at)| &chunk.bytes()[*at..]);
        let mut out = Vec::with_capacity(PIECE);
        let read = decoder.step(data, &mut out)?;
        let (len, stuck) = (data.len(), read == 0 && out.is_empty() && !data.is_empty());
        self.read += read as u64;
        self.written += out.len() as u64;
        self.stats.add(DecompressorStat::TotalCompressedBytes, read as u64);
        self.stats.add(DecompressorStat::TotalUncompressedBytes, out.len() as u64);
        if stuck || self.written > self.read.saturating_mul(self.ratio).saturating_add(INFLATE_FREE) {
            return Err(Error::local(Kind::Filter));
        }
        if read == len {
            self.chunk = None;
        } else if let Some((_, at)) = &mut self.chunk {
            *at += read;
        }
        // With room left, nothing is held back.
        self.more = out.len() == out.capacity();
        Ok(out)
    }

    fn finish(&mut self, end: Option<Frame>) {
        if let Some(Frame::Trailers(trailers)) = end {
            self.trailers = Some(trailers);
        }
        if let Some(told) = self.told.take() {
            let trailers = self.trailers.get_or_insert_default();
            // Names that were checked, and numbers; a section that is full stays without them.
            let _ = trailers.append(told.compressed.as_str(), self.read.to_string().as_bytes());
            let _ = trailers.append(told.uncompressed.as_str(), self.written.to_string().as_bytes());
        }
    }
}

impl BodyStream for Expanded {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        Poll::Ready(Ok(match ready!(self.poll_data(cx))? {
            Some(out) => Some(Frame::Data(Chunk::Vec(out))),
            None => self.trailers.take().map(Frame::Trailers),
        }))
    }
}
