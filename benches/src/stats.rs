//! Order statistics of small samples, and the order of rounds. Knows nothing of what is measured.

/// The value below which a share of the sample lies, interpolated between neighbours. `values` must not be empty.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// `median [first quartile - third quartile]`.
pub(crate) fn summary(values: &[f64]) -> String {
    let [low, median, high] = [0.25, 0.5, 0.75].map(|share| quantile(values, share));
    format!("{median:.3} [{low:.3}-{high:.3}]")
}

/// Puts items in an order that the seed decides, so that a run can be repeated.
pub(crate) fn shuffle<T>(items: &mut [T], seed: &mut u64) {
    for last in (1..items.len()).rev() {
        // splitmix64: good enough to order a handful of items.
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(last, ((word ^ (word >> 31)) % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!([0.0, 0.5, 1.0].map(|s| quantile(&values, s)), [1.0, 2.5, 4.0]);
        assert_eq!(summary(&[7.0]), "7.000 [7.000-7.000]");
    }

    #[test]
    fn every_order_comes_up_and_a_seed_repeats() {
        let orders = |mut seed: u64| -> Vec<[u8; 3]> {
            (0..100)
                .map(|_| {
                    let mut items = [0, 1, 2];
                    shuffle(&mut items, &mut seed);
                    items
                })
                .collect()
        };
        let mut seen = orders(1);
        assert_eq!(seen, orders(1));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }
}
