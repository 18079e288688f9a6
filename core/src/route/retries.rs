//! What a route says about tries, compiled: the policy with its matchers. Pure; what is decided by it is in `http::retry`.

use super::matcher::HeaderMatcher;
use crate::config::{self, AttemptFields, ConfigError, Forward, ReplayLimit, RetryPolicy, VirtualHost};
use corelane_wire::{Headers, RequestHead, ResponseHead};

/// What a route and its virtual host say about tries.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    pub(crate) policy: RetryPolicy,
    headers: Vec<HeaderMatcher>,
    request_headers: Vec<HeaderMatcher>,
    pub(crate) fields: AttemptFields,
    pub(crate) replay_limit: Option<ReplayLimit>,
    /// Whether requests that say nothing about tries themselves are concerned.
    pub(crate) is_active: bool,
}

impl Retries {
    /// `None` where neither says anything. A route's policy stands for all of its host's (Envoy merges nothing).
    ///
    /// # Errors
    /// Everything that is wrong, with the path inside the policy.
    pub(crate) fn new(forward: &Forward, host: &VirtualHost) -> Result<Option<Retries>, Vec<ConfigError>> {
        let policy = forward.retry.as_ref().or(host.retry.as_ref());
        let fields = host.attempt_fields;
        let replay_limit = forward.replay_limit.or(host.replay_limit);
        let is_active = policy.is_some() || fields != AttemptFields::default();
        if !is_active && replay_limit.is_none() {
            return Ok(None);
        }
        let policy = policy.map_or_else(RetryPolicy::default, |policy| RetryPolicy::clone(policy));
        let mut problems = Vec::new();
        let mut matchers = |list: &[config::HeaderMatcher], field: &str| -> Vec<HeaderMatcher> {
            let compiled = list.iter().enumerate().filter_map(|(at, matcher)| {
                let bad = |error: ConfigError| problems.push(error.within(&format!("{field}[{at}]")));
                HeaderMatcher::new(matcher).map_err(bad).ok()
            });
            compiled.collect()
        };
        let headers = matchers(&policy.headers, "retriable_headers");
        let request_headers = matchers(&policy.request_headers, "retriable_request_headers");
        check(&policy, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Some(Retries { policy, headers, request_headers, fields, replay_limit, is_active }))
    }

    /// Whether the policy lets the request be tried again at all.
    pub(crate) fn admits(&self, head: &RequestHead) -> bool {
        self.request_headers.is_empty()
            || self.request_headers.iter().any(|header| header.matches_request(head))
    }

    /// Whether one of the matches on the response holds.
    pub(crate) fn matches(&self, head: &ResponseHead) -> bool {
        self.headers.iter().any(|header| header.matches_response(head))
    }
}

fn check(policy: &RetryPolicy, problems: &mut Vec<ConfigError>) {
    let config::BackOff { base, max } = policy.back_off;
    if base.is_zero() {
        problems.push(ConfigError::new("retry_back_off.base_interval", "must be longer than nothing"));
    }
    if max < base {
        problems.push(ConfigError::new("retry_back_off.max_interval", "is less than base_interval"));
    }
    let names = policy.rate_limited_back_off.iter().flat_map(|back_off| &back_off.reset_headers);
    for (at, header) in names.enumerate() {
        if Headers::new().append(header.name.as_str(), b"").is_err() {
            let path = format!("rate_limited_retry_back_off.reset_headers[{at}].name");
            problems.push(ConfigError::new(path, format!("not the name of a header: {:?}", header.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackOff, HeaderMatch, ResetFormat, ResetHeader, RetryOn};
    use std::time::Duration;

    fn forward(policy: RetryPolicy) -> Forward {
        Forward { retry: Some(Box::new(policy)), ..Forward::to("web") }
    }

    #[test]
    fn a_route_says_it_all_or_its_host_does() {
        let silent = VirtualHost::default();
        assert!(Retries::new(&Forward::to("web"), &silent).unwrap().is_none());
        let host = VirtualHost {
            retry: Some(Box::new(RetryPolicy { num_retries: 7, ..RetryPolicy::new(RetryOn::RESET) })),
            replay_limit: Some(ReplayLimit::Bytes(5)),
            ..VirtualHost::default()
        };
        let of_host = Retries::new(&Forward::to("web"), &host).unwrap().unwrap();
        assert_eq!((of_host.policy.num_retries, of_host.replay_limit), (7, host.replay_limit));
        let own = Retries::new(&forward(RetryPolicy::new(RetryOn::SERVER_ERROR)), &host).unwrap().unwrap();
        assert_eq!((own.policy.num_retries, own.policy.on), (1, RetryOn::SERVER_ERROR));
        let limited = VirtualHost { retry: None, ..host };
        assert!(!Retries::new(&Forward::to("web"), &limited).unwrap().unwrap().is_active);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(2));
        let matcher = config::HeaderMatcher {
            name: "not a name".into(),
            matches: HeaderMatch::Present(true),
            invert: false,
            missing_is_empty: false,
        };
        let reset = ResetHeader { name: "a b".into(), format: ResetFormat::Seconds };
        let policy = RetryPolicy {
            headers: vec![matcher.clone()],
            request_headers: vec![matcher],
            back_off: BackOff { base: long, max: short },
            rate_limited_back_off: Some(config::RateLimitedBackOff { reset_headers: vec![reset], max: long }),
            ..RetryPolicy::default()
        };
        let problems = Retries::new(&forward(policy), &VirtualHost::default()).unwrap_err();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let want = [
            "retriable_headers[0].name",
            "retriable_request_headers[0].name",
            "retry_back_off.max_interval",
            "rate_limited_retry_back_off.reset_headers[0].name",
        ];
        assert_eq!(paths, want);
    }
}
