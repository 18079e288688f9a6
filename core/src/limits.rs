//! Every bound of the core, with its arithmetic. Bounds that configuration sets (buffer limits, header sizes, circuit
//! breakers, timeouts) are not here; their defaults stand in `config`.

use std::time::Duration;

/// Bytes queued towards a peer at which a pump stops pulling. 64 KiB is what one gathered send can hand to a socket with
/// a default buffer, so a fast peer never waits for us, and ten thousand stalled ones hold 640 MiB at the very most.
/// A listener's or cluster's `per_connection_buffer_limit` lowers it.
pub const SEND_HIGH: usize = 64 << 10;

/// Bytes queued at which a pump that had stopped goes on: a quarter, so that it pulls a worthwhile piece each time.
pub const SEND_LOW: usize = SEND_HIGH / 4;

/// Bytes of a body that are copied behind their head where both have come together: about what the copy may take before a
/// second segment for the kernel is cheaper, and what a pooled vector has room for.
pub const COPIED_BODY: usize = 512;

/// Bytes of an upstream's response head (Envoy's default, which its HTTP/1 codec does not let one configure).
pub const RESPONSE_HEAD_BYTES: usize = 60 << 10;

/// Fields of an upstream's response head (Envoy's default `max_headers_count`).
pub const RESPONSE_FIELDS: usize = 100;

/// Interim responses (1xx) relayed for one request. An honest server sends one or two; without a bound an upstream could
/// feed a client for ever without the request ever counting as answered.
pub const INTERIM_RESPONSES: u32 = 16;

/// Heads a lane keeps for reuse, of each kind. A head keeps up to 16 KiB of arena and 4 KiB of slots, mostly 1.5 KiB in
/// all: 256 of them are 384 KiB a lane, 5 MiB at worst.
pub const POOLED_HEADS: usize = 256;

/// How often one request is tried again because the pooled connection it was given had just been closed. Each try takes
/// another pooled connection, and after these a new one: a server that closes everything at once is met by a fresh dial.
pub const STALE_RETRIES: u32 = 2;

/// How long a lane that was refused by accept(2), for want of descriptors for example, leaves its listener alone.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How long a drain waits before it counts connections, so that those in the kernel's accept queue have become the lane's.
pub const LISTEN_PAUSE: Duration = Duration::from_millis(5);

/// Resources a lane applies before it lets its sockets run again. One takes about a microsecond, so a lane is away for
/// less than its 2 ms timer granularity.
pub const APPLY_SLICE: usize = 512;

/// Destinations chosen in code (`Cx::set_upstream`) that a lane keeps pools for. Past it, those without a connection go.
pub const DESTINATIONS: usize = 1024;

/// How long a connection that is closed with bytes unread is kept for the client to take the last response, where
/// `delayed_close_timeout` does not say. RFC 9112 section 9.6: closing at once would reset it.
pub const LINGER: Duration = Duration::from_secs(1);

/// Threads a proxy may run lanes on: what a waker's word can name (8 bits in corelane-io).
pub const LANES: usize = 256;

/// Records of an access log that a lane collects before it hands them to the writer, so that handing over, which wakes a
/// thread, is rare under load.
pub const ACCESS_LOG_BATCH: usize = 64;

/// Records of one chain's access logs that may wait for the writer, from all lanes. One takes about 700 bytes with its
/// texts, so they are 11 MiB at most; beyond that lines are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 16_384;

/// How long a record may wait for others before it is handed to the writer, where nobody says otherwise. Envoy's default
/// for the same is ten seconds.
pub const ACCESS_LOG_DELAY: Duration = Duration::from_secs(1);

/// Connections to the admin interface at one time: dashboards, scrapers and a person or two. One more waits in the backlog.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Pages that are written piece by piece at one time, each on a thread of its own (8 KiB of stack in use, a few pieces).
pub const ADMIN_WRITERS: usize = 4;

/// Bytes in one piece of such a page.
pub const ADMIN_PIECE: usize = 32 << 10;

/// Pieces that wait for a client, beside the one that is being sent: 128 KiB for each page that is being written.
pub const ADMIN_PIECES: usize = 3;

/// Bytes of a request's body that the admin interface takes: a node matcher and no more.
pub const ADMIN_BODY: u64 = 64 << 10;

/// How long an admin connection may wait for its peer: above the scrape interval of any monitoring system.
pub const ADMIN_IDLE: Duration = Duration::from_secs(120);

/// The shortest `fill_interval` of a local rate limit, as in Envoy, where a timer of its main thread filled the bucket.
pub const RATE_LIMIT_FILL: Duration = Duration::from_millis(50);

/// How many times longer than what came a body may be that is expanded, unless it is configured (Envoy `max_inflate_ratio`).
pub const INFLATE_RATIO: u32 = 100;

/// Bytes that an expanded body may have whatever came, so that a short body of one letter is no bomb: four times what the kernel
/// takes at once.
pub const INFLATE_FREE: u64 = 256 << 10;

/// The window of zstd that a body may ask for: 8 MiB, what every recipient has to have (RFC 9659 section 3).
pub const ZSTD_WINDOW_LOG: u32 = 23;

/// Values that a descriptor of a local rate limit may remember (Envoy `max_dynamic_descriptors`): two words for each, and as
/// many free, are 32 MiB.
pub const RATE_LIMIT_VALUES: u32 = 1 << 20;

/// Bytes of a host that a virtual host's domain can match. RFC 1035 section 2.3.4 allows 253; with brackets and a port it
/// stays below this. A longer one goes to the domain `*`.
pub const HOST: usize = 272;

/// How long one address of an endpoint has before the next is tried beside it (RFC 8305's Connection Attempt Delay), as in
/// Envoy.
pub const NEXT_ADDRESS: Duration = Duration::from_millis(300);

/// Names that are being resolved at one time. Each takes a socket or two for a few milliseconds, or seconds where a server is
/// silent: 256 are 512 descriptors at most, and ten thousand names are through in a second where servers answer.
pub const DNS_LOOKUPS: u32 = 256;

/// How long what `/etc/resolv.conf` and `/etc/hosts` say is believed before they are read again.
pub const DNS_FILES_FRESH: Duration = Duration::from_secs(1);

/// Servers of `/etc/resolv.conf` that are asked, and search domains that are tried: the C library's bounds.
pub const DNS_SERVERS: usize = 3;

/// Search domains that are tried for one name; the C library had this bound until it had none.
pub const DNS_SEARCH: usize = 6;

/// The shortest time between two lookups of one name, whatever its TTL or the configuration says.
pub const DNS_PAUSE: Duration = Duration::from_millis(10);

/// Bytes that one active health check takes before it is given up: what tells healthy from unhealthy stands at the beginning.
pub const HEALTH_CHECK_BYTES: usize = 64 << 10;

/// Bytes of a compiled regular expression, and of the memory that a search with it may take: an expression of a route has
/// some thousand instructions at most, and a table may have many of them.
pub const REGEX_BYTES: usize = 1 << 20;

/// Connections to one endpoint that one request may have made ahead of those that follow, whatever the ratio says: a burst of
/// requests makes the rest. Envoy's number.
pub const PRECONNECTS: usize = 3;

/// Steps through a table of consistent hashing to find an endpoint that may be used, where the table is older than somebody's
/// health. With half of the endpoints gone one search in 2^64 is in vain, and then any of them is taken.
pub const HASH_PROBES: u32 = 64;
