//! Where the calls of a namespace are sent.

use prism_core::{id::InstanceId, lifecycle::Scope};
use tokio::time::Instant;

use super::{Effect, Fleet, Namespace, Runner};
use crate::route::Target;

impl Namespace {
    pub(super) fn routes_to(&self, instance: &InstanceId) -> bool {
        let targets = self.routed.as_deref().unwrap_or_default();
        targets.iter().any(|target| target.instance_id == *instance)
    }
}

impl Fleet {
    /// Lets calls wait before the first runner is told to change over to other data.
    pub(super) fn hold(&mut self, name: &str) {
        let Some(namespace) = self.namespaces.get(name) else {
            return;
        };
        let moving = namespace.moving && self.is_changing_over(name);
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.moving = moving;
            if moving && !namespace.held {
                namespace.held = true;
                self.effects.push(Effect::Hold {
                    namespace: name.to_owned(),
                });
            }
        }
    }

    /// Works out who serves a namespace now, and says so if it is not what was said last.
    pub(super) fn route(&mut self, now: Instant, name: &str) {
        self.hold(name);
        let Some(namespace) = self.namespaces.get(name).filter(|namespace| !namespace.moving) else {
            return;
        };
        let targets = self.targets(now, namespace);
        if namespace.routed.as_ref() == Some(&targets) && !namespace.held {
            return;
        }
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.held = false;
            namespace.routed = Some(targets.clone());
        }
        let namespace = name.to_owned();
        self.effects.push(Effect::Route { namespace, targets });
    }

    /// Whether some runner still has to change over to the wanted configuration, while one serves
    /// another.
    fn is_changing_over(&self, name: &str) -> bool {
        let spaces = || {
            let connected = self.runners.values().filter(|runner| runner.session.is_some());
            connected.filter_map(|runner| runner.peer.space(name))
        };
        spaces().any(|space| space.is_changing_over()) && spaces().any(|space| space.is_applied())
    }

    fn targets(&self, now: Instant, namespace: &Namespace) -> Vec<Target> {
        let name = &namespace.desired.name;
        let mut serving: Vec<&Runner> = self
            .runners
            .values()
            .filter(|runner| runner.serves(name))
            .collect();
        if self.scope(namespace) != Some(Scope::Shared) {
            serving
                .retain(|runner| Some(runner.id) == namespace.owner || namespace.routes_to(&runner.instance));
        }
        // After a move the old data is not served beside the new.
        prefer(&mut serving, |runner| {
            !namespace.desired.discard_on_move || runner.runs(name, &namespace.mark)
        });
        prefer(&mut serving, |runner| runner.leaving_until.is_none());
        serving.retain(|runner| runner.leaving_until.is_none_or(|until| now < until));
        prefer(&mut serving, |runner| runner.is_healthy());
        if self.scope(namespace) != Some(Scope::Shared) {
            // Only one at a time, the owner as soon as it can.
            prefer(&mut serving, |runner| Some(runner.id) == namespace.owner);
            serving.truncate(1);
        }
        serving.into_iter().filter_map(Runner::target).collect()
    }
}

/// Keeps only those that are so, if there are any.
fn prefer(runners: &mut Vec<&Runner>, is: impl Fn(&Runner) -> bool) {
    if runners.iter().any(|runner| is(runner)) {
        runners.retain(|runner| is(runner));
    }
}
