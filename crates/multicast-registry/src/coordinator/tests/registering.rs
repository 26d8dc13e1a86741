//! Register, renew, update, and what is refused.

use std::{sync::Arc, time::Duration};

use prism_filter::{Document, Filter, Path};
use prism_slot::{
    Error as SlotError, Renew, Revision, SessionId, Timestamp,
    memory::{MemoryRegistry, RegistryConfig},
};

use super::{
    super::{Closed, Config, Enumerate, Error, Multicast, Register, SessionEvent, Update},
    fixture, request, slot_error,
};
use crate::{
    config::LongTtl,
    directory::SortKey,
    schema::Schema,
    testing::{id, soon},
};

#[tokio::test]
async fn bad_arguments_are_named() {
    let fixture = fixture(|config| {
        config.behavior.max_metadata_bytes = 20;
        config.behavior.ttl_max = Some(Duration::from_secs(60));
        config.behavior.max_payload_bytes = Some(3);
        config.schema = Some(Schema::read(&serde_json::json!({ "n": "int" })).unwrap());
    });
    let refused = async |request| fixture.coordinator.register(request, soon()).await.unwrap_err();
    let leased = |request: Register, ttl| Register {
        ttl: Some(Duration::from_secs(ttl)),
        ..request
    };
    assert!(
        matches!(refused(request("a", "{}")).await, Error::InvalidTtl { .. }),
        "no default, and one is required"
    );
    assert!(matches!(
        refused(leased(request("a", "{}"), 0)).await,
        Error::InvalidTtl { .. }
    ));
    assert!(matches!(
        refused(leased(request("a", "{}"), 61)).await,
        Error::InvalidTtl { .. }
    ));
    let large = request("a", r#"{"text":"aaaaaaaaaaaaaaaaaaaa"}"#);
    assert_eq!(
        refused(leased(large, 5)).await,
        Error::MetadataTooLarge { size: 31, limit: 20 }
    );
    let wrong = leased(request("a", r#"{"n":"x"}"#), 5);
    assert!(matches!(refused(wrong).await, Error::SchemaViolation(_)));

    let enumerate = async |request| fixture.coordinator.enumerate(request, soon()).await.unwrap_err();
    let argument = |error| match error {
        Error::InvalidArgument { field, .. } => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        argument(
            enumerate(Enumerate {
                limit: 1_001,
                ..Default::default()
            })
            .await
        ),
        "pagination.limit"
    );
    assert_eq!(
        argument(
            enumerate(Enumerate {
                offset: 10_001,
                ..Default::default()
            })
            .await
        ),
        "pagination.offset"
    );
    let key = SortKey {
        path: Path::parse("$expires_at").unwrap(),
        descending: false,
    };
    assert_eq!(
        argument(
            enumerate(Enumerate {
                sort: vec![key.clone()],
                ..Default::default()
            })
            .await
        ),
        "sort_by"
    );
    assert_eq!(
        argument(
            enumerate(Enumerate {
                sort: vec![key; 9],
                ..Default::default()
            })
            .await
        ),
        "sort_by"
    );
    let deep = (0..6).fold(Filter::new().exists("a"), |filter, _| {
        Filter::or([Filter::not(filter)])
    });
    assert!(matches!(
        enumerate(Enumerate {
            filter: Some(deep),
            ..Default::default()
        })
        .await,
        Error::InvalidFilter(_)
    ));

    let large = Multicast {
        payload: "1234".into(),
        ..Default::default()
    };
    let error = fixture.coordinator.multicast(large, soon()).await.unwrap_err();
    assert_eq!(error, Error::PayloadTooLarge { size: 4, limit: 3 });
    let durable = Multicast {
        delivery: Some(crate::Delivery::AtLeastOnce),
        ..Default::default()
    };
    assert!(matches!(
        fixture.coordinator.multicast(durable, soon()).await,
        Err(Error::Unsupported(_))
    ));
}

#[tokio::test]
async fn an_update_merges_and_respects_fences() {
    let fixture = fixture(|_| {});
    let held = fixture.register("a", r#"{"status":"online","room":"x"}"#).await;
    let patch = |text: &str| Document::from_json(text.as_bytes()).unwrap();
    let update = Update {
        identity: id("a"),
        patch: patch(r#"{"room":null,"n":1}"#),
        generation: None,
        if_revision: None,
    };
    let record = fixture.coordinator.update(update.clone(), soon()).await.unwrap();
    assert_eq!(record.metadata, &br#"{"n":1,"status":"online"}"#[..]);
    assert_eq!(record.generation, held.generation);

    let late = Update {
        if_revision: Some(Revision(1)),
        ..update.clone()
    };
    let error = slot_error(fixture.coordinator.update(late, soon()).await.unwrap_err());
    assert_eq!(
        error,
        SlotError::Conflict {
            identity: id("a"),
            current: Revision(2)
        }
    );
    let replaced = Register {
        replace: true,
        ..request("a", "{}")
    };
    fixture.coordinator.register(replaced, soon()).await.unwrap();
    let stale = Update {
        generation: Some(held.generation),
        ..update
    };
    let error = slot_error(fixture.coordinator.update(stale, soon()).await.unwrap_err());
    assert!(matches!(error, SlotError::StaleGeneration { .. }));
    let absent = Update {
        identity: id("b"),
        patch: patch("{}"),
        generation: None,
        if_revision: None,
    };
    let error = slot_error(fixture.coordinator.update(absent, soon()).await.unwrap_err());
    assert_eq!(error, SlotError::NotFound(id("b")));
}

/// What an update makes of metadata is as large as what is registered may be, and no larger.
#[tokio::test]
async fn metadata_does_not_grow_past_its_limit() {
    let fixture = fixture(|config| {
        config.behavior.max_metadata_bytes = 20;
        config.schema = Some(
            Schema::read(&serde_json::json!({ "fields": {
            "mark": { "type": "string", "default": "0123456789" },
        } }))
            .unwrap(),
        );
    });
    let held = fixture.register("a", r#"{"mark":"x"}"#).await;
    let update = |patch: &str| Update {
        identity: id("a"),
        patch: Document::from_json(patch.as_bytes()).unwrap(),
        generation: None,
        if_revision: None,
    };
    let grown = fixture
        .coordinator
        .update(update(r#"{"b":"yyyyyyyy"}"#), soon())
        .await;
    assert_eq!(
        grown.unwrap_err(),
        Error::MetadataTooLarge { size: 27, limit: 20 }
    );
    let filled = fixture.coordinator.register(request("b", "{}"), soon()).await;
    assert_eq!(
        filled.unwrap_err(),
        Error::MetadataTooLarge { size: 21, limit: 20 },
        "with what is filled in"
    );
    let kept = fixture
        .coordinator
        .update(update(r#"{"b":1}"#), soon())
        .await
        .unwrap();
    assert_eq!(
        kept.position.revision,
        held.position.revision.next(),
        "nothing was written in between"
    );
}

#[tokio::test]
async fn concurrent_updates_all_take_effect() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let updates = (0..20).map(|number| {
        let coordinator = fixture.coordinator.clone();
        let patch = Document::from_json(format!(r#"{{"f{number}":1}}"#).as_bytes()).unwrap();
        let update = Update {
            identity: id("a"),
            patch,
            generation: None,
            if_revision: None,
        };
        tokio::spawn(async move { coordinator.update(update, soon()).await.map(|_| ()) })
    });
    for update in futures::future::join_all(updates).await {
        update.unwrap().unwrap();
    }
    let record = fixture
        .coordinator
        .get(id("a"), soon())
        .await
        .unwrap()
        .record
        .unwrap();
    let document = Document::from_json(&record.metadata).unwrap();
    assert_eq!(document.root().len(), 20);
}

#[tokio::test]
async fn leases_are_shown_as_they_are_and_end_when_they_end() {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_millis(1_500)));
    let held = fixture.register("a", "{}").await;
    fixture.clock.advance(Duration::from_secs(1));
    let renewed = fixture
        .coordinator
        .renew(
            vec![Renew {
                identity: id("a"),
                generation: None,
            }],
            soon(),
        )
        .await;
    assert!(renewed.unwrap()[0].is_ok());
    let page = fixture
        .coordinator
        .enumerate(Enumerate::default(), soon())
        .await
        .unwrap();
    let row = page.rows.iter().next().unwrap();
    assert_eq!(
        page.expires_at(row).map(|at| at.0),
        held.expires_at.map(|at| at.0 + 1_000)
    );

    let later = Timestamp(held.expires_at.unwrap().0 + 500).0 as f64;
    assert_eq!(
        fixture.names(Filter::new().gt("$expires_at", later)).await,
        ["a"],
        "the renewed lease counts"
    );
    fixture.clock.advance(Duration::from_millis(1_500));
    assert!(
        fixture.names(Filter::new()).await.is_empty(),
        "exact, with nobody having swept"
    );
    let late = fixture
        .coordinator
        .renew(
            vec![Renew {
                identity: id("a"),
                generation: None,
            }],
            soon(),
        )
        .await
        .unwrap();
    assert_eq!(
        slot_error(late[0].clone().unwrap_err()),
        SlotError::NotFound(id("a"))
    );
}

#[tokio::test]
async fn registering_again_with_the_same_session_is_a_renewal() {
    let fixture = fixture(|_| {});
    let mine = Register {
        session: Some(SessionId([7; 16])),
        ..request("a", "{}")
    };
    let first = fixture.coordinator.register(mine.clone(), soon()).await.unwrap();
    let again = fixture.coordinator.register(mine, soon()).await.unwrap();
    assert_eq!(first.generation, again.generation);
    let other = fixture
        .coordinator
        .register(request("a", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(other), SlotError::AlreadyExists(id("a")));
}

#[tokio::test]
async fn limits_change_under_live_sessions() {
    let fixture = fixture(|config| config.behavior.max_identities = 1);
    fixture.register("a", "{}").await;
    let mut session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    let full = fixture
        .coordinator
        .register(request("b", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(slot_error(full), SlotError::QuotaExceeded { limit: 1 });
    let mut config = Config::named("test");
    config.behavior.max_identities = 2;
    fixture.coordinator.reconfigure(config);
    fixture.register("b", "{}").await;
    fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert!(matches!(session.next().await, Some(Ok(SessionEvent::Message(_)))));
}

/// However many register at once and through whichever runner, exactly as many get in as there is room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_quota_is_exact_under_concurrent_registrations_through_two_runners() {
    let fixture = fixture(|config| config.behavior.max_identities = 100);
    let other = fixture.sibling();
    let mut config = Config::named("test");
    config.behavior.max_identities = 100;
    other.reconfigure(config);
    let calls = (0..1_000).map(|number| {
        let runner = [&fixture.coordinator, &other][number % 2].clone();
        tokio::spawn(async move {
            runner
                .register(request(&format!("id-{number}"), "{}"), soon())
                .await
        })
    });
    let (mut taken, mut full) = (0, 0);
    for outcome in futures::future::join_all(calls).await {
        match outcome.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(slot_error(error), SlotError::QuotaExceeded { limit: 100 });
                full += 1;
            }
        }
    }
    assert_eq!((taken, full), (100, 900));
    assert_eq!(fixture.names(Filter::new()).await.len(), 100);
}

#[tokio::test]
async fn nothing_is_served_after_the_end() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    fixture.coordinator.close().await;
    let error = fixture
        .coordinator
        .register(request("b", "{}"), soon())
        .await
        .unwrap_err();
    assert_eq!(error, Error::Draining);
    assert_eq!(
        fixture
            .coordinator
            .enumerate(Enumerate::default(), soon())
            .await
            .unwrap_err(),
        Error::Draining
    );
}
#[tokio::test]
async fn a_new_epoch_is_followed_without_a_restart() {
    let fixture = fixture(|_| {});
    fixture.register("gone", "{}").await;
    let mut session = fixture.coordinator.subscribe("gone", None, soon()).await.unwrap();
    let old = fixture.coordinator.directory().head();
    // As a store that lost everything: the same name, another history.
    fixture
        .coordinator
        .replace_registry(Arc::new(MemoryRegistry::new(RegistryConfig::default())));
    assert!(
        fixture.names(Filter::new()).await.is_empty(),
        "what is gone is not served"
    );
    assert_eq!(session.next().await, Some(Err(Closed::Unregistered)));
    let held = fixture.register("new", "{}").await;
    assert_ne!(held.position.epoch, old.epoch);
    let request = Enumerate {
        min_position: Some(old),
        ..Default::default()
    };
    let error = fixture.coordinator.enumerate(request, soon()).await.unwrap_err();
    assert_eq!(
        error,
        Error::OtherEpoch {
            current: held.position.epoch
        }
    );
}

/// What is asked for, and what is granted where too long a lease is cut. All in seconds.
#[tokio::test]
async fn a_lease_that_is_too_long_is_cut_where_that_is_wanted() {
    let cases = [
        (Some(60), None, Some(10), Some(10)),
        (Some(60), None, Some(60), Some(60)),
        (Some(60), None, Some(61), Some(60)),
        (Some(60), None, Some(u64::MAX / 1_000), Some(60)),
        (Some(60), None, Some(0), Some(60)),
        (Some(60), None, None, Some(60)),
        (Some(60), Some(20), None, Some(20)),
        (Some(60), Some(90), None, Some(60)),
        (Some(60), Some(20), Some(0), Some(60)),
        (None, Some(90), None, Some(90)),
        (None, None, None, None),
        (None, None, Some(0), None),
    ];
    for (max, default, asked, granted) in cases {
        let fixture = fixture(|config| {
            config.behavior.on_long_ttl = LongTtl::Clamp;
            config.behavior.ttl_max = max.map(Duration::from_secs);
            config.behavior.ttl_default = default.map(Duration::from_secs);
        });
        let request = Register {
            ttl: asked.map(Duration::from_secs),
            ..request("a", "{}")
        };
        let held = fixture.coordinator.register(request, soon()).await.unwrap();
        let told = held.ttl.map(|ttl| ttl.as_millis() / 1_000);
        assert_eq!(told, granted, "{asked:?} of at most {max:?}, default {default:?}");
        // What is told is what is.
        let ends = held
            .expires_at
            .map(|at| (at.0 - held.registered_at.0) as u64 / 1_000);
        assert_eq!(ends, granted, "{asked:?} of at most {max:?}, default {default:?}");
    }
}

/// A lease too short for a millisecond is a short lease, and not none.
#[tokio::test]
async fn the_shortest_lease_is_not_none() {
    let fixture = fixture(|config| config.behavior.ttl_max = Some(Duration::from_secs(60)));
    let brief = Register {
        ttl: Some(Duration::from_micros(300)),
        ..request("a", "{}")
    };
    let held = fixture.coordinator.register(brief, soon()).await.unwrap();
    assert_eq!(held.ttl.map(|ttl| ttl.as_millis()), Some(1));
}
