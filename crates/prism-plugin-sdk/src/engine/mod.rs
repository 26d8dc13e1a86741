//! Carries out what the lifecycle decides: one task that owns the state machine, and the work it started.

mod health;
mod reply;
mod state;
mod work;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use prism_core::lifecycle::{
    Answer, Command, Decision, Event, ExitStatus, Health, Initialized, Machine, Stage,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    reply::{LinkId, Reply, StreamReply, localized},
    state::State,
};
use crate::{Plugin, Settings, server::DataServer};

/// How many inputs may wait for the engine.
const QUEUE: usize = 256;

/// What the engine is told.
pub(crate) enum Input {
    /// A proxy asks for something.
    Command { from: Reply, command: Command },
    /// A proxy registered this process; `ours` if it knows this project's additions.
    LinkUp { link: LinkId, ours: bool },
    /// A proxy's stream is gone.
    LinkDown { link: LinkId },
    /// The process was told to end.
    Leave,
}

/// The sending end, and what is known from outside.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) state: watch::Receiver<State>,
}

pub(crate) struct Engine<P> {
    plugin: Arc<P>,
    settings: Settings,
    server: DataServer,
    machine: Machine<Reply>,
    inputs: mpsc::Receiver<Input>,
    state: watch::Sender<State>,
    /// Plugin calls under way; each ends in the event that the machine waits for.
    work: JoinSet<Event>,
    /// Gives up what is being configured.
    cancel: CancellationToken,
    health: health::Probe,
    links: HashSet<LinkId>,
    /// Which namespaces each proxy wants here, also while its stream is gone.
    wanted: HashMap<LinkId, HashSet<String>>,
    /// While the process leaves: who has not acknowledged, and until when that is waited for.
    unacknowledged: Option<(HashSet<LinkId>, Instant)>,
}

impl<P: Plugin> Engine<P> {
    pub(crate) fn new(plugin: Arc<P>, settings: Settings, server: DataServer) -> (Self, Handle) {
        let (sender, inputs) = mpsc::channel(QUEUE);
        let (state, watched) = watch::channel(State::default());
        let engine = Self {
            health: health::Probe::new(settings.health_within),
            plugin,
            settings,
            server,
            machine: Machine::new(),
            inputs,
            state,
            work: JoinSet::new(),
            cancel: CancellationToken::new(),
            links: HashSet::new(),
            wanted: HashMap::new(),
            unacknowledged: None,
        };
        let handle = Handle {
            inputs: sender,
            state: watched,
        };
        (engine, handle)
    }

    /// Runs until the plugin has stopped.
    pub(crate) async fn run(mut self) -> ExitStatus {
        let mut heartbeat = tokio::time::interval(self.settings.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let announce_until = self.unacknowledged.as_ref().map(|(_, until)| *until);
            let decisions = tokio::select! {
                Some(input) = self.inputs.recv() => self.take(input),
                Some(done) = self.work.join_next() => match done {
                    Ok(event) => self.machine.event(event),
                    // Every piece of work catches its own panic, so this one was none of ours.
                    Err(error) => {
                        tracing::error!(%error, "a plugin call was lost");
                        Vec::new()
                    }
                },
                health = self.health.done() => {
                    self.report_health(health);
                    continue;
                }
                _ = heartbeat.tick() => {
                    self.health.begin(&self.plugin);
                    continue;
                }
                () = sleep_until(announce_until) => {
                    self.unacknowledged = None;
                    self.machine.event(Event::Announced)
                }
            };
            if let Some(status) = self.obey(decisions) {
                return status;
            }
        }
    }

    fn take(&mut self, input: Input) -> Vec<Decision<Reply>> {
        match input {
            Input::Command { from, command } => {
                tracing::debug!(kind = ?command.kind(), stage = self.machine.stage().as_str(), "command");
                let ends = matches!(
                    command,
                    Command::Drain { .. } | Command::Stop { .. } | Command::Shutdown { .. }
                );
                let link = from.link();
                if let Some(link) = link
                    && self.is_kept(link, &command)
                {
                    from.send(Answer::Initialized(Ok(Initialized::default())));
                    return Vec::new();
                }
                let mut decisions = self.machine.command(from, command);
                if ends && let Some(link) = link {
                    self.begin_announcing(&mut decisions);
                    decisions.extend(self.acknowledged(link));
                }
                decisions
            }
            Input::LinkUp { link, ours } => {
                self.links.insert(link);
                tracing::debug!(%link, ours, "a control stream is there");
                Vec::new()
            }
            Input::LinkDown { link } => {
                self.links.remove(&link);
                self.acknowledged(link)
            }
            Input::Leave => {
                tracing::info!("told to end");
                self.machine.event(Event::Leave)
            }
        }
    }

