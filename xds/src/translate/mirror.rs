//! Mirrors: which clusters get copies of requests, and what the copies look like.

use std::mem::take;

use corelane::config::{FieldEdit, Mirror};
use corelane_proto::envoy::config::{
    common::mutation_rules::v3::{HeaderMutation, header_mutation::Action},
    route::v3::route_action::RequestMirrorPolicy,
};

use crate::{
    problem::Path,
    translate::{rest::Translator, route::Table},
};

impl Translator<'_> {
    /// The policies of one level; `at` is that level's place.
    pub(super) fn mirrors(
        &mut self,
        table: &Table,
        policies: Vec<RequestMirrorPolicy>,
        at: &Path<'_>,
    ) -> Vec<Mirror> {
        let list = at.field("request_mirror_policies");
        let policies = policies.into_iter().enumerate();
        policies.map(|(at, policy)| self.mirror(table, policy, &list.index(at))).collect()
    }

    fn mirror(&mut self, table: &Table, mut message: RequestMirrorPolicy, path: &Path<'_>) -> Mirror {
        let cluster = take(&mut message.cluster);
        let header = Some(take(&mut message.cluster_header)).filter(|header| !header.is_empty());
        match (cluster.is_empty(), &header) {
            (true, Some(_)) => {}
            (false, Some(_)) => self.refuse(&path.field("cluster_header"), "may not be set beside cluster"),
            (true, None) => self.refuse(&path.field("cluster"), "is required, or cluster_header"),
            (false, None) => self.known(table, &cluster, &path.field("cluster")),
        }
        let fraction = message.runtime_fraction.take();
        let fraction = fraction.and_then(|share| self.fraction(share, &path.field("runtime_fraction")));
        // Whether copies are sampled for tracing: no request is traced here, so none of them is.
        message.trace_sampled = None;
        let list = path.field("request_headers_mutations");
        let edits = take(&mut message.request_headers_mutations).into_iter().enumerate();
        let edits = edits.filter_map(|(at, edit)| self.field_edit(edit, &list.index(at))).collect();
        let keeps_host = take(&mut message.disable_shadow_host_suffix_append);
        let host_rewrite = Some(take(&mut message.host_rewrite_literal)).filter(|host| !host.is_empty());
        self.done(message, path);
        Mirror { cluster, header, fraction, keeps_host, host_rewrite, edits }
    }

    fn field_edit(&mut self, mut message: HeaderMutation, path: &Path<'_>) -> Option<FieldEdit> {
        let edit = match message.action.take() {
            Some(Action::Remove(name)) => Some(FieldEdit::Remove(name)),
            Some(Action::Append(option)) => {
                self.header_option(option, &path.field("append")).map(FieldEdit::Add)
            }
            other => {
                message.action = other;
                None
            }
        };
        self.done(message, path);
        edit
    }
}
