//! Addresses to listen on, as operators write them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// A port that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {error}; is the address right, and the port free?")]
pub struct CannotListen {
    /// As it was given.
    pub address: String,
    /// What the system said.
    pub error: io::Error,
}

/// Opens a port: `host:port`, or `:port` for all interfaces; port 0 takes a free one.
///
/// # Errors
/// An address that is none or not here, or a port that is taken.
pub async fn bind(address: &str) -> Result<TcpListener, CannotListen> {
    let bound = match address.strip_prefix(':') {
        Some(port) => all_interfaces(port).await,
        None => TcpListener::bind(address).await,
    };
    bound.map_err(|error| CannotListen {
        address: address.to_owned(),
        error,
    })
}

async fn all_interfaces(port: &str) -> io::Result<TcpListener> {
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is no number"))?;
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A port that is taken is taken: the other family would hide that.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// The address at which this host reaches a listener of its own.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        ip if !ip.is_unspecified() => ip,
        // A socket for all of version 6 takes version 4 as well.
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_in_every_form() {
        for address in [":0", "127.0.0.1:0", "localhost:0", "[::]:0"] {
            let bound = bind(address).await.unwrap().local_addr().unwrap();
            assert_ne!(bound.port(), 0, "{address}");
        }
        let listener = bind(":0").await.unwrap();
        let reached = tokio::net::TcpStream::connect(reachable(listener.local_addr().unwrap())).await;
        assert!(reached.is_ok());
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said_to_be() {
        let taken = bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let _holder = bind(&taken).await.unwrap();
        let error = bind(&taken).await.unwrap_err().to_string();
        assert!(error.contains(&taken) && error.contains("in use"), "{error}");
        for address in ["", ":", ":x", "nowhere", "localhost:99999"] {
            assert!(bind(address).await.is_err(), "{address}");
        }
    }
}
