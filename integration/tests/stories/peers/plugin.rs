//! A plugin of another make.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use integration::START_LIMIT;
use prism_proto::interfaces::{
    HealthCheckResponse, InitializeResponse, InterfaceDeclaration, PatternMessage, PatternMetadata,
    ProxyCommand, RegisterRequest, RegisterResponse, StartResponse, StopResponse, pattern_message::Message,
    proxy_command::Command,
};
use prost::{Message as _, bytes::Bytes};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use super::wire::{Raw, with_unknown_fields};

/// It registers under the older spelling, with the process id that it has in its container, and leaves its
/// metadata without a name; sends no heartbeats; answers what it does not know, and a drain, with nothing;
/// answers a shutdown and stays; and does not come back when its stream breaks.
pub(super) struct Plugin {
    pub(super) registered: RegisterResponse,
    heard: watch::Receiver<Vec<Command>>,
    tasks: JoinSet<()>,
}

impl Plugin {
    /// Registers, and then does as it is told. Its calls are served at `endpoint`, in its own words.
    pub(super) async fn start(control: SocketAddr, endpoint: &str) -> Result<Self> {
        let channel = Channel::from_shared(format!("http://{control}"))?
            .connect()
            .await?;
        let (messages, outgoing) = mpsc::channel(16);
        messages
            .send(encoded("mine-1", Some(Message::Register(register()))))
            .await?;
        let mut client = Grpc::new(channel);
        client.ready().await?;
        let path = PathAndQuery::from_static("/prism.interfaces.ProxyControlPlane/ManagePattern");
        let request = tonic::Request::new(ReceiverStream::new(outgoing));
        let mut commands = client.streaming(request, path, Raw).await?.into_inner();
        let first = next(&mut commands)
            .await?
            .context("the proxy closed the stream")?;
        assert_eq!(
            first.correlation_id, "mine-1",
            "the acknowledgement carries the register's id"
        );
        let Some(Command::RegisterAck(registered)) = first.command else {
            anyhow::bail!("{first:?} acknowledges a registration");
        };
        let (hear, heard) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(obey(commands, messages, endpoint.to_owned(), hear));
        Ok(Self {
            registered,
            heard,
            tasks,
        })
    }

    /// What it was told so far, once that includes something of this kind.
    pub(super) async fn heard(&self, what: &str, is: impl Fn(&[Command]) -> bool) -> Vec<Command> {
        let mut heard = self.heard.clone();
        match timeout(START_LIMIT, heard.wait_for(|heard| is(heard))).await {
            Ok(Ok(heard)) => heard.clone(),
            _ => panic!("it was never told {what}, but {:?}", *self.heard.borrow()),
        }
    }

    /// The configurations that it was sent.
    pub(super) fn initialized(&self) -> Vec<prism_proto::interfaces::InitializeRequest> {
        let heard = self.heard.borrow();
        let initializes = heard.iter().filter_map(|command| match command {
            Command::Initialize(request) => Some(request.clone()),
            _ => None,
        });
        initializes.collect()
    }

    /// Waits until the proxy has closed the stream.
    pub(super) async fn left(mut self) {
        timeout(START_LIMIT, self.tasks.join_next())
            .await
            .expect("the proxy keeps the stream");
    }

    /// Breaks the stream, as when the process dies.
    pub(super) fn break_off(mut self) {
        self.tasks.abort_all();
    }
}

pub(super) fn is_health_check(command: &Command) -> bool {
    matches!(command, Command::HealthCheck(_))
}

fn register() -> RegisterRequest {
    let interface = InterfaceDeclaration {
        name: "KeyValueBasicInterface".to_owned(),
        ..InterfaceDeclaration::default()
    };
    RegisterRequest {
        pattern_name: "multicast_registry".to_owned(),
        process_id: 1,
        metadata: Some(PatternMetadata {
            interfaces: vec![interface],
            ..PatternMetadata::default()
        }),
        ..RegisterRequest::default()
    }
}

fn encoded(correlation_id: &str, message: Option<Message>) -> Bytes {
    with_unknown_fields(&PatternMessage {
        correlation_id: correlation_id.to_owned(),
        message,
    })
}

async fn next(commands: &mut Streaming<Bytes>) -> Result<Option<ProxyCommand>> {
    let message = timeout(START_LIMIT, commands.message())
        .await
        .context("the proxy is silent")??;
    Ok(message.map(ProxyCommand::decode).transpose()?)
}

async fn obey(
    mut commands: Streaming<Bytes>,
    messages: mpsc::Sender<Bytes>,
    endpoint: String,
    hear: watch::Sender<Vec<Command>>,
) {
    while let Ok(Some(command)) = next(&mut commands).await {
        let answer = command
            .command
            .as_ref()
            .and_then(|command| answer(&endpoint, command));
        if messages
            .send(encoded(&command.correlation_id, answer))
            .await
            .is_err()
        {
            return;
        }
        hear.send_modify(|heard| heard.extend(command.command));
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
