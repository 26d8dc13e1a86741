//! Where a runner can be reached, from what it says and from where it calls.

use std::net::{IpAddr, SocketAddr};

use prism_core::socket::host_port;

/// Why a data endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no data endpoint, advertise `host:port`")]
pub(super) struct Unusable(String);

/// The address to dial.
///
/// Runners name themselves in terms of their own host: `:50051`, `0.0.0.0:50051`, `localhost:50051`.
/// Seen from another host these are this host, so their host is replaced by the one that the runner's
/// control stream comes from. A runner on this host comes from a loopback address and keeps it.
pub(super) fn resolve(said: &str, peer: Option<IpAddr>) -> Result<String, Unusable> {
    let unusable = || Unusable(said.to_owned());
    let address = said.trim().trim_start_matches("http://").trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or_else(unusable)?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(unusable)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let own = match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_unspecified() || ip.is_loopback(),
        Err(_) => bare.is_empty() || bare.eq_ignore_ascii_case("localhost"),
    };
    match peer {
        Some(peer) if own => Ok(host_port(peer, port)),
        None if own => Err(unusable()),
        // An IPv6 address without brackets would be ambiguous.
        _ if bare.contains(':') && bare == host => Err(unusable()),
        _ if bare.contains(|character: char| character.is_whitespace() || character == '/') => {
            Err(unusable())
        }
        _ => Ok(format!("{host}:{port}")),
    }
}

/// The host part of where a stream comes from.
pub(super) fn host(peer: Option<SocketAddr>) -> Option<IpAddr> {
    peer.map(|peer| peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, said: &str) -> Result<String, Unusable> {
        resolve(said, Some(peer.parse().unwrap()))
    }

    #[test]
    fn a_host_in_its_own_terms_is_replaced_by_where_it_calls_from() {
        for said in [
            ":50051",
            "0.0.0.0:50051",
            "[::]:50051",
            "localhost:50051",
            "127.0.0.1:50051",
            "http://:50051/",
        ] {
            assert_eq!(from("10.0.0.7", said).unwrap(), "10.0.0.7:50051", "{said}");
            assert_eq!(from("127.0.0.1", said).unwrap(), "127.0.0.1:50051", "{said}");
            assert_eq!(from("fd00::7", said).unwrap(), "[fd00::7]:50051", "{said}");
            assert_eq!(from("::ffff:10.0.0.7", said).unwrap(), "10.0.0.7:50051", "{said}");
        }
    }

    #[test]
    fn a_real_host_is_kept() {
        for said in ["runner.example:50051", "192.168.1.9:50051", "[fd00::9]:50051"] {
            assert_eq!(from("10.0.0.7", said).unwrap(), said);
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for said in [
            "",
            "50051",
            "host:",
            "host:0",
            "host:99999",
            "host:http",
            "fd00::9:50051",
            "a b:1",
            "a/b:1",
        ] {
            assert!(from("10.0.0.7", said).is_err(), "{said}");
        }
        assert!(resolve(":50051", None).is_err());
        assert!(resolve("runner.example:50051", None).is_ok());
    }
}
