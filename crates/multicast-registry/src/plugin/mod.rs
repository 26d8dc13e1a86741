//! The pattern as a plugin: what the SDK calls as the proxy, or a configuration file, says.

mod health;
mod manifest;
mod namespace;

#[cfg(test)]
mod tests;

pub use manifest::manifest;

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use parking_lot::Mutex;
use prism_core::{
    config::{Error as ConfigError, Segment},
    lifecycle::{Drained, Health, Scope as WireScope},
    overload::Gate,
    telemetry::TraceLayer,
};
use prism_plugin_sdk::{Description, Initialize, Initialized, Interface, Plugin, Refusal};
use prism_slot::Scope;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::service::Routes;

use crate::{
    config::{Namespace, PATTERN},
    coordinator::Coordinator,
    metrics::Metrics,
    namespaces::Namespaces,
    service::Service,
};
use namespace::Running;

/// The service on the data endpoint.
pub const INTERFACE: &str = "prism.pattern.MulticastRegistryPattern";
/// Where it is declared, below the proto root.
pub const PROTO_FILE: &str = "prism/pattern/multicast_registry.proto";
/// The methods that may be sent a second time without harm.
pub const IDEMPOTENT: [&str; 7] = [
    "Get",
    "Enumerate",
    "Renew",
    "Explain",
    "GetMulticast",
    "CheckSchema",
    "ListDeadLetters",
];

/// Where a namespace is while it is served. Locked while it is changed, so that a slow backend holds up
/// its own namespace and no other.
type Place = Arc<tokio::sync::Mutex<Option<Running>>>;

/// The multicast registry as a plugin.
pub struct MulticastRegistry {
    namespaces: Namespaces,
    service: Service,
    gate: Gate,
    /// Watches over the gate.
    watching: Mutex<Option<AbortOnDropHandle<()>>>,
    metrics: Arc<Metrics>,
    places: Mutex<BTreeMap<String, Place>>,
    tasks: TaskTracker,
}

impl MulticastRegistry {
    /// Writes the metrics as OpenMetrics text, also once it is a runner's.
    pub fn exposition(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let metrics = self.metrics.clone();
        move || metrics.encode()
    }
}

impl Default for MulticastRegistry {
    fn default() -> Self {
        let (namespaces, gate) = (Namespaces::default(), Gate::default());
        Self {
            service: Service::new(namespaces.clone()).behind(gate.clone()),
            gate,
            watching: Mutex::default(),
            namespaces,
            metrics: Arc::default(),
            places: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }
}

impl MulticastRegistry {
    /// The namespaces that are served.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    fn place(&self, namespace: &str) -> Place {
        let mut places = self.places.lock();
        places.entry(namespace.to_owned()).or_default().clone()
    }
}

impl Plugin for MulticastRegistry {
    fn description(&self) -> Description {
        let interface = Interface {
            name: INTERFACE.to_owned(),
            proto_file: PROTO_FILE.to_owned(),
            version: "v1".to_owned(),
            hash: prism_proto::file_hash(PROTO_FILE).unwrap_or_default().to_owned(),
            metadata: [("prism.idempotent".to_owned(), IDEMPOTENT.join(","))].into(),
        };
        Description {
            name: PATTERN.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interfaces: vec![interface],
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
        }
    }

    async fn initialize(&self, request: Initialize) -> Result<Initialized, Refusal> {
        let tree = Value::Object(request.config);
        let namespace = Namespace::read(Some(&request.namespace), &tree).map_err(|error| refusal(&error))?;
        if namespace.name != request.namespace {
            let message = format!(
                "the configuration is for `{}`, not `{}`",
                namespace.name, request.namespace
            );
            return Err(Refusal::new(message).key("name"));
        }
        let scope = namespace.slots.scope();
        let place = self.place(&namespace.name);
        let mut running = place.lock().await;
        let coordinator = match &mut *running {
            None => {
                let started = Running::start(namespace, &self.metrics, &self.tasks).await?;
                running.insert(started).coordinator().clone()
            }
            Some(known) => {
                known.change(namespace, &self.metrics, &self.tasks).await?;
                known.coordinator().clone()
            }
        };
        self.namespaces.insert(coordinator);
        Ok(Initialized {
            scope: wire_scope(scope),
            extra: BTreeMap::new(),
        })
    }

    async fn remove(&self, namespace: &str) -> Result<(), Refusal> {
        let removed = self.place(namespace).lock().await.take();
        self.namespaces.remove(namespace);
        if let Some(removed) = removed {
            let coordinator = removed.coordinator().clone();
            // Done even if this call is given up.
            let closed = self.tasks.spawn(async move { coordinator.close().await });
            let _ = closed.await;
            self.metrics.forget(namespace);
            tracing::info!(namespace, "the namespace was taken away");
        }
        Ok(())
    }

    fn routes(&self) -> Routes {
        let routes = Routes::new(self.service.clone().into_server());
        Routes::from(routes.into_axum_router().layer(TraceLayer))
    }

    async fn start(&self) -> Result<(), Refusal> {
        let gate = self.gate.clone();
        let watching = tokio::spawn(async move { gate.watch().await });
        *self.watching.lock() = Some(AbortOnDropHandle::new(watching));
        self.namespaces.set_complete();
        tracing::info!(
            namespaces = self.namespaces.all().len(),
            "coordinator ready for operations"
        );
        Ok(())
    }

    async fn health(&self) -> Health {
        health::report(&self.namespaces.all()).await
    }

    async fn drain(&self, deadline: Instant) -> Drained {
        let mut sessions = 0;
        for coordinator in self.namespaces.all() {
            sessions += coordinator.session_count();
            coordinator.close_sessions();
        }
        let mutations = self.service.mutations();
        let under_way = mutations.len();
        mutations.close();
        let _ = tokio::time::timeout_at(deadline, mutations.wait()).await;
        let aborted = mutations.len();
        Drained {
            // Some may have come since.
            drained: (sessions + under_way).saturating_sub(aborted) as u64,
            aborted: aborted as u64,
        }
    }

    async fn stop(&self, deadline: Instant) -> Result<(), Refusal> {
        let closing = async {
            let coordinators = self.namespaces.all();
            join_all(coordinators.iter().map(Coordinator::close)).await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        let late = |_| Refusal::new("the slots did not close in time");
        tokio::time::timeout_at(deadline, closing).await.map_err(late)
    }

    fn metrics(&self) -> String {
        self.metrics.encode()
    }

    fn descriptors(&self) -> &'static [u8] {
        prism_proto::DESCRIPTORS
    }
}

fn wire_scope(scope: Scope) -> WireScope {
    match scope {
        Scope::Process => WireScope::Process,
        Scope::Host => WireScope::Host,
        Scope::Shared => WireScope::Shared,
    }
}

/// Splits the path of a configuration error into the slot and the key below it.
fn refusal(error: &ConfigError) -> Refusal {
    let refusal = Refusal::new(error.explanation());
    let keys: Vec<String> = error.path.segments().iter().map(segment).collect();
    match keys.as_slice() {
        [slots, slot, rest @ ..] if slots == "slots" || slots == "backend_slots" => {
            let refusal = refusal.slot(slot);
            if rest.is_empty() {
                refusal
            } else {
                refusal.key(rest.join("."))
            }
        }
        [] => refusal,
        keys => refusal.key(keys.join(".")),
    }
}

fn segment(segment: &Segment) -> String {
    match segment {
        Segment::Key(key) => key.clone(),
        Segment::Index(index) => index.to_string(),
    }
}
