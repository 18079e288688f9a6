//! Retry policies, and what else routes and clusters say about tries. Owns Envoy's defaults for them where a message that is
//! there leaves something out.

use std::{mem::take, time::Duration};

use corelane::config::{
    AttemptFields, BackOff, RateLimitedBackOff, ReplayLimit, ResetFormat, ResetHeader, RetryBudget, RetryOn,
    RetryPolicy, StreamDuration,
};
use corelane_proto::envoy::config::{
    cluster::v3::circuit_breakers::thresholds::RetryBudget as BudgetMessage,
    core::v3::BackoffStrategy,
    route::v3::{
        RetryPolicy as Message, VirtualHost as HostMessage,
        retry_policy::{
            RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
            retry_host_predicate::ConfigType,
        },
        route_action::MaxStreamDuration,
    },
};

use crate::{problem::Path, translate::rest::Translator};

/// The predicate that avoids endpoints which were tried: its name, which is enough where it has no type, and its type.
const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
const PREVIOUS_HOSTS_TYPE: &str = "/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

impl Translator<'_> {
    pub(super) fn retry_policy(&mut self, mut message: Message, path: &Path<'_>) -> Box<RetryPolicy> {
        let mut policy = RetryPolicy {
            on: self.retry_on(&take(&mut message.retry_on), &path.field("retry_on")),
            num_retries: message.num_retries.take().unwrap_or(1),
            per_try_timeout: self.timeout(&mut message.per_try_timeout, None, &path.field("per_try_timeout")),
            per_try_idle_timeout: self.timeout(
                &mut message.per_try_idle_timeout,
                None,
                &path.field("per_try_idle_timeout"),
            ),
            status_codes: take(&mut message.retriable_status_codes),
            headers: self
                .header_matchers(take(&mut message.retriable_headers), &path.field("retriable_headers")),
            request_headers: self.header_matchers(
                take(&mut message.retriable_request_headers),
                &path.field("retriable_request_headers"),
            ),
            ..RetryPolicy::default()
        };
        if let Some(back_off) = message.retry_back_off.take() {
            policy.back_off = self.retry_back_off(back_off, &path.field("retry_back_off"));
        }
        if let Some(back_off) = message.rate_limited_retry_back_off.take() {
            let path = path.field("rate_limited_retry_back_off");
            policy.rate_limited_back_off = Some(self.rate_limited_back_off(back_off, &path));
        }
        let list = path.field("retry_host_predicate");
        for (at, predicate) in take(&mut message.retry_host_predicate).into_iter().enumerate() {
            policy.avoid_previous_hosts |= self.previous_hosts(predicate, &list.index(at));
        }
        match u32::try_from(take(&mut message.host_selection_retry_max_attempts)) {
            // Envoy's field has no presence: 0 is its default, once.
            Ok(attempts) => policy.host_attempts = attempts.max(1),
            Err(_) => self.refuse(
                &path.field("host_selection_retry_max_attempts"),
                format!("must be 0 to {}", u32::MAX),
            ),
        }
        self.done(message, path);
        Box::new(policy)
    }

    /// Envoy passes over what it does not know; a typing error would then be a policy that does nothing.
    fn retry_on(&mut self, text: &str, path: &Path<'_>) -> RetryOn {
        let mut on = RetryOn::NOTHING;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match RetryOn::named(name) {
                Some(condition) => on = on | condition,
                None => self.refuse(path, format!("{name:?} is not a condition for a retry")),
            }
        }
        on
    }

    fn retry_back_off(&mut self, mut message: RetryBackOff, path: &Path<'_>) -> BackOff {
        let base = self.duration(&mut message.base_interval, &path.field("base_interval"));
        let max = self.duration(&mut message.max_interval, &path.field("max_interval"));
        self.done(message, path);
        back_off(base, max)
    }

    pub(super) fn back_off(&mut self, mut message: BackoffStrategy, path: &Path<'_>) -> BackOff {
        let base = self.duration(&mut message.base_interval, &path.field("base_interval"));
        let max = self.duration(&mut message.max_interval, &path.field("max_interval"));
        self.done(message, path);
        back_off(base, max)
    }

    fn rate_limited_back_off(
        &mut self,
        mut message: RateLimitedRetryBackOff,
        path: &Path<'_>,
    ) -> RateLimitedBackOff {
        let max = self.duration(&mut message.max_interval, &path.field("max_interval"));
        let list = path.field("reset_headers");
        let mut reset_headers = Vec::new();
        for (at, mut header) in take(&mut message.reset_headers).into_iter().enumerate() {
            let format = match header.format() {
                ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            };
            header.format = 0;
            reset_headers.push(ResetHeader { name: take(&mut header.name), format });
            self.done(header, &list.index(at));
        }
        self.done(message, path);
        RateLimitedBackOff { reset_headers, max: max.unwrap_or(RateLimitedBackOff::MAX) }
    }

    /// Whether it is the predicate that avoids what was tried; every other one is reported.
    fn previous_hosts(&mut self, mut message: RetryHostPredicate, path: &Path<'_>) -> bool {
        let name = take(&mut message.name);
        let found = match &message.config_type {
            None => name == PREVIOUS_HOSTS,
            Some(ConfigType::TypedConfig(any)) => any.type_url.ends_with(PREVIOUS_HOSTS_TYPE),
        };
        if found {
            return true;
        }
        self.refuse(path, format!("the predicate {name:?} is not implemented"));
        false
    }

    /// What a virtual host says about tries beside its policy.
    pub(super) fn attempt_fields(message: &mut HostMessage) -> AttemptFields {
        AttemptFields {
            count_in_request: take(&mut message.include_request_attempt_count),
            count_in_response: take(&mut message.include_attempt_count_in_response),
            timeout_retry: take(&mut message.include_is_timeout_retry_header),
        }
    }

    /// How much of a body is kept, by either of two fields, of which one may be set.
    pub(super) fn replay_limit(
        &mut self,
        within: &mut Option<u32>,
        bytes: &mut Option<u64>,
        path: &Path<'_>,
    ) -> Option<ReplayLimit> {
        match (within.take(), bytes.take()) {
            (Some(_), Some(_)) => {
                let beside = "cannot stand beside per_request_buffer_limit_bytes";
                self.refuse(&path.field("request_body_buffer_limit"), beside);
                None
            }
            (Some(limit), None) => Some(ReplayLimit::Within(limit)),
            (None, limit) => limit.map(ReplayLimit::Bytes),
        }
    }

    /// The longest an exchange may take. As in Envoy the route's `timeout` counts for nothing where this is there.
    pub(super) fn max_stream_duration(
        &mut self,
        mut message: MaxStreamDuration,
        timeout: &mut Option<Duration>,
        path: &Path<'_>,
    ) -> StreamDuration {
        let mut take = |duration: &mut _, name| self.duration(duration, &path.field(name));
        let duration = StreamDuration {
            max: take(&mut message.max_stream_duration, "max_stream_duration"),
            grpc_timeout_max: take(&mut message.grpc_timeout_header_max, "grpc_timeout_header_max"),
            grpc_timeout_offset: take(&mut message.grpc_timeout_header_offset, "grpc_timeout_header_offset")
                .unwrap_or_default(),
        };
        self.done(message, path);
        *timeout = None;
        duration
    }

    pub(super) fn retry_budget(&mut self, mut message: BudgetMessage, path: &Path<'_>) -> RetryBudget {
        let mut budget = RetryBudget::default();
        if let Some(mut percent) = message.budget_percent.take() {
            // The API's own rule keeps it within 0 and 100.
            budget.share = (take(&mut percent.value) * 1000.0) as u32;
        }
        if let Some(least) = message.min_retry_concurrency.take() {
            budget.min_concurrency = least;
        }
        self.done(message, path);
        budget
    }
}

fn back_off(base: Option<Duration>, max: Option<Duration>) -> BackOff {
    // That there is a base is a rule of the API.
    let default = base.map_or_else(BackOff::default, BackOff::from_base);
    BackOff { max: max.unwrap_or(default.max), ..default }
}
