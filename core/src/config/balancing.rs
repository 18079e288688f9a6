//! How a cluster chooses among its endpoints.

/// How an endpoint is chosen (Envoy `lb_policy`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Balancer {
    /// One after the other, in proportion to their weights.
    RoundRobin,
    /// At random, in proportion to their weights.
    Random,
    /// The one with the fewest active requests among `choices` drawn at random. With unequal weights, in turn by
    /// weight divided by active requests.
    LeastRequest {
        /// How many to draw, at least 2 (Envoy `least_request_lb_config.choice_count`).
        choices: u32,
        /// The power to which active requests count where weights are unequal, not negative; 1 is Envoy's default, 0 leaves
        /// them out (Envoy `active_request_bias`).
        bias: f64,
    },
    /// By the request's hash, on a ring (Envoy `RING_HASH`).
    RingHash(RingHash),
    /// By the request's hash, in a table (Envoy `MAGLEV`).
    Maglev(Maglev),
}

/// Consistent hashing on a ring: each endpoint stands at many points of it, and serves the hashes from the point before to
/// its own. A request without a hash goes anywhere (Envoy `RingHashLbConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingHash {
    /// How many points there are at least, at most [`MAXIMUM_SIZE`](RingHash::MAXIMUM_SIZE); the more, the closer shares are
    /// to weights.
    pub minimum_size: u32,
    /// How many there are at most; not below the minimum.
    pub maximum_size: u32,
    /// Where on the ring an endpoint's points are.
    pub function: HashFunction,
    /// What both kinds of consistent hashing have.
    pub hashing: ConsistentHashing,
}

/// Which hash places endpoints on a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// XXH64.
    #[default]
    Xx,
    /// MurmurHash2 of 64 bits, as the GNU C++ library has it.
    Murmur2,
}

/// Consistent hashing by a table that endpoints fill in turn, each in an order of its own: shares are even, and a lookup is
/// one step (Envoy `MaglevLbConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maglev {
    /// How many places there are: a prime, at most [`MAXIMUM_SIZE`](Maglev::MAXIMUM_SIZE).
    pub table_size: u32,
    /// What both kinds of consistent hashing have.
    pub hashing: ConsistentHashing,
}

/// What both kinds of consistent hashing have (Envoy `ConsistentHashingLbConfig`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsistentHashing {
    /// An endpoint's place follows from its host name where it has one, and not from its address (Envoy
    /// `use_hostname_for_hashing`).
    pub by_hostname: bool,
    /// In percent of the average: an endpoint that has so many active requests passes further ones to others. 100 at least;
    /// `None` has no bound (Envoy `hash_balance_factor`).
    pub balance_factor: Option<u32>,
}

impl RingHash {
    /// The bound of Envoy's API, and its default of the maximum: eight million points.
    pub const MAXIMUM_SIZE: u32 = 8 << 20;
    /// Envoy's default of the minimum.
    pub const MINIMUM_SIZE: u32 = 1024;
}

impl Default for RingHash {
    /// Envoy's defaults.
    fn default() -> RingHash {
        RingHash {
            minimum_size: Self::MINIMUM_SIZE,
            maximum_size: Self::MAXIMUM_SIZE,
            function: HashFunction::Xx,
            hashing: ConsistentHashing::default(),
        }
    }
}

impl Maglev {
    /// The bound of Envoy's API.
    pub const MAXIMUM_SIZE: u32 = 5_000_011;
    /// Envoy's default.
    pub const TABLE_SIZE: u32 = 65_537;
}

impl Default for Maglev {
    /// Envoy's defaults.
    fn default() -> Maglev {
        Maglev { table_size: Self::TABLE_SIZE, hashing: ConsistentHashing::default() }
    }
}

impl Balancer {
    /// [`LeastRequest`](Balancer::LeastRequest) with Envoy's defaults.
    pub const LEAST_REQUEST: Balancer = Balancer::LeastRequest { choices: 2, bias: 1.0 };

    /// What is said about consistent hashing, where that is how endpoints are chosen.
    pub(crate) fn hashing(&self) -> Option<&ConsistentHashing> {
        match self {
            Balancer::RingHash(RingHash { hashing, .. }) | Balancer::Maglev(Maglev { hashing, .. }) => {
                Some(hashing)
            }
            Balancer::RoundRobin | Balancer::Random | Balancer::LeastRequest { .. } => None,
        }
    }

    /// Whether it has to be known how many requests are in flight at each endpoint.
    pub(crate) fn counts_activity(&self) -> bool {
        let bounded = self.hashing().is_some_and(|hashing| hashing.balance_factor.is_some());
        bounded || matches!(self, Balancer::LeastRequest { .. })
    }
}

/// Which endpoints are considered (Envoy `common_lb_config`, and `policy` of the load assignment).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadBalancing {
    /// In percent: a priority counts as wholly healthy while `healthy * factor / 100` reaches all of its endpoints
    /// (Envoy `overprovisioning_factor`).
    pub overprovisioning_factor: u32,
    /// In percent: below so many available endpoints of a priority health is not looked at any more; 0 always looks
    /// (Envoy `healthy_panic_threshold`).
    pub panic_threshold: f64,
    /// Refuses requests instead of sending them to unhealthy endpoints (Envoy `fail_traffic_on_panic`).
    pub fail_on_panic: bool,
    /// First chooses a locality by its weight, then an endpoint in it (Envoy `locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// Counts endpoints by their weights when a priority's health is measured (Envoy `weighted_priority_health`).
    pub weighted_priority_health: bool,
}

impl Default for LoadBalancing {
    /// Envoy's defaults.
    fn default() -> LoadBalancing {
        LoadBalancing {
            overprovisioning_factor: 140,
            panic_threshold: 50.0,
            fail_on_panic: false,
            locality_weighted: false,
            weighted_priority_health: false,
        }
    }
}
