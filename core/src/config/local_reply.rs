//! What the proxy's own answers look like.

use super::{HeaderOption, LogFilter, LogFormat};

/// What becomes of the answers that the proxy gives by itself: refusals, failures of an upstream, direct responses and
/// redirects of routes, answers of filters (Envoy `LocalReplyConfig`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalReplies {
    /// The first that admits an answer changes it.
    pub mappers: Vec<ReplyMapper>,
    /// How bodies are written where no mapper says it (Envoy `body_format`); as they are where `None`.
    pub format: Option<ReplyFormat>,
}

/// Changes answers of one kind (Envoy `ResponseMapper`). What is absent stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyMapper {
    /// Which answers. Durations and bytes are those up to the answer.
    pub filter: LogFilter,
    /// Another status, 200 to 599.
    pub status: Option<u16>,
    /// Another body, which the format may still be laid around.
    pub body: Option<String>,
    /// Another format (Envoy `body_format_override`).
    pub format: Option<ReplyFormat>,
    /// Fields that are added, with the operators of access logs in their values.
    pub headers: Vec<HeaderOption>,
}

/// How a body is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyFormat {
    /// In the operators of access logs; `%LOCAL_REPLY_BODY%` is what the body was.
    pub body: LogFormat,
    /// The media type, instead of `text/plain` for text and `application/json` for JSON.
    pub content_type: Option<String>,
}
