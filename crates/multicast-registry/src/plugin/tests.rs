//! Namespaces as they are configured, changed and taken away.

#![cfg_attr(
    not(all(feature = "redis", feature = "nats")),
    allow(dead_code, unused_imports, reason = "some cases need every backend")
)]

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use prism_plugin_sdk::{Initialize, Plugin};
use prism_slot::{
    Address, DurableInbox, Enqueued, Holder, InboxLimits, Message, MulticastId, Outcome, Overflow, Terms,
    Timestamp, Verdict, memory::ManualClock,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    MulticastRegistry,
    namespace::{Running, limit},
};
use crate::{
    Delivery, Stage,
    coordinator::{Closed, Coordinator, Multicast, Pages, Register, Session, SessionEvent},
    metrics::Metrics,
    testing::{Fate, Op, durable::Inboxes, id, soon},
};

fn configuration(namespace: &str, config: &Value) -> Initialize {
    Initialize {
        namespace: namespace.to_owned(),
        version: String::new(),
        config: config.as_object().unwrap().clone(),
        config_version: 0,
        config_digest: String::new(),
    }
}

fn on_memory() -> Value {
    json!({ "slots": { "registry": "memory", "messaging": "memory" } })
}

/// A namespace whose backends take connections and never say a word.
#[cfg(all(feature = "redis", feature = "nats"))]
async fn on_mutes() -> (Value, TcpListener) {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let slots = json!({
        "registry": { "backend": "redis", "config": { "address": address.to_string() } },
        "messaging": { "backend": "nats", "config": { "servers": [format!("nats://{address}")] } },
    });
    (json!({ "slots": slots }), mute)
}

async fn register(plugin: &MulticastRegistry, namespace: &str, name: &str) {
    let coordinator = plugin.namespaces().get(namespace).unwrap();
    let request = Register::new(name, Default::default()).unwrap();
    coordinator.register(request, soon()).await.unwrap();
}

/// A backend that does not answer is not a bad configuration, however many namespaces wait for it; and
/// none of them waits for another.
#[cfg(all(feature = "redis", feature = "nats"))]
#[tokio::test(start_paused = true)]
async fn a_slow_backend_holds_up_only_its_own_namespace() {
    let plugin = std::sync::Arc::new(MulticastRegistry::default());
    let (config, _mute) = on_mutes().await;
    let started = Instant::now();
    let slow: Vec<_> = (0..8)
        .map(|number| {
            let (plugin, request) = (plugin.clone(), configuration(&format!("slow-{number}"), &config));
            tokio::spawn(async move { plugin.initialize(request).await })
        })
        .collect();
    tokio::task::yield_now().await;
    plugin
        .initialize(configuration("quick", &on_memory()))
        .await
        .unwrap();
    assert!(!slow.iter().any(tokio::task::JoinHandle::is_finished));
    register(&plugin, "quick", "a").await;
    for outcome in join_all(slow).await {
        outcome.unwrap().unwrap();
    }
    let within = prism_plugin_sdk::Settings::default().initialize_within;
    assert!(started.elapsed() < within / 2, "{:?}", started.elapsed());
    plugin.stop(soon()).await.unwrap();
}

/// Data that would be left behind is not left behind unasked; and where that is asked for, sessions are
/// told, and the namespace starts over.
#[cfg(all(feature = "redis", feature = "nats"))]
#[tokio::test(start_paused = true)]
async fn a_namespace_moves_only_where_it_may() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    register(&plugin, "n", "a").await;
    let before = plugin.namespaces().get("n").unwrap();
    let mut session = before.subscribe("a", None, soon()).await.unwrap();
    let (mut moved, _mute) = on_mutes().await;
    let refusal = plugin.initialize(configuration("n", &moved)).await.unwrap_err();
    assert!(refusal.to_string().contains("slot `registry`"), "{refusal}");
    assert!(
        before.get(id("a"), soon()).await.unwrap().record.is_some(),
        "the last good one serves"
    );

    moved["on_move"] = json!("discard");
    plugin.initialize(configuration("n", &moved)).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), session.next());
    assert_eq!(told.await, Ok(Some(Err(Closed::Draining))));
    let after = plugin.namespaces().get("n").unwrap();
    assert_eq!(after.registry().capability().backend, "redis");
    plugin.stop(soon()).await.unwrap();
}

