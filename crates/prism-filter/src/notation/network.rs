//! Internet addresses as text, and the networks that hold them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a network may be, for error messages.
pub(crate) const EXPECTED: &str =
    "a network such as `10.0.0.0/8` or `2001:db8::/32`, with no bit set beyond its prefix";

/// The address that a text says; `None` for anything else, with a port, a zone or a leading zero too.
///
/// An IPv4 address that is mapped into IPv6, as sockets for both families tell it, is that IPv4 address.
///
/// ```
/// # use prism_filter::notation::address;
/// assert_eq!(address("::ffff:10.1.2.3"), address("10.1.2.3"));
/// assert_eq!(address("10.1.2.3:80"), None);
/// ```
pub fn address(text: &str) -> Option<IpAddr> {
    // Most texts that are no address show it in the first character.
    let first = text.bytes().next()?;
    let possible = first.is_ascii_hexdigit() || first == b':';
    let address: IpAddr = possible.then(|| text.parse().ok())??;
    Some(address.to_canonical())
}

/// A range of addresses with a common prefix.
///
/// A network of IPv6 holds no IPv4 address, also where its prefix covers the mapped ones as `::/0` does;
/// one within the mapped addresses, such as `::ffff:10.0.0.0/104`, is the network of IPv4 that it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    last: IpAddr,
}

impl Network {
    /// Reads `address/prefix`; an address alone is the network of that address. `None` for anything else,
    /// and where the address has bits beyond the prefix: then one of the two is a mistake.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(length(prefix)?)),
            None => (text, None),
        };
        match base.parse().ok()? {
            IpAddr::V4(base) => Self::of_v4(base, prefix.unwrap_or(32)),
            IpAddr::V6(base) => Self::of_v6(base, prefix.unwrap_or(128)),
        }
    }

    fn of_v4(base: Ipv4Addr, prefix: u32) -> Option<Self> {
        let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let known = prefix <= 32 && base.to_bits() & host == 0;
        known.then(|| Self {
            first: base.into(),
            last: Ipv4Addr::from_bits(base.to_bits() | host).into(),
        })
    }

    fn of_v6(base: Ipv6Addr, prefix: u32) -> Option<Self> {
        if let (Some(mapped), 96..=128) = (base.to_ipv4_mapped(), prefix) {
            return Self::of_v4(mapped, prefix - 96);
        }
        let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
        let known = prefix <= 128 && base.to_bits() & host == 0;
        known.then(|| Self {
            first: base.into(),
            last: Ipv6Addr::from_bits(base.to_bits() | host).into(),
        })
    }

    /// The smallest address in it.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The largest address in it. All others lie between the two: addresses are ordered by family and then
    /// by value.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether an address, as [`address`] reads it, is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }
}

/// A prefix length as it is written: digits, without leading zeros or a sign.
fn length(text: &str) -> Option<u32> {
    let canonical = text.len() == 1 || !text.starts_with(['0', '+']);
    canonical.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    fn holds(network: &str, one: &str) -> bool {
        let network = Network::parse(network).unwrap_or_else(|| panic!("{network}"));
        address(one).is_some_and(|address| network.contains(address))
    }

    #[test]
    fn networks_hold_the_addresses_with_their_prefix() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "10.0.0.0", "9.255.255.255"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
            ("192.168.0.0/31", "192.168.0.1", "192.168.0.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::/32", "2001:DB8::1", "2001:db7:ffff::"),
            ("::1", "0:0:0:0:0:0:0:1", "::2"),
            ("fe80::/10", "febf::1", "fec0::"),
        ] {
            assert!(holds(network, inside), "{inside} in {network}");
            assert!(!holds(network, outside), "{outside} in {network}");
        }
        for inside in ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"] {
            assert!(holds("0.0.0.0/0", inside), "{inside}");
            assert!(!holds("::/0", inside), "{inside}");
        }
        assert!(holds("::/0", "::") && holds("::/0", "ffff::1") && !holds("0.0.0.0/0", "::"));
    }

    /// A socket for both families tells an IPv4 peer as a mapped address.
    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        for network in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104"] {
            assert!(holds(network, "10.1.2.3"), "{network}");
            assert!(holds(network, "::ffff:10.1.2.3"), "{network}");
            assert!(holds(network, "::ffff:a01:203"), "{network}");
            assert!(!holds(network, "::10.1.2.3"), "{network}");
            assert!(!holds(network, "64:ff9b::10.1.2.3"), "{network}");
        }
        assert_eq!(Network::parse("::ffff:0:0/96"), Network::parse("0.0.0.0/0"));
        // Prefixes that cover the mapped addresses and more are networks of IPv6.
        for network in ["::/64", "::/80", "::/0"] {
            assert!(!holds(network, "::ffff:10.1.2.3"), "{network}");
            assert!(holds(network, "::10.1.2.3"), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.1.0.0/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "10.0.0.0/255.0.0.0",
            "2001:db8::1/32",
            "2001:db8::/129",
            "::ffff:10.1.0.0/104",
            "::ffff:0:0/95",
            "fe80::1%eth0",
            "host",
            " 10.0.0.0/8",
            "1/8",
            "10.0.0.0/4294967296",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        for text in [
            "",
            "10.1.2",
            "10.1.2.3 ",
            "10.1.2.3/32",
            "10.1.2.3:80",
            "[::1]",
            "fe80::1%1",
            "010.1.2.3",
            "a",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    proptest! {
        /// Bit by bit.
        #[test]
        fn networks_are_prefixes(base in any::<u128>(), prefix in 0_u32..129, flipped in 0_u32..128, six in any::<bool>()) {
            let width = if six { 128 } else { 32 };
            let (prefix, flipped) = (prefix % (width + 1), flipped % width);
            let base = if six { base | 1 << 127 } else { base & u128::from(u32::MAX) };
            let text = |bits: u128| if six { Ipv6Addr::from_bits(bits).to_string() } else { Ipv4Addr::from_bits(bits as u32).to_string() };
            let kept = if prefix == 0 { 0 } else { base >> (width - prefix) << (width - prefix) };
            let network = Network::parse(&format!("{}/{prefix}", text(kept))).unwrap();
            prop_assert!(network.contains(address(&text(base)).unwrap()));
            let other = base ^ 1 << (width - 1 - flipped);
            prop_assert_eq!(network.contains(address(&text(other)).unwrap()), flipped >= prefix);
        }

        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof!["[0-9a-f:./]{0,20}", "\\PC{0,12}"], prefix in select(vec!["", "/0", "/32", "/128"])) {
            let _ = address(&text);
            if let Some(network) = Network::parse(&format!("{text}{prefix}")) {
                prop_assert!(network.first() <= network.last());
            }
        }
    }
}
