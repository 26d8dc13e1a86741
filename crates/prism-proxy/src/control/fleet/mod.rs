//! All runners and all namespaces, and what is decided about them.
//!
//! Pure: what happened comes in with the time at which it did, and what has to be done goes out as
//! [`Effect`]s. Each piece of news changes only facts; [`Fleet::plan`] then derives everything that
//! follows from the facts as they are: who should have which namespace, what to send, where to route.

mod members;
mod namespace;
mod plan;
mod routes;
mod runner;
mod timers;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use prism_core::{
    id::{InstanceId, SessionToken},
    lifecycle::{Answer, HealthStatus, Progress, Sent, wire as lifecycle},
};
use prism_proto::interfaces::{ProxyCommand, RegisterResponse, proxy_command::Command as CommandMessage};
use tokio::time::Instant;

use self::{
    namespace::Namespace,
    runner::Runner,
    timers::{Timer, Timers},
};
use super::{DesiredNamespace, Settings, wire::Registration};
use crate::route::Target;

/// How many namespaces that are gone are remembered, so that runners which still have them let go.
const MAX_RETIRED: usize = 1_024;

/// One control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// One runner process, across its streams. Ordered by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunnerId(pub(super) u64);

/// What has to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    /// Send a command on a stream.
    Send {
        session: SessionId,
        command: ProxyCommand,
    },
    /// End a stream, after what was sent on it.
    Close { session: SessionId },
    /// Send calls for a namespace there.
    Route { namespace: String, targets: Vec<Target> },
    /// Let calls for a namespace wait.
    Hold { namespace: String },
    /// Find out whether a data endpoint still serves.
    Probe { runner: RunnerId, endpoint: String },
    /// Break the connections to a runner that does not answer any more.
    Disconnect { instance: InstanceId },
}

/// The state of the control plane.
#[derive(Debug)]
pub(super) struct Fleet {
    settings: Settings,
    /// Until then a runner may still come back that has the data of a namespace.
    settled_at: Instant,
    namespaces: BTreeMap<String, Namespace>,
    /// Namespaces that were wanted once, and the version with which they went.
    retired: BTreeMap<String, i64>,
    runners: BTreeMap<RunnerId, Runner>,
    sessions: HashMap<SessionId, RunnerId>,
    tokens: HashMap<SessionToken, RunnerId>,
    next_runner: u64,
    timers: Timers,
    effects: Vec<Effect>,
    /// Whether facts changed from which something may follow.
    changed: bool,
}

