//! The HTTP connection manager and its filters.

use std::{mem::take, sync::Arc, time::Duration};

use corelane::config::{
    Codec, ConfigValue, EscapedSlashes, HostPort, HttpConnectionManager, HttpFilter, RouteConfiguration,
    ServerHeader, Underscores,
};
use corelane_proto::envoy::{
    config::core::v3::{
        ExtensionConfigSource, Http1ProtocolOptions, HttpProtocolOptions,
        http_protocol_options::HeadersWithUnderscoresAction,
    },
    extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager as Message, HttpFilter as FilterMessage, Rds,
        http_connection_manager::{
            CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
            StripPortMode,
        },
        http_filter::ConfigType,
    },
};

use crate::{
    missing,
    problem::Path,
    source,
    store::Kind,
    translate::{
        optional::Optional,
        resource::ExtensionSlot,
        rest::{Translator, drop_default},
    },
};

impl Translator<'_> {
    /// `ir` is what the core calls the chain.
    pub(super) fn http(
        &mut self,
        mut message: Message,
        ir: &str,
        path: &Path<'_>,
    ) -> Option<HttpConnectionManager> {
        let routes = self.route_specifier(&mut message, path);
        let mut manager =
            HttpConnectionManager::new(take(&mut message.stat_prefix), RouteConfiguration::default());
        manager.filters = self.http_filters(take(&mut message.http_filters), ir, &path.field("http_filters"));
        protocol(&mut manager, &mut message);
        identity(&mut manager, &mut message);
        if message.strip_matching_host_port
            && message.strip_port_mode == Some(StripPortMode::StripAnyHostPort(true))
        {
            self.refuse(&path.field("strip_matching_host_port"), "may not be set beside strip_any_host_port");
        }
        normalization(&mut manager, &mut message);
        self.timeouts(&mut manager, &mut message, path);
        if let Some(mut inside) = message.internal_address_config.take() {
            let path = path.field("internal_address_config");
            let ranges = path.field("cidr_ranges");
            for (at, range) in take(&mut inside.cidr_ranges).into_iter().enumerate() {
                manager.internal_addresses.extend(self.cidr(&range, &ranges.index(at)));
            }
            self.done(inside, &path);
        }
        manager.proxy_100_continue = take(&mut message.proxy_100_continue);
        manager.upgrades = self.upgrades(take(&mut message.upgrade_configs), &path.field("upgrade_configs"));
        let logs = take(&mut message.access_log);
        manager.access_log = self.access_logs(logs, &path.field("access_log"));
        manager.log_moments = self.http_log_moments(&mut message, path);
        if let Some(replies) = message.local_reply_config.take() {
            manager.local_replies = Some(self.local_replies(replies, &path.field("local_reply_config")));
        }
        if let Some(common) = message.common_http_protocol_options.take() {
            self.common(&mut manager, common, &path.field("common_http_protocol_options"));
        }
        if let Some(options) = message.http_protocol_options.take() {
            self.http1(&mut manager, options, &path.field("http_protocol_options"));
        }
        without_effect(&mut message);
        self.done(message, path);
        (manager.routes, manager.route_table) = routes?;
        Some(manager)
    }

    /// The table itself, or the name of one that is a resource of its own.
    fn route_specifier(
        &mut self,
        message: &mut Message,
        path: &Path<'_>,
    ) -> Option<(RouteConfiguration, Option<String>)> {
        match message.route_specifier.take() {
            Some(RouteSpecifier::RouteConfig(routes)) => {
                Some((self.routes(routes, true, &path.field("route_config")), None))
            }
            Some(RouteSpecifier::Rds(rds)) => {
                let table = self.rds(rds, &path.field("rds"))?;
                Some((RouteConfiguration::default(), Some(table)))
            }
            // Scoped routes are left to be reported; that there is one at all is a rule of the API.
            other => {
                message.route_specifier = other;
                None
            }
        }
    }

    fn rds(&mut self, mut rds: Rds, path: &Path<'_>) -> Option<String> {
        let name = take(&mut rds.route_config_name);
        let source = rds.config_source.take();
        if name.is_empty() {
            self.refuse(&path.field("route_config_name"), "is required");
        }
        let source =
            source.and_then(|source| self.config_source(source, Kind::Routes, &path.field("config_source")));
        self.done(rds, path);
        let source = self.authorities.find(&name).or(source)?;
        self.refer(Kind::Routes, source, &name);
        Some(source::key(source.source, &name))
    }

    fn timeouts(&mut self, manager: &mut HttpConnectionManager, message: &mut Message, path: &Path<'_>) {
        let field = |name| path.field(name);
        manager.request_timeout = self.timeout(&mut message.request_timeout, None, &field("request_timeout"));
        manager.request_headers_timeout =
            self.timeout(&mut message.request_headers_timeout, None, &field("request_headers_timeout"));
        let (idle, close) = (manager.stream_idle_timeout, manager.delayed_close_timeout);
        manager.stream_idle_timeout =
            self.timeout(&mut message.stream_idle_timeout, idle, &field("stream_idle_timeout"));
        manager.delayed_close_timeout =
            self.timeout(&mut message.delayed_close_timeout, close, &field("delayed_close_timeout"));
        if let Some(timeout) = self.duration(&mut message.drain_timeout, &field("drain_timeout")) {
            manager.drain_timeout = timeout;
        }
    }

    fn common(
        &mut self,
        manager: &mut HttpConnectionManager,
        mut common: HttpProtocolOptions,
        path: &Path<'_>,
    ) {
        let idle = manager.idle_timeout;
        manager.idle_timeout = self.timeout(&mut common.idle_timeout, idle, &path.field("idle_timeout"));
        manager.max_connection_duration =
            self.timeout(&mut common.max_connection_duration, None, &path.field("max_connection_duration"));
        manager.max_stream_duration =
            self.timeout(&mut common.max_stream_duration, None, &path.field("max_stream_duration"));
        if let Some(count) = common.max_headers_count.take() {
            manager.max_headers_count = count;
        }
        manager.normalization.underscores = match common.headers_with_underscores_action() {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
            HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
        };
        common.headers_with_underscores_action = 0;
        // Zero is Envoy's "any number" here.
        manager.max_requests_per_connection =
            common.max_requests_per_connection.take().filter(|&requests| requests > 0);
        self.done(common, path);
    }

    fn http1(
        &mut self,
        manager: &mut HttpConnectionManager,
        mut options: Http1ProtocolOptions,
        path: &Path<'_>,
    ) {
        manager.accept_http_10 = take(&mut options.accept_http_10);
        manager.default_host_for_http_10 =
            Some(take(&mut options.default_host_for_http_10)).filter(|host| !host.is_empty());
        manager.enable_trailers = take(&mut options.enable_trailers);
        // A proxy must take a request target in absolute form (RFC 9112 3.2.2), and does.
        drop_default(&mut options.allow_absolute_url, true);
        // Chooses between two parsers of Envoy's.
        options.use_balsa_parser = None;
        self.done(options, path);
    }

    fn http_filters(&mut self, filters: Vec<FilterMessage>, ir: &str, path: &Path<'_>) -> Vec<HttpFilter> {
        let mut list = Vec::with_capacity(filters.len());
        for (at, filter) in filters.into_iter().enumerate() {
            let path = path.index(at);
            let place = list.len();
            if place != at {
                // One before it was left out: where the core finds something wrong in it.
                self.origins.note(format!("{ir}.http_filters[{place}]"), &path);
            }
            list.extend(self.http_filter(filter, place, &path));
        }
        list
    }

    fn http_filter(&mut self, mut message: FilterMessage, at: usize, path: &Path<'_>) -> Option<HttpFilter> {
        let typed = path.field("typed_config");
        let optional = take(&mut message.is_optional);
        let config = match message.config_type.take() {
            Some(ConfigType::TypedConfig(any)) => match optional {
                true if self.optional(&any, &typed) != Optional::Configured => return None,
                _ => self.config_value(&any, &typed),
            },
            // Of a type that is implemented, whenever it comes; any other is refused then.
            Some(ConfigType::ConfigDiscovery(discovery)) => {
                let path = path.field("config_discovery");
                self.discovered_filter(discovery, &message.name, at, &path)
            }
            None => {
                self.refuse(&typed, "is required");
                None
            }
        };
        let (name, disabled) = (take(&mut message.name), take(&mut message.disabled));
        self.done(message, path);
        Some(HttpFilter { name, config: config?, disabled })
    }
}

