//! Brings a request into one form, before anything is decided by it: router, filters, logs and upstream see the same path and
//! host. Envoy's order: the path's escaped slashes, its dots, its double slashes, then the host. Runs only where something of
//! it is configured.

use crate::{
    config::{EscapedSlashes, HostPort, Normalization, Underscores},
    error::{Error, Kind},
    telemetry::{Cells, HttpStat},
};
use corelane_wire::{
    Headers, Method, RequestHead,
    h1::ParseError,
    path::{has_escaped_slash, is_normal, merge_slashes, normalize, unescape_slashes},
    split_port,
};

/// What is to become of a request that has been brought into form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is served.
    Serve,
    /// Its client is to ask for the path as it is now.
    Redirect,
}

/// `port` is the one that the client connected to.
///
/// # Errors
/// The request is refused.
#[cold]
pub(super) fn request(
    head: &mut RequestHead,
    config: &Normalization,
    port: Option<u16>,
    stats: &Cells<HttpStat>,
) -> Result<Verdict, Error> {
    if head.method() == Method::Connect {
        return Ok(Verdict::Serve);
    }
    let verdict = path(head, config).inspect_err(|_| stats.inc(HttpStat::RqFailedPathNormalization))?;
    if verdict == Verdict::Redirect {
        stats.inc(HttpStat::RqRedirectedWithNormalizedPath);
    }
    host(head, config, port)?;
    Ok(verdict)
}

fn path(head: &mut RequestHead, config: &Normalization) -> Result<Verdict, Error> {
    let refused = Error::downstream(Kind::Path);
    if head.path() == b"*" {
        // Of OPTIONS; it is no path.
        return if config.path { Err(refused) } else { Ok(Verdict::Serve) };
    }
    let mut verdict = Verdict::Serve;
    let mut changed = None;
    if config.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(head.path()) {
        let unescaped = unescape_slashes(head.path());
        verdict = match config.escaped_slashes {
            EscapedSlashes::Reject => {
                // What is logged and told of it is what it would have been.
                head.set_path(&unescaped).map_err(|_| refused)?;
                return Err(refused);
            }
            EscapedSlashes::Redirect => Verdict::Redirect,
            EscapedSlashes::Keep | EscapedSlashes::Unescape => Verdict::Serve,
        };
        changed = Some(unescaped);
    }
    let now = changed.as_deref().unwrap_or(head.path());
    if config.path && !is_normal(now) {
        changed = Some(normalize(now).map_err(|_| refused)?);
    }
    let now = changed.as_deref().unwrap_or(head.path());
    if config.merge_slashes && now.windows(2).any(|two| two == b"//") {
        changed = Some(merge_slashes(now));
    }
    if let Some(path) = changed {
        head.set_path(&path).map_err(|_| refused)?;
    }
    Ok(verdict)
}

fn host(head: &mut RequestHead, config: &Normalization, own: Option<u16>) -> Result<(), Error> {
    let (mut name, mut port) = split_port(head.authority());
    let before = name.len() + port.len();
    let stripped = match config.host_port {
        HostPort::Keep => false,
        HostPort::StripMatching => own.is_some_and(|own| number(port) == Some(own)),
        HostPort::Strip => number(port).is_some(),
    };
    if stripped {
        port = b"";
    }
    if config.trailing_host_dot && name.len() > 1 {
        name = name.strip_suffix(b".").unwrap_or(name);
    }
    if name.len() + port.len() == before {
        return Ok(());
    }
    let host = [name, port].concat();
    head.set_authority(&host).map_err(|_| Error::downstream(Kind::Head(ParseError::Host)))
}

fn number(port: &[u8]) -> Option<u16> {
    str::from_utf8(port.get(1..)?).ok()?.parse().ok()
}

/// Looks at the names of fields, which is the first thing of all.
///
/// # Errors
/// The request is refused.
#[cold]
pub(super) fn names(
    headers: &mut Headers,
    action: Underscores,
    stats: &Cells<HttpStat>,
) -> Result<(), Error> {
    if action == Underscores::Allow || !headers.iter().any(|(name, _)| name.contains(&b'_')) {
        return Ok(());
    }
    if action == Underscores::Reject {
        stats.inc(HttpStat::RqRejectedWithUnderscores);
        return Err(Error::downstream(Kind::Head(ParseError::FieldName)));
    }
    let names: Vec<Vec<u8>> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.contains(&b'_'))
        .map(<[u8]>::to_vec)
        .collect();
    for name in names {
        if let Ok(name) = str::from_utf8(&name) {
            stats.inc(HttpStat::DroppedWithUnderscores);
            headers.remove(name);
        }
    }
    Ok(())
}
