//! The numbers a session keeps, named as Envoy names them. Owns no decision.

use std::{sync::Arc, time::Duration};

/// How a session does (`control_plane.*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Whether a stream is open (`connected_state`).
    pub connected: bool,
    /// The identifier that the control plane gives itself (`identifier`), as it last did.
    pub control_plane: String,
    /// Streams opened.
    pub streams: u64,
    /// Attempts and streams that ended before anything was received.
    pub failures: u64,
    /// Times a request had to wait for the rate limit (`rate_limit_enforced`).
    pub limited: u64,
    /// Responses that were neither used nor answered.
    pub ignored: u64,
    /// Why the last stream ended or could not be opened.
    pub last_error: Option<String>,
}

/// How one type does (`cluster_manager.cds.*`, `listener_manager.lds.*`, ...).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStats {
    /// First requests, verdicts and failures together: tries to bring the configuration up to date.
    pub update_attempt: u64,
    /// Responses accepted whole.
    pub update_success: u64,
    /// Responses of which something was refused.
    pub update_rejected: u64,
    /// Streams that ended before anything was received.
    pub update_failure: u64,
    /// The version last accepted whole (`version_text`).
    pub version: Arc<str>,
    /// When the last response came (`update_time`), on the caller's monotonic clock.
    pub updated: Option<Duration>,
    /// The nonce of the last response on this stream.
    pub nonce: String,
    /// What was wrong with the last response that was refused, until one is accepted.
    pub last_error: Option<String>,
}

impl Default for TypeStats {
    fn default() -> Self {
        Self {
            update_attempt: 0,
            update_success: 0,
            update_rejected: 0,
            update_failure: 0,
            version: Arc::from(""),
            updated: None,
            nonce: String::new(),
            last_error: None,
        }
    }
}
