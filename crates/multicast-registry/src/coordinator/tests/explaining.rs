//! Explain: how a filter is answered, and why an identity matches it or does not.

use std::time::Duration;

use prism_filter::{Filter, Path};
use prism_slot::{Error as SlotError, Renew};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{Config, Coordinator, Enumerate, Error, Register},
    Fixture, fixture, slot_error,
};
use crate::{
    config::{ReadConsistency, StoreLoss},
    directory::Settings,
    schema::Schema,
    testing::{
        Fate, Op,
        generated::{self, MAX_DEPTH, PATHS},
        id, soon, unavailable,
    },
};

fn indexed_by_status(config: &mut Config) {
    let schema = json!({ "fields": { "status": { "type": "string", "index": true } } });
    config.schema = Some(Schema::read(&schema).unwrap());
}

fn filter(json: &Value) -> Filter {
    Filter::parse_json(json, &prism_filter::Limits::default()).unwrap()
}

/// A hundred devices, of which every tenth is offline.
async fn fleet() -> Fixture {
    let fixture = fixture(indexed_by_status);
    for number in 0..100 {
        let status = if number % 10 == 0 { "offline" } else { "online" };
        let metadata = json!({ "status": status, "level": number, "zone": "a" });
        fixture
            .register(&format!("id-{number:02}"), &metadata.to_string())
            .await;
    }
    fixture
}

#[tokio::test]
async fn a_filter_on_an_index_asks_nobody() {
    let fixture = fleet().await;
    let asked = filter(&json!({ "status": "offline" }));
    let told = fixture.coordinator.explain(Some(&asked), soon()).await.unwrap();
    assert_eq!(told.steps.as_deref(), Some("index(status eq)"));
    assert_eq!(
        (told.indexes, told.unindexed, told.residual),
        (vec!["status".into()], vec![], vec![])
    );
    assert_eq!((told.exact, told.estimated, told.candidates), (true, 10, 10));
    assert_eq!((told.asked, told.matches, told.registered), (0, 10, 100));
    assert_eq!((told.position.revision.0, told.age), (100, None));
}

