//! The `ManagePattern` stream: from the wire to events, one task a stream.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prism_core::lifecycle::wire as lifecycle;
use prism_proto::interfaces::{
    PatternMessage, ProxyCommand, RegisterRequest, pattern_message::Message,
    proxy_control_plane_server::ProxyControlPlane,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{Settings, actor::Event, fleet::SessionId, wire};

/// How many commands may wait to be read by a runner. One that lets them pile up is cut off.
const QUEUE: usize = 64;

type Commands = mpsc::Sender<Result<ProxyCommand, Status>>;

/// The way to one runner. Dropping it ends the stream, after what was sent.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) commands: Commands,
    cut: CancellationToken,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

/// Serves `ManagePattern`.
#[derive(Debug, Clone)]
pub struct ControlService {
    events: mpsc::Sender<Event>,
    settings: Settings,
    tasks: TaskTracker,
    closing: CancellationToken,
    sessions: Arc<AtomicU64>,
}

impl ControlService {
    pub(super) fn new(
        events: mpsc::Sender<Event>,
        settings: Settings,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        Self {
            events,
            settings,
            tasks,
            closing,
            sessions: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl ProxyControlPlane for ControlService {
    type ManagePatternStream = ReceiverStream<Result<ProxyCommand, Status>>;

    async fn manage_pattern(
        &self,
        request: Request<Streaming<PatternMessage>>,
    ) -> Result<Response<Self::ManagePatternStream>, Status> {
        if self.closing.is_cancelled() {
            return Err(Status::unavailable("the proxy is about to end, use another one"));
        }
        let (commands, outgoing) = mpsc::channel(QUEUE);
        let stream = Stream {
            id: SessionId(self.sessions.fetch_add(1, Ordering::Relaxed)),
            peer: request.remote_addr(),
            messages: request.into_inner(),
            events: self.events.clone(),
            cut: self.closing.child_token(),
        };
        let (cut, register_within) = (stream.cut.clone(), self.settings.register_within);
        self.tasks.spawn(async move {
            cut.run_until_cancelled(stream.run(commands, register_within))
                .await;
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

struct Stream {
    id: SessionId,
    peer: Option<SocketAddr>,
    messages: Streaming<PatternMessage>,
    events: mpsc::Sender<Event>,
    cut: CancellationToken,
}

impl Stream {
    async fn run(mut self, commands: Commands, register_within: Duration) {
        match timeout(register_within, self.register()).await {
            Ok(Ok((correlation, register))) => self.hold(commands, correlation, register).await,
            // When the peer is gone it needs no reason.
            Ok(Err(status)) => drop(commands.send(Err(status)).await),
            Err(_) => {
                let status = Status::deadline_exceeded("no `register` message came in time, send it first");
                drop(commands.send(Err(status)).await);
            }
        }
    }

    async fn hold(mut self, commands: Commands, correlation: String, register: RegisterRequest) {
        let joined = Event::Joined {
            session: self.id,
            correlation,
            registration: wire::registration(register),
            peer: self.peer,
            outbox: Outbox {
                commands,
                cut: self.cut.clone(),
            },
        };
        // The queue is open for as long as the control plane is.
        if self.events.send(joined).await.is_ok() {
            let reason = self.read().await;
            let session = self.id;
            drop(self.events.send(Event::Left { session, reason }).await);
        }
    }

    async fn register(&mut self) -> Result<(String, RegisterRequest), Status> {
        let first = self.messages.message().await?;
        match first.map(|message| (message.correlation_id, message.message)) {
            Some((correlation, Some(Message::Register(register)))) => Ok((correlation, register)),
            _ => Err(Status::invalid_argument("the first message has to be `register`")),
        }
    }

    async fn read(&mut self) -> String {
        loop {
            let message = match self.messages.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return "the runner closed the stream".to_owned(),
                Err(status) => return format!("{}: {}", status.code(), status.message()),
            };
            if self.events.send(event(self.id, message)).await.is_err() {
                return "the proxy ends".to_owned();
            }
        }
    }
}

fn event(session: SessionId, message: PatternMessage) -> Event {
    match message.message {
        Some(Message::Heartbeat(heartbeat)) => Event::Heartbeat {
            session,
            status: lifecycle::health_status(heartbeat.status),
            draining: heartbeat.draining,
        },
        answer => Event::Answered {
            session,
            correlation: message.correlation_id,
            answer: lifecycle::answer(answer),
        },
    }
}
