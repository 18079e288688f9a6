//! The buckets of one limit together: its own, those of descriptors that are configured, and those of descriptors with blank
//! values. Owns which of them a request pays, in which order, and what it is told about them. Reads no clock.

use super::{
    bucket::{Limit, Rate, Tokens},
    values::Values,
};
use crate::{
    digest::xxh64,
    filter::rate_limit::{Descriptor, Entry, Hits},
};
use corelane_io::Instant;

/// What a limit consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spec {
    /// For requests as such; without one, only descriptors limit.
    pub(super) own: Option<Limit>,
    pub(super) descriptors: Vec<DescriptorSpec>,
    /// Whether requests pay the limit's own bucket beside those of their descriptors.
    pub(super) always_own: bool,
    /// Values to be remembered of each descriptor that has blank ones.
    pub(super) values: usize,
}

/// A descriptor and what it is limited to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DescriptorSpec {
    /// Keys with their values; an empty one stands for any value, each of which has a bucket of its own.
    pub(super) entries: Vec<(String, String)>,
    pub(super) limit: Limit,
    /// Whether it only counts.
    pub(super) shadow: bool,
}

impl DescriptorSpec {
    pub(super) fn has_blanks(&self) -> bool {
        self.entries.iter().any(|(_, value)| value.is_empty())
    }

    fn fits(&self, descriptor: &Descriptor<'_>) -> bool {
        let same = |((key, value), asked): (&(String, String), &Entry<'_>)| {
            key == asked.key && (value.is_empty() || value.as_bytes() == &*asked.value)
        };
        self.entries.len() == descriptor.entries.len()
            && self.entries.iter().zip(&descriptor.entries).all(same)
    }
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Limiter {
    spec: Spec,
    own: Option<(Rate, Tokens)>,
    descriptors: Box<[Buckets]>,
    /// Descriptors without blank values by their hash, in order.
    by_hash: Box<[(u64, usize)]>,
    /// Those with blank ones.
    blanks: Box<[usize]>,
}

#[derive(Debug)]
struct Buckets {
    rate: Rate,
    tokens: Kept,
}

#[derive(Debug)]
enum Kept {
    One(Tokens),
    OfValues(Values),
}

/// One bucket of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Own,
    /// Of this descriptor, and of this place among its values.
    Descriptor(usize, usize),
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) passes: bool,
    /// The bucket that decided, or the strictest that the request paid.
    pub(super) bucket: Option<Which>,
    /// What the descriptor of that bucket says about fields that tell of it.
    pub(super) tells: Option<bool>,
}

/// What a client is told about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    /// Seconds until there is a token; 0 if there is one.
    pub(super) reset: u64,
}