impl Translator<'_> {
    /// A filter whose configuration is a resource of its own: its default for now, or nothing that could serve.
    fn discovered_filter(
        &mut self,
        mut discovery: ExtensionConfigSource,
        name: &str,
        at: usize,
        path: &Path<'_>,
    ) -> Option<ConfigValue> {
        let source = discovery.config_source.take();
        let source = match source {
            Some(source) => self.config_source(source, Kind::Extension, &path.field("config_source")),
            None => {
                self.refuse(&path.field("config_source"), "is required");
                None
            }
        };
        let default = discovery.default_config.take();
        let default = default.and_then(|any| self.config_value(&any, &path.field("default_config")));
        // Until the resource comes: at once, or when it is no longer waited for.
        let at_once = take(&mut discovery.apply_default_config_without_warming);
        let types = take(&mut discovery.type_urls);
        self.done(discovery, path);
        let mut source = source?;
        if at_once && default.is_some() {
            source.timeout = Some(Duration::ZERO);
        }
        self.refer(Kind::Extension, source, name);
        let types = types.iter().map(|url| url.rsplit('/').next().unwrap_or(url).to_owned()).collect();
        let has_default = default.is_some();
        let (source, name) = (source.source, Arc::from(name));
        self.extensions.push(ExtensionSlot { filter: at, source, name, types, has_default });
        Some(default.unwrap_or_else(|| ConfigValue::empty(missing::TYPE)))
    }
}

