//! One namespace through its configurations (DESIGN §8, "Slot configs are pushed at runtime").

use std::{sync::Arc, time::Duration};

use prism_plugin_sdk::Refusal;
use prism_slot::{DynDurableInbox, DynLedger, Error, InboxLimits};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    config::{Namespace, OnMove, ViewKind},
    coordinator::{Config, Coordinator, Durability},
    metrics::Metrics,
    slots::{
        OpenInbox, OpenMessaging, OpenRegistry, durability_identity, messaging_identity, open_inbox,
        open_ledger, open_messaging, open_registry, registry_identity, same_ledger,
    },
};

/// How often a replaced slot is looked at, until its last session has ended.
const RETIRED_CHECK: Duration = Duration::from_secs(1);

/// How long changing the limits of inboxes may take.
const CONFIGURE_WITHIN: Duration = Duration::from_secs(5);

/// How long checking what is registered against a new schema may take.
const CHECK_WITHIN: Duration = Duration::from_secs(15);

/// A namespace that is served, and what it was configured with.
pub(super) struct Running {
    namespace: Namespace,
    registry: OpenRegistry,
    messaging: OpenMessaging,
    inbox: OpenInbox,
    ledger: Arc<dyn DynLedger>,
    coordinator: Coordinator,
}

/// The slots of a namespace, opened.
struct Opened {
    registry: OpenRegistry,
    messaging: OpenMessaging,
    inbox: OpenInbox,
    ledger: Arc<dyn DynLedger>,
}

/// The slots that another configuration opens anew.
#[derive(Default)]
struct Changed {
    registry: Option<OpenRegistry>,
    messaging: Option<OpenMessaging>,
    ledger: Option<Arc<dyn DynLedger>>,
    inbox: Option<OpenInbox>,
}

impl Running {
    /// Opens the slots and starts to serve.
    pub(super) async fn start(
        namespace: Namespace,
        metrics: &Metrics,
        tasks: &TaskTracker,
    ) -> Result<Self, Refusal> {
        let Opened {
            registry,
            messaging,
            inbox,
            ledger,
        } = open_all(&namespace, tasks).await?;
        announce("registry", registry.slot.capability().backend);
        announce("messaging", messaging.slot.capability().backend);
        if let Some(inbox) = &inbox.slot {
            announce("durability", inbox.capability().backend);
        }
        let slots = (registry.slot.clone(), messaging.slot.clone());
        let metrics = match namespace.behavior.view {
            ViewKind::Index => metrics.namespace(&namespace.name),
            ViewKind::None => metrics.without_view(&namespace.name),
        };
        let stored = Some(Durability {
            inbox: inbox.slot.clone(),
            ledger: ledger.clone(),
        });
        let coordinator = Coordinator::with_metrics(config_of(&namespace), slots.0, slots.1, stored, metrics);
        tracing::info!(namespace = namespace.name, "coordinator initialized");
        Ok(Self {
            namespace,
            registry,
            messaging,
            inbox,
            ledger,
            coordinator,
        })
    }

    pub(super) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Changes to another configuration. Where that fails, the one before goes on.
    pub(super) async fn change(
        &mut self,
        next: Namespace,
        metrics: &Metrics,
        tasks: &TaskTracker,
    ) -> Result<(), Refusal> {
        if next.behavior.view != self.namespace.behavior.view {
            let message = "`behavior.view` stays as it is while the namespace is served; restart the runner, or \
                remove the namespace and add it again";
            return Err(Refusal::new(message));
        }
        if let Some(slot) = self.moved_slot(&next) {
            if next.on_move == OnMove::Refuse {
                let message = "it would point at other data; to start over there, set `on_move: discard`";
                return Err(Refusal::new(message).slot(slot));
            }
            let started = Self::start(next, metrics, tasks).await?;
            tracing::info!(
                namespace = started.namespace.name,
                slot,
                "the namespace starts over on other data"
            );
            let before = std::mem::replace(self, started).coordinator;
            before.close_sessions();
            tasks.spawn(async move { before.close().await });
            return Ok(());
        }
        // What may fail, or be given up half-way, comes first.
        self.coordinator
            .may_become(&config_of(&next), Instant::now() + CHECK_WITHIN)
            .await
            .map_err(|refused| Refusal::new(refused.to_string()).key("identity_schema"))?;
        let Changed {
            registry,
            messaging,
            ledger,
            inbox,
        } = self.open_changed(&next, tasks).await?;
        // From here on nothing fails.
        if let Some(opened) = registry {
            self.registry = opened;
            let before = self.coordinator.replace_registry(self.registry.slot.clone());
            tasks.spawn(async move { before.close().await });
        }
        if let Some(opened) = messaging {
            self.messaging = opened;
            let before = self.coordinator.replace_messaging(self.messaging.slot.clone());
            tasks.spawn(async move {
                unused(&before).await;
                before.close().await;
            });
        }
        if let Some(opened) = ledger {
            self.ledger = opened;
            let before = self.coordinator.replace_ledger(self.ledger.clone());
            tasks.spawn(async move {
                unused(&before).await;
                before.close().await;
            });
        }
        if let Some(opened) = inbox {
            self.inbox = opened;
            if let Some(before) = self.coordinator.replace_inbox(self.inbox.slot.clone()) {
                tasks.spawn(async move {
                    unused(&before).await;
                    before.close().await;
                });
            }
        }
        self.registry.retune(&next.slots.registry);
        self.messaging.retune(&next.slots.messaging);
        self.inbox.retune(next.slots.durability.as_ref());
        self.coordinator.reconfigure(config_of(&next));
        tracing::info!(namespace = next.name, "the namespace was reconfigured");
        self.namespace = next;
        Ok(())
    }

