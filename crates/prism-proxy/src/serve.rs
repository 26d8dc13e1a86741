//! A listening port: connections in, requests to a service, an orderly end with a hard limit.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use prism_core::corked::Corked;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::patience;

/// What bounds the connections of a port.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many may be open; more wait to be accepted.
    pub connections: usize,
    /// How many calls one may have under way.
    pub streams: u32,
    /// How many bytes the headers of a request may have. More are answered with 431, which says little to
    /// a gRPC client: what serves the port should have a lower bound of its own.
    pub headers: u32,
    /// A client that says nothing for this long after it connected is disconnected.
    pub silence: Duration,
    /// How often an idle client is asked whether it is still there, and how long it may take to answer.
    pub keep_alive: Duration,
    /// How many bytes of a request a client may send ahead, for each call.
    pub stream_window: u32,
    /// The same for all calls of a connection together.
    pub connection_window: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 10_000,
            streams: 20_000,
            headers: 128 << 10,
            silence: Duration::from_secs(10),
            keep_alive: Duration::from_secs(20),
            stream_window: 256 << 10,
            // Has to have room for a moment in which all of a client's streams speak: see the test.
            connection_window: 16 << 20,
        }
    }
}

/// How many calls of one client may be given up before they are looked at. More are taken for an attack,
/// and end its connection. The library's own bound is that of a client with twenty calls under way.
const MAX_GIVEN_UP: usize = 1_024;

/// The IP address of a request's client, as text; an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) HeaderValue);

impl Peer {
    fn of(stream: &TcpStream) -> Option<Self> {
        let address = stream.peer_addr().ok()?.ip().to_canonical();
        HeaderValue::try_from(address.to_string()).ok().map(Self)
    }
}

/// A port that is served until it is drained or dropped.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    /// Take no new connections, and no new calls on those that are there.
    drain: CancellationToken,
    /// End everything now.
    end: CancellationToken,
    tasks: TaskTracker,
}

impl Port {
    /// Serves a bound listener. `answer` is called once for each request; its future is dropped when
    /// the client gives the request up.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve<S, F, B>(
        listener: TcpListener,
        settings: Settings,
        connections: Gauge,
        answer: S,
    ) -> std::io::Result<Self>
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let port = Self {
            address: listener.local_addr()?,
            drain: CancellationToken::new(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let acceptor = Acceptor {
            places: Arc::new(Semaphore::new(settings.connections)),
            builder: builder(&settings, port.tasks.clone()),
            silence: settings.silence,
            drain: port.drain.clone(),
            end: port.end.clone(),
            tasks: port.tasks.clone(),
            connections,
        };
        port.tasks.spawn(acceptor.run(listener, answer));
        Ok(port)
    }

    /// The address that clients reach.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port, tells clients to go elsewhere, and lets calls under way end until `deadline`.
    /// `false` when something is left then: [`Self::end`] ends it. Dropping the future ends everything
    /// at once.
    pub async fn drain(&self, deadline: Instant) -> bool {
        let ended = self.end.clone().drop_guard();
        self.drain.cancel();
        self.tasks.close();
        let clean = tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_ok();
        ended.disarm();
        clean
    }

    /// Ends what is left, now.
    pub async fn end(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// Runs hyper's tasks, one for each request, where they can be waited for. Each ends with the connection
/// that it belongs to, or when its client loses interest in the answer.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(patience::limited(future));
    }
}

fn builder(settings: &Settings, tasks: TaskTracker) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(Tracked(tasks));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.silence)
        .max_buf_size((settings.headers as usize).max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(settings.headers)
        .max_pending_accept_reset_streams(MAX_GIVEN_UP)
        // Counts, over the life of a connection, whatever was still on its way when its call was refused:
        // after a thousand, a client that is far away would lose all its streams. Not needed against one
        // that sends nonsense to have its calls reset: each counts as open until its reset has been sent.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(settings.keep_alive)
        .keep_alive_timeout(settings.keep_alive)
        .auto_date_header(false);
    builder
}

struct Acceptor {
    places: Arc<Semaphore>,
    builder: auto::Builder<Tracked>,
    silence: Duration,
    drain: CancellationToken,
    end: CancellationToken,
    tasks: TaskTracker,
    connections: Gauge,
}

impl Acceptor {
    async fn run<S, F, B>(self, listener: TcpListener, answer: S)
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        while let Some((stream, place)) = self.next(&listener).await {
            let connection = self.connection(stream, answer.clone());
            let (end, count) = (self.end.clone(), Counted::new(&self.connections));
            self.tasks.spawn(async move {
                end.run_until_cancelled(connection).await;
                drop((count, place));
            });
        }
    }

    /// The next client, as soon as there is a place for it; `None` when the port is to close.
    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let accept = async {
            loop {
                let place = self.places.clone().acquire_owned().await.ok()?;
                match listener.accept().await {
                    Ok((stream, _)) => return Some((stream, place)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Out of file descriptors, most likely: trying at once would only spin.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.drain.cancelled() => None,
            () = self.end.cancelled() => None,
            accepted = accept => accepted,
        }
    }

    fn connection<S, F, B>(
        &self,
        stream: TcpStream,
        answer: S,
    ) -> impl Future<Output = ()> + Send + use<S, F, B>
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (builder, drain, silence) = (self.builder.clone(), self.drain.clone(), self.silence);
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a client was gone before it was served");
                return;
            }
            // Until the first byte there is no protocol yet, and nothing to drain.
            tokio::select! {
                spoken = tokio::time::timeout(silence, spoken(&stream)) => {
                    if !matches!(spoken, Ok(Ok(()))) {
                        return;
                    }
                }
                () = drain.cancelled() => return,
            }
            let peer = Peer::of(&stream);
            let service = service_fn(move |mut request: Request<Incoming>| {
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(peer.clone());
                }
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = builder.serve_connection(TokioIo::new(Corked::new(stream)), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}

/// Waits until a client has said which protocol it speaks, so that nothing after this can wait for it.
async fn spoken(stream: &TcpStream) -> std::io::Result<()> {
    const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut seen = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut seen).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length if length < PREFACE.len() && PREFACE.starts_with(&seen[..length]) => {
                // More will come, and what is there already cannot be waited for.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => return Ok(()),
        }
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library ends a connection when it holds many small messages that have not been read: each
    /// costs up to this much of a budget of half the connection's window.
    const SMALL_MESSAGE: u32 = 256;

    #[test]
    fn all_streams_of_a_client_may_speak_at_once() {
        let settings = Settings::default();
        assert!(settings.streams * SMALL_MESSAGE <= settings.connection_window / 2);
    }
}