/// A schema that is violated keeps its configuration out where that is asked for, whole, and says why.
#[tokio::test]
async fn a_schema_that_is_violated_is_refused_or_taken_as_configured() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    register(&plugin, "n", "a").await;
    let mut next = on_memory();
    next["identity_schema"] = json!({ "fields": { "name": { "type": "string", "required": true } } });
    next["behavior"] = json!({ "on_schema_change": "refuse", "max_identities": 1 });
    let refusal = plugin.initialize(configuration("n", &next)).await.unwrap_err();
    assert_eq!(refusal.key.as_deref(), Some("identity_schema"));
    assert!(
        refusal
            .message
            .starts_with("1 of 1 registrations violate the schema: `a`: the field `name` is required"),
        "{refusal}"
    );
    register(&plugin, "n", "b").await;

    next["behavior"] = json!({ "on_schema_change": "lazy" });
    plugin.initialize(configuration("n", &next)).await.unwrap();
    let coordinator = plugin.namespaces().get("n").unwrap();
    let bare = Register::new("c", Default::default()).unwrap();
    assert!(
        coordinator.register(bare, soon()).await.is_err(),
        "it applies to what is written"
    );
    assert!(coordinator.get(id("a"), soon()).await.unwrap().record.is_some());
}

/// Settings of the memory slots take effect in place, under live sessions.
#[tokio::test]
async fn memory_slots_are_retuned_in_place() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    for name in ["a", "b"] {
        register(&plugin, "n", name).await;
    }
    let coordinator = plugin.namespaces().get("n").unwrap();
    let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
    let tuned = json!({ "slots": {
        "registry": { "backend": "memory", "config": { "feed_max_changes": 1, "feed_max_bytes": 1 } },
        "messaging": { "backend": "memory", "config": { "listener_queue": 1 } },
    } });
    plugin.initialize(configuration("n", &tuned)).await.unwrap();
    let call = prism_slot::Call {
        epoch: None,
        deadline: soon(),
    };
    let past = coordinator
        .registry()
        .sync(call, prism_slot::Revision::ZERO, 10)
        .await;
    assert!(
        matches!(past, Err(prism_slot::Error::Compacted { .. })),
        "{past:?}"
    );

    let narrow = coordinator.subscribe("b", None, soon()).await.unwrap();
    let message = std::sync::Arc::new(Message::new(MulticastId(1), ""));
    let targets = ["a", "b", "a", "b"].map(id);
    let outcomes = coordinator
        .messaging()
        .publish_batch(&targets, message, soon())
        .await;
    let accepted: Vec<bool> = outcomes
        .iter()
        .map(|outcome| *outcome == Outcome::Accepted)
        .collect();
    assert_eq!(
        [accepted[0], accepted[2]],
        [true; 2],
        "a session from before keeps its queue"
    );
    assert!(!accepted[3], "a queue of one has no room for two");
    assert!(matches!(session.next().await, Some(Ok(SessionEvent::Message(_)))));
    drop(narrow);
}

/// A namespace with inboxes in a file, or in memory, or with none.
fn with_inboxes(durability: Value) -> Value {
    json!({ "slots": { "registry": "memory", "messaging": "memory", "durability": durability } })
}

async fn store(coordinator: &Coordinator, payload: &'static str) -> MulticastId {
    let request = Multicast {
        payload: payload.into(),
        delivery: Some(Delivery::AtLeastOnce),
        ..Multicast::default()
    };
    coordinator.multicast(request, soon()).await.unwrap().id
}

async fn event(session: &mut Session) -> Result<SessionEvent, Closed> {
    let next = tokio::time::timeout(Duration::from_secs(3), session.next());
    next.await
        .expect("a session is told in time")
        .expect("it was open")
}