    /// The slot that the next configuration points at other data.
    fn moved_slot(&self, next: &Namespace) -> Option<&'static str> {
        let (now, then) = (&self.namespace, next);
        if registry_identity(&now.slots.registry) != registry_identity(&then.slots.registry) {
            return Some("registry");
        }
        let identity = |namespace: &Namespace| {
            messaging_identity(&namespace.slots.messaging, &namespace.behavior.topic_prefix)
        };
        if identity(now) != identity(then) {
            return Some("messaging");
        }
        let identity = |namespace: &Namespace| durability_identity(namespace.slots.durability.as_ref());
        // One that is added or taken away holds nothing yet, or nothing any longer.
        let both = now.slots.durability.is_some() && then.slots.durability.is_some();
        (both && identity(now) != identity(then)).then_some("durability")
    }

    /// Does what may fail of a change. Where it does, nothing was changed, and what was opened is closed again.
    async fn open_changed(&self, next: &Namespace, tasks: &TaskTracker) -> Result<Changed, Refusal> {
        let mut changed = Changed::default();
        match self.open_into(&mut changed, next, tasks).await {
            Ok(()) => Ok(changed),
            Err(refusal) => {
                changed.close().await;
                Err(refusal)
            }
        }
    }

    async fn open_into(
        &self,
        changed: &mut Changed,
        next: &Namespace,
        tasks: &TaskTracker,
    ) -> Result<(), Refusal> {
        changed.registry = self.changed_registry(next, tasks).await?;
        changed.messaging = self.changed_messaging(next, tasks).await?;
        changed.ledger = self.changed_ledger(next, tasks).await?;
        changed.inbox = self.changed_inbox(next, tasks).await?;
        // An inbox that stays open has its limits changed at once, so that comes last.
        match changed.inbox {
            None => self.limit_inbox(next).await,
            Some(_) => Ok(()),
        }
    }

    async fn changed_registry(
        &self,
        next: &Namespace,
        tasks: &TaskTracker,
    ) -> Result<Option<OpenRegistry>, Refusal> {
        let (now, then) = (&self.namespace.slots.registry, &next.slots.registry);
        if now.same_settings(then) || self.registry.takes(then) {
            return Ok(None);
        }
        open_registry(next, tasks)
            .await
            .map(Some)
            .map_err(|error| in_slot("registry", &error))
    }

    async fn changed_messaging(
        &self,
        next: &Namespace,
        tasks: &TaskTracker,
    ) -> Result<Option<OpenMessaging>, Refusal> {
        let (now, then) = (&self.namespace.slots.messaging, &next.slots.messaging);
        if now.same_settings(then) || self.messaging.takes(then) {
            return Ok(None);
        }
        open_messaging(next, tasks)
            .await
            .map(Some)
            .map_err(|error| in_slot("messaging", &error))
    }

    async fn changed_ledger(
        &self,
        next: &Namespace,
        tasks: &TaskTracker,
    ) -> Result<Option<Arc<dyn DynLedger>>, Refusal> {
        if same_ledger(&self.namespace, next) {
            return Ok(None);
        }
        open_ledger(next, tasks)
            .await
            .map(Some)
            .map_err(|error| in_slot("durability", &error))
    }

    async fn changed_inbox(
        &self,
        next: &Namespace,
        tasks: &TaskTracker,
    ) -> Result<Option<OpenInbox>, Refusal> {
        let (now, then) = (&self.namespace.slots.durability, &next.slots.durability);
        if now == then || self.inbox.takes(then.as_ref()) {
            return Ok(None);
        }
        open_inbox(next, config_of(next).inbox_limits(), tasks)
            .await
            .map(Some)
            .map_err(|error| in_slot("durability", &error))
    }

    /// Applies changed limits to the inbox that is open.
    async fn limit_inbox(&self, next: &Namespace) -> Result<(), Refusal> {
        let limits = [&self.namespace, next].map(|namespace| config_of(namespace).inbox_limits());
        match &self.inbox.slot {
            Some(inbox) if limits[0] != limits[1] => limit(&**inbox, limits).await,
            _ => Ok(()),
        }
    }
}

impl Changed {
    async fn close(self) {
        if let Some(registry) = self.registry {
            registry.slot.close().await;
        }
        if let Some(messaging) = self.messaging {
            messaging.slot.close().await;
        }
        if let Some(ledger) = self.ledger {
            ledger.close().await;
        }
        if let Some(inbox) = self.inbox.and_then(|inbox| inbox.slot) {
            inbox.close().await;
        }
    }
}

