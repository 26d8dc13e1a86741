//! A proxy whose every move is made by the test.

use std::{net::SocketAddr, time::Duration};

use prism_proto::interfaces::{
    DrainRequest, HealthCheckRequest, HeartbeatMessage, PatternMessage, ProxyCommand, RegisterRequest,
    RegisterResponse, StartRequest, StopRequest,
    pattern_message::Message,
    proxy_command::Command,
    proxy_control_plane_server::{ProxyControlPlane, ProxyControlPlaneServer},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::SOON;

pub(crate) struct ScriptedProxy {
    pub(crate) address: SocketAddr,
    streams: mpsc::Receiver<Stream>,
    task: JoinHandle<()>,
}

impl ScriptedProxy {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, streams) = mpsc::channel(16);
        let server = Server::builder()
            .add_service(ProxyControlPlaneServer::new(Service { streams: sender }))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async { server.await.unwrap() });
        Self {
            address,
            streams,
            task,
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next stream that a runner opens.
    pub(crate) async fn stream(&mut self) -> Stream {
        timeout(SOON, self.streams.recv())
            .await
            .expect("no runner came")
            .unwrap()
    }

    /// The next stream, registered as by a proxy of this project.
    pub(crate) async fn registered(&mut self) -> Stream {
        let mut stream = self.stream().await;
        stream.register().await;
        stream.acknowledge(b"0123456789abcdef").await;
        stream
    }

    /// The next stream, registered as by a foreign proxy.
    pub(crate) async fn registered_foreign(&mut self) -> Stream {
        let mut stream = self.stream().await;
        stream.register().await;
        stream.acknowledge(b"").await;
        stream
    }

    /// Whether a runner opens a stream within the time.
    pub(crate) async fn is_dialled_within(&mut self, within: Duration) -> bool {
        timeout(within, self.streams.recv()).await.is_ok()
    }
}

impl Drop for ScriptedProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service {
    streams: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl ProxyControlPlane for Service {
    type ManagePatternStream = ReceiverStream<Result<ProxyCommand, Status>>;

    async fn manage_pattern(
        &self,
        request: Request<Streaming<PatternMessage>>,
    ) -> Result<Response<Self::ManagePatternStream>, Status> {
        let (commands, outgoing) = mpsc::channel(16);
        let stream = Stream {
            messages: request.into_inner(),
            commands,
            next: 0,
            register_id: String::new(),
            heartbeats: Vec::new(),
        };
        self.streams
            .send(stream)
            .await
            .map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// One control stream, from the proxy's side.
pub(crate) struct Stream {
    messages: Streaming<PatternMessage>,
    commands: mpsc::Sender<Result<ProxyCommand, Status>>,
    next: u32,
    register_id: String,
    /// Those that came while an answer was awaited.
    pub(crate) heartbeats: Vec<HeartbeatMessage>,
}

impl Stream {
    pub(crate) async fn register(&mut self) -> RegisterRequest {
        let message = self.message().await.expect("a register message");
        self.register_id = message.correlation_id;
        match message.message {
            Some(Message::Register(register)) => register,
            other => panic!("the first message is {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&mut self, token: &[u8]) {
        let ack = RegisterResponse {
            success: true,
            error: String::new(),
            instance_id: "test-1".to_owned(),
            session_token: token.to_vec(),
        };
        let id = self.register_id.clone();
        self.send_as(&id, Some(Command::RegisterAck(ack))).await;
    }

    /// Sends a command under a new correlation id, and returns the id.
    pub(crate) async fn send(&mut self, command: Command) -> String {
        self.next += 1;
        let id = format!("command-{}", self.next);
        self.send_as(&id, Some(command)).await;
        id
    }

    pub(crate) async fn send_as(&mut self, id: &str, command: Option<Command>) {
        let command = ProxyCommand {
            correlation_id: id.to_owned(),
            command,
        };
        self.commands
            .send(Ok(command))
            .await
            .expect("the runner closed the stream");
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask(&mut self, command: Command) -> Message {
        let id = self.send(command).await;
        self.answer(&id).await
    }

    /// The next answer, which has to carry this correlation id.
    pub(crate) async fn answer(&mut self, id: &str) -> Message {
        let (answered, message) = self.any_answer().await;
        assert_eq!(answered, id, "the answer is {message:?}");
        message
    }

    pub(crate) async fn any_answer(&mut self) -> (String, Message) {
        loop {
            let message = self.message().await.expect("an answer");
            match message.message.expect("an answer that says something") {
                Message::Heartbeat(heartbeat) => self.heartbeats.push(heartbeat),
                answer => return (message.correlation_id, answer),
            }
        }
    }

    pub(crate) async fn refuse(&mut self, error: &str) {
        let nack = RegisterResponse {
            error: error.to_owned(),
            ..RegisterResponse::default()
        };
        let id = self.register_id.clone();
        self.send_as(&id, Some(Command::RegisterAck(nack))).await;
    }

    /// The next heartbeat of this kind.
    pub(crate) async fn heartbeat_that(
        &mut self,
        is: impl Fn(&HeartbeatMessage) -> bool,
    ) -> HeartbeatMessage {
        loop {
            let heartbeat = self.heartbeat().await;
            if is(&heartbeat) {
                return heartbeat;
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) -> HeartbeatMessage {
        loop {
            let message = self.message().await.expect("a heartbeat");
            if let Some(Message::Heartbeat(heartbeat)) = message.message {
                return heartbeat;
            }
        }
    }

    /// The next message; `None` when the runner closed the stream in order.
    pub(crate) async fn message(&mut self) -> Option<PatternMessage> {
        timeout(SOON, self.messages.message())
            .await
            .expect("the runner is silent")
            .expect("the stream broke")
    }

    /// Waits until the runner's side is closed or broken.
    pub(crate) async fn closed(&mut self) {
        let closed = async { while let Ok(Some(_)) = self.messages.message().await {} };
        timeout(Duration::from_secs(20), closed)
            .await
            .expect("the runner keeps the stream");
    }

    pub(crate) async fn initialize(&mut self, push: Command) -> Result<(), String> {
        match self.ask(push).await {
            Message::InitializeResponse(response) if response.success => Ok(()),
            Message::InitializeResponse(response) => Err(response.error),
            other => panic!("{other:?} answers an initialize"),
        }
    }

    pub(crate) async fn start(&mut self) -> Result<String, String> {
        match self.ask(Command::Start(StartRequest {})).await {
            Message::StartResponse(response) if response.success => Ok(response.data_endpoint),
            Message::StartResponse(response) => Err(response.error),
            other => panic!("{other:?} answers a start"),
        }
    }
}

pub(crate) fn health_check() -> Command {
    Command::HealthCheck(HealthCheckRequest {})
}

pub(crate) fn drain(seconds: i32) -> Command {
    Command::Drain(DrainRequest {
        timeout_seconds: seconds,
        reason: "test".to_owned(),
    })
}

pub(crate) fn stop(seconds: i32) -> Command {
    Command::Stop(StopRequest {
        timeout_seconds: seconds,
    })
}
