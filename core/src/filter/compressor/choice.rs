//! Which of a chain's compressors a client wants, by `accept-encoding` (RFC 9110 section 12.5.3), as Envoy decides it. Pure.

/// A compressor that could do it, in the order of the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) encoding: &'static str,
    /// Wins over others that are wanted as much.
    pub(super) first: bool,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This encoding, by name.
    Encoding(&'static str),
    /// Any, which is this one.
    Any(&'static str),
    /// The body as it is.
    Identity,
    /// Nothing that is offered.
    NotValid,
}

impl Choice {
    /// The encoding, if there is to be one.
    pub(super) fn encoding(self) -> Option<&'static str> {
        match self {
            Choice::Encoding(name) | Choice::Any(name) => Some(name),
            Choice::Identity | Choice::NotValid => None,
        }
    }

    /// Of several compressors with the same encoding the first counts.
    pub(super) fn new(accept: &[u8], offers: impl Iterator<Item = Offer>) -> Choice {
        let mut offers: Vec<Offer> = offers.collect();
        let wanted: Vec<(&str, f32)> = parse(accept).collect();
        offers.retain(|offer| !wanted.iter().any(|(name, weight)| *name == offer.encoding && *weight == 0.0));
        if offers.is_empty() {
            return Choice::NotValid;
        }
        let (mut best, mut choice) = (0.0, Choice::NotValid);
        for (name, weight) in wanted {
            let offer = offers.iter().find(|offer| offer.encoding == name);
            let this = match (name, offer) {
                (_, Some(offer)) => Choice::Encoding(offer.encoding),
                ("identity", None) => Choice::Identity,
                ("*", None) => Choice::Any(offers[0].encoding),
                _ => continue,
            };
            if weight > best || weight == best && offer.is_some_and(|offer| offer.first) {
                (best, choice) = (weight, this);
            }
        }
        if best == 0.0 { Choice::NotValid } else { choice }
    }
}

/// Names and weights; those whose weight is no number are left out.
fn parse(accept: &[u8]) -> impl Iterator<Item = (&str, f32)> {
    let tokens = str::from_utf8(accept).unwrap_or_default().split(',');
    tokens.filter(|token| !token.trim().is_empty()).filter_map(|token| {
        let (name, params) = token.split_once(';').unwrap_or((token, ""));
        let weight = match params.split_once('=') {
            Some((key, value)) if key.trim().eq_ignore_ascii_case("q") => {
                value.trim().parse().ok().filter(|weight: &f32| weight.is_finite())?
            }
            _ => 1.0,
        };
        Some((name.trim(), weight))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_decides_then_the_order_of_the_client() {
        use Choice::*;
        let offer = |encoding| Offer { encoding, first: false };
        let gzip = [offer("gzip")];
        let both = [offer("gzip"), offer("br")];
        let br_first = [offer("gzip"), Offer { encoding: "br", first: true }];
        for (accept, offers, want) in [
            ("gzip", &gzip[..], Encoding("gzip")),
            ("deflate, gzip;q=0.2", &gzip, Encoding("gzip")),
            ("*", &gzip, Any("gzip")),
            ("gzip;q=0, *;q=1", &gzip, NotValid),
            ("*;q=0,gzip;q=1", &gzip, Encoding("gzip")),
            ("identity", &gzip, Identity),
            ("identity;q=0.5, gzip;q=0.4", &gzip, Identity),
            ("identity;q=0.5, gzip", &gzip, Encoding("gzip")),
            ("deflate", &gzip, NotValid),
            ("", &gzip, NotValid),
            ("gzip;q=0", &gzip, NotValid),
            ("gzip;q=nonsense", &gzip, NotValid),
            ("gzip ; Q = 0.5", &gzip, Encoding("gzip")),
            ("gzip, br", &both, Encoding("gzip")),
            ("br, gzip", &both, Encoding("br")),
            ("gzip;q=0.5, br;q=0.6", &both, Encoding("br")),
            ("gzip;q=0, *", &both, Any("br")),
            ("gzip, br", &br_first, Encoding("br")),
            ("gzip, br;q=0.9", &br_first, Encoding("gzip")),
            ("gzip", &[], NotValid),
        ] {
            assert_eq!(Choice::new(accept.as_bytes(), offers.iter().copied()), want, "{accept:?}");
        }
    }
}