/// Gives an inbox other limits. Where it does not say that it took them, it is given back those from before, as far as
/// it answers: it may have taken some.
pub(super) async fn limit(
    inbox: &dyn DynDurableInbox,
    [before, limits]: [InboxLimits; 2],
) -> Result<(), Refusal> {
    let until = || Instant::now() + CONFIGURE_WITHIN;
    let Err(error) = inbox.configure(limits, until()).await else {
        return Ok(());
    };
    if let Err(error) = inbox.configure(before, until()).await {
        tracing::warn!(%error, "the limits of inboxes may be those that were refused");
    }
    Err(in_slot("durability", &error))
}

/// Opens all slots at the same time; where one cannot be used, the others are closed again.
async fn open_all(namespace: &Namespace, tasks: &TaskTracker) -> Result<Opened, Refusal> {
    let limits = config_of(namespace).inbox_limits();
    let opened = tokio::join!(
        open_registry(namespace, tasks),
        open_messaging(namespace, tasks),
        open_inbox(namespace, limits, tasks),
        open_ledger(namespace, tasks)
    );
    let (registry, messaging, inbox, ledger) = opened;
    let refused = [
        registry.as_ref().err().map(|error| in_slot("registry", error)),
        messaging.as_ref().err().map(|error| in_slot("messaging", error)),
        inbox.as_ref().err().map(|error| in_slot("durability", error)),
        ledger.as_ref().err().map(|error| in_slot("durability", error)),
    ];
    match (registry, messaging, inbox, ledger) {
        (Ok(registry), Ok(messaging), Ok(inbox), Ok(ledger)) => Ok(Opened {
            registry,
            messaging,
            inbox,
            ledger,
        }),
        (registry, messaging, inbox, ledger) => {
            if let Ok(registry) = registry {
                registry.slot.close().await;
            }
            if let Ok(messaging) = messaging {
                messaging.slot.close().await;
            }
            if let Ok(OpenInbox {
                slot: Some(inbox), ..
            }) = inbox
            {
                inbox.close().await;
            }
            if let Ok(ledger) = ledger {
                ledger.close().await;
            }
            let first = refused.into_iter().flatten().next();
            Err(first.unwrap_or_else(|| Refusal::new("a slot cannot be used")))
        }
    }
}

fn announce(slot: &'static str, backend: &'static str) {
    tracing::info!(slot, backend, "backend initialized and started");
}

fn config_of(namespace: &Namespace) -> Config {
    Config {
        namespace: namespace.name.clone(),
        behavior: namespace.behavior.clone(),
        schema: namespace.schema.clone(),
        indexes: namespace.indexes.clone(),
    }
}

fn in_slot(slot: &'static str, error: &Error) -> Refusal {
    Refusal::new(error.to_string()).slot(slot)
}

/// Waits until nobody works with a replaced slot any more: sessions and calls stay on the one on which they began, and what
/// a session has still to say at its end, it says there.
async fn unused<S: ?Sized>(slot: &Arc<S>) {
    while Arc::strong_count(slot) > 1 {
        tokio::time::sleep(RETIRED_CHECK).await;
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A ledger beside the registry is reached as that is, also where there is no durability slot or one in memory; and it
    /// is left alone where nothing of that has changed.
    #[tokio::test]
    async fn a_ledger_follows_the_slot_that_it_is_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry");
        let namespace = |registry: &Value, durability: &Value| {
            let slots = json!({ "registry": registry, "messaging": "memory", "durability": durability });
            Namespace::read(Some("n"), &json!({ "slots": slots })).unwrap()
        };
        let file =
            |key: &str, value: &str| json!({ "backend": "sqlite", "config": { "path": path, key: value } });
        let (one, other) = (file("cache_size", "16MiB"), file("cache_size", "8MiB"));
        let (feed, memory, none) = (file("feed_max_age", "2h"), json!("memory"), Value::Null);
        let cases = [
            ("settings", (&one, &none), (&other, &none), true),
            (
                "settings, beside memory",
                (&one, &memory),
                (&other, &memory),
                true,
            ),
            ("settings of the feed", (&one, &none), (&feed, &none), false),
            ("a slot in memory is added", (&one, &none), (&one, &memory), false),
            (
                "the same, all in memory",
                (&memory, &none),
                (&memory, &memory),
                false,
            ),
        ];
        for (what, (registry, durability), (next_registry, next_durability), is_opened) in cases {
            let (metrics, tasks) = (Metrics::default(), TaskTracker::new());
            let first = namespace(registry, durability);
            let mut running = Running::start(first, &metrics, &tasks).await.unwrap();
            let before = running.ledger.clone();
            let next = namespace(next_registry, next_durability);
            running.change(next, &metrics, &tasks).await.unwrap();
            assert_eq!(!Arc::ptr_eq(&before, &running.ledger), is_opened, "{what}");
            let read = before.read(Vec::new(), Instant::now() + CONFIGURE_WITHIN).await;
            assert!(read.is_ok(), "{what}: it is closed while it is in use: {read:?}");
            running.coordinator.close().await;
        }
    }
}
