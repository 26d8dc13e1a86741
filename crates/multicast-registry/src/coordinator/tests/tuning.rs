//! Every key of `behavior` changes how a namespace behaves.

use std::time::Duration;

use prism_filter::Filter;
use prism_proto::pattern::{self as proto, multicast_registry_pattern_server::MulticastRegistryPattern};
use prism_slot::{Applied, DeadQuery, MulticastId, Outcome, Overflow, Verdict};
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{Coordinator, Enumerate, Multicast, Register, Session, SessionEvent},
    Fixture, fixture, request,
};
use crate::{
    Delivery,
    config::{
        Behavior, KeepReceipts, LongTtl, Rate, ReadConsistency, SchemaChange, Semantics, StoreLoss, ViewKind,
        manifest_schema,
    },
    namespaces::Namespaces,
    schema::Schema,
    service::Service,
    testing::{
        Fate, Op,
        durable::{Inboxes, Register as Ledger, durability},
        soon, unavailable,
    },
};

/// Sets one key to something other than its default.
fn set(behavior: &mut Behavior, key: &str) {
    match key {
        "max_identities" => behavior.max_identities = 1,
        "topic_prefix" => behavior.topic_prefix = "elsewhere".to_owned(),
        "retry_attempts" => behavior.retry_attempts = 1,
        "retry_delay_ms" => behavior.retry_delay_ms = 1_000,
        "ttl_default" => behavior.ttl_default = Some(Duration::from_secs(60)),
        "ttl_max" => behavior.ttl_max = Some(Duration::from_secs(60)),
        "max_filter_depth" => behavior.max_filter_depth = 1,
        "max_clauses" => behavior.max_clauses = 1,
        "max_watchers" => behavior.max_watchers = 0,
        "max_watch_filters" => behavior.max_watch_filters = 0,
        "max_regex_bytes" => behavior.max_regex_bytes = 1,
        "max_metadata_bytes" => behavior.max_metadata_bytes = 2,
        "max_payload_bytes" => behavior.max_payload_bytes = Some(1),
        "view" => behavior.view = ViewKind::None,
        "consistency" => behavior.consistency = ReadConsistency::Stale,
        "on_store_loss" => behavior.on_store_loss = StoreLoss::Stale,
        "history_age" => behavior.history_age = Duration::ZERO,
        "history_bytes" => behavior.history_bytes = 0,
        "call_timeout" => behavior.call_timeout = Duration::from_secs(1),
        "on_long_ttl" => behavior.on_long_ttl = LongTtl::Clamp,
        "on_schema_change" => behavior.on_schema_change = SchemaChange::Refuse,
        "caller_writes" => behavior.caller_writes = Rate::per_second(3),
        "caller_reads" => behavior.caller_reads = Rate::per_second(3),
        "caller_multicasts" => behavior.caller_multicasts = Rate::per_second(3),
        "caller_targets" => behavior.caller_targets = Rate::per_second(3),
        "caller_burst" => behavior.caller_burst = Duration::from_secs(2),
        "delivery" => behavior.delivery = Semantics::AtLeastOnce,
        "message_ttl" => behavior.message_ttl = Duration::from_secs(1),
        "inbox_max_messages" => behavior.inbox_max_messages = 1,
        "inbox_overflow" => behavior.inbox_overflow = Overflow::DropOldest,
        "ack_timeout" => behavior.ack_timeout = Duration::from_millis(1),
        "max_deliver" => behavior.max_deliver = 1,
        "max_unacked" => behavior.max_unacked = 1,
        "max_dead_letters" => behavior.max_dead_letters = 1,
        "dedupe_window" => behavior.dedupe_window = Duration::from_millis(1),
        "receipts_window" => behavior.receipts_window = Duration::from_millis(1),
        "keep_receipts" => behavior.keep_receipts = KeepReceipts::All,
        "receipts_memory" => behavior.receipts_memory = 0,
        "max_targets_in_flight" => behavior.max_targets_in_flight = 1,
        other => panic!("`{other}` has no case"),
    }
}

/// Sets what a key says something about.
fn presume(behavior: &mut Behavior, key: &str) {
    match key {
        "on_long_ttl" => behavior.ttl_max = Some(Duration::from_secs(60)),
        "caller_burst" => behavior.caller_writes = Rate::per_second(2),
        "inbox_overflow" => behavior.inbox_max_messages = 1,
        "max_dead_letters" => behavior.max_deliver = 1,
        "dedupe_window" => behavior.receipts_window = Duration::from_secs(60),
        _ => {}
    }
}