async fn handed(session: &mut Session) -> String {
    match event(session).await {
        Ok(SessionEvent::Stored(delivery)) => String::from_utf8(delivery.message.payload.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A session works with the durability slot that it found, or with none. It ends when there is another one, so that its
/// client comes back and is handed what is stored.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sessions_begin_again_on_another_durability_slot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inboxes");
    let file = |cache: &str| json!({ "backend": "sqlite", "config": { "path": path, "cache_size": cache } });
    for (before, after) in [
        (file("16MiB"), file("8MiB")),
        (Value::Null, file("8MiB")),
        (Value::Null, json!("memory")),
    ] {
        let plugin = MulticastRegistry::default();
        let first = configuration("n", &with_inboxes(before));
        plugin.initialize(first).await.unwrap();
        register(&plugin, "n", "a").await;
        let coordinator = plugin.namespaces().get("n").unwrap();
        let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
        let next = configuration("n", &with_inboxes(after));
        plugin.initialize(next).await.unwrap();
        let multicast = store(&coordinator, "x").await;
        assert_eq!(event(&mut session).await, Err(Closed::Reconfigured));
        drop(session);
        let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
        assert_eq!(handed(&mut session).await, "x");
        session.say(multicast, Verdict::Ack, None);
        let settled = event(&mut session).await;
        assert!(matches!(settled, Ok(SessionEvent::Settled(_))), "{settled:?}");
        drop(session);
        plugin.stop(soon()).await.unwrap();
    }
}

/// What a consumer said before its session ended holds, and is not said to a slot that is closed.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_last_word_on_a_durability_slot_that_was_changed_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inboxes");
    let file = |cache: &str| json!({ "backend": "sqlite", "config": { "path": path, "cache_size": cache } });
    let plugin = MulticastRegistry::default();
    let first = configuration("n", &with_inboxes(file("16MiB")));
    plugin.initialize(first).await.unwrap();
    register(&plugin, "n", "a").await;
    let coordinator = plugin.namespaces().get("n").unwrap();
    let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
    let multicast = store(&coordinator, "x").await;
    assert_eq!(handed(&mut session).await, "x");
    let next = configuration("n", &with_inboxes(file("8MiB")));
    plugin.initialize(next).await.unwrap();
    // Whatever is done about the slot before has been done.
    tokio::time::sleep(Duration::from_millis(100)).await;
    session.say(multicast, Verdict::Ack, None);
    drop(session);
    let acked = async {
        loop {
            let pages = Pages {
                limit: 1,
                ..Pages::default()
            };
            let report = coordinator.get_multicast(multicast, pages, soon()).await.unwrap();
            if report.targets.get(0).unwrap().stage() == Stage::Acked {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let acked = tokio::time::timeout(Duration::from_secs(3), acked).await;
    assert!(acked.is_ok(), "its sender never learns of it");
    plugin.stop(soon()).await.unwrap();
}

/// A configuration whose durability slot answers that it cannot be used as it is set up.
#[cfg(feature = "nats")]
fn with_unusable_durability(mut config: Value) -> Value {
    config["slots"]["durability"] = json!({
        "backend": "nats",
        "config": { "servers": "nats://127.0.0.1:1", "creds_file": "/does/not/exist" },
    });
    config
}

/// Nothing of a configuration that is refused is in force, whichever slot refused it.
#[cfg(feature = "nats")]
#[tokio::test]
async fn what_is_refused_is_not_half_applied() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    for name in ["a", "b"] {
        register(&plugin, "n", name).await;
    }
    let tuned = with_unusable_durability(json!({ "slots": {
        "registry": { "backend": "memory", "config": { "feed_max_changes": 1, "feed_max_bytes": 1 } },
        "messaging": { "backend": "memory", "config": { "listener_queue": 1 } },
    } }));
    let refusal = plugin.initialize(configuration("n", &tuned)).await.unwrap_err();
    assert!(refusal.to_string().contains("`creds_file`"), "{refusal}");

    let coordinator = plugin.namespaces().get("n").unwrap();
    let call = prism_slot::Call {
        epoch: None,
        deadline: soon(),
    };
    let all = coordinator
        .registry()
        .sync(call, prism_slot::Revision::ZERO, 10)
        .await;
    assert_eq!(all.unwrap().changes.len(), 2);
    let _session = coordinator.subscribe("a", None, soon()).await.unwrap();
    let message = std::sync::Arc::new(Message::new(MulticastId(1), ""));
    let outcomes = coordinator
        .messaging()
        .publish_batch(&["a", "a"].map(id), message, soon())
        .await;
    assert_eq!(outcomes, [Outcome::Accepted, Outcome::Accepted]);
}

/// Limits that an inbox may have taken and did not say so are taken back.
#[tokio::test]
async fn limits_that_are_refused_are_not_in_force() {
    let [before, next] = [2, 1].map(|max_messages| InboxLimits {
        max_messages,
        overflow: Overflow::Reject,
        ..Default::default()
    });
    let inboxes = Inboxes::new(before, Arc::new(ManualClock::new(Timestamp::now())));
    let silent = prism_slot::Error::Timeout {
        backend: "double",
        applied: prism_slot::Applied::Unknown,
    };
    inboxes.script.next(Op::Configure, Fate::Lose(silent));
    let refusal = limit(&*inboxes, [before, next]).await.unwrap_err();
    assert_eq!(refusal.slot.as_deref(), Some("durability"));

    let address = Address {
        identity: id("a"),
        holder: Holder([0; 16]),
    };
    let terms = Terms {
        priority: Default::default(),
        ttl: Duration::from_secs(60),
    };
    for number in 1..=2 {
        let message = Arc::new(Message::new(MulticastId(number), ""));
        let stored = inboxes
            .enqueue(std::slice::from_ref(&address), message, terms, soon())
            .await;
        assert_eq!(stored, [Enqueued::Stored { displaced: None }], "message {number}");
    }
}

/// What was opened for a configuration that is then refused does not stay open.
#[cfg(feature = "nats")]
#[tokio::test(start_paused = true)]
async fn what_was_opened_in_vain_is_closed() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let servers = format!("nats://{}", mute.local_addr().unwrap());
    let within = |timeout: &str| {
        let messaging = json!({ "backend": "nats", "config": { "servers": servers, "timeout": timeout } });
        json!({ "slots": { "registry": "memory", "messaging": messaging } })
    };
    let read = |config: &Value| crate::config::Namespace::read(Some("n"), config).unwrap();
    let (metrics, tasks) = (Metrics::default(), TaskTracker::new());
    let mut running = Running::start(read(&within("2s")), &metrics, &tasks)
        .await
        .unwrap();
    assert_eq!(
        tasks.len(),
        1,
        "the one that does not answer is still being opened"
    );
    let next = read(&with_unusable_durability(within("1s")));
    let refusal = running.change(next, &metrics, &tasks).await.unwrap_err();
    assert_eq!(refusal.slot.as_deref(), Some("durability"));
    tokio::task::yield_now().await;
    assert_eq!(tasks.len(), 1);
}

#[tokio::test]
async fn what_is_refused_names_slot_and_key() {
    let plugin = MulticastRegistry::default();
    let cases = [
        (
            json!({ "slots": { "registry": { "backend": "memory", "interfaces": ["QueueInterface"] }, "messaging": "memory" } }),
            "slot `registry`: key `interfaces`",
        ),
        (
            json!({ "slots": { "registry": "memory", "messaging": { "backend": "memory", "config": { "listener_queue": 0.0 } } } }),
            "slot `messaging`: key `config.listener_queue`",
        ),
        (
            json!({ "slots": { "registry": "memory", "messaging": "memory" }, "behavior": { "max_claws": 1 } }),
            "did you mean `max_clauses`?",
        ),
        (json!({ "slots": { "registry": "memory" } }), "messaging"),
        (
            json!({ "name": "other", "slots": { "registry": "memory", "messaging": "memory" } }),
            "`other`",
        ),
    ];
    for (config, expected) in cases {
        let refusal = plugin.initialize(configuration("n", &config)).await.unwrap_err();
        assert!(refusal.to_string().contains(expected), "{refusal}");
        assert!(plugin.namespaces().get("n").is_none());
    }
}

/// Taken away, a namespace is unknown, its sessions end and its metrics go; it may come back empty.
#[tokio::test]
async fn a_namespace_goes_and_comes_back() {
    let plugin = MulticastRegistry::default();
    plugin.start().await.unwrap();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    register(&plugin, "n", "a").await;
    let coordinator = plugin.namespaces().get("n").unwrap();
    let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
    assert!(plugin.metrics().contains("namespace=\"n\""));
    plugin.remove("n").await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), session.next());
    assert_eq!(told.await, Ok(Some(Err(Closed::Draining))));
    assert!(plugin.namespaces().of_call(Some("n")).is_err());
    assert!(!plugin.metrics().contains("namespace=\"n\""));
    plugin.remove("n").await.unwrap();

    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    let coordinator = plugin.namespaces().get("n").unwrap();
    assert!(coordinator.get(id("a"), soon()).await.unwrap().record.is_none());
}