impl Limiter {
    /// With all buckets full.
    pub(super) fn new(spec: Spec) -> Limiter {
        let buckets = |descriptor: &DescriptorSpec| Buckets {
            rate: Rate::new(descriptor.limit),
            tokens: match descriptor.has_blanks() {
                true => Kept::OfValues(Values::new(spec.values)),
                false => Kept::One(Tokens::default()),
            },
        };
        let descriptors = spec.descriptors.iter().map(buckets).collect();
        let all = || spec.descriptors.iter().enumerate();
        let mut by_hash: Vec<_> = all()
            .filter(|(_, descriptor)| !descriptor.has_blanks())
            .map(|(at, descriptor)| {
                (hash(descriptor.entries.iter().map(|(k, v)| (k.as_str(), v.as_bytes()))), at)
            })
            .collect();
        by_hash.sort_unstable();
        let blanks = all().filter(|(_, descriptor)| descriptor.has_blanks()).map(|(at, _)| at).collect();
        let own = spec.own.map(|limit| (Rate::new(limit), Tokens::default()));
        Limiter { own, descriptors, by_hash: by_hash.into(), blanks, spec }
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Has a request pay: a bucket for each of its descriptors, the strictest first, then the limit's own.
    pub(super) fn admit(&self, descriptors: &[Descriptor<'_>], now: Instant) -> Verdict {
        let found = descriptors.iter().filter_map(|of| Some((self.find(of, now)?, of)));
        let mut found: Vec<(Which, &Descriptor<'_>)> = found.collect();
        let speed = |which: &Which| self.bucket(*which).map_or(0.0, |(rate, _)| rate.limit().fill_rate());
        found.sort_by(|(a, _), (b, _)| speed(a).total_cmp(&speed(b)));
        let mut shadow = None;
        for (which, of) in &found {
            let Some((rate, tokens)) = self.bucket(*which) else { continue };
            let passes = match of.hits {
                Hits::Back(hits) => {
                    tokens.put(rate, hits, now);
                    true
                }
                Hits::Cost(hits) => tokens.take(rate, hits, now),
            };
            let verdict = Verdict { passes, bucket: Some(*which), tells: of.tells };
            match passes {
                true => {}
                // It stands in front of nobody: those that are enforced are asked all the same.
                false if self.is_shadow(*which) => shadow = shadow.or(Some(verdict)),
                false => return verdict,
            }
        }
        let strictest = found.first().map(|(which, of)| (*which, of.tells));
        if let Some((rate, tokens)) = &self.own
            && (found.is_empty() || self.spec.always_own)
        {
            if !tokens.take(rate, 1, now) {
                // Envoy has no bucket of nothing, so it tells nothing about it.
                let bucket = (rate.limit().max_tokens > 0).then_some(Which::Own);
                return Verdict { passes: false, bucket, tells: None };
            }
            let (bucket, tells) = strictest.unwrap_or((Which::Own, None));
            return shadow.unwrap_or(Verdict { passes: true, bucket: Some(bucket), tells });
        }
        let (bucket, tells) = strictest.map_or((None, None), |(which, tells)| (Some(which), tells));
        shadow.unwrap_or(Verdict { passes: true, bucket, tells })
    }

    /// The bucket of a descriptor, if it has one.
    fn find(&self, descriptor: &Descriptor<'_>, now: Instant) -> Option<Which> {
        if self.descriptors.is_empty() {
            return None;
        }
        let hash = hash(descriptor.entries.iter().map(|entry| (entry.key, &*entry.value)));
        let first = self.by_hash.partition_point(|(of, _)| *of < hash);
        let same = self.by_hash[first..].iter().take_while(|(of, _)| *of == hash).map(|(_, at)| *at);
        let fits = |at: &usize| self.spec.descriptors[*at].fits(descriptor);
        if let Some(at) = same.clone().find(fits) {
            return Some(Which::Descriptor(at, 0));
        }
        let at = self.blanks.iter().copied().find(fits)?;
        let Buckets { rate, tokens: Kept::OfValues(values) } = &self.descriptors[at] else { return None };
        Some(Which::Descriptor(at, values.place(hash, rate, now)))
    }

    fn bucket(&self, which: Which) -> Option<(&Rate, &Tokens)> {
        match which {
            Which::Own => self.own.as_ref().map(|(rate, tokens)| (rate, tokens)),
            Which::Descriptor(at, place) => {
                let Buckets { rate, tokens } = &self.descriptors[at];
                Some(match tokens {
                    Kept::One(tokens) => (rate, tokens),
                    Kept::OfValues(values) => (rate, values.tokens(place)),
                })
            }
        }
    }

    /// Whether a bucket only counts.
    pub(super) fn is_shadow(&self, which: Which) -> bool {
        matches!(which, Which::Descriptor(at, _) if self.spec.descriptors[at].shadow)
    }

    /// What a bucket holds.
    pub(super) fn state(&self, which: Which, now: Instant) -> Option<State> {
        let (rate, tokens) = self.bucket(which)?;
        Some(State {
            limit: rate.limit().max_tokens,
            remaining: tokens.left(rate, now),
            reset: tokens.wait(rate, now),
        })
    }
}

/// Of all keys and values in their order, and of where each ends.
fn hash<'a>(entries: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
    entries.fold(0, |seed, (key, value)| xxh64(value, xxh64(key.as_bytes(), seed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane_io::{Config, sim::World};
    use std::time::Duration;

    fn limit(max_tokens: u32, seconds: u64) -> Limit {
        Limit { max_tokens, tokens_per_fill: 1, fill_interval: Duration::from_secs(seconds) }
    }

    fn of(entries: &[(&str, &str)], limit: Limit) -> DescriptorSpec {
        let entries = entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        DescriptorSpec { entries, limit, shadow: false }
    }

    fn asked(entries: &[(&'static str, &'static str)]) -> Descriptor<'static> {
        let entries =
            entries.iter().map(|(key, value)| Entry { key, value: value.as_bytes().into() }).collect();
        Descriptor { entries, hits: Hits::Cost(1), tells: None }
    }

    fn now() -> Instant {
        World::new(1).lane(&Config::default()).now() + Duration::from_secs(86_400)
    }

    fn limiter(own: Option<Limit>, descriptors: Vec<DescriptorSpec>, always_own: bool) -> Limiter {
        Limiter::new(Spec { own, descriptors, always_own, values: 20 })
    }

    #[test]
    fn descriptors_fit_whole_and_in_order() {
        let list = vec![of(&[("a", "1"), ("b", "2")], limit(1, 60)), of(&[("a", "")], limit(2, 60))];
        let (limiter, now) = (limiter(None, list, true), now());
        let finds = |entries: &[(&'static str, &'static str)]| limiter.find(&asked(entries), now);
        assert_eq!(finds(&[("a", "1"), ("b", "2")]), Some(Which::Descriptor(0, 0)));
        assert!(matches!(finds(&[("a", "1")]), Some(Which::Descriptor(1, _))));
        assert_ne!(finds(&[("a", "1")]), finds(&[("a", "2")]));
        for other in [&[("b", "2"), ("a", "1")][..], &[("a", "1"), ("b", "3")], &[("b", "1")], &[]] {
            assert_eq!(finds(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_strictest_pays_first_and_the_own_bucket_last() {
        let list = vec![of(&[("a", "1")], limit(5, 1)), of(&[("b", "1")], limit(1, 60))];
        let limiter = limiter(Some(limit(4, 3600)), list, true);
        let now = now();
        let both = [asked(&[("a", "1")]), asked(&[("b", "1")])];
        let (a, b) = (Which::Descriptor(0, 0), Which::Descriptor(1, 0));
        let left = |which| limiter.state(which, now).unwrap().remaining;
        assert_eq!(limiter.admit(&both, now), Verdict { passes: true, bucket: Some(b), tells: None });
        assert_eq!([left(a), left(b), left(Which::Own)], [4, 0, 3]);
        // The strict one is empty: nobody else is asked.
        assert_eq!(limiter.admit(&both, now), Verdict { passes: false, bucket: Some(b), tells: None });
        assert_eq!([left(a), left(b), left(Which::Own)], [4, 0, 3]);
        for _ in 0..3 {
            assert!(limiter.admit(&both[..1], now).passes);
        }
        assert_eq!(limiter.admit(&both[..1], now).bucket, Some(Which::Own));
        assert_eq!([left(a), left(Which::Own)], [0, 0], "what was paid before is gone, as in Envoy");
    }

    #[test]
    fn a_shadow_stands_in_front_of_nobody() {
        // As Envoy 1.40 has it: the shadow is the stricter one, and is asked first.
        let shadow = DescriptorSpec { shadow: true, ..of(&[("s", "1")], limit(1, 200)) };
        let limiter = limiter(Some(limit(3, 300)), vec![shadow, of(&[("n", "1")], limit(2, 100))], true);
        let now = now();
        let (s, n) = (Which::Descriptor(0, 0), Which::Descriptor(1, 0));
        let ask = |list: &[Descriptor<'_>]| {
            let verdict = limiter.admit(list, now);
            (verdict.passes, verdict.bucket)
        };
        let both = [asked(&[("s", "1")]), asked(&[("n", "1")])];
        assert_eq!(
            [ask(&both), ask(&both), ask(&both)],
            [(true, Some(s)), (false, Some(s)), (false, Some(n))]
        );
        assert_eq!(ask(&both[..1]), (false, Some(s)), "and pays the limit for all");
        assert_eq!(ask(&both[..1]), (false, Some(Which::Own)));
    }

    #[test]
    fn the_own_bucket_may_be_for_those_without_a_descriptor() {
        let limiter = limiter(Some(limit(1, 60)), vec![of(&[("a", "1")], limit(2, 60))], false);
        let now = now();
        let pass = |list: &[Descriptor<'_>]| limiter.admit(list, now).passes;
        assert!(pass(&[asked(&[("a", "1")])]) && pass(&[asked(&[("a", "1")])]));
        assert!(!pass(&[asked(&[("a", "1")])]));
        assert!(pass(&[asked(&[("c", "1")])]) && !pass(&[]));
    }

    #[test]
    fn requests_may_cost_more_or_give_back() {
        let (limiter, now) = (limiter(None, vec![of(&[("a", "1")], limit(5, 60))], true), now());
        let pass = |hits| limiter.admit(&[Descriptor { hits, ..asked(&[("a", "1")]) }], now).passes;
        assert!(pass(Hits::Cost(4)) && !pass(Hits::Cost(2)) && pass(Hits::Back(1)) && pass(Hits::Cost(2)));
        assert!(!pass(Hits::Cost(1)));
    }
}
