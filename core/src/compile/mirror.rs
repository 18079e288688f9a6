//! Compiled mirrors: which clusters get copies of requests, and what is done to the copies.

use super::route::Routes;
use crate::{
    config::{self, FieldEdit, HostRewrite},
    filter::{self, HeaderValue},
    http::mirror::{Host, Mirror, Target},
    route::FieldEdits,
};
use std::sync::Arc;

impl Routes<'_> {
    /// Where copies of requests go: what is said here, or else what is said around it.
    pub(super) fn mirrors(
        &mut self,
        at: &str,
        own: &[config::Mirror],
        around: &Option<Arc<[Mirror]>>,
    ) -> Option<Arc<[Mirror]>> {
        if own.is_empty() {
            return around.clone();
        }
        let one = |(m, mirror)| self.mirror(&format!("{at}.request_mirror_policies[{m}]"), mirror);
        Some(own.iter().enumerate().filter_map(one).collect())
    }

    /// `None` after a problem only.
    fn mirror(&mut self, at: &str, config: &config::Mirror) -> Option<Mirror> {
        let cluster = match &config.header {
            Some(_) if !config.cluster.is_empty() => {
                self.problem(format!("{at}.cluster_header"), "may not be set beside cluster");
                return None;
            }
            Some(name) => Target::Header(self.field_name(format!("{at}.cluster_header"), name)?),
            None if config.cluster.is_empty() => {
                self.problem(format!("{at}.cluster"), "is required, or cluster_header");
                return None;
            }
            None => Target::Named(config.cluster.clone()),
        };
        let host = match (&config.host_rewrite, config.keeps_host) {
            (Some(host), _) => {
                self.host(at, &HostRewrite::Literal(host.clone()))?;
                Host::Literal(host.clone())
            }
            (None, true) => Host::Kept,
            (None, false) => Host::Suffixed,
        };
        let mut edits = Vec::new();
        for (i, edit) in config.edits.iter().enumerate() {
            let mut own = FieldEdits { remove: Vec::new(), add: Vec::new(), keep: Vec::new() };
            let at = format!("{at}.request_headers_mutations[{i}]");
            match edit {
                FieldEdit::Remove(name) => match filter::mutable(&name.to_ascii_lowercase()) {
                    Ok(()) => own.remove.push(name.to_ascii_lowercase()),
                    Err(what) => self.problem(format!("{at}.remove"), what),
                },
                FieldEdit::Add(option) => match HeaderValue::of_route(option, None) {
                    Ok(value) => own.add.push(value),
                    Err(error) => self.problems.push(error.within(&format!("{at}.append"))),
                },
            }
            edits.push(Arc::new(own));
        }
        Some(Mirror { cluster, fraction: config.fraction, host, edits })
    }
}
