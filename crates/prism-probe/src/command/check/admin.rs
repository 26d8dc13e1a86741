//! The admin API: ready or not, and what serves what.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use http::{Request, StatusCode, Uri, header::HOST, uri::Authority};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    listing::{Kind, Listing},
    report::Report,
};
use crate::{
    exit::Exit,
    fault::{Fault, Stop},
};

const DEFAULT_PORT: u16 = 8981;

/// The most of an answer that is read.
const MAX_BYTES: usize = 16 << 20;

/// How long to look for an admin port that nobody spoke of.
const GUESS: Duration = Duration::from_secs(2);

/// Where the admin API listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    authority: Authority,
    /// Somebody said so, and did not leave it to us to guess.
    said: bool,
}

impl Address {
    /// As said, or the usual port on the host of `endpoint`.
    pub(super) fn of(said: Option<&str>, endpoint: Option<&str>) -> Result<Self, Stop> {
        if let Some(text) = said {
            let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            let authority = bare
                .parse::<Authority>()
                .ok()
                .filter(|authority| authority.port_u16().is_some());
            let authority = authority.ok_or_else(|| {
                Fault::usage(
                    "admin",
                    format!("`{text}` is not an address, expected `host:port`"),
                )
            })?;
            return Ok(Self {
                authority,
                said: true,
            });
        }
        let host = endpoint.and_then(|endpoint| endpoint.parse::<Uri>().ok());
        let host = host.as_ref().and_then(Uri::host).unwrap_or("localhost");
        let authority = format!("{host}:{DEFAULT_PORT}").parse::<Authority>();
        let authority = authority.map_err(|_| Fault::usage("endpoint", format!("`{host}` is not a host")))?;
        Ok(Self {
            authority,
            said: false,
        })
    }
}

/// Looks at readiness and, where the API is there, at what it lists, all of it until then.
pub(super) async fn look(address: &Address, until: Instant) -> Report {
    let mut report = Report::default();
    let until = if address.said {
        until
    } else {
        until.min(Instant::now() + GUESS)
    };
    let check = format!("admin {}", address.authority);
    match get(&address.authority, "/readyz?verbose", until).await {
        Ok((StatusCode::OK, _)) => report.fine(check, "ready"),
        Ok((StatusCode::NOT_FOUND, _)) if !address.said => {
            report.absent(check, "something else listens there");
            return report;
        }
        Ok((status, body)) => report.bad(check, Exit::Unavailable, failing(status, &body)),
        Err(error) if address.said => {
            report.bad(check, Exit::Unavailable, format!("{error:#}"));
            return report;
        }
        Err(error) => {
            report.absent(check, format!("{error:#}; --admin says where it is"));
            return report;
        }
    }
    let listings = Kind::ALL
        .into_iter()
        .map(async |kind| (kind, list(&address.authority, kind, until).await));
    for (kind, listing) in join_all(listings).await {
        match listing {
            Ok(listing) => report.list(listing),
            Err(error) => report.bad(
                format!("admin {}", kind.path()),
                Exit::Error,
                format!("{error:#}"),
            ),
        }
    }
    report
}

/// The lines of a readiness report that say what fails, or all of it where none does.
fn failing(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let failing: Vec<_> = lines().filter(|line| line.starts_with("[-]")).collect();
    let told = if failing.is_empty() {
        lines().collect()
    } else {
        failing
    };
    if told.is_empty() {
        format!("answers {status}")
    } else {
        told.join("; ")
    }
}

async fn list(authority: &Authority, kind: Kind, until: Instant) -> anyhow::Result<Listing> {
    let (status, body) = get(authority, kind.path(), until).await?;
    anyhow::ensure!(status.is_success(), "answers {status}");
    let page = serde_json::from_slice(&body).context("does not answer JSON")?;
    Listing::read(kind, page).context("does not answer with a list")
}

async fn get(authority: &Authority, path: &str, until: Instant) -> anyhow::Result<(StatusCode, Bytes)> {
    let began = Instant::now();
    let exchange = timeout_at(until, exchange(authority, path)).await;
    exchange.with_context(|| format!("does not answer within {} ms", began.elapsed().as_millis()))?
}

async fn exchange(authority: &Authority, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(authority.as_str())
        .await
        .map_err(|error| anyhow::anyhow!("cannot be reached: {}", error.to_string().to_lowercase()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let answer = sender
        .send_request(request)
        .await
        .context("does not speak HTTP")?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("breaks off: {error}"))?;
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(said: Option<&str>, endpoint: Option<&str>) -> (String, bool) {
        let address = Address::of(said, endpoint).unwrap_or_else(|stop| panic!("{stop:?}"));
        (address.authority.to_string(), address.said)
    }

    #[test]
    fn the_admin_port_is_where_it_is_said_to_be_or_beside_the_data_port() {
        assert_eq!(address(Some("a:1"), Some("http://b:2")), ("a:1".to_owned(), true));
        assert_eq!(address(Some("http://a:1/"), None), ("a:1".to_owned(), true));
        assert_eq!(address(None, Some("http://b:2")), ("b:8981".to_owned(), false));
        assert_eq!(
            address(None, Some("http://[::1]:2")),
            ("[::1]:8981".to_owned(), false)
        );
        for wrong in ["a", "a b:1", "https://a:1", ""] {
            assert!(Address::of(Some(wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_fails_is_told() {
        let body =
            b"[+] listeners ok\n[-] control failed: draining\n[i] namespace a has no runner\nnot ready\n";
        let told = failing(StatusCode::SERVICE_UNAVAILABLE, body);
        assert_eq!(told, "[-] control failed: draining");
        assert_eq!(
            failing(StatusCode::SERVICE_UNAVAILABLE, b"starting\n"),
            "starting"
        );
        assert!(failing(StatusCode::SERVICE_UNAVAILABLE, b"").contains("503"));
    }
}