impl Fleet {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let mut timers = Timers::default();
        timers.set(now + settings.settle_within, Timer::Plan);
        Self {
            settled_at: now + settings.settle_within,
            settings,
            namespaces: BTreeMap::new(),
            retired: BTreeMap::new(),
            runners: BTreeMap::new(),
            sessions: HashMap::new(),
            tokens: HashMap::new(),
            next_runner: 0,
            timers,
            effects: Vec::new(),
            changed: false,
        }
    }

    /// What has to be done since the last call.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Makes these the namespaces that are wanted.
    pub(super) fn apply(&mut self, desired: Vec<DesiredNamespace>) {
        self.changed = true;
        let mut before = std::mem::take(&mut self.namespaces);
        for desired in desired {
            self.retired.remove(&desired.name);
            let known = before.remove(&desired.name);
            let name = desired.name.clone();
            let namespace = match known {
                Some(known) => known.changed(desired),
                None => Namespace::new(desired),
            };
            self.namespaces.insert(name, namespace);
        }
        for (name, namespace) in before {
            tracing::info!(namespace = name, "no longer wanted");
            self.effects.push(Effect::Route {
                namespace: name.clone(),
                targets: Vec::new(),
            });
            self.retired.insert(name, namespace.desired.version);
        }
        while self.retired.len() > MAX_RETIRED {
            self.retired.pop_first();
        }
    }

    /// A runner opened a stream and registered, or tried to.
    pub(super) fn joined(
        &mut self,
        now: Instant,
        session: SessionId,
        correlation: String,
        registration: Result<Registration, String>,
        peer: Option<SocketAddr>,
    ) {
        self.changed = true;
        let registered =
            registration.and_then(|registration| self.register(now, session, registration, peer));
        let (error, runner) = match registered {
            Ok(runner) => (String::new(), Some(runner)),
            Err(error) => {
                tracing::warn!(?peer, error, "registration refused");
                (error, None)
            }
        };
        let runner = runner.and_then(|id| self.runners.get(&id));
        let ack = RegisterResponse {
            success: runner.is_some(),
            error,
            instance_id: runner
                .map(|runner| runner.instance.to_string())
                .unwrap_or_default(),
            session_token: runner.map(|runner| runner.token.to_wire()).unwrap_or_default(),
        };
        let refused = runner.is_none();
        self.send(session, correlation, CommandMessage::RegisterAck(ack));
        if refused {
            self.effects.push(Effect::Close { session });
        }
    }

    /// A runner answered a command.
    pub(super) fn answered(&mut self, now: Instant, session: SessionId, correlation: &str, answer: Answer) {
        let Some(runner) = self.speaker(session) else {
            return;
        };
        // Only an answer proves that both directions work. A heartbeat says nothing about whether
        // commands arrive.
        runner.silences = 0;
        let progress = runner.peer.answered(correlation, answer);
        let id = runner.id;
        self.progressed(now, id, progress);
    }

    /// A runner said how it does, and whether it is about to end.
    pub(super) fn heartbeat(
        &mut self,
        now: Instant,
        session: SessionId,
        status: HealthStatus,
        draining: bool,
    ) {
        let handover = now + self.settings.handover_within;
        let Some(runner) = self.speaker(session) else {
            return;
        };
        runner.beat();
        if draining {
            if runner.leaving_until.is_none() {
                tracing::info!(instance = %runner.instance, "is about to end");
                runner.leaving_until = Some(handover);
                runner.peer.leaves();
                self.timers.set(handover, Timer::Plan);
                self.changed = true;
            }
        } else {
            self.note_health(now, session, status, None);
        }
    }

    fn speaker(&mut self, session: SessionId) -> Option<&mut Runner> {
        let id = self.sessions.get(&session)?;
        self.runners.get_mut(id)
    }

    fn note_health(
        &mut self,
        now: Instant,
        session: SessionId,
        status: HealthStatus,
        message: Option<String>,
    ) {
        let within = self.settings.unhealthy_within;
        let Some(runner) = self.speaker(session) else {
            return;
        };
        if runner.note_health(now, status, message) {
            tracing::info!(instance = %runner.instance, status = status.as_str(), "health changed");
            self.timers.set(now + within, Timer::Plan);
            self.changed = true;
        }
    }

    fn progressed(&mut self, now: Instant, id: RunnerId, progress: Progress) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        let instance = runner.instance.clone();
        // What a health report changes is noted where it is read.
        self.changed |= !matches!(progress, Progress::None | Progress::Health(_) | Progress::Silent);
        match progress {
            Progress::None => {}
            Progress::Configured {
                namespace,
                error: None,
            } => {
                tracing::info!(%instance, namespace, "configured");
            }
            Progress::Configured {
                namespace,
                error: Some(error),
            } => {
                tracing::warn!(%instance, namespace, error, "configuration refused");
            }
            Progress::Started(Ok(())) => self.started(id),
            Progress::Started(Err(error)) => {
                tracing::warn!(%instance, error, "not started");
                self.timers
                    .set(now + self.settings.start_pause, Timer::RetryStart(id));
            }
            Progress::Health(health) => {
                let health = health.unwrap_or_default();
                runner.health_details = health.details;
                if let Some(session) = runner.session {
                    self.note_health(now, session, health.status, Some(health.message));
                }
            }
            Progress::Silent => self.silent(now, id),
            Progress::Drained => tracing::info!(%instance, "drained"),
            Progress::Stopped => {
                tracing::info!(%instance, "stopped");
                self.timers
                    .set(now + self.settings.health_interval, Timer::Forget(id));
            }
        }
    }

    /// A health check stayed unanswered. The second in a row, with nothing else answered, breaks the link.
    fn silent(&mut self, now: Instant, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        // A foreign runner may do one thing at a time. It is given the time that the thing has.
        if !runner.extended && runner.peer.is_busy() {
            return;
        }
        runner.silences += 1;
        if runner.silences < 2 {
            self.check_health(now, id);
        } else {
            self.lose(now, id, "it answers no health check");
        }
    }

    /// Sends what a runner's peer decided, and sets the limit for its answer.
    fn dispatch(&mut self, now: Instant, id: RunnerId, sent: Sent) {
        let Some(session) = self.runners.get(&id).and_then(|runner| runner.session) else {
            return;
        };
        let Sent { correlation, request } = sent;
        let limit = timers::limit(&self.settings, &request);
        let configuration = |name: &str| self.namespaces.get(name).map(Namespace::configuration);
        let message = request
            .into_command(configuration)
            .map(lifecycle::command_message);
        match message {
            Some(Ok(message)) => {
                let timer = Timer::Answer {
                    session,
                    correlation: correlation.clone(),
                };
                self.timers.set(now + limit, timer);
                self.send(session, correlation, message);
            }
            // What cannot be sent is refused here, as the runner would refuse it.
            Some(Err(unfit)) => {
                let answer = Answer::Initialized(Err(unfit.to_string()));
                self.answered(now, session, &correlation, answer);
            }
            None => tracing::error!("a namespace was pushed that is not wanted"),
        }
    }

    fn send(&mut self, session: SessionId, correlation_id: String, command: CommandMessage) {
        let command = ProxyCommand {
            correlation_id,
            command: Some(command),
        };
        self.effects.push(Effect::Send { session, command });
    }
}
