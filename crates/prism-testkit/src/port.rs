//! Ports for servers.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

/// Below the range from which systems take the ports of outgoing connections. A port from that range
/// could be taken by somebody's connection while the server that owns it is down, and a client that
/// retries such a port can even connect to itself.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A loopback TCP port that nobody listens on, never the same twice in one process.
///
/// Another process may take it before the caller does: be ready to try again with another one.
///
/// # Panics
/// When a thousand random ports are all taken.
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock();
    let given = given.get_or_insert_default();
    for _ in 0..1_000 {
        let port = rand::random_range(RANGE);
        if !given.contains(&port) && probe(port).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("found no free port between {} and {}", RANGE.start, RANGE.end);
}

/// Binds without listening. A process that is being forked meanwhile holds a copy of the socket until
/// it executes its program; a listening copy would keep the port taken for that long.
fn probe(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let ports: HashSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
        for port in ports {
            let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
            assert!(probe(port).is_err());
        }
    }
}