    /// Whether a proxy takes a namespace away that another one, which is there, wants here. That one would go on sending
    /// calls; as far as the first one goes, it is gone.
    fn is_kept(&mut self, link: LinkId, command: &Command) -> bool {
        match command {
            Command::Initialize(configuration) => {
                let wanted = self.wanted.entry(link).or_default();
                wanted.insert(configuration.namespace.clone());
                false
            }
            Command::Remove { namespace, .. } => {
                if let Some(wanted) = self.wanted.get_mut(&link) {
                    wanted.remove(namespace);
                }
                let wants = |link| {
                    let wanted = self.wanted.get(link);
                    wanted.is_some_and(|wanted| wanted.contains(namespace))
                };
                let is_kept = self.links.iter().any(wants);
                if is_kept {
                    tracing::info!(namespace, %link, "a proxy lets a namespace go that another one keeps");
                }
                is_kept
            }
            _ => false,
        }
    }

    /// A proxy that asks for a drain has stopped sending calls: that is how it acknowledges.
    fn acknowledged(&mut self, link: LinkId) -> Vec<Decision<Reply>> {
        let Some((waiting, _)) = &mut self.unacknowledged else {
            return Vec::new();
        };
        waiting.remove(&link);
        if !waiting.is_empty() {
            return Vec::new();
        }
        self.unacknowledged = None;
        self.machine.event(Event::Announced)
    }

    /// Takes the announcement out of the decisions and begins it.
    fn begin_announcing(&mut self, decisions: &mut Vec<Decision<Reply>>) {
        let before = decisions.len();
        decisions.retain(|decision| !matches!(decision, Decision::Announce));
        if decisions.len() < before {
            let until = Instant::now() + self.settings.announce_within;
            self.unacknowledged = Some((self.links.clone(), until));
            self.server.fail_readiness();
        }
    }

    /// Carries decisions out, and those that follow from them.
    fn obey(&mut self, mut decisions: Vec<Decision<Reply>>) -> Option<ExitStatus> {
        self.begin_announcing(&mut decisions);
        if self
            .unacknowledged
            .as_ref()
            .is_some_and(|(waiting, _)| waiting.is_empty())
        {
            self.unacknowledged = None;
            decisions.extend(self.machine.event(Event::Announced));
        }
        // Before anybody is told anything: what a link registers must not be older than what it said.
        self.publish();
        decisions
            .into_iter()
            .filter_map(|decision| self.carry_out(decision))
            .last()
    }

    fn carry_out(&mut self, decision: Decision<Reply>) -> Option<ExitStatus> {
        match decision {
            Decision::Answer { to, answer } => to.send(answer),
            Decision::Health { to, note } => {
                self.health.wait(to, note);
                self.health.begin(&self.plugin);
            }
            Decision::Initialize(configuration) => self.initialize(configuration),
            Decision::Remove(namespace) => self.remove(namespace),
            Decision::Start => self.start(),
            Decision::Cancel => self.cancel.cancel(),
            Decision::Drain { within } => self.drain(within),
            Decision::Stop { within } => self.stop(within),
            Decision::Exit(status) => return Some(status),
            // Taken out before.
            Decision::Announce => {}
        }
        None
    }

    fn report_health(&mut self, health: Health) {
        self.health.note(health);
        self.health.answer(&self.reported_health());
        self.publish();
    }

    fn publish(&mut self) {
        let stage = self.machine.stage();
        if stage >= Stage::Draining {
            self.server.fail_readiness();
        }
        let now = State {
            stage,
            health: self.reported_health(),
            reports: self.machine.report(),
        };
        self.state.send_if_modified(|state| {
            let changed = *state != now;
            *state = now;
            changed
        });
    }
}

/// Never, when there is nothing to wait for.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
