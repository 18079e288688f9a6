//! How requests are brought into one form before anything is decided by them.

/// What a connection manager makes of paths, hosts and field names before its filters, its routes, its logs and the upstream
/// see them, all the same. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalization {
    /// Resolves dot segments, takes backslashes for slashes, unescapes what needs no escape (Envoy `normalize_path`). A path
    /// with an escaped NUL gets 400.
    pub path: bool,
    /// Takes slashes that follow each other for one (Envoy `merge_slashes`).
    pub merge_slashes: bool,
    /// What becomes of slashes that are escaped (Envoy `path_with_escaped_slashes_action`).
    pub escaped_slashes: EscapedSlashes,
    /// Which ports go from hosts (Envoy `strip_port_mode`). Those of CONNECT stay: they are the destination.
    pub host_port: HostPort,
    /// Takes one dot from the end of a host (Envoy `strip_trailing_host_dot`).
    pub trailing_host_dot: bool,
    /// What becomes of fields with an underscore in their name (Envoy
    /// `common_http_protocol_options.headers_with_underscores_action`), which some applications take for a hyphen.
    pub underscores: Underscores,
}

/// What becomes of a path with `%2F` or `%5C` in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// It stays.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// 307 to the path with the slashes unescaped and otherwise normalized.
    Redirect,
    /// They are unescaped.
    Unescape,
}

/// Which ports go from hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPort {
    /// None.
    #[default]
    Keep,
    /// The one that the client connected to (Envoy `strip_matching_host_port`).
    StripMatching,
    /// Any (Envoy `strip_any_host_port`).
    Strip,
}

/// What becomes of fields with an underscore in their name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// They stay.
    #[default]
    Allow,
    /// The request gets 400.
    Reject,
    /// They go.
    Drop,
}
