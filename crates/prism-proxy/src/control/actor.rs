//! The one task that owns the fleet: feeds it what happens, and does what it decides.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use prism_core::lifecycle::{Answer, HealthStatus};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    DesiredNamespace, Settings,
    fleet::{Effect, Fleet, RunnerId, SessionId},
    probe,
    service::Outbox,
    snapshot::Snapshot,
    wire::Registration,
};
use crate::route::Table;

/// How many events are taken in before their consequences are worked out.
const BATCH: usize = 256;

/// How old the time of a last heartbeat may be in the snapshot.
const HEARTBEATS_SHOWN_EVERY: Duration = Duration::from_secs(1);

/// What the fleet is told.
#[derive(Debug)]
pub(super) enum Event {
    /// These namespaces are wanted.
    Apply(Vec<DesiredNamespace>),
    /// A runner opened a stream and registered, or tried to.
    Joined {
        session: SessionId,
        correlation: String,
        registration: Result<Registration, String>,
        peer: Option<SocketAddr>,
        outbox: Outbox,
    },
    /// A runner answered a command.
    Answered {
        session: SessionId,
        correlation: String,
        answer: Answer,
    },
    /// A runner sent a heartbeat.
    Heartbeat {
        session: SessionId,
        status: HealthStatus,
        draining: bool,
    },
    /// A stream ended.
    Left { session: SessionId, reason: String },
}

pub(super) struct Actor {
    fleet: Fleet,
    table: Arc<Table>,
    settings: Settings,
    events: mpsc::Receiver<Event>,
    publish: watch::Sender<Arc<Snapshot>>,
    closing: CancellationToken,
    outboxes: HashMap<SessionId, Outbox>,
    probes: JoinSet<(RunnerId, bool)>,
    published_at: Instant,
}

impl Actor {
    pub(super) fn new(
        table: Arc<Table>,
        settings: Settings,
        events: mpsc::Receiver<Event>,
        publish: watch::Sender<Arc<Snapshot>>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            fleet: Fleet::new(settings, Instant::now()),
            table,
            settings,
            events,
            publish,
            closing,
            outboxes: HashMap::new(),
            probes: JoinSet::new(),
            published_at: Instant::now(),
        }
    }

    /// Runs until the control plane closes. The streams end with it.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let next_timer = self.fleet.next_timer();
            tokio::select! {
                () = self.closing.cancelled() => return,
                taken = self.events.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
                Some(Ok((runner, serves))) = self.probes.join_next() => {
                    self.fleet.probed(Instant::now(), runner, serves);
                }
                () = sleep_until(next_timer) => {}
            }
            let now = Instant::now();
            for event in batch.drain(..) {
                self.take(now, event);
            }
            self.fleet.tick(now);
            self.settle(now);
        }
    }

    fn take(&mut self, now: Instant, event: Event) {
        match event {
            Event::Apply(namespaces) => self.fleet.apply(namespaces),
            Event::Joined {
                session,
                correlation,
                registration,
                peer,
                outbox,
            } => {
                self.outboxes.insert(session, outbox);
                self.fleet.joined(now, session, correlation, registration, peer);
            }
            Event::Answered {
                session,
                correlation,
                answer,
            } => self.fleet.answered(now, session, &correlation, answer),
            Event::Heartbeat {
                session,
                status,
                draining,
            } => self.fleet.heartbeat(now, session, status, draining),
            Event::Left { session, reason } => {
                self.outboxes.remove(&session);
                self.fleet.left(now, session, &reason);
            }
        }
    }

    /// Works out and carries out everything that follows. A stream that breaks on the way is news.
    fn settle(&mut self, now: Instant) {
        let mut news = false;
        loop {
            news |= self.fleet.plan(now);
            let effects = self.fleet.take_effects();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.carry_out(now, effect);
            }
        }
        // The time of the last heartbeat may be a little old, everything else is not.
        if news || now >= self.published_at + HEARTBEATS_SHOWN_EVERY {
            self.published_at = now;
            self.publish();
        }
    }

    fn carry_out(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::Send { session, command } => {
                let Some(outbox) = self.outboxes.get(&session) else {
                    return;
                };
                // Full: it does not read. Closed: its end is on the way here as an event of its own.
                if outbox.commands.try_send(Ok(command)).is_err() {
                    self.outboxes.remove(&session);
                    self.fleet.left(now, session, "it does not read its commands");
                }
            }
            Effect::Close { session } => drop(self.outboxes.remove(&session)),
            Effect::Route { namespace, targets } => {
                self.table.set(&namespace, targets);
            }
            Effect::Hold { namespace } => {
                self.table.hold(&namespace);
            }
            Effect::Probe { runner, endpoint } => {
                let within = self.settings.probe_within;
                self.probes
                    .spawn(async move { (runner, probe::serves(endpoint, within).await) });
            }
            Effect::Disconnect { instance } => self.table.disconnect(&instance),
        }
    }

    fn publish(&self) {
        let mut now = self.fleet.snapshot();
        self.publish.send_if_modified(|published| {
            let news = !now.shows_the_same_as(published);
            now.generation = published.generation + u64::from(news);
            *published = Arc::new(now);
            news
        });
    }
}

/// Never, when there is nothing to wait for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
