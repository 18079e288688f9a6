//! Ranges of IP addresses. Pure.

use std::{fmt, net::IpAddr};

/// The addresses that share their first `len` bits (Envoy `CidrRange`). Bits behind those are zero, and an IPv4 address
/// that is mapped into IPv6 counts as the IPv4 address it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    ip: IpAddr,
    len: u8,
}

impl Cidr {
    /// The range of `len` bits around `ip`; `None` if an address has fewer bits.
    pub fn new(ip: IpAddr, len: u8) -> Option<Cidr> {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        if len > bits {
            return None;
        }
        let ip = mask(ip, len);
        match (ip.to_canonical(), ip) {
            // `::ffff:0:0/96` and what is inside it.
            (IpAddr::V4(v4), IpAddr::V6(_)) if len >= 96 => Some(Cidr { ip: IpAddr::V4(v4), len: len - 96 }),
            _ => Some(Cidr { ip, len }),
        }
    }

    /// The one address.
    pub fn one(ip: IpAddr) -> Cidr {
        let ip = ip.to_canonical();
        Cidr { ip, len: if ip.is_ipv4() { 32 } else { 128 } }
    }

    /// The first address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// How many bits are given.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The range of this length and family that `ip` is in; `None` if it is of the other family.
    pub(crate) fn around(ip: IpAddr, like: &Cidr) -> Option<Cidr> {
        let ip = ip.to_canonical();
        (ip.is_ipv4() == like.ip.is_ipv4()).then(|| Cidr { ip: mask(ip, like.len), len: like.len })
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Cidr::around(ip, self) == Some(*self)
    }
}

fn mask(ip: IpAddr, len: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & keep).into())
        }
        IpAddr::V6(ip) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & keep).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(ip: &str, len: u8) -> Cidr {
        Cidr::new(ip.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn a_range_holds_what_shares_its_bits() {
        for (range, inside, outside) in [
            (cidr("10.1.2.3", 8), "10.255.0.1", "11.0.0.1"),
            (cidr("10.1.2.3", 32), "10.1.2.3", "10.1.2.2"),
            (cidr("0.0.0.0", 0), "255.255.255.255", "::1"),
            (cidr("2001:db8::1", 32), "2001:db8:ffff::", "2001:db9::"),
            (cidr("::", 0), "2001:db8::1", "10.0.0.1"),
            (cidr("::ffff:10.0.0.0", 104), "10.9.9.9", "11.0.0.1"),
            (cidr("10.0.0.0", 8), "::ffff:10.0.0.1", "::10.0.0.1"),
        ] {
            assert!(range.contains(inside.parse().unwrap()), "{inside} in {range}");
            assert!(!range.contains(outside.parse().unwrap()), "{outside} in {range}");
        }
        assert_eq!(cidr("10.1.2.3", 8), cidr("10.0.0.0", 8));
        assert_eq!(cidr("10.1.2.3", 8).to_string(), "10.0.0.0/8");
        assert_eq!(Cidr::new("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Cidr::one("::ffff:10.0.0.1".parse().unwrap()), cidr("10.0.0.1", 32));
    }
}
