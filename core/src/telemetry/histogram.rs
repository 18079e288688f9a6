//! Histograms: how often a value of which size was seen, in bins of two decimal digits, as Envoy's are. Owns the bins, how a
//! lane counts into them, and what can be read off them: quantiles and counts up to a bound. Formats nothing.
//!
//! Values are whole numbers, mostly of milliseconds. Below 100 each value has a bin of its own; above, a bin covers all
//! values that begin with the same two digits. So every bound of Envoy's default buckets lies between two bins, and counts up
//! to a bound are exact.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What counts have as upper bounds where nobody asks for others: Envoy's, in milliseconds where the value is a time.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The quantiles that are shown where nobody asks for others: Envoy's.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// Rows of bins: one for the values below 100, then one for each further power of ten, to 10 to the 20th.
const ROWS: usize = 19;

/// Bins of the first row, and the most of any.
const FIRST: usize = 100;

/// What one lane has seen. A row is made when a value first falls into it: most times stay below a second, which is two.
#[derive(Default)]
pub(super) struct Bins {
    sum: AtomicU64,
    rows: [OnceLock<Box<[AtomicU64]>>; ROWS],
}

impl Bins {
    /// Counts a value. Only the lane that owns the bins may.
    #[inline]
    pub(super) fn record(&self, value: u64) {
        let (row, column) = place(value);
        let row = self.rows[row].get_or_init(|| (0..FIRST).map(|_| AtomicU64::new(0)).collect());
        super::bump(&row[column], 1);
        super::bump(&self.sum, value);
    }

    /// Adds what is here to `total`.
    pub(super) fn add_to(&self, total: &mut Histogram) {
        total.sum = total.sum.wrapping_add(self.sum.load(Relaxed));
        for (row, bins) in self.rows.iter().enumerate() {
            for (column, bin) in bins.get().iter().flat_map(|bins| bins.iter().enumerate()) {
                let count = bin.load(Relaxed);
                if count > 0 {
                    total.add(Bin::at(row, column), count);
                }
            }
        }
    }
}

/// The row and the column of a value's bin.
#[inline]
fn place(value: u64) -> (usize, usize) {
    if value < 100 {
        return (0, value as usize);
    }
    // A value of n digits stands in row n - 2.
    let row = value.ilog10() as usize - 1;
    (row, (value / 10_u64.pow(row as u32)) as usize)
}

/// The values that share a bin: from `low`, and less than `low + width`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Its smallest value.
    pub low: f64,
    /// How far it reaches. Envoy's bins have two digits below 10 as well, so that of 7 ends at 7.1; that of 0 is 0.
    pub width: f64,
}

impl Bin {
    fn at(row: usize, column: usize) -> Bin {
        let scale = 10_f64.powi(i32::try_from(row).unwrap_or(0));
        let width = match (row, column) {
            (0, 0) => 0.0,
            (0, 1..=9) => 0.1,
            _ => scale,
        };
        Bin { low: column as f64 * scale, width }
    }
}

/// A histogram as it was read, over all lanes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// From the smallest on; none is empty.
    bins: Vec<(Bin, u64)>,
    sum: u64,
}

impl Histogram {
    fn add(&mut self, bin: Bin, count: u64) {
        match self.bins.binary_search_by(|(at, _)| at.low.total_cmp(&bin.low)) {
            Ok(at) => self.bins[at].1 += count,
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }

    /// How many values were seen.
    pub fn count(&self) -> u64 {
        self.bins.iter().map(|(_, count)| count).sum()
    }

    /// Their sum, which is exact; it wraps beyond 64 bits.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The bins that are not empty, from the smallest on, with their counts.
    pub fn bins(&self) -> &[(Bin, u64)] {
        &self.bins
    }

    /// How many values were at most `bound`, to within a bin.
    pub fn at_most(&self, bound: f64) -> u64 {
        self.bins.iter().filter(|(bin, _)| bin.low <= bound).map(|(_, count)| count).sum()
    }

    /// The value that a share of `quantile` (0 to 1) of all values does not exceed; `None` without any. The values of one
    /// bin are taken to lie in it at equal distances, as Envoy takes them.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        // The rank is a whole number between 1 and the count, which both fit.
        let rank = ((quantile * self.count() as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (bin, count) in &self.bins {
            if below + count >= rank {
                let share = (rank - below) as f64 / (count + 1) as f64;
                return Some(bin.low + bin.width * share);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let (bins, mut read) = (Bins::default(), Histogram::default());
        values.into_iter().for_each(|value| bins.record(value));
        bins.add_to(&mut read);
        read
    }

    #[test]
    fn every_value_falls_into_the_bin_that_holds_it() {
        let edges = (0..15).map(|power| 10_u64.pow(power));
        let around = edges.flat_map(|edge| [edge.saturating_sub(1), edge, edge.saturating_add(1)]);
        for value in around.chain(0..1200).chain([12_345, 99_999, 250_000]) {
            let (row, column) = place(value);
            let Bin { low, width } = Bin::at(row, column);
            let float = value as f64;
            assert!(
                low <= float && (float < low + width || width < 1.0 && float == low),
                "{value}: {low} {width}"
            );
        }
        // Where a float does not tell neighbours apart any more, there is a bin all the same.
        assert_eq!(of([u64::MAX, 10_u64.pow(19)]).count(), 2);
    }

    #[test]
    fn counts_up_to_a_bound_are_exact() {
        let read = of([0, 1, 5, 6, 25, 26, 250, 260, 3_600_000, 3_700_000]);
        let counts = BOUNDS.map(|bound| read.at_most(bound));
        assert_eq!(counts[..8], [1, 2, 3, 4, 5, 6, 6, 7]);
        assert_eq!((counts[18], read.count()), (9, 10));
    }

    /// The numbers are those that Envoy 1.40 shows for the same values.
    #[test]
    fn quantiles_are_envoys() {
        let of_ones = |n| of(std::iter::repeat_n(1, n));
        let at = |read: &Histogram, q| (read.quantile(q).unwrap() * 1e6).round() / 1e6;
        assert_eq!(QUANTILES.map(|q| at(&of_ones(1), q)), [1.05; 10]);
        let three = QUANTILES.map(|q| at(&of_ones(3), q));
        assert_eq!(three[..4], [1.025, 1.025, 1.05, 1.075]);
        let mixed = of([0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(QUANTILES.map(|q| at(&mixed, q))[..5], [0.0, 0.0, 1.016667, 1.05, 1.083333]);
        assert_eq!(of([9]).quantile(0.5), Some(9.05));
        assert_eq!(of([]).quantile(0.5), None);
    }

    #[test]
    fn lanes_are_added_up() {
        let (one, two, mut read) = (Bins::default(), Bins::default(), Histogram::default());
        one.record(7);
        one.record(1234);
        two.record(7);
        two.record(3);
        one.add_to(&mut read);
        two.add_to(&mut read);
        let bins: Vec<_> = read.bins().iter().map(|(bin, count)| (bin.low, *count)).collect();
        assert_eq!(bins, [(3.0, 1), (7.0, 2), (1200.0, 1)]);
        assert_eq!((read.count(), read.sum()), (4, 1251));
    }
}