/// The end waits for mutations under way, and for no longer than it may.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_mutations() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    plugin
        .service
        .mutations()
        .spawn(tokio::time::sleep(Duration::from_secs(2)));
    plugin
        .service
        .mutations()
        .spawn(tokio::time::sleep(Duration::from_secs(60)));
    let started = Instant::now();
    let drained = plugin.drain(started + Duration::from_secs(5)).await;
    assert_eq!((drained.drained, drained.aborted), (1, 1));
    assert_eq!(started.elapsed(), Duration::from_secs(5));
}

/// What answers reads is decided when a namespace begins; another word while it is served changes nothing.
#[tokio::test]
async fn the_view_stays_as_it_is_while_a_namespace_is_served() {
    let plugin = MulticastRegistry::default();
    plugin.initialize(configuration("n", &on_memory())).await.unwrap();
    register(&plugin, "n", "a").await;
    let mut without = on_memory();
    without["behavior"] = json!({ "view": "none" });
    let refusal = plugin.initialize(configuration("n", &without)).await.unwrap_err();
    assert!(refusal.to_string().contains("`behavior.view`"), "{refusal}");
    let coordinator = plugin.namespaces().get("n").unwrap();
    assert_eq!(
        coordinator
            .enumerate(Default::default(), soon())
            .await
            .unwrap()
            .total,
        1
    );
    plugin.initialize(configuration("other", &without)).await.unwrap();
    register(&plugin, "other", "a").await;
    let coordinator = plugin.namespaces().get("other").unwrap();
    assert_eq!(
        coordinator
            .enumerate(Default::default(), soon())
            .await
            .unwrap()
            .total,
        1
    );
}
