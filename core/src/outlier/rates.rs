//! Which endpoints do so much worse than the others that they are outliers. Pure.

use crate::config::OutlierDetection;

/// An endpoint's requests in one interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compared<K> {
    pub(super) at: K,
    /// 0 where it is not compared.
    pub(super) total: u32,
    pub(super) good: u32,
}

impl<K> Compared<K> {
    /// In percent.
    fn rate(&self) -> f64 {
        100.0 * f64::from(self.good) / f64::from(self.total)
    }
}

/// Who is one, and by which measure.
#[derive(Debug)]
pub(super) struct Outliers<K> {
    /// By the mean and the deviation of the rates of success.
    pub(super) by_rate: Vec<K>,
    /// By its share of failures.
    pub(super) by_share: Vec<K>,
    /// There were enough endpoints to compare any.
    enough: bool,
}

impl<K> Outliers<K> {
    /// The rate of success that an operator is shown for an endpoint; `None` where it had too few requests.
    pub(super) fn shown(&self, host: &Compared<K>, config: &OutlierDetection) -> Option<f64> {
        let least = config.success_rate.request_volume.min(config.failure_percentage.request_volume);
        (self.enough && host.total > 0 && host.total >= least).then(|| host.rate())
    }
}

pub(super) fn outliers<K: Copy>(hosts: &[Compared<K>], config: &OutlierDetection) -> Outliers<K> {
    let (rates, shares) = (&config.success_rate, &config.failure_percentage);
    let many = |least: u32| hosts.len() >= least as usize;
    let with = |volume: u32| hosts.iter().filter(move |host| host.total > 0 && host.total >= volume);
    let mut found = Outliers {
        by_rate: Vec::new(),
        by_share: Vec::new(),
        enough: many(rates.minimum_hosts) || many(shares.minimum_hosts),
    };
    let valid: Vec<_> = with(rates.request_volume).collect();
    if many(rates.minimum_hosts) && !valid.is_empty() {
        let count = valid.len() as f64;
        let mean = valid.iter().map(|host| host.rate()).sum::<f64>() / count;
        let variance = valid.iter().map(|host| (host.rate() - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(rates.stdev_factor) / 1000.0;
        found.by_rate = valid.iter().filter(|host| host.rate() < least).map(|host| host.at).collect();
    }
    if many(shares.minimum_hosts) {
        let bad = |host: &&Compared<K>| 100.0 - host.rate() >= f64::from(shares.threshold);
        found.by_share = with(shares.request_volume).filter(bad).map(|host| host.at).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(of: &[(u32, u32)]) -> Vec<Compared<usize>> {
        let each = of.iter().enumerate();
        each.map(|(at, (total, good))| Compared { at, total: *total, good: *good }).collect()
    }

    #[test]
    fn who_is_far_below_the_mean_is_an_outlier() {
        let config = OutlierDetection::default();
        let one = hosts(&[(100, 100), (100, 100), (100, 100), (100, 100), (100, 50)]);
        let found = outliers(&one, &config);
        assert_eq!((found.by_rate, found.by_share), (vec![4], vec![]));
        // Mean 90, deviation 20: the bound is 52.
        let all_alike = hosts(&[(100, 50); 5]);
        assert!(outliers(&all_alike, &config).by_rate.is_empty());
        let few = hosts(&[(100, 100), (100, 100), (100, 100), (100, 0)]);
        assert!(outliers(&few, &config).by_rate.is_empty(), "of four hosts nothing can be said");
        let quiet = hosts(&[(100, 100), (100, 100), (100, 100), (100, 100), (99, 0)]);
        assert!(outliers(&quiet, &config).by_rate.is_empty(), "nor of one with few requests");
    }

    #[test]
    fn who_fails_too_large_a_share_is_one_too() {
        let config = OutlierDetection::default();
        let found = outliers(&hosts(&[(50, 50), (50, 8), (50, 7), (49, 0), (50, 50)]), &config);
        assert_eq!(found.by_share, [2], "15 % is 85 % of failures");
        let shown = |total, good| found.shown(&Compared { at: 0, total, good }, &config);
        assert_eq!([shown(50, 8), shown(49, 0), shown(0, 0)], [Some(16.0), None, None]);
    }
}
