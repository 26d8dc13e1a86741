//! What has to happen at a certain time.

use std::{collections::BTreeMap, time::Duration};

use prism_core::lifecycle::Request;
use tokio::time::Instant;

use super::{Fleet, RunnerId, SessionId};
use crate::control::Settings;

/// One thing to do later. Each checks for itself whether it still applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Timer {
    /// Look at everything anew: something changes by the passing of time alone.
    Plan,
    /// The time for an answer is over.
    Answer { session: SessionId, correlation: String },
    /// Ask for the health.
    Health { session: SessionId, runner: RunnerId },
    /// Look whether a lost runner still serves.
    Probe(RunnerId),
    /// Give up a runner that did not come back.
    Forget(RunnerId),
    /// Start a runner again that did not start.
    RetryStart(RunnerId),
}

/// The timers, in order.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Instant, u64), Timer>,
    count: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.count += 1;
        self.due.insert((at, self.count), timer);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: Instant) -> Option<Timer> {
        let due = self.due.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(due.remove())
    }
}

/// How long the answer to a request may take.
pub(super) fn limit(settings: &Settings, request: &Request) -> Duration {
    match request {
        Request::Initialize { .. } | Request::Remove { .. } => settings.initialize_within,
        Request::Start => settings.start_within,
        Request::HealthCheck => settings.health_within,
        // The runner is given `within`, and a little for the answer to arrive.
        Request::Drain { within, .. } | Request::Shutdown { within, .. } => *within + settings.health_within,
    }
}

impl Fleet {
    /// Does what is due. Call [`plan`](Self::plan) afterwards.
    pub(in crate::control) fn tick(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Plan => self.changed = true,
                Timer::Answer { session, correlation } => self.expired(now, session, &correlation),
                Timer::Health { session, runner } => self.health_due(now, session, runner),
                Timer::Probe(runner) => self.probe(runner),
                Timer::Forget(runner) => self.forget_if_gone(now, runner),
                Timer::RetryStart(runner) => {
                    if let Some(runner) = self.runners.get_mut(&runner) {
                        runner.peer.retry_start();
                        self.changed = true;
                    }
                }
            }
        }
    }

    fn expired(&mut self, now: Instant, session: SessionId, correlation: &str) {
        let Some(runner) = self.speaker(session) else {
            return;
        };
        let (id, progress) = (runner.id, runner.peer.expired(correlation));
        self.progressed(now, id, progress);
    }

    fn health_due(&mut self, now: Instant, session: SessionId, runner: RunnerId) {
        if self.sessions.get(&session) == Some(&runner) {
            self.check_health(now, runner);
            let next = now + self.settings.health_interval;
            self.timers.set(next, Timer::Health { session, runner });
        }
    }

    pub(super) fn check_health(&mut self, now: Instant, id: RunnerId) {
        let check = self
            .runners
            .get_mut(&id)
            .and_then(|runner| runner.peer.check_health());
        if let Some(check) = check {
            self.dispatch(now, id, check);
        }
    }
}
