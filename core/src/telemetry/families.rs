//! The names of all statistics, which are Envoy's where Envoy has one.

use super::{Family, HistogramFamily, Kind};

/// Declares a family: one list for identifiers, names and kinds, so that they cannot disagree.
macro_rules! family {
    ($(#[$doc:meta])* $family:ident in $root:literal $(with codes $codes:literal)? histograms $histogram:ident { $($(#[$about:meta])* $stat:ident = $name:literal $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $family { $($(#[$about])* #[doc = concat!("`", $name, "`")] $stat,)* }

        impl Family for $family {
            const ROOT: &'static str = $root;
            const NAMES: &'static [(&'static str, Kind)] = &[$(($name, Kind::$kind),)*];
            $(const CODES: Option<&'static str> = Some($codes);)?
            type Histogram = $histogram;
            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Declares the histograms of a family, in the same way.
macro_rules! histograms {
    ($(#[$doc:meta])* $family:ident { $($(#[$about:meta])* $stat:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $family { $($(#[$about])* #[doc = concat!("`", $name, "`")] $stat,)* }

        impl HistogramFamily for $family {
            const NAMES: &'static [&'static str] = &[$($name,)*];
            #[inline]
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Of families without histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHistogram {}

impl HistogramFamily for NoHistogram {
    const NAMES: &'static [&'static str] = &[];
    fn index(self) -> usize {
        match self {}
    }
}

histograms! {
    /// Times of a cluster, in milliseconds: `cluster.NAME.`.
    ClusterHistogram {
        /// From the end of a request to the end of its response.
        RqTime = "upstream_rq_time",
        /// To establish a connection.
        CxConnect = "upstream_cx_connect_ms",
        /// That a connection lived.
        CxLength = "upstream_cx_length_ms",
    }
}

histograms! {
    /// Times of connection managers, in milliseconds: `http.PREFIX.`.
    HttpHistogram {
        /// From the head of a request to the end of its response.
        RqTime = "downstream_rq_time",
        /// That a connection lived.
        CxLength = "downstream_cx_length_ms",
    }
}

histograms! {
    /// Times of a listener, in milliseconds: `listener.ADDRESS.`.
    ListenerHistogram {
        /// That a connection lived.
        CxLength = "downstream_cx_length_ms",
    }
}

family! {
    /// Of a cluster: `cluster.NAME.`.
    ClusterStat in "cluster" with codes "upstream_rq_" histograms ClusterHistogram {
        CxTotal = "upstream_cx_total" Counter,
        CxActive = "upstream_cx_active" Gauge,
        CxHttp1Total = "upstream_cx_http1_total" Counter,
        CxConnectFail = "upstream_cx_connect_fail" Counter,
        CxConnectTimeout = "upstream_cx_connect_timeout" Counter,
        CxConnectAttemptsExceeded = "upstream_cx_connect_attempts_exceeded" Counter,
        CxOverflow = "upstream_cx_overflow" Counter,
        CxIdleTimeout = "upstream_cx_idle_timeout" Counter,
        CxMaxRequests = "upstream_cx_max_requests" Counter,
        CxDestroy = "upstream_cx_destroy" Counter,
        CxDestroyLocal = "upstream_cx_destroy_local" Counter,
        CxDestroyRemote = "upstream_cx_destroy_remote" Counter,
        /// Connections that ended while they carried a request, or opaque bytes.
        CxDestroyActiveRq = "upstream_cx_destroy_with_active_rq" Counter,
        CxDestroyLocalActiveRq = "upstream_cx_destroy_local_with_active_rq" Counter,
        CxDestroyRemoteActiveRq = "upstream_cx_destroy_remote_with_active_rq" Counter,
        /// Responses that said that their connection ends with them.
        CxCloseNotify = "upstream_cx_close_notify" Counter,
        CxMaxDurationReached = "upstream_cx_max_duration_reached" Counter,
        CxNoneHealthy = "upstream_cx_none_healthy" Counter,
        CxProtocolError = "upstream_cx_protocol_error" Counter,
        CxRxBytes = "upstream_cx_rx_bytes_total" Counter,
        CxTxBytes = "upstream_cx_tx_bytes_total" Counter,
        /// Idle connections closed because another lane needed their permit; not in Envoy, which has no exact limits.
        CxYielded = "upstream_cx_yielded" Counter,
        OriginalDstHostInvalid = "original_dst_host_invalid" Counter,
        LbHealthyPanic = "lb_healthy_panic" Counter,
        RqTotal = "upstream_rq_total" Counter,
        RqActive = "upstream_rq_active" Gauge,
        RqCompleted = "upstream_rq_completed" Counter,
        RqCancelled = "upstream_rq_cancelled" Counter,
        RqPendingTotal = "upstream_rq_pending_total" Counter,
        RqPendingActive = "upstream_rq_pending_active" Gauge,
        RqPendingOverflow = "upstream_rq_pending_overflow" Counter,
        RqRetry = "upstream_rq_retry" Counter,
        RqRetryOverflow = "upstream_rq_retry_overflow" Counter,
        RqRetrySuccess = "upstream_rq_retry_success" Counter,
        RqRetryLimitExceeded = "upstream_rq_retry_limit_exceeded" Counter,
        RqRetryBackoffExponential = "upstream_rq_retry_backoff_exponential" Counter,
        RqRetryBackoffRatelimited = "upstream_rq_retry_backoff_ratelimited" Counter,
        /// Responses that were tried again and so count nowhere else.
        RetryRqCompleted = "retry.upstream_rq_completed" Counter,
        Retry1xx = "retry.upstream_rq_1xx" Counter,
        Retry2xx = "retry.upstream_rq_2xx" Counter,
        Retry3xx = "retry.upstream_rq_3xx" Counter,
        Retry4xx = "retry.upstream_rq_4xx" Counter,
        Retry5xx = "retry.upstream_rq_5xx" Counter,
        /// Requests whose body was too long to be kept for another try.
        RetryAbandoned = "retry_or_shadow_abandoned" Counter,
        RqTimeout = "upstream_rq_timeout" Counter,
        RqPerTryTimeout = "upstream_rq_per_try_timeout" Counter,
        RqPerTryIdleTimeout = "upstream_rq_per_try_idle_timeout" Counter,
        RqRxReset = "upstream_rq_rx_reset" Counter,
        RqTxReset = "upstream_rq_tx_reset" Counter,
        Rq1xx = "upstream_rq_1xx" Counter,
        Rq2xx = "upstream_rq_2xx" Counter,
        Rq3xx = "upstream_rq_3xx" Counter,
        Rq4xx = "upstream_rq_4xx" Counter,
        Rq5xx = "upstream_rq_5xx" Counter,
    }
}

family! {
    /// Of a cluster that finds its endpoints itself: `cluster.NAME.`.
    DiscoveryStat in "cluster" histograms NoHistogram {
        /// Times it looked.
        Attempt = "update_attempt" Counter,
        /// Times it was told, if only that there is none.
        Success = "update_success" Counter,
        /// Times nobody could tell it.
        Failure = "update_failure" Counter,
        /// Times it was told that there is none and went on with what it had.
        Empty = "update_empty" Counter,
        /// Times nothing had changed.
        NoRebuild = "update_no_rebuild" Counter,
    }
}

family! {
    /// Of the connection managers with one prefix: `http.PREFIX.`.
    HttpStat in "http" histograms HttpHistogram {
        CxTotal = "downstream_cx_total" Counter,
        CxActive = "downstream_cx_active" Gauge,
        CxHttp1Total = "downstream_cx_http1_total" Counter,
        CxHttp1Active = "downstream_cx_http1_active" Gauge,
        CxDestroy = "downstream_cx_destroy" Counter,
        CxDestroyActiveRq = "downstream_cx_destroy_active_rq" Counter,
        CxDrainClose = "downstream_cx_drain_close" Counter,
        CxIdleTimeout = "downstream_cx_idle_timeout" Counter,
        CxMaxDurationReached = "downstream_cx_max_duration_reached" Counter,
        CxMaxRequestsReached = "downstream_cx_max_requests_reached" Counter,
        CxProtocolError = "downstream_cx_protocol_error" Counter,
        /// Connections that began with the HTTP/2 preface, which is not served yet; not in Envoy.
        CxHttp2Preface = "downstream_cx_http2_preface" Counter,
        CxUpgradesTotal = "downstream_cx_upgrades_total" Counter,
        CxUpgradesActive = "downstream_cx_upgrades_active" Gauge,
        CxRxBytes = "downstream_cx_rx_bytes_total" Counter,
        CxTxBytes = "downstream_cx_tx_bytes_total" Counter,
        /// Upgrades and CONNECT where they are not let through.
        RqWsOnNonWsRoute = "downstream_rq_ws_on_non_ws_route" Counter,
        RqTotal = "downstream_rq_total" Counter,
        RqHttp1Total = "downstream_rq_http1_total" Counter,
        RqActive = "downstream_rq_active" Gauge,
        RqCompleted = "downstream_rq_completed" Counter,
        RqHeaderTimeout = "downstream_rq_header_timeout" Counter,
        RqTimeout = "downstream_rq_timeout" Counter,
        RqIdleTimeout = "downstream_rq_idle_timeout" Counter,
        RqMaxDurationReached = "downstream_rq_max_duration_reached" Counter,
        RqRxReset = "downstream_rq_rx_reset" Counter,
        RqTxReset = "downstream_rq_tx_reset" Counter,
        RqTooLarge = "downstream_rq_too_large" Counter,
        RqFailedPathNormalization = "downstream_rq_failed_path_normalization" Counter,
        RqRedirectedWithNormalizedPath = "downstream_rq_redirected_with_normalized_path" Counter,
        /// What Envoy counts for all connection managers in one, under `http1.`.
        RqRejectedWithUnderscores = "requests_rejected_with_underscores_in_headers" Counter,
        /// The same.
        DroppedWithUnderscores = "dropped_headers_with_underscores" Counter,
        Rq1xx = "downstream_rq_1xx" Counter,
        Rq2xx = "downstream_rq_2xx" Counter,
        Rq3xx = "downstream_rq_3xx" Counter,
        Rq4xx = "downstream_rq_4xx" Counter,
        Rq5xx = "downstream_rq_5xx" Counter,
        NoRoute = "no_route" Counter,
        NoCluster = "no_cluster" Counter,
        RqDirectResponse = "rq_direct_response" Counter,
        RqRedirect = "rq_redirect" Counter,
        RouterRqTotal = "rq_total" Counter,
    }
}

family! {
    /// Of a listener: `listener.ADDRESS.`.
    ListenerStat in "listener" histograms ListenerHistogram {
        CxTotal = "downstream_cx_total" Counter,
        CxActive = "downstream_cx_active" Gauge,
        CxDestroy = "downstream_cx_destroy" Counter,
        /// Connections beyond the limit of the listener.
        CxOverflow = "downstream_cx_overflow" Counter,
        /// Connections beyond the limit of the whole proxy.
        GlobalCxOverflow = "downstream_global_cx_overflow" Counter,
        /// Connections that no chain matched.
        NoFilterChainMatch = "no_filter_chain_match" Counter,
        /// Connections that listener filters look at.
        PreCxActive = "downstream_pre_cx_active" Gauge,
        /// Connections that listener filters looked at for too long.
        PreCxTimeout = "downstream_pre_cx_timeout" Counter,
        /// Connections that ended while listener filters looked.
        FilterRemoteClose = "downstream_listener_filter_remote_close" Counter,
        /// Connections that a listener filter refused.
        FilterError = "downstream_listener_filter_error" Counter,
        /// Datagrams that were longer than is taken.
        UdpRxDropped = "udp.downstream_rx_datagram_dropped" Counter,
        /// Times accept(2) failed, for want of descriptors for example; not in Envoy.
        AcceptError = "downstream_accept_error" Counter,
    }
}

family! {
    /// Of the outlier detection of a cluster: `cluster.NAME.`.
    OutlierStat in "cluster" histograms NoHistogram {
        /// Endpoints that are left out.
        Active = "outlier_detection.ejections_active" Gauge,
        Errors = "outlier_detection.ejections_consecutive_5xx" Counter,
        DetectedErrors = "outlier_detection.ejections_detected_consecutive_5xx" Counter,
        DetectedGateway = "outlier_detection.ejections_detected_consecutive_gateway_failure" Counter,
        DetectedLocalOrigin = "outlier_detection.ejections_detected_consecutive_local_origin_failure" Counter,
        DetectedFailurePercentage = "outlier_detection.ejections_detected_failure_percentage" Counter,
        DetectedLocalFailurePercentage =
            "outlier_detection.ejections_detected_local_origin_failure_percentage" Counter,
        DetectedLocalSuccessRate = "outlier_detection.ejections_detected_local_origin_success_rate" Counter,
        DetectedSuccessRate = "outlier_detection.ejections_detected_success_rate" Counter,
        EnforcedErrors = "outlier_detection.ejections_enforced_consecutive_5xx" Counter,
        EnforcedGateway = "outlier_detection.ejections_enforced_consecutive_gateway_failure" Counter,
        EnforcedLocalOrigin = "outlier_detection.ejections_enforced_consecutive_local_origin_failure" Counter,
        EnforcedFailurePercentage = "outlier_detection.ejections_enforced_failure_percentage" Counter,
        EnforcedLocalFailurePercentage =
            "outlier_detection.ejections_enforced_local_origin_failure_percentage" Counter,
        EnforcedLocalSuccessRate = "outlier_detection.ejections_enforced_local_origin_success_rate" Counter,
        EnforcedSuccessRate = "outlier_detection.ejections_enforced_success_rate" Counter,
        EnforcedTotal = "outlier_detection.ejections_enforced_total" Counter,
        /// Those that were not left out because too many were already.
        Overflow = "outlier_detection.ejections_overflow" Counter,
        SuccessRate = "outlier_detection.ejections_success_rate" Counter,
        Total = "outlier_detection.ejections_total" Counter,
    }
}

family! {
    /// Of the active health checks of a cluster: `cluster.NAME.`.
    HealthStat in "cluster" histograms NoHistogram {
        Attempt = "health_check.attempt" Counter,
        Success = "health_check.success" Counter,
        Failure = "health_check.failure" Counter,
        /// By what an endpoint said in an answer to a client.
        PassiveFailure = "health_check.passive_failure" Counter,
        NetworkFailure = "health_check.network_failure" Counter,
        /// Of checks that ask for a service's name, which there are none of.
        VerifyCluster = "health_check.verify_cluster" Counter,
    }
}

family! {
    /// Of the UDP proxies with one prefix: `udp.PREFIX.`.
    UdpStat in "udp" histograms NoHistogram {
        Total = "downstream_sess_total" Counter,
        Active = "downstream_sess_active" Gauge,
        /// The cluster does not exist.
        NoRoute = "downstream_sess_no_route" Counter,
        RxBytes = "downstream_sess_rx_bytes" Counter,
        RxDatagrams = "downstream_sess_rx_datagrams" Counter,
        RxErrors = "downstream_sess_rx_errors" Counter,
        TxBytes = "downstream_sess_tx_bytes" Counter,
        TxDatagrams = "downstream_sess_tx_datagrams" Counter,
        TxErrors = "downstream_sess_tx_errors" Counter,
        IdleTimeout = "idle_timeout" Counter,
    }
}

family! {
    /// Of a cluster that UDP proxies send to: `cluster.NAME.`.
    ClusterUdpStat in "cluster" histograms NoHistogram {
        RxDatagrams = "udp.sess_rx_datagrams" Counter,
        /// Too long, or from somebody else.
        RxDropped = "udp.sess_rx_datagrams_dropped" Counter,
        RxErrors = "udp.sess_rx_errors" Counter,
        TxDatagrams = "udp.sess_tx_datagrams" Counter,
        TxErrors = "udp.sess_tx_errors" Counter,
    }
}

family! {
    /// Of all TLS inspectors: `tls_inspector.`.
    TlsInspectorStat in "tls_inspector" histograms NoHistogram {
        ConnectionClosed = "connection_closed" Counter,
        ClientHelloTooLarge = "client_hello_too_large" Counter,
        TlsFound = "tls_found" Counter,
        TlsNotFound = "tls_not_found" Counter,
        AlpnFound = "alpn_found" Counter,
        AlpnNotFound = "alpn_not_found" Counter,
        SniFound = "sni_found" Counter,
        SniNotFound = "sni_not_found" Counter,
    }
}

family! {
    /// Of all HTTP inspectors: `http_inspector.`.
    HttpInspectorStat in "http_inspector" histograms NoHistogram {
        ReadError = "read_error" Counter,
        ParseError = "parse_error" Counter,
        Http10Found = "http10_found" Counter,
        Http11Found = "http11_found" Counter,
        Http2Found = "http2_found" Counter,
        HttpNotFound = "http_not_found" Counter,
    }
}

family! {
    /// Of the PROXY protocol filters with one prefix: `proxy_proto.PREFIX.`.
    ProxyProtocolStat in "proxy_proto" histograms NoHistogram {
        NotFoundAllowed = "not_found_allowed" Counter,
        NotFoundDisallowed = "not_found_disallowed" Counter,
        V1Found = "versions.v1.found" Counter,
        V1Disallowed = "versions.v1.disallowed" Counter,
        V1Error = "versions.v1.error" Counter,
        V2Found = "versions.v2.found" Counter,
        V2Disallowed = "versions.v2.disallowed" Counter,
        V2Error = "versions.v2.error" Counter,
    }
}

family! {
    /// Of the TCP proxies with one prefix: `tcp.PREFIX.`.
    TcpStat in "tcp" histograms NoHistogram {
        CxTotal = "downstream_cx_total" Counter,
        CxNoRoute = "downstream_cx_no_route" Counter,
        CxRxBytes = "downstream_cx_rx_bytes_total" Counter,
        CxTxBytes = "downstream_cx_tx_bytes_total" Counter,
        IdleTimeout = "idle_timeout" Counter,
        MaxDuration = "max_downstream_connection_duration" Counter,
    }
}

family! {
    /// Of the local rate limits with one prefix: `PREFIX.http_local_rate_limit.`.
    LocalRateLimitStat in "" histograms NoHistogram {
        /// Requests that the limit looked at.
        Enabled = "http_local_rate_limit.enabled" Counter,
        /// Requests that found a token.
        Ok = "http_local_rate_limit.ok" Counter,
        /// Requests that found none, whatever became of them.
        RateLimited = "http_local_rate_limit.rate_limited" Counter,
        /// Requests that were refused.
        Enforced = "http_local_rate_limit.enforced" Counter,
        /// Requests that found none where a limit only counts.
        ShadowMode = "http_local_rate_limit.shadow_mode" Counter,
    }
}

family! {
    /// Of the fault filters of the connection managers with one prefix: `http.PREFIX.fault.`.
    FaultStat in "http" histograms NoHistogram {
        DelaysInjected = "fault.delays_injected" Counter,
        AbortsInjected = "fault.aborts_injected" Counter,
        ResponseRlInjected = "fault.response_rl_injected" Counter,
        /// Faults that were not injected because too many were under way.
        FaultsOverflow = "fault.faults_overflow" Counter,
        /// Exchanges with a fault that are not over.
        ActiveFaults = "fault.active_faults" Gauge,
    }
}

family! {
    /// Of the CORS filters of the connection managers with one prefix: `http.PREFIX.cors.`.
    CorsStat in "http" histograms NoHistogram {
        /// Requests from an origin that is allowed.
        OriginValid = "cors.origin_valid" Counter,
        /// Requests from another one.
        OriginInvalid = "cors.origin_invalid" Counter,
    }
}

family! {
    /// Of the health check filters of the connection managers with one prefix: `http.PREFIX.health_check.`.
    HealthCheckStat in "http" histograms NoHistogram {
        RequestTotal = "health_check.request_total" Counter,
        /// Checks that the filter answered with a status of 2xx.
        Ok = "health_check.ok" Counter,
        /// Checks that the filter answered with another one.
        Failed = "health_check.failed" Counter,
        /// Checks that were answered as the one before.
        CachedResponse = "health_check.cached_response" Counter,
        FailedClusterNotFound = "health_check.failed_cluster_not_found" Counter,
        FailedClusterEmpty = "health_check.failed_cluster_empty" Counter,
        FailedClusterUnhealthy = "health_check.failed_cluster_unhealthy" Counter,
        /// Cached answers of an upstream that said it is degraded.
        Degraded = "health_check.degraded" Counter,
    }
}

family! {
    /// Of what compressors do to requests, `http.PREFIX.compressor.NAME.LIBRARY.request.`, and to responses, `..response.`.
    CompressorStat in "http" histograms NoHistogram {
        Compressed = "compressed" Counter,
        NotCompressed = "not_compressed" Counter,
        TotalUncompressedBytes = "total_uncompressed_bytes" Counter,
        TotalCompressedBytes = "total_compressed_bytes" Counter,
        ContentLengthTooSmall = "content_length_too_small" Counter,
    }
}

family! {
    /// Of what decompressors do to requests, `http.PREFIX.decompressor.NAME.LIBRARY.request.`, and to responses, `..response.`.
    DecompressorStat in "http" histograms NoHistogram {
        Decompressed = "decompressed" Counter,
        NotDecompressed = "not_decompressed" Counter,
        TotalUncompressedBytes = "total_uncompressed_bytes" Counter,
        TotalCompressedBytes = "total_compressed_bytes" Counter,
    }
}

family! {
    /// Of what compressors decide by the heads of responses and their requests: `http.PREFIX.compressor.NAME.LIBRARY.`.
    CompressorHeadStat in "http" histograms NoHistogram {
        NoAcceptHeader = "no_accept_header" Counter,
        HeaderIdentity = "header_identity" Counter,
        HeaderCompressorUsed = "header_compressor_used" Counter,
        /// Another compressor of the chain is wanted more.
        HeaderCompressorOvershadowed = "header_compressor_overshadowed" Counter,
        HeaderWildcard = "header_wildcard" Counter,
        HeaderNotValid = "header_not_valid" Counter,
        NotCompressedEtag = "not_compressed_etag" Counter,
    }
}

family! {
    /// Of access logs: `filesystem.`.
    FileStat in "" histograms NoHistogram {
        /// Lines that were handed to the writer.
        WriteBuffered = "write_buffered" Counter,
        /// Writes, of many lines each.
        WriteCompleted = "write_completed" Counter,
        WriteFailed = "write_failed" Counter,
        /// Lines that were not written because the writer was too far behind; not in Envoy, which waits.
        WriteDropped = "write_dropped" Counter,
    }
}

/// The counter of a status's class among five that follow each other.
macro_rules! class {
    ($family:ident) => {
        impl $family {
            /// The counter of a status by its class; codes past 599 count as 5xx.
            #[inline]
            pub(crate) fn class(status: corelane_wire::Status) -> $family {
                match status.code() / 100 {
                    1 => $family::Rq1xx,
                    2 => $family::Rq2xx,
                    3 => $family::Rq3xx,
                    4 => $family::Rq4xx,
                    _ => $family::Rq5xx,
                }
            }
        }
    };
}

impl ClusterStat {
    /// The counter of a response that is tried again.
    pub(crate) fn retried_class(status: corelane_wire::Status) -> ClusterStat {
        match ClusterStat::class(status) {
            ClusterStat::Rq1xx => ClusterStat::Retry1xx,
            ClusterStat::Rq2xx => ClusterStat::Retry2xx,
            ClusterStat::Rq3xx => ClusterStat::Retry3xx,
            ClusterStat::Rq4xx => ClusterStat::Retry4xx,
            _ => ClusterStat::Retry5xx,
        }
    }
}

class!(ClusterStat);
class!(HttpStat);
