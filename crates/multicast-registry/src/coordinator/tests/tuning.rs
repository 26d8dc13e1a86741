//! Every key of `behavior` changes how a namespace behaves.

use std::time::Duration;

use prism_filter::Filter;
use prism_proto::pattern::{self as proto, multicast_registry_pattern_server::MulticastRegistryPattern};
use prism_slot::{Applied, Outcome};
use tokio::time::{Instant, sleep};

use super::{
    super::{Enumerate, Multicast, Register},
    Fixture, fixture, request,
};
use crate::{
    config::{Behavior, LongTtl, Rate, ReadConsistency, SchemaChange, StoreLoss, ViewKind, manifest_schema},
    namespaces::Namespaces,
    schema::Schema,
    service::Service,
    testing::{Fate, Op, soon, unavailable},
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
        other => panic!("`{other}` has no case"),
    }
}

/// Sets what a key says something about.
fn presume(behavior: &mut Behavior, key: &str) {
    match key {
        "on_long_ttl" => behavior.ttl_max = Some(Duration::from_secs(60)),
        "caller_burst" => behavior.caller_writes = Rate::per_second(2),
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
    let (first, second) = (watch.next().await, watch.next().await);
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