/// What can be seen of one key.
async fn observe(fixture: &Fixture, key: &str) -> String {
    match key {
        "topic_prefix" => fixture.coordinator.config().behavior.topic_prefix.clone(),
        "max_identities" | "ttl_default" | "ttl_max" | "on_long_ttl" | "max_metadata_bytes" => {
            registers(fixture).await
        }
        "retry_attempts" | "retry_delay_ms" => retries(fixture).await,
        "max_payload_bytes" => {
            let large = Multicast {
                payload: "large".into(),
                ..Default::default()
            };
            format!("{:?}", fixture.coordinator.multicast(large, soon()).await.is_ok())
        }
        "history_age" | "history_bytes" => pages_on(fixture).await,
        "call_timeout" => times_out(fixture).await,
        "on_schema_change" => takes_a_schema(fixture).await,
        "delivery" | "message_ttl" | "inbox_max_messages" | "inbox_overflow" | "ack_timeout"
        | "max_deliver" | "max_unacked" | "max_dead_letters" | "dedupe_window" => delivers(fixture).await,
        "receipts_window" | "keep_receipts" | "receipts_memory" => keeps_receipts(fixture).await,
        "max_targets_in_flight" => is_crowded(fixture).await,
        key if key.starts_with("caller_") => calls_often(fixture).await,
        "max_watchers" | "max_watch_filters" | "view" => watches(fixture).await,
        _ => reads(fixture).await,
    }
}

