//! One life of a control stream.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use prism_core::{
    caller::Proof,
    id::{CorrelationIds, SessionToken},
    lifecycle::wire,
};
use prism_proto::interfaces::{
    HeartbeatMessage, PatternMessage, ProxyCommand, RegisterResponse, pattern_message::Message,
    proxy_command::Command as CommandMessage, proxy_control_plane_client::ProxyControlPlaneClient,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{Link, dial::Connection};
use crate::{
    engine::{Input, Reply, State, StreamReply},
    wire as own,
};

/// How many messages may wait to be sent.
const QUEUE: usize = 64;
/// The largest command.
const MAX_COMMAND: usize = 4 * 1024 * 1024;
/// When the process ends: how long the proxy may take to close its side.
const GOODBYE: Duration = Duration::from_millis(500);

/// How a stream ended.
pub(super) enum End {
    /// The process ends.
    Closed,
    /// What was reported at registration is no longer true.
    Outdated,
    /// It broke, or was never made.
    Failed(String),
}

struct Session<'a> {
    link: &'a Link,
    commands: Commands,
    reply: StreamReply,
    ids: CorrelationIds,
    /// Whether the proxy is one of this project, which never stays silent for long.
    ours: bool,
}

pub(super) async fn run(link: &Link, connection: Connection, token: &mut Option<SessionToken>) -> End {
    let opened = tokio::select! {
        opened = open(link, connection, token) => opened,
        () = link.closing.cancelled() => return End::Closed,
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(failure) => return End::Failed(failure),
    };
    let _ended = session.reply.ended.clone().drop_guard();
    let up = Input::LinkUp {
        link: link.id,
        ours: session.ours,
    };
    if link.engine.inputs.send(up).await.is_err() {
        return End::Closed;
    }
    let end = session.obey().await;
    if matches!(end, End::Closed) {
        session.say_goodbye().await;
    }
    // The engine outlives every link but at the very end.
    let _ = link.engine.inputs.send(Input::LinkDown { link: link.id }).await;
    end
}

/// The commands as they come, and when the last one did.
struct Commands {
    stream: Streaming<ProxyCommand>,
    last: Instant,
}

impl Commands {
    async fn next(&mut self) -> Result<ProxyCommand, String> {
        let command = self.stream.message().await.map_err(describe)?;
        self.last = Instant::now();
        command.ok_or_else(|| "the proxy closed the stream".to_owned())
    }
}

/// Opens the stream and registers.
async fn open<'a>(
    link: &'a Link,
    connection: Connection,
    token: &mut Option<SessionToken>,
) -> Result<Session<'a>, String> {
    let within = link.settings.connect_within;
    let (queue, messages) = mpsc::channel(QUEUE);
    let ids = CorrelationIds::new();
    // What was undelivered so far is in the report that is built now.
    let _ = link.outdated.notified().now_or_never();
    let shown = token.as_ref().map(SessionToken::to_wire).unwrap_or_default();
    let register = own::register(
        &link.metadata,
        link.process_id,
        shown,
        &link.engine.state.borrow(),
    );
    let register = PatternMessage {
        correlation_id: ids.next(),
        message: Some(Message::Register(register)),
    };
    // The first message has to be under way before the answer is awaited: some proxies answer the call
    // itself only once they have read it.
    queue.try_send(register).map_err(|error| error.to_string())?;
    let mut client = ProxyControlPlaneClient::new(connection.channel).max_decoding_message_size(MAX_COMMAND);
    let opened = timeout(within, client.manage_pattern(ReceiverStream::new(messages))).await;
    let stream = opened
        .map_err(|_| format!("the proxy did not open the stream within {within:?}"))?
        .map_err(describe)?
        .into_inner();
    let reply = StreamReply {
        link: link.id,
        queue,
        cut: CancellationToken::new(),
        ended: CancellationToken::new(),
        outdated: link.outdated.clone(),
        metadata: link.metadata.clone(),
        host: connection.host,
    };
    let mut session = Session {
        link,
        commands: Commands {
            stream,
            last: Instant::now(),
        },
        reply,
        ids,
        ours: false,
    };
    let ack = timeout(within, session.acknowledgement())
        .await
        .map_err(|_| format!("the proxy did not acknowledge the registration within {within:?}"))??;
    if !ack.success {
        // It may be the token that is refused.
        *token = None;
        return Err(format!("the proxy refused the registration: {}", ack.error));
    }
    tracing::info!(proxy = %link.address, instance = ack.instance_id, "registered with the proxy");
    session.ours = !ack.session_token.is_empty();
    *token = SessionToken::from_wire(ack.session_token);
    link.proofs.replace(link.id, token.as_ref().map(Proof::of));
    Ok(session)
}

