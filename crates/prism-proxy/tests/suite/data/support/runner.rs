//! A runner that does as it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

use super::soon;

/// A scripted runner; ends when dropped.
pub struct Runner {
    pub address: SocketAddr,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    arrived: Arc<Notify>,
    kill: Arc<Notify>,
    _tasks: JoinSet<()>,
}

/// One request at a runner.
pub struct Exchange {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Breaks the connection that the request came on.
    pub kill: Arc<Notify>,
}

impl Runner {
    /// Runs the script for each request.
    pub async fn start<F>(script: impl Fn(Exchange) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(u32::MAX, script).await
    }

    /// The same, with so many streams on each connection.
    pub async fn start_with<F>(
        streams: u32,
        script: impl Fn(Exchange) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (calls, arrived) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let (address, kill) = (listener.local_addr().unwrap(), Arc::<Notify>::default());
        let connections = Arc::<AtomicUsize>::default();
        let accepted = connections.clone();
        let mut tasks = JoinSet::new();
        let (count, arriving, killing) = (calls.clone(), arrived.clone(), kill.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (script, calls) = (script.clone(), count.clone());
                let (arrived, kill) = (arriving.clone(), killing.clone());
                connections.spawn(async move {
                    // As patient with crowds as a runner has to be.
                    let mut builder = h2::server::Builder::new();
                    builder
                        .data_frame_budget(usize::MAX)
                        .max_concurrent_streams(streams)
                        .max_pending_accept_reset_streams(usize::MAX);
                    let mut connection = builder.handshake(stream).await.unwrap();
                    let mut exchanges = JoinSet::new();
                    loop {
                        let accepted = tokio::select! {
                            accepted = connection.accept() => accepted,
                            () = kill.notified() => None,
                        };
                        let Some(Ok((request, respond))) = accepted else {
                            break;
                        };
                        calls.fetch_add(1, Ordering::SeqCst);
                        arrived.notify_one();
                        let kill = kill.clone();
                        exchanges.spawn(script(Exchange {
                            request,
                            respond,
                            kill,
                        }));
                    }
                });
            }
        });
        Self {
            address,
            calls,
            connections,
            arrived,
            kill,
            _tasks: tasks,
        }
    }

    /// Answers every unary call with its own message.
    pub async fn echo() -> Self {
        Self::start(|exchange| async move { exchange.echo().await }).await
    }

    /// Takes requests and says nothing.
    pub async fn mute() -> Self {
        Self::start(|exchange| async move {
            let _held = exchange;
            std::future::pending::<()>().await;
        })
        .await
    }

    /// Answers every call with this status and these trailers alone.
    pub async fn failing(code: u16, trailers: &'static [(&'static str, &'static str)]) -> Self {
        Self::start(move |exchange| async move {
            exchange.fail(code, trailers);
        })
        .await
    }

    /// Breaks the connection once the request is in its hands.
    pub async fn dying() -> Self {
        Self::start(|mut exchange| async move {
            exchange.read_message().await;
            exchange.kill.notify_one();
        })
        .await
    }

    /// Refuses every stream.
    pub async fn refusing() -> Self {
        Self::start(|mut exchange| async move {
            exchange.respond.send_reset(Reason::REFUSED_STREAM);
        })
        .await
    }

    /// Answers the first request of each connection with a GOAWAY that says it was not looked at.
    pub async fn leaving() -> Self {
        Self::leaving_after(0).await
    }

    /// The same, but it was looked at. No answer follows.
    pub async fn leaving_midway() -> Self {
        Self::leaving_after(1).await
    }

    async fn leaving_after(last_looked_at: u8) -> Self {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_looked_at, 0, 0, 0, 0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::<AtomicUsize>::default();
        let count = calls.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.unwrap();
                stream.write_all(&SETTINGS).await.unwrap();
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head).await.unwrap();
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    let mut payload = vec![0; length];
                    stream.read_exact(&mut payload).await.unwrap();
                    match head[3] {
                        1 => break,
                        // A ping, which is sent back.
                        6 => {
                            head[4] = 1;
                            stream.write_all(&[&head, &payload[..]].concat()).await.unwrap();
                        }
                        _ => {}
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(&goaway).await.unwrap();
                if last_looked_at == 0 {
                    // Reads on until the proxy closes, so that nothing is lost to a reset.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
            }
        });
        Self {
            address,
            calls,
            connections: Arc::default(),
            arrived: Arc::default(),
            kill: Arc::default(),
            _tasks: tasks,
        }
    }

    /// How many requests have come.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for a request that was not waited for before.
    pub async fn arrival(&self) {
        soon(self.arrived.notified()).await;
    }

    /// Breaks one of its connections.
    pub fn kill(&self) {
        self.kill.notify_one();
    }
}

impl Exchange {
    /// Reads one whole message of the request.
    pub async fn read_message(&mut self) -> Option<Bytes> {
        let mut read = Vec::new();
        loop {
            if let [_, a, b, c, d, content @ ..] = read.as_slice() {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if content.len() >= length {
                    return Some(Bytes::copy_from_slice(&content[..length]));
                }
            }
            let chunk = self.request.body_mut().data().await?.ok()?;
            self.request
                .body_mut()
                .flow_control()
                .release_capacity(chunk.len())
                .unwrap();
            read.extend(chunk);
        }
    }

    /// Reads the request to its end and counts its bytes.
    pub async fn read_all(&mut self) -> usize {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = self.request.body_mut().data().await {
            self.request
                .body_mut()
                .flow_control()
                .release_capacity(chunk.len())
                .unwrap();
            bytes += chunk.len();
        }
        bytes
    }

    /// Begins the answer.
    pub fn begin(&mut self) -> SendStream<Bytes> {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("x-from-runner", "1");
        self.respond.send_response(head.body(()).unwrap(), false).unwrap()
    }

    pub async fn echo(mut self) {
        let content = self.read_message().await.unwrap_or_default();
        let mut stream = self.begin();
        stream.send_data(super::message(&content), false).unwrap();
        stream.send_trailers(ok()).unwrap();
    }

    /// Answers with headers alone.
    pub fn fail(mut self, code: u16, trailers: &[(&'static str, &'static str)]) {
        let mut head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", code);
        for (name, value) in trailers {
            head = head.header(*name, *value);
        }
        self.respond.send_response(head.body(()).unwrap(), true).unwrap();
    }
}

/// Trailers of a call that went well.
pub fn ok() -> HeaderMap {
    let pairs = [("grpc-status", "0"), ("x-trailer", "2")];
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}
