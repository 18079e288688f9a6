//! Which virtual host a `host` belongs to, in time that does not grow with their number. Knows no routes.

use crate::{fnv::Fnv, limits::HOST};
use corelane_wire::split_port;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::BuildHasherDefault,
};

/// Domains and the number of their virtual host. `domain.example`, then the longest `*.example`, then the longest
/// `www.*`, then `*`: Envoy's order.
#[derive(Default)]
pub(crate) struct Domains {
    exact: Names,
    /// By length, the longest looked at first: there are as many look-ups as there are lengths.
    suffixes: BTreeMap<usize, Names>,
    prefixes: BTreeMap<usize, Names>,
    any: Option<usize>,
    ignore_port: bool,
}

/// Parts of domains in lower case, and their virtual hosts.
#[derive(Default)]
struct Names(HashMap<Box<[u8]>, usize, BuildHasherDefault<Fnv>>);

impl Names {
    /// The host that had the name before.
    fn insert(&mut self, name: &str, host: usize) -> Option<usize> {
        self.0.insert(name.as_bytes().into(), host)
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<usize> {
        self.0.get(name).copied()
    }
}

/// A domain that two virtual hosts claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DuplicateDomain(pub(crate) String);

impl Domains {
    pub(crate) fn new(ignore_port: bool) -> Domains {
        Domains { ignore_port, ..Domains::default() }
    }

    pub(crate) fn add(&mut self, domain: &str, host: usize) -> Result<(), DuplicateDomain> {
        let lower = domain.to_ascii_lowercase();
        let before = if lower == "*" {
            self.any.replace(host)
        } else if let Some(suffix) = lower.strip_prefix('*') {
            self.suffixes.entry(suffix.len()).or_default().insert(suffix, host)
        } else if let Some(prefix) = lower.strip_suffix('*') {
            self.prefixes.entry(prefix.len()).or_default().insert(prefix, host)
        } else {
            self.exact.insert(&lower, host)
        };
        if before.is_some() { Err(DuplicateDomain(domain.to_owned())) } else { Ok(()) }
    }

    /// The virtual host of `authority`, compared without case.
    pub(crate) fn find(&self, authority: &[u8]) -> Option<usize> {
        if self.exact.0.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let authority = if self.ignore_port { split_port(authority).0 } else { authority };
        let mut buffer = [0; HOST];
        let Some(host) = buffer.get_mut(..authority.len()) else { return self.any };
        host.copy_from_slice(authority);
        host.make_ascii_lowercase();
        let host = &*host;
        self.exact.find(host).or_else(|| self.by_suffix(host)).or_else(|| self.by_prefix(host)).or(self.any)
    }

    /// The star stands for one character at least.
    fn by_suffix(&self, host: &[u8]) -> Option<usize> {
        let shorter = self.suffixes.range(..host.len()).rev();
        shorter.into_iter().find_map(|(len, domains)| domains.find(&host[host.len() - len..]))
    }

    fn by_prefix(&self, host: &[u8]) -> Option<usize> {
        let shorter = self.prefixes.range(..host.len()).rev();
        shorter.into_iter().find_map(|(len, domains)| domains.find(&host[..*len]))
    }
}

impl fmt::Debug for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domains({} exact)", self.exact.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(names: &[&str], ignore_port: bool) -> Domains {
        let mut domains = Domains::new(ignore_port);
        for (host, name) in names.iter().enumerate() {
            domains.add(name, host).unwrap();
        }
        domains
    }

    #[test]
    fn the_best_match_wins_whatever_the_order() {
        let names =
            ["*", "www.*", "*.example.org", "a.example.org", "*-x.example.org", "www.example.*", "h:8080"];
        let domains = domains(&names, false);
        let cases = [
            ("A.Example.ORG", Some(3)),
            ("b.example.org", Some(2)),
            ("b-x.example.org", Some(4)),
            ("example.org", Some(0)),
            (".example.org", Some(0)),
            ("www.test", Some(1)),
            ("www.example.com", Some(5)),
            ("www.example.org", Some(2)),
            ("www.", Some(0)),
            ("h", Some(0)),
            ("h:8080", Some(6)),
            ("a.example.org:80", Some(0)),
            ("", Some(0)),
        ];
        for (host, want) in cases {
            assert_eq!(domains.find(host.as_bytes()), want, "{host}");
        }
    }

    #[test]
    fn no_star_no_host() {
        let domains = domains(&["a"], false);
        assert_eq!(domains.find(b"b"), None);
        assert_eq!(domains.find(&[b'a'; 4000]), None);
    }

    #[test]
    fn ports_can_be_ignored() {
        let domains = domains(&["a", "[::1]"], true);
        assert_eq!(domains.find(b"a:80"), Some(0));
        assert_eq!(domains.find(b"[::1]:80"), Some(1));
        assert_eq!(domains.find(b"[::1]"), Some(1));
    }

    #[test]
    fn a_domain_belongs_to_one_host() {
        let mut domains = domains(&["a", "*", "*.b", "c.*"], false);
        for domain in ["A", "*", "*.b", "c.*"] {
            assert_eq!(domains.add(domain, 9), Err(DuplicateDomain(domain.into())));
        }
    }
}