impl Session<'_> {
    /// Waits for the acknowledgement. A command that comes before it is obeyed.
    async fn acknowledgement(&mut self) -> Result<RegisterResponse, String> {
        loop {
            let command = self.commands.next().await?;
            match command.command {
                Some(CommandMessage::RegisterAck(ack)) => return Ok(ack),
                other => self.pass_on(command.correlation_id, other).await,
            }
        }
    }

    async fn obey(&mut self) -> End {
        let settings = &self.link.settings;
        let mut heartbeat = tokio::time::interval(settings.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = self.link.engine.state.clone();
        let mut told_draining = false;
        loop {
            let silent_at = self.commands.last + settings.silence;
            tokio::select! {
                command = self.commands.next() => match command {
                    Ok(command) => self.take(command).await,
                    Err(failure) => return End::Failed(failure),
                },
                _ = heartbeat.tick() => self.beat(&state.borrow()),
                changed = state.changed() => {
                    if changed.is_err() {
                        return End::Closed;
                    }
                    // The news that cannot wait for the next beat.
                    let draining = state.borrow_and_update().is_draining();
                    if draining && !told_draining {
                        told_draining = true;
                        self.beat(&state.borrow());
                    }
                }
                () = tokio::time::sleep_until(silent_at), if self.ours => {
                    return End::Failed(format!("the proxy was silent for {:?}", settings.silence));
                }
                () = self.reply.cut.cancelled() => return End::Failed("the proxy does not read".to_owned()),
                () = self.link.outdated.notified(), if self.ours => return End::Outdated,
                () = self.link.closing.cancelled() => return End::Closed,
            }
        }
    }

    async fn take(&self, command: ProxyCommand) {
        match command.command {
            // A second acknowledgement asks for nothing.
            Some(CommandMessage::RegisterAck(_)) => {}
            other => self.pass_on(command.correlation_id, other).await,
        }
    }

    async fn pass_on(&self, correlation_id: String, command: Option<CommandMessage>) {
        let from = Reply::Stream {
            stream: self.reply.clone(),
            correlation_id,
        };
        let command = wire::command(command);
        // When the engine is gone the process ends, and the stream with it.
        let _ = self
            .link
            .engine
            .inputs
            .send(Input::Command { from, command })
            .await;
    }

    fn beat(&self, state: &State) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let heartbeat = HeartbeatMessage {
            timestamp: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
            status: wire::health_status_message(state.health.status).into(),
            draining: state.is_draining(),
        };
        let message = PatternMessage {
            correlation_id: self.ids.next(),
            message: Some(Message::Heartbeat(heartbeat)),
        };
        if self.reply.queue.try_send(message).is_err() {
            self.reply.cut.cancel();
        }
    }

    /// Ends this side, and waits until the proxy has read what was said.
    async fn say_goodbye(self) {
        let Self {
            mut commands, reply, ..
        } = self;
        drop(reply);
        let closed = async { while commands.next().await.is_ok() {} };
        // A proxy that keeps its side open is left.
        let _ = timeout(GOODBYE, closed).await;
    }
}

fn describe(status: Status) -> String {
    format!("{}: {}", status.code(), status.message())
}
