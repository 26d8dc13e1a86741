//! A connection to a proxy, made once and never silently remade.

use std::{io, net::IpAddr, time::Duration};

use hyper_util::rt::TokioIo;
use prism_core::socket;
use tokio::{net::TcpStream, time::timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Why a proxy was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Refused(#[from] io::Error),
    #[error("no http/2 connection: {0}")]
    Handshake(#[from] tonic::transport::Error),
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// This process as the proxy sees it.
    pub(crate) host: IpAddr,
}

/// Connects. `unacknowledged` is how long the proxy's host may leave sent bytes unacknowledged.
pub(crate) async fn dial(
    address: &str,
    within: Duration,
    unacknowledged: Duration,
) -> Result<Connection, DialError> {
    timeout(within, connect(address, unacknowledged))
        .await
        .unwrap_or(Err(DialError::Timeout(within)))
}

async fn connect(address: &str, unacknowledged: Duration) -> Result<Connection, DialError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let stream = TcpStream::connect(address).await?;
    socket::tune(&stream, unacknowledged)?;
    let host = stream.local_addr()?.ip();
    // A channel would reconnect by itself, behind the back of the session that has to register anew.
    let mut once = Some(TokioIo::new(stream));
    let connector = service_fn(move |_: Uri| {
        let stream = once
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted));
        std::future::ready(stream)
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(Connection { channel, host })
}

/// An address that cannot be dialled, whatever the network does.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a proxy, write `host:port`")]
pub(crate) struct NoAddress(String);

/// The `host:port` of an address as operators write it: with or without a scheme, with or without a
/// host.
pub(crate) fn normalized(written: &str) -> Result<String, NoAddress> {
    let address = written.trim().trim_start_matches("http://").trim_end_matches('/');
    let no_address = || NoAddress(written.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
    let port: u16 = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(no_address)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(char::is_whitespace) || host.contains(':') && !bracketed {
        return Err(no_address());
    }
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_operators_write_them() {
        for written in [
            "localhost:9090",
            "http://localhost:9090",
            "http://localhost:9090/",
            " :9090 ",
        ] {
            assert_eq!(normalized(written).unwrap(), "localhost:9090", "{written}");
        }
        assert_eq!(normalized("[::1]:9090").unwrap(), "[::1]:9090");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for written in [
            "",
            "localhost",
            "host:",
            "host:0",
            "host:http",
            "host:99999",
            "::1:9090",
            "a b:1",
        ] {
            assert_eq!(
                normalized(written),
                Err(NoAddress(written.to_owned())),
                "{written}"
            );
        }
    }
}
