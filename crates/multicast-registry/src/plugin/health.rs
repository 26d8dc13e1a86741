//! What the plugin says about its health.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use prism_core::lifecycle::{Health, HealthStatus};
use tokio::time::Instant;

use crate::coordinator::Coordinator;

/// How long a slot may take to show that it is alive.
const PROBE_TIMEOUT: Duration = Duration::from_millis(700);

/// Probes the slots of all namespaces at once.
pub(super) async fn report(coordinators: &[Coordinator]) -> Health {
    let checked = join_all(coordinators.iter().map(check)).await;
    let failing: Vec<&Checked> = checked
        .iter()
        .filter(|checked| !checked.problems.is_empty())
        .collect();
    let status = match failing.len() {
        0 => HealthStatus::Healthy,
        all if all == checked.len() => HealthStatus::Unhealthy,
        _ => HealthStatus::Degraded,
    };
    let message = failing
        .iter()
        .flat_map(|checked| checked.problems.iter().cloned());
    let message = message.collect::<Vec<_>>().join("; ");
    Health {
        status,
        message,
        details: checked.into_iter().flat_map(|checked| checked.details).collect(),
    }
}

struct Checked {
    details: BTreeMap<String, String>,
    problems: Vec<String>,
}

async fn check(coordinator: &Coordinator) -> Checked {
    let name = coordinator.config().namespace.clone();
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let (registry, messaging) = (coordinator.registry(), coordinator.messaging());
    let (registry, messaging) = tokio::join!(registry.probe(deadline), messaging.probe(deadline));
    let mut checked = Checked {
        details: BTreeMap::new(),
        problems: Vec::new(),
    };
    for (slot, outcome) in [("registry", registry), ("messaging", messaging)] {
        let state = match outcome {
            Ok(()) => "healthy".to_owned(),
            Err(error) => {
                checked.problems.push(format!("{name}.{slot}: {error}"));
                "unhealthy".to_owned()
            }
        };
        checked.details.insert(format!("{name}.{slot}"), state);
    }
    let view = if coordinator.directory().is_ready() {
        "ready"
    } else {
        "building"
    };
    checked.details.insert(format!("{name}.view"), view.to_owned());
    checked
}
