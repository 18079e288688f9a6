//! Outlier detection of clusters.

use std::mem::take;

use corelane::config::{OutlierDetection, Threshold};
use corelane_proto::envoy::config::cluster::v3::OutlierDetection as Message;

use crate::{
    problem::Path,
    translate::rest::{Translator, drop_default},
};

impl Translator<'_> {
    pub(super) fn outliers(&mut self, mut message: Message, path: &Path<'_>) -> OutlierDetection {
        let mut found = OutlierDetection::default();
        for (field, slot, into) in [
            ("interval", &mut message.interval, &mut found.interval),
            ("base_ejection_time", &mut message.base_ejection_time, &mut found.base_ejection_time),
            (
                "max_ejection_time_jitter",
                &mut message.max_ejection_time_jitter,
                &mut found.max_ejection_time_jitter,
            ),
        ] {
            *into = self.duration(slot, &path.field(field)).unwrap_or(*into);
        }
        // As in Envoy, the most is no less than the base where nobody says it.
        let most = self.duration(&mut message.max_ejection_time, &path.field("max_ejection_time"));
        found.max_ejection_time = most.unwrap_or(found.max_ejection_time.max(found.base_ejection_time));
        if found.max_ejection_time < found.base_ejection_time {
            self.refuse(&path.field("max_ejection_time"), "must not be less than base_ejection_time");
        }
        set(&mut found.max_ejection_percent, &mut message.max_ejection_percent);
        found.always_eject_one = message.always_eject_one_host.take().unwrap_or(false);
        found.uneject_on_health_check =
            message.successful_active_health_check_uneject_host.take().unwrap_or(true);
        found.split_local_origin = take(&mut message.split_external_local_origin_errors);
        let threshold = |of: &mut Threshold, count: &mut Option<u32>, enforcing: &mut Option<u32>| {
            set(&mut of.count, count);
            set(&mut of.enforcing, enforcing);
        };
        let row = &mut found.consecutive;
        threshold(&mut row.errors, &mut message.consecutive_5xx, &mut message.enforcing_consecutive_5xx);
        threshold(
            &mut row.gateway,
            &mut message.consecutive_gateway_failure,
            &mut message.enforcing_consecutive_gateway_failure,
        );
        threshold(
            &mut row.local_origin,
            &mut message.consecutive_local_origin_failure,
            &mut message.enforcing_consecutive_local_origin_failure,
        );
        let rate = &mut found.success_rate;
        set(&mut rate.minimum_hosts, &mut message.success_rate_minimum_hosts);
        set(&mut rate.request_volume, &mut message.success_rate_request_volume);
        set(&mut rate.stdev_factor, &mut message.success_rate_stdev_factor);
        set(&mut rate.enforcing, &mut message.enforcing_success_rate);
        set(&mut rate.enforcing_local_origin, &mut message.enforcing_local_origin_success_rate);
        let share = &mut found.failure_percentage;
        set(&mut share.threshold, &mut message.failure_percentage_threshold);
        set(&mut share.minimum_hosts, &mut message.failure_percentage_minimum_hosts);
        set(&mut share.request_volume, &mut message.failure_percentage_request_volume);
        set(&mut share.enforcing, &mut message.enforcing_failure_percentage);
        set(&mut share.enforcing_local_origin, &mut message.enforcing_failure_percentage_local_origin);
        // Off is what holds anyway.
        drop_default(&mut message.detect_degraded_hosts, false);
        self.done(message, path);
        found
    }
}

fn set(into: &mut u32, slot: &mut Option<u32>) {
    if let Some(value) = slot.take() {
        *into = value;
    }
}
