//! Making a connection, and not trying it too often.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prism_core::{
    backoff::{Backoff, Policy},
    corked::Corked,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::Endpoint;

/// Connects to the first endpoint that accepts, beginning with the one after that of the last time.
///
/// After a round in which none did, attempts within the pause that follows fail at once, so that many
/// waiting calls share one dial instead of queueing up a dial each. Clones share pauses and turns.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Shared>);

struct Shared {
    endpoints: Vec<Endpoint>,
    timeout: Duration,
    gate: Mutex<Gate>,
}

struct Gate {
    backoff: Backoff,
    turn: usize,
    closed: Option<(Instant, Refused)>,
}

#[derive(Clone)]
struct Refused {
    endpoint: String,
    message: String,
}

/// No endpoint accepted a connection.
#[derive(Debug, Clone)]
pub(crate) struct DialError {
    /// The one tried last.
    pub(crate) endpoint: String,
    /// What it said.
    pub(crate) message: String,
    /// When the next dial will be made.
    pub(crate) retry_after: Duration,
}

impl Dialer {
    /// `timeout` is that of one attempt at one endpoint.
    pub(crate) fn new(endpoints: Vec<Endpoint>, timeout: Duration, backoff: Policy) -> Self {
        let turn = rand::random_range(0..endpoints.len().max(1));
        Self(Arc::new(Shared {
            endpoints,
            timeout,
            gate: Mutex::new(Gate {
                backoff: Backoff::new(backoff),
                turn,
                closed: None,
            }),
        }))
    }

    async fn dial(self) -> Result<TokioIo<Corked<TcpStream>>, DialError> {
        let first = self.0.gate.lock().enter()?;
        let mut refused = Refused {
            endpoint: String::new(),
            message: "no endpoint is configured".to_owned(),
        };
        let count = self.0.endpoints.len();
        for turn in (0..count).map(|step| (first + step) % count) {
            match self.connect(&self.0.endpoints[turn]).await {
                Ok(stream) => {
                    tracing::debug!(endpoint = %self.0.endpoints[turn], "connected");
                    self.0.gate.lock().open(turn + 1);
                    return Ok(TokioIo::new(Corked::new(stream)));
                }
                Err(error) => refused = error,
            }
        }
        Err(self.0.gate.lock().close(refused))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, Refused> {
        let connected = match timeout(self.0.timeout, TcpStream::connect(endpoint.address())).await {
            Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        connected.map_err(|error| {
            tracing::debug!(%endpoint, %error, "cannot connect");
            Refused {
                endpoint: endpoint.to_string(),
                message: error.to_string().to_lowercase(),
            }
        })
    }
}

impl Gate {
    /// Whose turn it is, unless a pause is on.
    fn enter(&self) -> Result<usize, DialError> {
        match &self.closed {
            Some((until, refused)) if *until > Instant::now() => Err(refused.clone().until(*until)),
            _ => Ok(self.turn),
        }
    }

    fn open(&mut self, turn: usize) {
        self.turn = turn;
        self.closed = None;
        self.backoff.reset();
    }

    fn close(&mut self, refused: Refused) -> DialError {
        let until = Instant::now() + self.backoff.pause();
        self.closed = Some((until, refused.clone()));
        refused.until(until)
    }
}

impl Refused {
    fn until(self, until: Instant) -> DialError {
        DialError {
            endpoint: self.endpoint,
            message: self.message,
            retry_after: until.saturating_duration_since(Instant::now()),
        }
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Corked<TcpStream>>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// The address is the dialer's own business: the argument only names the service.
    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot be reached: {}", self.endpoint, self.message)
    }
}

impl std::error::Error for DialError {}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const POLICY: Policy = Policy {
        base: Duration::from_secs(60),
        cap: Duration::from_secs(60),
    };

    fn dialer(addresses: &[std::net::SocketAddr]) -> Dialer {
        let list = addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        Dialer::new(
            Endpoint::parse_list(&list).unwrap(),
            Duration::from_secs(5),
            POLICY,
        )
    }

    async fn listener() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_passed_over_and_turns_go_round() {
        let (_one, one) = listener().await;
        let (_two, two) = listener().await;
        let (gone, dead) = listener().await;
        drop(gone);
        let dialer = dialer(&[one, dead, two]);
        let mut reached = Vec::new();
        for _ in 0..4 {
            reached.push(
                dialer
                    .clone()
                    .dial()
                    .await
                    .unwrap()
                    .inner()
                    .get_ref()
                    .peer_addr()
                    .unwrap(),
            );
        }
        assert_eq!(reached[0], reached[2]);
        assert_eq!(reached[1], reached[3]);
        assert_ne!(reached[0], reached[1]);
        assert!(!reached.contains(&dead));
    }

    #[tokio::test]
    async fn after_a_failed_round_nobody_dials_until_the_pause_is_over() {
        let (gone, dead) = listener().await;
        drop(gone);
        let dialer = dialer(&[dead]);
        let first = dialer.clone().dial().await.unwrap_err();
        assert!(
            first.retry_after >= POLICY.base / 2 - Duration::from_secs(1),
            "{first:?}"
        );
        let back = TcpListener::bind(dead).await.unwrap();
        let second = dialer.clone().dial().await.unwrap_err();
        assert!(second.retry_after <= first.retry_after);
        assert_eq!(second.message, first.message);
        tokio::time::pause();
        tokio::time::advance(POLICY.cap).await;
        tokio::time::resume();
        dialer.dial().await.unwrap();
        drop(back);
    }
}
