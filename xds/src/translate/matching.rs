//! Filter chain matches.

use std::mem::take;

use corelane::config::{ChainMatch, Cidr, SourceType};
use corelane_proto::envoy::config::{
    core::v3::CidrRange,
    listener::v3::{FilterChainMatch, filter_chain_match::ConnectionSourceType},
};

use crate::{problem::Path, translate::rest::Translator};

impl Translator<'_> {
    pub(super) fn chain_match(&mut self, mut message: FilterChainMatch, path: &Path<'_>) -> ChainMatch {
        let source_type = match message.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        };
        message.source_type = 0;
        let direct = take(&mut message.direct_source_prefix_ranges);
        let matches = ChainMatch {
            // The API's own rules keep ports within 1 and 65,535.
            destination_port: message.destination_port.take().and_then(|port| u16::try_from(port).ok()),
            destinations: self.ranges(take(&mut message.prefix_ranges), &path.field("prefix_ranges")),
            server_names: take(&mut message.server_names),
            transport_protocol: take(&mut message.transport_protocol),
            application_protocols: take(&mut message.application_protocols),
            direct_sources: self.ranges(direct, &path.field("direct_source_prefix_ranges")),
            source_type,
            sources: self
                .ranges(take(&mut message.source_prefix_ranges), &path.field("source_prefix_ranges")),
            source_ports: take(&mut message.source_ports)
                .into_iter()
                .filter_map(|port| u16::try_from(port).ok())
                .collect(),
        };
        self.done(message, path);
        matches
    }

    fn ranges(&mut self, ranges: Vec<CidrRange>, list: &Path<'_>) -> Vec<Cidr> {
        let mut found = Vec::with_capacity(ranges.len());
        for (at, range) in ranges.into_iter().enumerate() {
            found.extend(self.cidr(&range, &list.index(at)));
        }
        found
    }

    pub(super) fn cidr(&mut self, range: &CidrRange, path: &Path<'_>) -> Option<Cidr> {
        let Ok(ip) = range.address_prefix.parse() else {
            let what = format!("{:?} is not an IP address", range.address_prefix);
            self.refuse(&path.field("address_prefix"), what);
            return None;
        };
        // Without a length Envoy takes the range of all addresses.
        let len = range.prefix_len.unwrap_or(0);
        let cidr = u8::try_from(len).ok().and_then(|len| Cidr::new(ip, len));
        if cidr.is_none() {
            self.refuse(&path.field("prefix_len"), format!("{len} is more bits than {ip} has"));
        }
        cidr
    }
}
