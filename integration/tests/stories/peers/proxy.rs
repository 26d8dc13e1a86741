//! A proxy of another make.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context, Result};
use integration::START_LIMIT;
use prism_proto::interfaces::{
    InitializeRequest, PatternMessage, ProxyCommand, RegisterRequest, RegisterResponse,
    pattern_message::Message, proxy_command::Command,
};
use prost::{Message as _, bytes::Bytes};
use serde_json::{Map, Value};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
    transport::Server,
};

use super::wire::{Raw, with_unknown_fields};

/// It gives every process the name `<pattern>-<process id>` and no token, numbers nothing, sends every number
/// as a double, and says nothing that it does not have to.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    streams: mpsc::Receiver<Stream>,
    _server: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(super) async fn start() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener: TcpListener = socket.listen(64)?;
        let address = listener.local_addr()?;
        let (sender, streams) = mpsc::channel(16);
        let server = Server::builder()
            .add_service(ControlPlane(sender))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Ok(Self {
            address,
            streams,
            _server: AbortOnDropHandle::new(server),
        })
    }

    /// The next stream that a runner opens, registered.
    pub(super) async fn registered(&mut self) -> Result<(RegisterRequest, Stream)> {
        let next = timeout(START_LIMIT, self.streams.recv())
            .await
            .context("no runner came")?;
        let mut stream = next.context("the proxy has ended")?;
        let first = stream.message().await?.context("no register message")?;
        let Some(Message::Register(register)) = first.message else {
            anyhow::bail!("the first message is {first:?}");
        };
        let ack = RegisterResponse {
            success: true,
            instance_id: format!("{}-{}", register.pattern_name, register.process_id),
            ..RegisterResponse::default()
        };
        stream
            .send(&first.correlation_id, Some(Command::RegisterAck(ack)))
            .await?;
        Ok((register, stream))
    }

    /// Whether a runner opens another stream within the time.
    pub(super) async fn is_dialled_within(&mut self, within: Duration) -> bool {
        timeout(within, self.streams.recv()).await.is_ok()
    }
}

/// One control stream, from the proxy's side.
pub(super) struct Stream {
    messages: Streaming<Bytes>,
    commands: mpsc::Sender<Result<Bytes, Status>>,
    sent: u32,
}

impl Stream {
    pub(super) async fn send(&self, correlation_id: &str, command: Option<Command>) -> Result<()> {
        let command = ProxyCommand {
            correlation_id: correlation_id.to_owned(),
            command,
        };
        let bytes = with_unknown_fields(&command);
        self.commands
            .send(Ok(bytes))
            .await
            .context("the runner closed the stream")
    }

    /// Sends a command, and waits for the answer to it. Heartbeats are not looked at.
    pub(super) async fn ask(&mut self, command: Option<Command>) -> Result<Message> {
        self.sent += 1;
        let id = format!("theirs-{}", self.sent);
        self.send(&id, command).await?;
        loop {
            let message = self.message().await?.context("the runner closed the stream")?;
            match message.message {
                Some(Message::Heartbeat(_)) => {}
                answer => {
                    assert_eq!(message.correlation_id, id, "{answer:?}");
                    return answer.context("an empty answer");
                }
            }
        }
    }

    /// Configures a namespace; the error is the runner's.
    pub(super) async fn initialize(&mut self, namespace: &str, config: Value) -> Result<Result<(), String>> {
        let request = InitializeRequest {
            name: namespace.to_owned(),
            version: "v1".to_owned(),
            config: Some(structure(config)?),
            ..InitializeRequest::default()
        };
        self.push(request).await
    }

    pub(super) async fn push(&mut self, request: InitializeRequest) -> Result<Result<(), String>> {
        match self.ask(Some(Command::Initialize(request))).await? {
            Message::InitializeResponse(response) if response.success => Ok(Ok(())),
            Message::InitializeResponse(response) => Ok(Err(response.error)),
            other => anyhow::bail!("{other:?} answers an initialize"),
        }
    }

    /// Starts the runner; where it serves.
    pub(super) async fn start(&mut self) -> Result<String> {
        match self
            .ask(Some(Command::Start(prism_proto::interfaces::StartRequest {})))
            .await?
        {
            Message::StartResponse(response) if response.success => Ok(response.data_endpoint),
            other => anyhow::bail!("{other:?} answers a start"),
        }
    }

    /// The next message; `None` when the runner closed the stream in order.
    pub(super) async fn message(&mut self) -> Result<Option<PatternMessage>> {
        let message = timeout(START_LIMIT, self.messages.message())
            .await
            .context("the runner is silent")??;
        Ok(message.map(PatternMessage::decode).transpose()?)
    }
}

/// Every number becomes a double.
pub(super) fn structure(config: Value) -> Result<prost_types::Struct> {
    let Value::Object(config) = config else {
        anyhow::bail!("not an object: {config}");
    };
    let config: Map<String, Value> = config;
    Ok(prism_core::structure::from_json(&config)?)
}

#[derive(Clone)]
struct ControlPlane(mpsc::Sender<Stream>);

impl NamedService for ControlPlane {
    const NAME: &'static str = "prism.interfaces.ProxyControlPlane";
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for ControlPlane {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(service, request).await) })
    }
}

impl StreamingService<Bytes> for ControlPlane {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Result<Bytes, Status>>;
    type Future = Boxed<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let streams = self.0.clone();
        Box::pin(async move {
            let (commands, outgoing) = mpsc::channel(16);
            let stream = Stream {
                messages: request.into_inner(),
                commands,
                sent: 0,
            };
            let gone = |_| Status::unavailable("nobody looks at streams any more");
            streams.send(stream).await.map_err(gone)?;
            Ok(Response::new(ReceiverStream::new(outgoing)))
        })
    }
}
