//! Who belongs to the fleet: runners that come, go, come back and get lost.

use std::net::SocketAddr;

use prism_core::lifecycle::Stage;
use tokio::time::Instant;

use super::{Effect, Fleet, Runner, RunnerId, SessionId, Timer};
use crate::control::wire::Registration;

/// Between two looks at a lost runner's data endpoint.
const PROBE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

impl Fleet {
    pub(super) fn register(
        &mut self,
        now: Instant,
        session: SessionId,
        registration: Registration,
        peer: Option<SocketAddr>,
    ) -> Result<RunnerId, String> {
        let known = registration
            .token
            .as_ref()
            .and_then(|token| self.tokens.get(token))
            .copied();
        let id = match known {
            Some(id) => {
                self.rejoin(id, session, registration, peer);
                id
            }
            None => self.admit(session, registration, peer)?,
        };
        self.sessions.insert(session, id);
        let check = Timer::Health { session, runner: id };
        self.timers.set(now + self.settings.health_interval, check);
        Ok(id)
    }

    fn admit(
        &mut self,
        session: SessionId,
        registration: Registration,
        peer: Option<SocketAddr>,
    ) -> Result<RunnerId, String> {
        if self.runners.len() >= self.settings.runners {
            let most = self.settings.runners;
            return Err(format!(
                "this proxy takes no more than {most} runners, use another one"
            ));
        }
        let id = RunnerId(self.next_runner);
        self.next_runner += 1;
        let runner = Runner::new(id, session, registration, peer);
        tracing::info!(instance = %runner.instance, pattern = runner.pattern, peer = peer.map(tracing::field::display), "registered");
        self.tokens.insert(runner.token.clone(), id);
        self.runners.insert(id, runner);
        Ok(id)
    }

    /// The same process on another stream. The old stream, if it is still there, is a dead one.
    fn rejoin(
        &mut self,
        id: RunnerId,
        session: SessionId,
        registration: Registration,
        peer: Option<SocketAddr>,
    ) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        tracing::info!(instance = %runner.instance, "came back");
        if let Some(old) = runner.session {
            self.sessions.remove(&old);
            self.effects.push(Effect::Close { session: old });
        }
        runner.rejoin(session, registration, peer);
    }

    /// A stream ended.
    pub(in crate::control) fn left(&mut self, now: Instant, session: SessionId, reason: &str) {
        if let Some(id) = self.sessions.get(&session).copied() {
            self.lose(now, id, reason);
        }
    }

    /// A runner's stream is gone, or as good as gone. Its data endpoint need not be: while it answers,
    /// calls are still sent there.
    pub(super) fn lose(&mut self, now: Instant, id: RunnerId, reason: &str) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        if let Some(session) = runner.session.take() {
            self.sessions.remove(&session);
            self.effects.push(Effect::Close { session });
        }
        self.changed = true;
        if runner.leaves() || runner.endpoint.is_none() {
            tracing::info!(instance = %runner.instance, reason, "gone");
            self.remove(id);
            return;
        }
        tracing::warn!(instance = %runner.instance, reason, "control stream lost");
        runner.lost_at = Some(now);
        self.timers
            .set(now + self.settings.reconnect_within, Timer::Forget(id));
        self.probe(id);
    }

    pub(super) fn probe(&mut self, id: RunnerId) {
        if let Some(runner) = self.runners.get(&id)
            && runner.lost_at.is_some()
            && let Some(endpoint) = runner.endpoint.clone()
        {
            self.effects.push(Effect::Probe { runner: id, endpoint });
        }
    }

    /// A lost runner's data endpoint answered, or did not.
    pub(in crate::control) fn probed(&mut self, now: Instant, id: RunnerId, serves: bool) {
        let Some(runner) = self.runners.get(&id).filter(|runner| runner.lost_at.is_some()) else {
            return;
        };
        if serves {
            self.timers.set(now + PROBE_INTERVAL, Timer::Probe(id));
            return;
        }
        tracing::warn!(instance = %runner.instance, "does not serve any more");
        let instance = runner.instance.clone();
        self.effects.push(Effect::Disconnect { instance });
        self.remove(id);
    }

    /// Gives up a runner that did not come back in time, or that said it stopped and stays.
    pub(super) fn forget_if_gone(&mut self, now: Instant, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        let within = self.settings.reconnect_within;
        let away = runner.lost_at.is_some_and(|lost_at| now >= lost_at + within);
        let stopped = runner.peer.stage() == Stage::Stopped;
        if !away && !stopped {
            return;
        }
        tracing::warn!(instance = %runner.instance, away, stopped, "given up");
        if let Some(session) = runner.session.take() {
            self.sessions.remove(&session);
            self.effects.push(Effect::Close { session });
        }
        self.remove(id);
    }

    /// A process that serves where a lost one did has taken its place.
    pub(super) fn started(&mut self, id: RunnerId) {
        let Some(runner) = self.runners.get_mut(&id) else {
            return;
        };
        runner.resolve_endpoint();
        let endpoint = runner.endpoint.clone();
        let replaced: Vec<RunnerId> = self
            .runners
            .values()
            .filter(|other| other.id != id && other.lost_at.is_some() && other.endpoint == endpoint)
            .map(|other| other.id)
            .collect();
        for replaced in replaced {
            self.remove(replaced);
        }
    }

    fn remove(&mut self, id: RunnerId) {
        self.changed = true;
        if let Some(runner) = self.runners.remove(&id) {
            self.tokens.remove(&runner.token);
        }
    }
}
