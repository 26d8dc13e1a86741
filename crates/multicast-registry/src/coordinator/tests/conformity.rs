//! What violates a schema is found, counted and, where that is wanted, keeps the schema out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prism_filter::{Document, Path};
use prism_slot::{Applied, memory::MemoryRegistry};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{Check, Config, Coordinator, Error, SchemaRefused, Update},
    Fixture, fixture,
};
use crate::{
    config::SchemaChange,
    metrics::Metrics,
    schema::Schema,
    testing::{Broker, Fate, Op, Store, id, soon, unavailable},
};

fn schema(tree: Value) -> Schema {
    Schema::read(&tree).unwrap()
}

/// Everyone with a level that is no number violates it.
fn levels() -> Schema {
    schema(json!({ "level": "int" }))
}

/// Registers so many, of which every third violates [`levels`]; who does.
async fn register(fixture: &Fixture, count: usize) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    for number in 0..count {
        let name = format!("id-{number:04}");
        let level = if number % 3 == 0 { r#""high""# } else { "7" };
        fixture.register(&name, &format!(r#"{{"level":{level}}}"#)).await;
        if number % 3 == 0 {
            wrong.insert(name);
        }
    }
    wrong
}

async fn begin(coordinator: &Coordinator, schema: Schema) -> Check {
    coordinator.check_schema(Some(schema), soon()).await.unwrap()
}

/// The names of those that a check finds from here on.
fn rest(mut check: Check) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while let Some(some) = check.step().unwrap() {
        found.extend(some.into_iter().map(|one| one.identity.to_string()));
    }
    found
}

#[tokio::test]
async fn a_check_finds_exactly_those_that_violate_the_schema() {
    for count in [0, 1, 255, 256, 257, 1_000] {
        let fixture = fixture(|_| {});
        let wrong = register(&fixture, count).await;
        let mut check = begin(&fixture.coordinator, levels()).await;
        let mut found = BTreeSet::new();
        while let Some(some) = check.step().unwrap() {
            assert!(some.len() <= 256, "a part at a time");
            found.extend(some.into_iter().map(|one| one.identity.to_string()));
        }
        assert_eq!(found, wrong);
        let progress = check.progress();
        assert_eq!((progress.checked, progress.total), (count as u64, count as u64));
        assert_eq!(progress.nonconforming, wrong.len() as u64);
        assert_eq!(check.step(), Ok(None), "the end is the end");
    }
}

/// A check holds up nobody, and what it says of a registration was so when its turn came.
#[tokio::test]
async fn writes_go_on_during_a_check() {
    let fixture = fixture(|_| {});
    register(&fixture, 600).await;
    let mut check = begin(&fixture.coordinator, levels()).await;
    assert!(check.step().unwrap().is_some());
    // Behind it, before it, mended, broken and gone.
    fixture.register("id-0000-new", r#"{"level":"high"}"#).await;
    fixture.register("id-0599-new", r#"{"level":"high"}"#).await;
    for (name, level) in [("id-0597", "1"), ("id-0598", r#""low""#)] {
        let update = Update {
            identity: id(name),
            patch: Document::from_json(format!(r#"{{"level":{level}}}"#).as_bytes()).unwrap(),
            generation: None,
            if_revision: None,
        };
        fixture.coordinator.update(update, soon()).await.unwrap();
    }
    fixture
        .coordinator
        .unregister("id-0300", None, soon())
        .await
        .unwrap();
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    let found = rest(check);
    for (name, is_found) in [
        ("id-0000-new", false),
        ("id-0599-new", true),
        ("id-0597", false),
        ("id-0598", true),
        ("id-0300", false),
        ("id-0303", true),
        ("id-0594", true),
    ] {
        assert_eq!(found.contains(name), is_found, "{name}");
    }
}

/// A check of two histories would be one of neither.
#[tokio::test]
async fn a_check_ends_with_the_history_that_it_began_in() {
    let fixture = fixture(|_| {});
    register(&fixture, 300).await;
    let mut check = begin(&fixture.coordinator, levels()).await;
    check.step().unwrap();
    fixture
        .coordinator
        .replace_registry(Arc::new(MemoryRegistry::new(Default::default())));
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    assert!(matches!(check.step(), Err(Error::OtherEpoch { .. })));
}

#[tokio::test]
async fn there_must_be_something_to_check_by() {
    let fixture = fixture(|_| {});
    let refused = fixture.coordinator.check_schema(None, soon()).await.err();
    assert!(matches!(refused, Some(Error::Unsupported(_))), "{refused:?}");
}

/// The configuration now with this schema.
fn with_schema(fixture: &Fixture, schema: Option<Schema>, change: SchemaChange) -> Config {
    let mut config = (*fixture.coordinator.config()).clone();
    config.schema = schema;
    config.behavior.on_schema_change = change;
    config
}

#[tokio::test]
async fn a_schema_that_is_violated_is_kept_out_where_that_is_wanted() {
    let fixture = fixture(|_| {});
    register(&fixture, 20).await;
    let may = async |schema, change| {
        let next = with_schema(&fixture, schema, change);
        fixture.coordinator.may_become(&next, soon()).await
    };
    let refused = may(Some(levels()), SchemaChange::Refuse).await.unwrap_err();
    assert!(matches!(&refused, SchemaRefused::Violated(summary) if summary.first.len() == 3));
    let told = refused.to_string();
    assert!(
        told.starts_with(
            "7 of 20 registrations violate the schema: `id-0000`: the field `level` is no int: `\"high\"`; \
             `id-0003`: "
        ),
        "{told}"
    );
    assert!(
        told.contains("prism-probe schema migrate") && told.contains("lazy"),
        "{told}"
    );
    assert_eq!(may(Some(levels()), SchemaChange::Lazy).await, Ok(()));
    assert_eq!(may(None, SchemaChange::Refuse).await, Ok(()));
    let satisfied = schema(json!({ "other": "int" }));
    assert_eq!(may(Some(satisfied), SchemaChange::Refuse).await, Ok(()));

    // One that applies already is no change, whatever was registered before it did.
    let lazy = with_schema(&fixture, Some(levels()), SchemaChange::Lazy);
    fixture.coordinator.reconfigure(lazy);
    assert_eq!(may(Some(levels()), SchemaChange::Refuse).await, Ok(()));
}

/// What cannot be checked is not taken for satisfied.
#[tokio::test(start_paused = true)]
async fn a_schema_that_cannot_be_checked_is_kept_out() {
    for stale in [false, true] {
        let fixture = fixture(|config| {
            if stale {
                config.behavior.on_store_loss = crate::config::StoreLoss::Stale;
            }
        });
        register(&fixture, 1).await;
        fixture
            .script()
            .always(Op::Sync, Fate::Refuse(unavailable(Applied::No)));
        let next = with_schema(&fixture, Some(schema(json!({}))), SchemaChange::Refuse);
        let refused = fixture.coordinator.may_become(&next, soon()).await;
        assert!(matches!(refused, Err(SchemaRefused::Unknown(_))), "{refused:?}");
    }
}

fn counted(metrics: &Metrics) -> Option<u64> {
    let text = metrics.encode();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("multicast_registry_schema_violations{namespace=\"test\"} "));
    line?.parse().ok()
}

/// How many violate a schema is counted when it begins to apply, also where it does from the beginning, and
/// as long as there are any.
#[tokio::test(start_paused = true)]
async fn violations_are_counted_until_there_are_none() {
    let before = fixture(|_| {});
    register(&before, 30).await;
    let metrics = Metrics::default();
    let (store, broker): (Arc<Store>, Arc<Broker>) = (before.store.clone(), before.broker.clone());
    let mut config = Config::named("test");
    config.schema = Some(levels());
    let coordinator =
        Coordinator::with_metrics(config.clone(), store, broker, None, metrics.namespace("test"));
    let becomes = async |count: u64| {
        // In steps of the virtual clock, and not for ever.
        for _ in 0..600 {
            if counted(&metrics) == Some(count) {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("{count} expected, counted {:?}", counted(&metrics));
    };
    becomes(10).await;
    let mend = async |name: &str| {
        let update = Update {
            identity: id(name),
            patch: Document::from_json(br#"{"level":1}"#).unwrap(),
            generation: None,
            if_revision: None,
        };
        coordinator.update(update, soon()).await.unwrap();
    };
    mend("id-0000").await;
    becomes(9).await;
    // Another schema at once.
    config.schema = Some(schema(
        json!({ "fields": { "name": { "type": "string", "required": true } } }),
    ));
    coordinator.reconfigure(config.clone());
    becomes(30).await;
    // One that nobody violates, after which nobody counts again unless there is another.
    config.schema = Some(schema(json!({})));
    coordinator.reconfigure(config.clone());
    becomes(0).await;
    sleep(Duration::from_secs(3_600)).await;
    config.schema = Some(levels());
    coordinator.reconfigure(config.clone());
    becomes(9).await;
    config.schema = None;
    coordinator.reconfigure(config);
    becomes(0).await;
    coordinator.close().await;
}

/// What a slot says about indexes reaches the view as what the schema says.
#[tokio::test]
async fn indexes_come_from_the_schema_and_from_the_slot() {
    let path = |text: &str| Path::parse(text).unwrap();
    let mut config = Config::named("test");
    config.schema = Some(schema(
        json!({ "fields": { "b": { "type": "int", "index": true }, "x": "int" } }),
    ));
    config.indexes = vec![path("c"), path("a"), path("b")];
    assert_eq!(config.directory().indexed, [path("a"), path("b"), path("c")]);
}
