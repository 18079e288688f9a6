//! Outlier detection: which answers count against an endpoint, and how long it is left out for them.

use std::time::Duration;

/// Leaves endpoints out for a while that answer worse than they should (Envoy `OutlierDetection`).
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierDetection {
    /// How often rates are compared and those who were left out are looked at; greater than zero.
    pub interval: Duration,
    /// How long an endpoint is left out for the first time; each time in a row adds as much. Greater than zero.
    pub base_ejection_time: Duration,
    /// The longest that it is left out.
    pub max_ejection_time: Duration,
    /// Added to it: a random time below this.
    pub max_ejection_time_jitter: Duration,
    /// In percent of the cluster's endpoints: no more than these are left out at one time.
    pub max_ejection_percent: u32,
    /// One endpoint may be left out whatever that share says.
    pub always_eject_one: bool,
    /// An endpoint that passes an active health check is taken in again at once.
    pub uneject_on_health_check: bool,
    /// Keeps failures to reach an endpoint apart from what it answers; else they count as answers of 503 and 504.
    pub split_local_origin: bool,
    /// Failures in a row.
    pub consecutive: Consecutive,
    /// Endpoints whose rate of success is far below that of the others.
    pub success_rate: SuccessRate,
    /// Endpoints that fail too large a share of their requests.
    pub failure_percentage: FailurePercentage,
}

/// So many failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// How many; 0 is never.
    pub count: u32,
    /// With what chance, in percent, it has the effect and is not only counted.
    pub enforcing: u32,
}

/// Kinds of failures that count in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consecutive {
    /// Answers with 5xx (Envoy `consecutive_5xx`).
    pub errors: Threshold,
    /// Answers with 502, 503 or 504 (Envoy `consecutive_gateway_failure`).
    pub gateway: Threshold,
    /// Failures to reach it, where they are kept apart (Envoy `consecutive_local_origin_failure`).
    pub local_origin: Threshold,
}

/// Envoy's `success_rate_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// How many endpoints the cluster must have.
    pub minimum_hosts: u32,
    /// How many requests an endpoint must have had in the interval.
    pub request_volume: u32,
    /// In thousandths: how many standard deviations below the mean are too many.
    pub stdev_factor: u32,
    /// With what chance, in percent, it has an effect.
    pub enforcing: u32,
    /// The same for failures to reach it.
    pub enforcing_local_origin: u32,
}

/// Envoy's `failure_percentage_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePercentage {
    /// In percent: as large a share of failures is too large.
    pub threshold: u32,
    /// How many endpoints the cluster must have.
    pub minimum_hosts: u32,
    /// How many requests an endpoint must have had in the interval.
    pub request_volume: u32,
    /// With what chance, in percent, it has an effect.
    pub enforcing: u32,
    /// The same for failures to reach it.
    pub enforcing_local_origin: u32,
}

impl Default for OutlierDetection {
    /// Envoy's defaults.
    fn default() -> OutlierDetection {
        let five = |enforcing| Threshold { count: 5, enforcing };
        OutlierDetection {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one: false,
            uneject_on_health_check: true,
            split_local_origin: false,
            consecutive: Consecutive { errors: five(100), gateway: five(0), local_origin: five(100) },
            success_rate: SuccessRate {
                minimum_hosts: 5,
                request_volume: 100,
                stdev_factor: 1900,
                enforcing: 100,
                enforcing_local_origin: 100,
            },
            failure_percentage: FailurePercentage {
                threshold: 85,
                minimum_hosts: 5,
                request_volume: 50,
                enforcing: 0,
                enforcing_local_origin: 0,
            },
        }
    }
}