async fn registers(fixture: &Fixture) -> String {
    let mut seen = String::new();
    for (name, ttl) in [("a", None), ("b", Some(Duration::from_secs(100)))] {
        let request = Register {
            ttl,
            ..request(name, r#"{"n":1}"#)
        };
        let held = fixture.coordinator.register(request, soon()).await;
        seen += &format!("{:?} ", held.map(|held| held.ttl));
    }
    seen
}

async fn watches(fixture: &Fixture) -> String {
    let mut watch = match fixture.coordinator.watch(None, None, soon()).await {
        Ok(watch) => watch,
        Err(error) => return error.to_string(),
    };
    let first = watch.next().await;
    fixture.register("a", "{}").await;
    let second = watch.next().await;
    format!("{} {}", first.is_ok(), second.is_ok())
}

async fn retries(fixture: &Fixture) -> String {
    fixture.register("a", "{}").await;
    for _ in 0..9 {
        fixture
            .broker
            .judge(|_| vec![Outcome::NotSent("no connection".to_owned())]);
    }
    let (started, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(60));
    fixture
        .coordinator
        .multicast(Multicast::default(), deadline)
        .await
        .unwrap();
    let long = started.elapsed() > Duration::from_secs(1);
    format!("{} {long}", fixture.broker.batches().len())
}

async fn reads(fixture: &Fixture) -> String {
    fixture.register("a", "{}").await;
    fixture.names(Filter::new()).await;
    let mut seen = String::new();
    let filters = [
        Filter::new(),
        Filter::not(Filter::not(Filter::new().exists("a"))),
        Filter::new().exists("a").exists("b"),
        Filter::new().regex("a", ".."),
    ];
    for filter in filters {
        let request = Enumerate {
            filter: Some(filter),
            ..Default::default()
        };
        let page = fixture.coordinator.enumerate(request, soon()).await;
        seen += &format!("{:?} ", page.map(|page| page.age.is_some()));
    }
    fixture
        .script()
        .always(Op::Sync, Fate::Refuse(unavailable(Applied::No)));
    let lost = fixture.coordinator.enumerate(Enumerate::default(), soon()).await;
    seen + &format!("{:?}", lost.is_ok())
}

/// Whether an enumeration goes on a while after something in it was removed.
async fn pages_on(fixture: &Fixture) -> String {
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    let mut request = Enumerate {
        limit: 1,
        ..Default::default()
    };
    let page = fixture
        .coordinator
        .enumerate(request.clone(), soon())
        .await
        .unwrap();
    fixture.coordinator.unregister("b", None, soon()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    request.cursor = page.next;
    format!("{}", fixture.coordinator.enumerate(request, soon()).await.is_ok())
}

/// Whether the same with a schema that a registration violates is taken.
async fn takes_a_schema(fixture: &Fixture) -> String {
    fixture.register("a", r#"{"n":"x"}"#).await;
    let mut next = (*fixture.coordinator.config()).clone();
    next.schema = Some(Schema::read(&serde_json::json!({ "n": "int" })).unwrap());
    format!("{}", fixture.coordinator.may_become(&next, soon()).await.is_ok())
}

/// How many calls of each kind are let in at once.
async fn calls_often(fixture: &Fixture) -> String {
    let namespaces = Namespaces::default();
    namespaces.insert(fixture.coordinator.clone());
    let (service, mut count) = (Service::new(namespaces), [0; 3]);
    for name in ["a", "b", "c", "d", "e"] {
        let write = proto::UnregisterRequest {
            identity: name.to_owned(),
            ..Default::default()
        };
        let read = proto::GetRequest {
            identity: name.to_owned(),
        };
        let limited = |status: tonic::Status| status.code() == tonic::Code::ResourceExhausted;
        let write = service.unregister(tonic::Request::new(write)).await;
        let read = service.get(tonic::Request::new(read)).await;
        let sent = service.multicast(tonic::Request::new(Default::default())).await;
        count[0] += usize::from(!write.is_err_and(limited));
        count[1] += usize::from(!read.is_err_and(limited));
        count[2] += usize::from(!sent.is_err_and(limited));
        fixture.register(name, "{}").await;
    }
    format!("{count:?}")
}

async fn times_out(fixture: &Fixture) -> String {
    fixture.names(Filter::new()).await;
    let namespaces = Namespaces::default();
    namespaces.insert(fixture.coordinator.clone());
    fixture.script().always(Op::Get, Fate::Hang);
    let started = Instant::now();
    let read = proto::GetRequest { identity: "a".into() };
    let _ = Service::new(namespaces).get(tonic::Request::new(read)).await;
    format!("{:?}", started.elapsed())
}

/// Over inboxes, with the same configuration.
async fn delivers(fixture: &Fixture) -> String {
    let config = (*fixture.coordinator.config()).clone();
    let inboxes = Inboxes::new(config.inbox_limits(), fixture.clock.clone());
    let durability = durability(&inboxes, &Ledger::new(64 << 20, fixture.clock.clone()));
    let (store, broker) = (fixture.store.clone(), fixture.broker.clone());
    let coordinator = Coordinator::new(config, store, broker, Some(durability));
    coordinator.register(request("a", "{}"), soon()).await.unwrap();
    let mut seen = String::new();
    for delivery in [None, Some(Delivery::AtLeastOnce), Some(Delivery::AtLeastOnce)] {
        let request = Multicast {
            delivery,
            ..Default::default()
        };
        let report = coordinator.multicast(request, soon()).await.unwrap();
        seen += &format!(
            "{:?} {} ",
            report.targets.get(0).unwrap().stage(),
            report.targets.get(0).unwrap().reason()
        );
    }
    let repeated = Multicast {
        delivery: Some(Delivery::AtMostOnce),
        idempotency_key: Some("k".to_owned()),
        ..Default::default()
    };
    for _ in 0..2 {
        seen += &format!(
            "{} ",
            coordinator
                .multicast(repeated.clone(), soon())
                .await
                .unwrap()
                .replayed
        );
        fixture.clock.advance(Duration::from_millis(5));
    }
    let mut session = coordinator.subscribe("a", None, soon()).await.unwrap();
    let first = deliveries(&mut session).await;
    fixture.clock.advance(Duration::from_millis(5));
    let again = deliveries(&mut session).await;
    for multicast in &first {
        let delay = Duration::ZERO;
        session.say(*multicast, Verdict::Nack { delay }, None);
    }
    let nacked = deliveries(&mut session).await;
    let all = DeadQuery {
        limit: 10,
        ..Default::default()
    };
    let dead = coordinator.dead_letters(all, soon()).await.unwrap();
    fixture.clock.advance(Duration::from_secs(2));
    sleep(Duration::from_secs(2)).await;
    let left = coordinator.inbox().unwrap().depth(None, soon()).await.unwrap();
    let counts = [first.len(), again.len(), nacked.len(), dead.letters.len()];
    seen + &format!("{counts:?} {}", left.messages)
}

/// What comes until nothing comes any more.
async fn deliveries(session: &mut Session) -> Vec<MulticastId> {
    let mut all = Vec::new();
    while let Ok(Some(Ok(event))) = timeout(Duration::from_millis(50), session.next()).await {
        if let SessionEvent::Stored(delivery) = event {
            all.push(delivery.message.multicast);
        }
    }
    all
}

async fn keeps_receipts(fixture: &Fixture) -> String {
    fixture.register("a", "{}").await;
    let send = || fixture.coordinator.multicast(Multicast::default(), soon());
    let first = send().await.unwrap();
    let scope = first.kept.map(|(scope, _)| scope);
    send().await.unwrap();
    // Receipts are kept by the real clock.
    std::thread::sleep(Duration::from_millis(3));
    sleep(Duration::from_secs(1)).await;
    let known = fixture
        .coordinator
        .get_multicast(first.id, Default::default(), soon());
    format!("{scope:?} {}", known.await.is_ok())
}

async fn is_crowded(fixture: &Fixture) -> String {
    fixture.register("a", "{}").await;
    fixture.broker.script.always(Op::Publish, Fate::Hang);
    let send = || fixture.coordinator.multicast(Multicast::default(), soon());
    let (first, second) = tokio::join!(send(), send());
    format!("{} {}", first.is_ok(), second.is_ok())
}

#[tokio::test(start_paused = true)]
async fn every_key_changes_something() {
    let schema = manifest_schema();
    let keys = schema["properties"]["behavior"]["properties"]
        .as_object()
        .unwrap();
    assert!(keys.len() >= 15);
    for key in keys.keys() {
        let before = || fixture(|config| presume(&mut config.behavior, key));
        let after = fixture(|config| {
            presume(&mut config.behavior, key);
            set(&mut config.behavior, key);
        });
        let by_default = observe(&before(), key).await;
        let changed = observe(&after, key).await;
        assert_ne!(by_default, changed, "`{key}` changes nothing");
        if key == "view" {
            // It stays as it is while the namespace is served.
            continue;
        }
        // The same on a namespace that is being served.
        let running = before();
        let mut config = (*running.coordinator.config()).clone();
        set(&mut config.behavior, key);
        running.coordinator.reconfigure(config);
        assert_eq!(
            observe(&running, key).await,
            changed,
            "`{key}` changes nothing at run time"
        );
    }
}
