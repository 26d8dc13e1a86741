//! The TCP settings under every long-lived connection.

use std::{io, net::IpAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Prepares a connection so that the loss of its other end is noticed.
///
/// What was sent and is not acknowledged for `patience` breaks the connection; so does a peer that
/// answers no keepalive probe for about as long while nothing is sent. Both are the kernel's own,
/// invisible to the peer: HTTP/2 pings instead would be answered with `too_many_pings` by many.
///
/// # Errors
/// When the operating system refuses a setting.
pub fn tune(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probe = (patience / 3).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(patience)
        .with_interval(probe)
        .with_retries(3);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(patience))?;
    Ok(())
}

/// Puts an address into the form `host:port`, with the brackets that IPv6 needs.
pub fn host_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address.to_canonical(), port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tuned_connection_has_its_limits() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream, Duration::from_secs(8)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(8)));
    }

    #[test]
    fn addresses_print_so_that_they_can_be_dialled() {
        assert_eq!(host_port("10.0.0.1".parse().unwrap(), 80), "10.0.0.1:80");
        assert_eq!(host_port("::1".parse().unwrap(), 80), "[::1]:80");
        assert_eq!(host_port("::ffff:10.0.0.1".parse().unwrap(), 80), "10.0.0.1:80");
    }
}
