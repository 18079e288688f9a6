//! What of a request a route hashes.

use std::mem::take;

use corelane::config::{HashCookie, HashPolicy, HashSource};
use corelane_proto::envoy::config::route::v3::route_action::{
    HashPolicy as Message, hash_policy::PolicySpecifier,
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn hash_policies(&mut self, messages: Vec<Message>, list: &Path<'_>) -> Vec<HashPolicy> {
        let messages = messages.into_iter().enumerate();
        messages.filter_map(|(at, message)| self.hash_policy(message, &list.index(at))).collect()
    }

    /// `None` after a refusal, and of one that hashes nothing.
    fn hash_policy(&mut self, mut message: Message, path: &Path<'_>) -> Option<HashPolicy> {
        let terminal = take(&mut message.terminal);
        let source = match message.policy_specifier.take() {
            Some(PolicySpecifier::Header(mut header)) => {
                let path = path.field("header");
                let rewrite = header.regex_rewrite.take();
                let rewrite = rewrite.map(|regex| self.regex_rewrite(regex, &path.field("regex_rewrite")));
                let name = take(&mut header.header_name);
                self.done(header, &path);
                // One that was refused hashes nothing.
                match rewrite {
                    Some(None) => None,
                    Some(rewrite) => Some(HashSource::Header { name, rewrite }),
                    None => Some(HashSource::Header { name, rewrite: None }),
                }
            }
            Some(PolicySpecifier::Cookie(mut cookie)) => {
                let path = path.field("cookie");
                let ttl = self.duration(&mut cookie.ttl, &path.field("ttl"));
                let list = path.field("attributes");
                let attributes = take(&mut cookie.attributes).into_iter().enumerate();
                let attributes = attributes.map(|(at, mut attribute)| {
                    let pair = (take(&mut attribute.name), take(&mut attribute.value));
                    self.done(attribute, &list.index(at));
                    pair
                });
                let attributes = attributes.collect();
                let (name, made_for) = (take(&mut cookie.name), take(&mut cookie.path));
                self.done(cookie, &path);
                Some(HashSource::Cookie(HashCookie { name, ttl, path: made_for, attributes }))
            }
            Some(PolicySpecifier::QueryParameter(mut parameter)) => {
                let name = take(&mut parameter.name);
                self.done(parameter, &path.field("query_parameter"));
                Some(HashSource::QueryParameter(name))
            }
            Some(PolicySpecifier::ConnectionProperties(mut properties)) => {
                let of_ip = take(&mut properties.source_ip);
                self.done(properties, &path.field("connection_properties"));
                of_ip.then_some(HashSource::ClientIp)
            }
            None => {
                self.refuse(path, "says nothing that is hashed");
                None
            }
            other => {
                message.policy_specifier = other;
                None
            }
        };
        self.done(message, path);
        Some(HashPolicy { source: source?, terminal })
    }
}
