//! A body that is compressed as it flows: each piece is passed on at once, so that nothing is held back and nothing piles up.

use super::codec::Encoder;
use crate::{
    error::Error,
    http::{Body, BodyStream, Frame},
    telemetry::{Cells, CompressorStat},
};
use corelane_io::Chunk;
use corelane_wire::Headers;
use std::task::{Context, Poll, ready};

/// The compressed body.
pub(super) struct Compressed {
    body: Body,
    /// Until the end.
    encoder: Option<Encoder>,
    /// Those of the body, which come behind the last of the data.
    trailers: Option<Box<Headers>>,
    stats: Cells<CompressorStat>,
}

impl Compressed {
    pub(super) fn new(body: Body, encoder: Encoder, stats: Cells<CompressorStat>) -> Compressed {
        Compressed { body, encoder: Some(encoder), trailers: None, stats }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, Error>> {
        while let Some(encoder) = &mut self.encoder {
            let (read, out) = match ready!(self.body.poll_next(cx))? {
                Some(Frame::Data(chunk)) => (chunk.len(), encoder.piece(chunk.bytes())?),
                end => {
                    if let Some(Frame::Trailers(trailers)) = end {
                        self.trailers = Some(trailers);
                    }
                    let Some(encoder) = self.encoder.take() else { break };
                    (0, encoder.finish()?)
                }
            };
            self.stats.add(CompressorStat::TotalUncompressedBytes, read as u64);
            self.stats.add(CompressorStat::TotalCompressedBytes, out.len() as u64);
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(out)));
            }
        }
        Poll::Ready(Ok(None))
    }
}

impl BodyStream for Compressed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        Poll::Ready(Ok(match ready!(self.poll_data(cx))? {
            Some(out) => Some(Frame::Data(Chunk::Vec(out))),
            None => self.trailers.take().map(Frame::Trailers),
        }))
    }
}
