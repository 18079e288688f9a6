//! Envoy's response flags: what their short names stand for, and those that filters set beside what went wrong.

/// Every flag of Envoy's with its long name, as `%RESPONSE_FLAGS_LONG%` writes it.
const FLAGS: [(&str, &str); 30] = [
    ("LH", "FailedLocalHealthCheck"),
    ("UH", "NoHealthyUpstream"),
    ("UT", "UpstreamRequestTimeout"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("UO", "UpstreamOverflow"),
    ("NR", "NoRouteFound"),
    ("DI", "DelayInjected"),
    ("FI", "FaultInjected"),
    ("RL", "RateLimited"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RLSE", "RateLimitServiceError"),
    ("DC", "DownstreamConnectionTermination"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("SI", "StreamIdleTimeout"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("DPE", "DownstreamProtocolError"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("RFCF", "ResponseFromCacheFilter"),
    ("NFCF", "NoFilterConfigFound"),
    ("DT", "DurationTimeout"),
    ("UPE", "UpstreamProtocolError"),
    ("NC", "NoClusterFound"),
    ("OM", "OverloadManagerTerminated"),
    ("DF", "DnsResolutionFailed"),
    ("DO", "DropOverload"),
    ("DR", "DownstreamRemoteReset"),
    ("UDO", "UnconditionalDropOverload"),
];

/// The long name of a flag; `None` where there is no such flag.
pub(crate) fn long(short: &str) -> Option<&'static str> {
    FLAGS.iter().find(|(name, _)| *name == short).map(|(_, long)| *long)
}

/// A flag that a filter or the router sets on a request, whether or not anything goes wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Flag {
    /// `LH`: a health check was answered that this proxy, or what is behind it, is not well.
    FailedLocalHealthCheck = 1,
    /// `DI`: the request was delayed on purpose.
    DelayInjected = 2,
    /// `FI`: the request was refused on purpose.
    FaultInjected = 4,
    /// `URX`: it would have been tried again, and had been as often as is allowed.
    UpstreamRetryLimitExceeded = 8,
    /// `UO`: it would have been tried again, and there were as many retries as are allowed.
    UpstreamOverflow = 16,
}

/// The flags that filters set on a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    pub(crate) fn with(self, flag: Flag) -> Flags {
        Flags(self.0 | flag as u8)
    }

    /// The short names, in the order in which they come to be set.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (Flag::FailedLocalHealthCheck, "LH"),
            (Flag::DelayInjected, "DI"),
            (Flag::FaultInjected, "FI"),
            (Flag::UpstreamRetryLimitExceeded, "URX"),
            (Flag::UpstreamOverflow, "UO"),
        ];
        all.into_iter().filter(move |(flag, _)| self.0 & *flag as u8 != 0).map(|(_, name)| name)
    }
}