#[tokio::test]
async fn what_no_index_settles_is_left_over() {
    let fixture = fleet().await;
    let asked = filter(&json!({ "status": "offline", "level.lt": 50, "$not": { "zone": "b" } }));
    let told = fixture.coordinator.explain(Some(&asked), soon()).await.unwrap();
    assert_eq!(told.steps.as_deref(), Some("index(status eq)"));
    assert_eq!((told.unindexed, told.exact), (vec!["level".to_owned()], false));
    assert_eq!(told.residual, [r#"zone eq "b""#, "level lt 50"]);
    assert_eq!(
        (told.estimated, told.candidates, told.asked, told.matches),
        (10, 10, 10, 5)
    );

    let asked = filter(&json!({ "level.gte": 90 }));
    let told = fixture.coordinator.explain(Some(&asked), soon()).await.unwrap();
    assert_eq!((told.steps, told.indexes, told.exact), (None, vec![], false));
    assert_eq!(
        (told.estimated, told.candidates, told.asked, told.matches),
        (100, 100, 100, 10)
    );
    assert_eq!(told.residual, ["level gte 90"]);

    let told = fixture.coordinator.explain(None, soon()).await.unwrap();
    assert_eq!((told.steps, told.exact, told.residual), (None, true, vec![]));
    assert_eq!((told.asked, told.matches, told.registered), (0, 100, 100));
}

#[tokio::test]
async fn the_text_says_the_same() {
    let fixture = fleet().await;
    let asked = filter(&json!({ "status": "offline", "level.lt": 50 }));
    let told = fixture.coordinator.explain(Some(&asked), soon()).await.unwrap();
    let expected = "plan: index(status eq)\nindexes: status\nno index on: level\nleft over: level lt 50\n\
                    5 of 100 registrations match; 10 candidates, 10 expected, 10 asked\n";
    assert!(told.to_string().starts_with(expected), "{told}");
    let told = fixture.coordinator.explain(None, soon()).await.unwrap();
    assert!(
        told.to_string()
            .starts_with("plan: every registration\n100 of 100 "),
        "{told}"
    );

    let asked = filter(&json!({
        "$or": [{ "status": "online", "level.gt": 50 }, { "$not": { "zone.exists": true } }], "place": "x",
    }));
    let why = fixture
        .coordinator
        .explain_why(id("id-07"), Some(&asked), soon())
        .await
        .unwrap();
    let expected = r#"no  $and
no    $or
no      $and
no        level gt 50 (is 7)
yes       status eq "online" (is "online")
no      $not
yes       zone exists true (is "a")
no    place eq "x" (is missing)"#;
    assert_eq!(why.to_string(), expected);
    assert!(!why.matches);
    let why = fixture
        .coordinator
        .explain_why(id("id-07"), None, soon())
        .await
        .unwrap();
    assert_eq!((why.matches, why.to_string()), (true, "yes {}".to_owned()));
}

#[tokio::test]
async fn what_is_looked_at_is_shown_as_people_read_it() {
    let fixture = fixture(|_| {});
    let long = json!({ "text": "é".repeat(2_000), "level": 7 });
    fixture.register("a", &long.to_string()).await;
    let asked = filter(&json!({
        "$and": [{ "$identity": "a" }, { "$registered_at.gt": "now-1h" }, { "$expires_at.exists": false },
            { "text.ne": "é".repeat(2_000) }, { "level": { "$gt": "now-1m" } }],
    }));
    let why = fixture
        .coordinator
        .explain_why(id("a"), Some(&asked), soon())
        .await
        .unwrap();
    let shown: Vec<_> = why.verdicts[1..]
        .iter()
        .map(|verdict| (verdict.holds, verdict.value.clone()))
        .collect();
    let text = format!("\"{}…", "é".repeat(255));
    let expected = [
        (true, Some(r#""a""#)),
        (false, Some(r#""2023-11-14T22:13:20Z""#)),
        (true, None),
        (false, Some(text.as_str())),
        (false, Some("7")),
    ];
    assert_eq!(
        shown,
        expected.map(|(holds, value)| (holds, value.map(str::to_owned)))
    );
    assert!(why.verdicts.iter().all(|verdict| verdict.part.len() <= 600));
    assert!(why.verdicts[4].part.ends_with('…'), "{:?}", why.verdicts[4]);
}

#[tokio::test]
async fn who_is_not_registered_has_no_reasons() {
    let fixture = fleet().await;
    fixture
        .coordinator
        .unregister("id-01", None, soon())
        .await
        .unwrap();
    for name in ["id-01", "nobody"] {
        let error = fixture
            .coordinator
            .explain_why(id(name), None, soon())
            .await
            .unwrap_err();
        assert_eq!(slot_error(error), SlotError::NotFound(id(name)));
    }
    let deep = (0..9).fold(Filter::new().eq("a", 1), |filter, _| Filter::not(filter));
    for error in [
        fixture.coordinator.explain(Some(&deep), soon()).await.map(drop),
        fixture
            .coordinator
            .explain_why(id("id-02"), Some(&deep), soon())
            .await
            .map(drop),
    ] {
        assert!(matches!(error, Err(Error::InvalidFilter(_))), "{error:?}");
    }
}

/// Renewals pass by the view, and count all the same.
#[tokio::test]
async fn reasons_know_the_lease_as_it_is() {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_millis(1_500)));
    let held = fixture.register("a", "{}").await;
    fixture.clock.advance(Duration::from_secs(1));
    let lease = Renew {
        identity: id("a"),
        generation: None,
    };
    fixture.coordinator.renew(vec![lease], soon()).await.unwrap();
    let longer = Filter::new().gt("$expires_at", held.expires_at.unwrap().0);
    let why = fixture
        .coordinator
        .explain_why(id("a"), Some(&longer), soon())
        .await
        .unwrap();
    assert!(why.matches, "{why}");
    let told = fixture.coordinator.explain(Some(&longer), soon()).await.unwrap();
    assert_eq!(told.matches, 1);
}

#[tokio::test]
async fn a_lost_store_is_told_like_that_of_an_enumeration() {
    for on_store_loss in [StoreLoss::Fail, StoreLoss::Stale] {
        let fixture = fixture(|config| {
            config.behavior.on_store_loss = on_store_loss;
            config.behavior.ttl_default = Some(Duration::from_secs(60));
        });
        fixture.register("a", "{}").await;
        fixture.names(Filter::new()).await;
        let lost = unavailable(prism_slot::Applied::No);
        fixture.script().always(Op::Leases, Fate::Refuse(lost.clone()));
        let leased = Filter::new().exists("$expires_at");
        let ages = [
            fixture
                .coordinator
                .explain(Some(&leased), soon())
                .await
                .map(|told| told.age),
            fixture
                .coordinator
                .explain_why(id("a"), Some(&leased), soon())
                .await
                .map(|why| why.age),
        ];
        for age in ages {
            match age {
                Ok(age) => assert!(on_store_loss == StoreLoss::Stale && age.is_some()),
                Err(error) => assert!(on_store_loss == StoreLoss::Fail && slot_error(error) == lost),
            }
        }
    }
}

#[tokio::test]
async fn a_namespace_of_stale_reads_is_explained_at_once() {
    let fixture = fixture(|config| config.behavior.consistency = ReadConsistency::Stale);
    fixture.register("a", "{}").await;
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    for op in [Op::Sync, Op::Leases, Op::Get] {
        fixture.script().always(op, Fate::Hang);
    }
    let told = fixture.coordinator.explain(None, soon()).await.unwrap();
    let why = fixture
        .coordinator
        .explain_why(id("a"), None, soon())
        .await
        .unwrap();
    assert!(told.age.is_some() && why.age.is_some());
}

/// Whether an enumeration has an identity, and what is said of it, beside what the plan finds.
async fn agree(coordinator: &Coordinator, names: &[String], filter: &Filter) -> Result<(), TestCaseError> {
    let request = Enumerate {
        filter: Some(filter.clone()),
        limit: 1_000,
        ..Default::default()
    };
    let listed = super::names(&coordinator.enumerate(request, soon()).await.unwrap());
    let told = coordinator.explain(Some(filter), soon()).await.unwrap();
    prop_assert_eq!(told.matches, listed.len() as u64, "{}", told);
    prop_assert!(
        told.matches <= told.candidates && told.asked <= told.candidates,
        "{}",
        told
    );
    prop_assert!(
        !told.exact || (told.residual.is_empty() && told.asked == 0),
        "{}",
        told
    );
    for name in names {
        let why = coordinator
            .explain_why(id(name), Some(filter), soon())
            .await
            .unwrap();
        prop_assert_eq!(why.matches, listed.contains(name), "{}: {}", name, why);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn reasons_agree_with_enumerations(
        documents in prop::collection::vec(generated::document(), 0..12),
        filters in prop::collection::vec(generated::filter(), 4), indexed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let agreed: Result<(), TestCaseError> = runtime.block_on(async {
            let fixture = fixture(|config| config.behavior.max_filter_depth = MAX_DEPTH);
            let indexed = indexed.then_some(PATHS).into_iter().flatten().map(|path| Path::parse(path).unwrap());
            fixture.coordinator.directory().configure(Settings {
                indexed: indexed.collect(),
                ..Settings::default()
            });
            let mut names = Vec::new();
            for (number, document) in documents.into_iter().enumerate() {
                names.push(format!("id-{number}"));
                let request = Register::new(names[number].as_str(), document).unwrap();
                fixture.coordinator.register(request, soon()).await.unwrap();
            }
            for filter in &filters {
                agree(&fixture.coordinator, &names, filter).await?;
            }
            Ok(())
        });
        agreed?;
    }
}
