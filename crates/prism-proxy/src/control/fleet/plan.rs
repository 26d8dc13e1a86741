//! Who should have which namespace, and what to send so that it comes about.

use std::collections::BTreeSet;

use prism_core::lifecycle::{Assignment, Scope};
use tokio::time::Instant;

use super::{Fleet, Namespace, Runner, RunnerId};

impl Fleet {
    /// Brings commands and routes in line with the facts. Returns whether any had changed.
    pub(in crate::control) fn plan(&mut self, now: Instant) -> bool {
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        let names: Vec<String> = self.namespaces.keys().cloned().collect();
        // Owners first: a runner that takes only one namespace should go to one that nobody serves
        // rather than become one of many for another.
        for name in &names {
            self.elect(now, name);
        }
        for name in &names {
            self.assign(now, name);
        }
        self.release_retired();
        for name in &names {
            self.hold(name);
        }
        self.send_due(now);
        for name in &names {
            self.route(now, name);
        }
        self.let_go(now);
        true
    }

    /// Chooses the runner that serves a namespace alone, and keeps the choice for as long as it can:
    /// the data is there, and another owner means another epoch.
    fn elect(&mut self, now: Instant, name: &str) {
        let Some(namespace) = self.namespaces.get(name) else {
            return;
        };
        let owner = namespace.owner.and_then(|id| self.runners.get(&id));
        if owner.is_some_and(|owner| self.is_fit(now, namespace, owner)) {
            return;
        }
        let best = self
            .runners
            .values()
            .filter(|runner| self.is_candidate(now, namespace, runner))
            // An owner that is not fit is better than another that is not fit either.
            .filter(|runner| owner.is_none() || self.is_fit(now, namespace, runner))
            .min_by_key(|runner| self.rank(namespace, runner));
        if let Some(best) = best {
            tracing::info!(namespace = name, instance = %best.instance, "chosen");
        }
        let chosen = best.or(owner).map(|runner| runner.id);
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.owner = chosen;
        }
        if let Some(runner) = chosen.and_then(|id| self.runners.get_mut(&id)) {
            runner.dedicate(name);
        }
    }

    /// Whether a runner can be the owner, or stay it.
    fn is_fit(&self, now: Instant, namespace: &Namespace, runner: &Runner) -> bool {
        let within = self.settings.unhealthy_within;
        let sick = runner
            .unhealthy_since()
            .is_some_and(|since| now >= since + within);
        let suits = runner.pattern == namespace.pattern
            && runner.takes(&namespace.desired.name)
            && runner.may_serve(&namespace.desired.name, &namespace.mark);
        suits && !runner.leaves() && !sick && !runner.is_unusable()
    }

    fn is_candidate(&self, now: Instant, namespace: &Namespace, runner: &Runner) -> bool {
        // One without data waits for one that may come with it.
        let waits = runner.may_lack_data && now < self.settled_at;
        runner.pattern == namespace.pattern
            && runner.is_commandable()
            && runner.takes(&namespace.desired.name)
            && runner.may_serve(&namespace.desired.name, &namespace.mark)
            && !waits
    }

    /// Lowest first: who has the data, who can serve, who has the least to do, who comes first for every proxy, who was
    /// here first.
    fn rank<'a>(
        &self,
        namespace: &Namespace,
        runner: &'a Runner,
    ) -> (u8, bool, bool, usize, Option<&'a str>, RunnerId) {
        let name = &namespace.desired.name;
        let data = match (runner.runs(name, &namespace.mark), runner.has_applied(name)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        let owned = self
            .namespaces
            .values()
            .filter(|other| other.owner == Some(runner.id))
            .count();
        let everywhere = runner.everywhere.as_deref();
        (
            data,
            runner.is_unusable(),
            !runner.is_healthy(),
            owned,
            everywhere,
            runner.id,
        )
    }

    /// Says who should run a namespace: everybody where the data is shared, the owner otherwise.
    fn assign(&mut self, now: Instant, name: &str) {
        let Some(namespace) = self.namespaces.get(name) else {
            return;
        };
        let everybody = self.scope(namespace) == Some(Scope::Shared);
        let chosen: BTreeSet<RunnerId> = self
            .runners
            .values()
            .filter(|runner| {
                Some(runner.id) == namespace.owner || (everybody && self.is_candidate(now, namespace, runner))
            })
            .map(|runner| runner.id)
            .collect();
        let (mark, pattern) = (namespace.mark.clone(), namespace.pattern.clone());
        for runner in self.runners.values_mut() {
            if chosen.contains(&runner.id) {
                runner.peer.assign(name, Assignment::Serve(mark.clone()));
                runner.dedicate(name);
            } else if !runner.leaves() && (!everybody || runner.pattern != pattern) {
                let version = mark.version;
                runner.peer.assign(name, Assignment::Release { version });
            }
        }
    }

    /// How far a namespace's data reaches, as those say that run it; `None` while nobody does. What runs
    /// the wanted configuration decides; until then what runs another one.
    pub(super) fn scope(&self, namespace: &Namespace) -> Option<Scope> {
        let name = &namespace.desired.name;
        let scope_of = |runner: &Runner| runner.peer.space(name).map(|space| space.scope());
        let wanted = self
            .runners
            .values()
            .filter(|runner| runner.runs(name, &namespace.mark));
        let any = self.runners.values().filter(|runner| runner.has_applied(name));
        wanted
            .filter_map(scope_of)
            .min()
            .or_else(|| any.filter_map(scope_of).min())
    }

    /// Takes namespaces away that are no longer wanted. A runner that does not know how to let go of its
    /// only one has nothing left to do.
    fn release_retired(&mut self) {
        for (name, &version) in &self.retired {
            for runner in self
                .runners
                .values_mut()
                .filter(|runner| runner.peer.space(name).is_some())
            {
                runner.peer.assign(name, Assignment::Release { version });
            }
        }
        for runner in self.runners.values_mut() {
            if runner.extended
                && runner
                    .only
                    .as_ref()
                    .is_some_and(|only| runner.peer.space(only).is_none())
            {
                runner.only = None;
            }
        }
    }

    fn send_due(&mut self, now: Instant) {
        let due: Vec<_> = self
            .runners
            .values_mut()
            .filter(|runner| runner.is_commandable())
            .flat_map(|runner| runner.peer.due().into_iter().map(|sent| (runner.id, sent)))
            .collect();
        for (id, sent) in due {
            self.dispatch(now, id, sent);
        }
    }

    /// Acknowledges to those that leave that no more calls come, and ends foreign runners whose
    /// namespace is gone.
    fn let_go(&mut self, now: Instant) {
        let within = self.settings.drain_within;
        let mut due = Vec::new();
        for runner in self
            .runners
            .values_mut()
            .filter(|runner| runner.session.is_some())
        {
            let routed = self
                .namespaces
                .values()
                .any(|namespace| namespace.routes_to(&runner.instance));
            if routed {
                continue;
            }
            let useless = !runner.extended
                && runner
                    .only
                    .as_ref()
                    .is_some_and(|only| self.retired.contains_key(only));
            let sent = if runner.leaving_until.is_some() {
                runner.peer.drain(within, "no more calls are routed here")
            } else if useless {
                runner.peer.shut_down(within, "its namespace is no longer wanted")
            } else {
                None
            };
            due.extend(sent.map(|sent| (runner.id, sent)));
        }
        for (id, sent) in due {
            self.dispatch(now, id, sent);
        }
    }
}
