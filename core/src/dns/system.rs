//! What the machine says about names: `/etc/resolv.conf` (resolv.conf(5)) and `/etc/hosts` (hosts(5)). Owns their grammar.

use crate::limits::{DNS_SEARCH, DNS_SERVERS};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// The port of name servers.
const PORT: u16 = 53;

/// Whom a machine asks for names, and which ones it knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The name servers, in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind names that are not complete.
    pub search: Vec<String>,
    /// A name with so many dots is first tried as it is.
    pub ndots: usize,
    /// How long a server has for an answer.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: u32,
    /// Begins with another server each time.
    pub rotate: bool,
    /// Asks over TCP only.
    pub use_tcp: bool,
    /// Addresses of names that nobody is asked for; the names in lower case.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl Default for System {
    /// What the C library does without any file, but for the server on the same machine: none is asked.
    fn default() -> System {
        System {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            use_tcp: false,
            hosts: BTreeMap::new(),
        }
    }
}

impl System {
    /// What the texts of the two files say. Lines that are not understood are skipped, as the C library does.
    pub fn parse(resolv_conf: &str, hosts: &str) -> System {
        let mut system = System::default();
        for line in resolv_conf.lines() {
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("nameserver") => system.servers.extend(words.next().and_then(server)),
                // The last of these lines counts.
                Some("search" | "domain") => system.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| system.option(option)),
                _ => {}
            }
        }
        system.servers.truncate(DNS_SERVERS);
        system.search.truncate(DNS_SEARCH);
        // A root of its own means: as it is.
        system.search.retain(|domain| domain != ".");
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                system.hosts.entry(name.to_ascii_lowercase()).or_default().push(ip);
            }
        }
        system
    }

    /// What the files of this machine say. One that is not there says nothing; without servers the one of this machine is
    /// asked, as the C library does.
    #[expect(clippy::disallowed_methods, reason = "two small files, on the resolver's own thread")]
    pub(super) fn read() -> System {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mut system = System::parse(&text("/etc/resolv.conf"), &text("/etc/hosts"));
        if system.servers.is_empty() {
            system.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        }
        system
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<u32>().ok();
        // The bounds are the C library's.
        match (name, number) {
            ("ndots", Some(n)) => self.ndots = n.min(15) as usize,
            ("timeout", Some(n)) => self.timeout = Duration::from_secs(n.clamp(1, 30).into()),
            ("attempts", Some(n)) => self.attempts = n.clamp(1, 5),
            ("rotate", _) => self.rotate = true,
            ("use-vc", _) => self.use_tcp = true,
            _ => {}
        }
    }

    /// The addresses of a name that this machine knows itself.
    pub(super) fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(known) = self.hosts.get(&name) {
            return Some(known.clone());
        }
        // RFC 6761 section 6.3: never asked for.
        let local = name == "localhost" || name.ends_with(".localhost");
        local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    }

    /// The complete names to try for a text, in turn.
    pub(super) fn candidates(&self, text: &str, search: bool) -> Vec<String> {
        if let Some(complete) = text.strip_suffix('.') {
            return vec![complete.to_owned()];
        }
        let domains = self.search.iter().filter(|_| search);
        let mut names: Vec<_> = domains.map(|domain| format!("{text}.{domain}")).collect();
        let as_it_is = text.bytes().filter(|byte| *byte == b'.').count() >= self.ndots;
        let at = if as_it_is { 0 } else { names.len() };
        names.insert(at, text.to_owned());
        names
    }
}

/// A server's address; one of IPv6 may name an interface, which only link-local ones need.
fn server(word: &str) -> Option<SocketAddr> {
    let (ip, zone) = word.split_once('%').map_or((word, None), |(ip, zone)| (ip, Some(zone)));
    match (ip.parse().ok()?, zone) {
        (ip, None) => Some(SocketAddr::new(ip, PORT)),
        // An interface by number is understood; by name it would take a system call, and the server is left out.
        (IpAddr::V6(ip), Some(zone)) => {
            Some(std::net::SocketAddrV6::new(ip, PORT, 0, zone.parse().ok()?).into())
        }
        (IpAddr::V4(_), Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_c_library_reads_them() {
        let system = System::parse(
            "# comment\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \nnameserver bad\nnameserver fe80::1%3\n\
             nameserver 192.0.2.9\ndomain old.test\nsearch a.test b.test .\n\
             options ndots:2 timeout:1 attempts:99 rotate inet6 timeout:x\n",
            "127.0.0.1 localhost # here\n192.0.2.7  Web.test web # two\n2001:db8::7 web.test\nnonsense\n\n",
        );
        let servers: Vec<_> = system.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%3]:53"]);
        assert_eq!(system.search, ["a.test", "b.test"]);
        assert_eq!((system.ndots, system.timeout, system.attempts), (2, Duration::from_secs(1), 5));
        assert!(system.rotate && !system.use_tcp);
        assert_eq!(
            system.known("WEB.test."),
            Some(vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()])
        );
        assert_eq!(system.known("web").map(|ips| ips.len()), Some(1));
        assert_eq!(system.known("other"), None);
    }

    #[test]
    fn localhost_is_this_machine() {
        let local = System::default().known("x.localhost").unwrap();
        assert_eq!(local, [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        let told = System::parse("", "127.0.0.1 localhost\n");
        assert_eq!(told.known("localhost"), Some(vec![Ipv4Addr::LOCALHOST.into()]), "the file counts more");
    }

    #[test]
    fn search_domains_come_before_or_after_the_name_itself() {
        let system = System::parse("search a.test b.test\noptions ndots:2", "");
        assert_eq!(system.candidates("web", true), ["web.a.test", "web.b.test", "web"]);
        assert_eq!(system.candidates("x.y.z", true), ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]);
        assert_eq!(system.candidates("web.", true), ["web"]);
        assert_eq!(system.candidates("web", false), ["web"]);
    }
}
