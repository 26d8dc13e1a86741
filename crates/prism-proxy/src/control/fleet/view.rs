//! The fleet as the admin endpoint shows it.

use std::time::UNIX_EPOCH;

use prism_core::lifecycle::Space;

use super::{Fleet, Namespace, Runner};
use crate::control::snapshot::{
    NamespaceView, RoleView, RunnerNamespaceView, RunnerView, Snapshot, Standing,
};

impl Fleet {
    pub(in crate::control) fn snapshot(&self) -> Snapshot {
        Snapshot {
            generation: 0,
            runners: self
                .runners
                .values()
                .map(|runner| self.runner_view(runner))
                .collect(),
            namespaces: self
                .namespaces
                .values()
                .map(|namespace| self.namespace_view(namespace))
                .collect(),
        }
    }

    fn runner_view(&self, runner: &Runner) -> RunnerView {
        let since_epoch = runner
            .last_heartbeat
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let spaces = runner.peer.spaces().map(|(name, space)| {
            let role = match self.namespaces.get(name) {
                Some(namespace) if namespace.routes_to(&runner.instance) && !namespace.held => {
                    RoleView::Serving
                }
                _ => role(space),
            };
            space_view(name, role, space)
        });
        RunnerView {
            instance_id: runner.instance.clone(),
            pattern: runner.pattern.clone(),
            pattern_version: runner.version.clone(),
            process_id: runner.process_id,
            peer_address: runner.peer_address.map(|address| address.to_string()),
            data_endpoint: runner.endpoint.clone(),
            state: runner.peer.stage(),
            connected: runner.session.is_some(),
            draining: runner.leaves(),
            foreign: !runner.extended,
            last_heartbeat_unix_ms: since_epoch.and_then(|since| since.as_millis().try_into().ok()),
            health: runner.health,
            health_message: runner.health_message.clone(),
            health_details: runner.health_details.clone(),
            error: runner
                .endpoint_error
                .clone()
                .or_else(|| runner.peer.start_error().map(str::to_owned)),
            namespaces: spaces.collect(),
        }
    }

    fn namespace_view(&self, namespace: &Namespace) -> NamespaceView {
        let name = &namespace.desired.name;
        let targets = namespace.routed.as_deref().unwrap_or_default();
        let (serving, able): (Vec<_>, Vec<_>) = self
            .runners
            .values()
            .filter(|runner| runner.pattern == namespace.pattern && runner.takes(name))
            .partition(|runner| targets.iter().any(|target| target.instance_id == runner.instance));
        let errors = self
            .runners
            .values()
            .filter_map(|runner| runner.peer.space(name)?.error());
        NamespaceView {
            name: name.clone(),
            pattern: namespace.pattern.clone(),
            version: namespace.mark.version,
            digest: namespace.mark.digest.clone(),
            standing: match (namespace.held, serving.is_empty()) {
                (true, _) => Standing::Held,
                (false, true) => Standing::Unserved,
                (false, false) => Standing::Served,
            },
            scope: self.scope(namespace),
            serving: serving
                .into_iter()
                .map(|runner| runner.instance.clone())
                .collect(),
            standby: able
                .into_iter()
                .filter(|runner| runner.is_commandable() && runner.may_serve(name, &namespace.mark))
                .map(|runner| runner.instance.clone())
                .collect(),
            error: errors.last().map(str::to_owned),
        }
    }
}

fn role(space: &Space) -> RoleView {
    if space.is_under_way() || space.is_changing_over() {
        RoleView::Configuring
    } else if space.is_assigned() && !space.is_applied() {
        RoleView::Refusing
    } else {
        RoleView::Standby
    }
}

fn space_view(name: &str, role: RoleView, space: &Space) -> RunnerNamespaceView {
    let (applied, refused) = (space.standing().applied(), space.standing().refused());
    RunnerNamespaceView {
        namespace: name.to_owned(),
        role,
        applied_digest: applied.map(|mark| mark.digest.clone()),
        applied_version: applied.map(|mark| mark.version),
        rejected_digest: refused.map(|refused| refused.digest.clone()),
        rejected_version: refused.and_then(|refused| refused.version),
        error: space.error().map(str::to_owned),
        scope: space.scope(),
    }
}
