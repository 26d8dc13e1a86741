//! Whose call it is, as far as that is known. `docs/decisions` says what is believed, and why.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use prism_core::caller::{PEER, PRINCIPAL};
use tonic::metadata::MetadataMap;

/// Who counts as one caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Somebody whom a proxy knows by name.
    Principal(String),
    /// Whoever calls from one host: an IPv4 address, or the 64 bits of an IPv6 network, of which a host
    /// usually has all addresses.
    Host(IpAddr),
    /// All of whom nothing is known.
    Unknown,
}

impl Caller {
    /// Whose call it is. What the metadata says is believed: the data endpoint has taken out what no
    /// proxy of ours has said.
    pub(crate) fn of(metadata: &MetadataMap, connected: Option<SocketAddr>) -> Self {
        let said = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        if let Some(principal) = said(PRINCIPAL).filter(|name| !name.is_empty()) {
            return Self::Principal(principal.to_owned());
        }
        let peer = said(PEER).and_then(|text| text.parse().ok());
        match peer.or(connected.map(|address| address.ip())) {
            Some(address) => Self::Host(host(address)),
            None => Self::Unknown,
        }
    }
}

fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        short => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(said: &[(&'static str, &str)], connected: Option<&str>) -> Caller {
        let mut metadata = MetadataMap::new();
        for (key, value) in said {
            metadata.insert(*key, value.parse().unwrap());
        }
        Caller::of(&metadata, connected.map(|address| address.parse().unwrap()))
    }

    fn at(address: &str) -> Caller {
        Caller::Host(address.parse().unwrap())
    }

    #[test]
    fn a_principal_counts_before_the_peer_and_that_before_the_connection() {
        let proxy = Some("10.0.0.9:4000");
        let (principal, peer) = ((PRINCIPAL, "alice"), (PEER, "192.0.2.7"));
        let alice = Caller::Principal("alice".to_owned());
        assert_eq!(caller(&[principal, peer], proxy), alice);
        assert_eq!(caller(&[peer], proxy), at("192.0.2.7"));
        assert_eq!(caller(&[], proxy), at("10.0.0.9"));
        assert_eq!(caller(&[], None), Caller::Unknown);
        assert_eq!(
            caller(&[(PRINCIPAL, ""), (PEER, "nonsense")], proxy),
            at("10.0.0.9"),
            "what says nothing is nothing"
        );
    }

    #[test]
    fn a_host_is_one_caller_whatever_port_or_address_of_its_network_it_takes() {
        assert_eq!(caller(&[], Some("192.0.2.7:1")), caller(&[], Some("192.0.2.7:2")));
        assert_eq!(caller(&[(PEER, "::ffff:192.0.2.7")], None), at("192.0.2.7"));
        assert_eq!(
            caller(&[(PEER, "2001:db8:1:2:3:4:5:6")], None),
            caller(&[(PEER, "2001:db8:1:2::1")], None)
        );
        assert_ne!(
            caller(&[(PEER, "2001:db8:1:2::1")], None),
            caller(&[(PEER, "2001:db8:1:3::1")], None)
        );
    }
}
