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
    let inbox = coordinator.inbox();
    let durability = async {
        match &inbox {
            Some(inbox) => Some(("durability", inbox.probe(deadline).await)),
            None => None,
        }
    };
    let (registry, messaging, durability) =
        tokio::join!(registry.probe(deadline), messaging.probe(deadline), durability);
    let probed = [("registry", registry), ("messaging", messaging)]
        .into_iter()
        .chain(durability);
    let mut checked = Checked {
        details: BTreeMap::new(),
        problems: Vec::new(),
    };
    for (slot, outcome) in probed {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prism_slot::{Applied, Timestamp, memory::ManualClock};

    use super::*;
    use crate::{
        coordinator::Config,
        testing::{Broker, Fate, Op, Store, soon, unavailable},
    };

    async fn namespace(name: &str) -> (Coordinator, Arc<Store>, Arc<Broker>) {
        let (store, broker) = (
            Store::new(Arc::new(ManualClock::new(Timestamp(0)))),
            Broker::new(),
        );
        let coordinator = Coordinator::new(Config::named(name), store.clone(), broker.clone(), None);
        coordinator.directory().ready(soon()).await.unwrap();
        (coordinator, store, broker)
    }

    #[tokio::test(start_paused = true)]
    async fn health_is_that_of_every_slot() {
        let (one, store, _) = namespace("one").await;
        let (two, _, broker) = namespace("two").await;
        let both = [one.clone(), two];
        let well = report(&both).await;
        assert_eq!((well.status, well.message.as_str()), (HealthStatus::Healthy, ""));
        assert_eq!(well.details["one.registry"], "healthy");
        assert_eq!(well.details["two.view"], "ready");

        store
            .script
            .always(Op::Probe, Fate::Refuse(unavailable(Applied::No)));
        let ill = report(&both).await;
        assert_eq!(ill.status, HealthStatus::Degraded, "one of two");
        assert!(ill.message.starts_with("one.registry: "), "{}", ill.message);
        assert_eq!(ill.details["one.registry"], "unhealthy");

        // One that does not answer is no better, and is not waited for.
        broker.script.always(Op::Probe, Fate::Hang);
        let started = Instant::now();
        let worse = report(&both).await;
        assert_eq!(worse.status, HealthStatus::Unhealthy, "all of them");
        assert!(worse.message.contains("two.messaging: "), "{}", worse.message);
        assert!(started.elapsed() <= PROBE_TIMEOUT);
        assert_eq!(
            report(&[]).await.status,
            HealthStatus::Healthy,
            "nothing to serve is nothing wrong"
        );
        one.close().await;
    }
}
