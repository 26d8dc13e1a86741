//! A runner whose every move is made by the test.

use std::net::SocketAddr;

use prism_proto::interfaces::{
    HealthCheckResponse, HealthStatus, HeartbeatMessage, InitializeResponse, PatternMessage, ProxyCommand,
    RegisterRequest, RegisterResponse, StartResponse, StopResponse, pattern_message::Message,
    proxy_command::Command, proxy_control_plane_client::ProxyControlPlaneClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::SOON;

pub(crate) struct Scripted {
    messages: mpsc::Sender<PatternMessage>,
    commands: Streaming<ProxyCommand>,
}

impl Scripted {
    pub(crate) async fn dial(proxy: SocketAddr) -> Self {
        let (messages, outgoing) = mpsc::channel(16);
        let mut client = ProxyControlPlaneClient::connect(format!("http://{proxy}"))
            .await
            .unwrap();
        let commands = client
            .manage_pattern(ReceiverStream::new(outgoing))
            .await
            .unwrap()
            .into_inner();
        Self { messages, commands }
    }

    /// Dials and registers as a runner of another make does: no metadata, no token.
    pub(crate) async fn foreign(proxy: SocketAddr) -> (Self, RegisterResponse) {
        let mut runner = Self::dial(proxy).await;
        let register = RegisterRequest {
            pattern_name: "test_pattern".to_owned(),
            process_id: 1,
            ..RegisterRequest::default()
        };
        runner
            .send("my register", Some(Message::Register(register)))
            .await;
        let (correlation, command) = runner.command().await.unwrap().unwrap();
        assert_eq!(correlation, "my register");
        match command {
            Some(Command::RegisterAck(ack)) => (runner, ack),
            other => panic!("{other:?} acknowledges a registration"),
        }
    }

    pub(crate) async fn send(&mut self, correlation: &str, message: Option<Message>) {
        let message = PatternMessage {
            correlation_id: correlation.to_owned(),
            message,
        };
        self.messages
            .send(message)
            .await
            .expect("the proxy closed the stream");
    }

    /// Sends a heartbeat, whether or not anybody reads it.
    pub(crate) async fn beat(&mut self, draining: bool) {
        let heartbeat = HeartbeatMessage {
            timestamp: 1,
            status: HealthStatus::Healthy.into(),
            draining,
        };
        let message = PatternMessage {
            correlation_id: String::new(),
            message: Some(Message::Heartbeat(heartbeat)),
        };
        drop(self.messages.send(message).await);
    }

    /// The next command; `None` when the proxy closed the stream.
    pub(crate) async fn command(&mut self) -> Result<Option<(String, Option<Command>)>, Status> {
        let command = timeout(SOON, self.commands.message())
            .await
            .expect("the proxy is silent")?;
        Ok(command.map(|command| (command.correlation_id, command.command)))
    }

    /// Does as it is told, in the way of the foreign runners: an empty answer to what it does not know,
    /// a `stop_response` to a shutdown, and no end. Returns at the first command of a kind.
    pub(crate) async fn obey_until(
        &mut self,
        endpoint: &str,
        last: impl Fn(&Command) -> bool,
    ) -> Vec<Command> {
        let mut obeyed = Vec::new();
        loop {
            let (correlation, command) = self
                .command()
                .await
                .unwrap()
                .expect("the proxy closed the stream");
            let command = command.expect("a command");
            let answer = answer(endpoint, &command);
            self.send(&correlation, answer).await;
            let done = last(&command);
            obeyed.push(command);
            if done {
                return obeyed;
            }
        }
    }

    /// Obeys until the proxy closes the stream.
    pub(crate) async fn obey_to_the_end(&mut self, endpoint: &str) -> Vec<Command> {
        let mut obeyed = Vec::new();
        while let Ok(Some((correlation, Some(command)))) = self.command().await {
            let message = PatternMessage {
                correlation_id: correlation,
                message: answer(endpoint, &command),
            };
            // The stream may be closed before the answer is sent.
            drop(self.messages.send(message).await);
            obeyed.push(command);
        }
        obeyed
    }
}

fn answer(endpoint: &str, command: &Command) -> Option<Message> {
    Some(match command {
        Command::Initialize(_) => Message::InitializeResponse(InitializeResponse {
            success: true,
            ..InitializeResponse::default()
        }),
        Command::Start(_) => Message::StartResponse(StartResponse {
            success: true,
            data_endpoint: endpoint.to_owned(),
            ..StartResponse::default()
        }),
        Command::HealthCheck(_) => Message::HealthResponse(HealthCheckResponse::default()),
        Command::Stop(_) | Command::Shutdown(_) => Message::StopResponse(StopResponse {
            success: true,
            ..StopResponse::default()
        }),
        Command::Drain(_) | Command::RegisterAck(_) => return None,
    })
}