fn protocol(manager: &mut HttpConnectionManager, message: &mut Message) {
    match message.codec_type() {
        CodecType::Auto => manager.codec = Codec::Auto,
        CodecType::Http1 => {
            manager.codec = Codec::Http1;
            message.codec_type = 0;
        }
        // Left to be reported.
        CodecType::Http2 | CodecType::Http3 => {}
    }
    manager.server_header = match message.server_header_transformation() {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    };
    message.server_header_transformation = 0;
    let name = take(&mut message.server_name);
    if !name.is_empty() {
        manager.server_name = name;
    }
    if let Some(limit) = message.max_request_headers_kb.take() {
        manager.max_request_headers_kb = limit;
    }
}

/// Who the client is, and which request this is.
fn identity(manager: &mut HttpConnectionManager, message: &mut Message) {
    manager.use_remote_address = message.use_remote_address.take().unwrap_or(manager.use_remote_address);
    manager.xff_num_trusted_hops = take(&mut message.xff_num_trusted_hops);
    manager.skip_xff_append = take(&mut message.skip_xff_append);
    manager.generate_request_id = message.generate_request_id.take().unwrap_or(manager.generate_request_id);
    manager.preserve_external_request_id = take(&mut message.preserve_external_request_id);
    manager.always_set_request_id_in_response = take(&mut message.always_set_request_id_in_response);
}

/// Settings that say what holds anyway.
fn without_effect(message: &mut Message) {
    drop_default(&mut message.add_user_agent, false);
    drop_default(&mut message.stream_error_on_invalid_http_message, false);
    drop_default(&mut message.add_proxy_protocol_connection_state, true);
}

/// How requests are brought into one form. What the runtime could say otherwise, no runtime does here.
fn normalization(manager: &mut HttpConnectionManager, message: &mut Message) {
    let normalization = &mut manager.normalization;
    normalization.path = message.normalize_path.take().unwrap_or(false);
    normalization.merge_slashes = take(&mut message.merge_slashes);
    normalization.escaped_slashes = match message.path_with_escaped_slashes_action() {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault
        | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
        PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::Redirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::Unescape,
    };
    message.path_with_escaped_slashes_action = 0;
    normalization.trailing_host_dot = take(&mut message.strip_trailing_host_dot);
    if take(&mut message.strip_matching_host_port) {
        normalization.host_port = HostPort::StripMatching;
    }
    match message.strip_port_mode.take() {
        Some(StripPortMode::StripAnyHostPort(true)) => normalization.host_port = HostPort::Strip,
        Some(StripPortMode::StripAnyHostPort(false)) | None => {}
    }
    manager.via = take(&mut message.via);
    manager.append_x_forwarded_port = take(&mut message.append_x_forwarded_port);
}
