//! `local_reply_config`: what the proxy's own answers look like.

use std::mem::take;

use corelane::config::{LocalReplies, ReplyFormat, ReplyMapper};
use corelane_proto::envoy::{
    config::core::v3::SubstitutionFormatString,
    extensions::filters::network::http_connection_manager::v3::{LocalReplyConfig, ResponseMapper},
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn local_replies(&mut self, mut message: LocalReplyConfig, path: &Path<'_>) -> LocalReplies {
        let list = path.field("mappers");
        let mappers = take(&mut message.mappers).into_iter().enumerate();
        // Each is translated, so that each is reported.
        let mappers: Vec<_> =
            mappers.filter_map(|(at, mapper)| self.reply_mapper(mapper, &list.index(at))).collect();
        let format = message.body_format.take();
        let format = format.and_then(|format| self.reply_format(format, &path.field("body_format")));
        self.done(message, path);
        LocalReplies { mappers, format }
    }

    fn reply_mapper(&mut self, mut message: ResponseMapper, path: &Path<'_>) -> Option<ReplyMapper> {
        // That there is a filter is a rule of the API.
        let filter = message.filter.take();
        let filter = filter.and_then(|filter| self.log_filter(filter, &path.field("filter")));
        let status = message.status_code.take().map(|status| u16::try_from(status).unwrap_or(u16::MAX));
        let body = match message.body.take() {
            Some(source) => {
                let path = path.field("body");
                let text = self.inline(source, &path).map(String::from_utf8);
                if let Some(Err(_)) = text {
                    self.refuse(&path, "is not UTF-8");
                }
                text.and_then(Result::ok)
            }
            None => None,
        };
        let format = message.body_format_override.take();
        let format = format.and_then(|format| self.reply_format(format, &path.field("body_format_override")));
        let headers = self.header_options(take(&mut message.headers_to_add), &path.field("headers_to_add"));
        self.done(message, path);
        Some(ReplyMapper { filter: filter?, status, body, format, headers })
    }

    fn reply_format(
        &mut self,
        mut message: SubstitutionFormatString,
        path: &Path<'_>,
    ) -> Option<ReplyFormat> {
        let content_type = Some(take(&mut message.content_type)).filter(|said| !said.is_empty());
        let body = self.log_format(message, path)?;
        Some(ReplyFormat { body, content_type })
    }
}
