//! The coordinator over memory slots, with time in the test's hands.

use std::{sync::Arc, time::Duration};

use prism_filter::{Document, Filter, Path};
use prism_slot::{
    DynMessaging, DynRegistryStore, Error as SlotError, Identity, Renew, Revision, SessionId, Timestamp,
    memory::{ManualClock, MemoryMessaging, MemoryRegistry, RegistryConfig},
};
use tokio::time::Instant;

use super::{
    Closed, Config, Coordinator, Enumerate, Error, Multicast, Register, SessionEvent, Status, Update,
};
use crate::{
    config::{ReadConsistency, StoreLoss},
    directory::{SortKey, Unavailable},
    schema::Schema,
};

struct Fixture {
    coordinator: Coordinator,
    clock: Arc<ManualClock>,
    registry: Arc<dyn DynRegistryStore>,
    messaging: Arc<dyn DynMessaging>,
}

fn fixture(change: impl FnOnce(&mut Config)) -> Fixture {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let registry: Arc<dyn DynRegistryStore> = Arc::new(MemoryRegistry::with_clock(
        RegistryConfig::default(),
        clock.clone(),
    ));
    let messaging: Arc<dyn DynMessaging> = Arc::new(MemoryMessaging::new(Default::default()));
    let mut config = Config::named("test");
    change(&mut config);
    let coordinator = Coordinator::new(config, registry.clone(), messaging.clone(), None);
    Fixture {
        coordinator,
        clock,
        registry,
        messaging,
    }
}

impl Fixture {
    /// A second runner of the same namespace.
    fn sibling(&self) -> Coordinator {
        Coordinator::new(
            Config::named("test"),
            self.registry.clone(),
            self.messaging.clone(),
            None,
        )
    }

    async fn register(&self, name: &str, metadata: &str) -> super::Held {
        self.coordinator
            .register(request(name, metadata), soon())
            .await
            .unwrap()
    }

    async fn names(&self, filter: Filter) -> Vec<String> {
        let request = Enumerate {
            filter: Some(filter),
            ..Default::default()
        };
        names(&self.coordinator.enumerate(request, soon()).await.unwrap())
    }
}

fn names(page: &super::Page) -> Vec<String> {
    page.rows.iter().map(|row| row.identity().to_string()).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn request(name: &str, metadata: &str) -> Register {
    Register::new(name, Document::from_json(metadata.as_bytes()).unwrap()).unwrap()
}

fn id(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn slot_error(error: Error) -> SlotError {
    match error {
        Error::Unavailable(Unavailable::Store(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_registered_is_enumerated_at_once() {
    let fixture = fixture(|_| {});
    for number in 0..30 {
        let status = if number % 3 == 0 { "online" } else { "away" };
        fixture
            .register(
                &format!("id-{number:02}"),
                &format!(r#"{{"status":"{status}","n":{number}}}"#),
            )
            .await;
    }
    let online = fixture.names(Filter::new().eq("status", "online")).await;
    assert_eq!(
        online,
        (0..30)
            .step_by(3)
            .map(|n| format!("id-{n:02}"))
            .collect::<Vec<_>>()
    );
    fixture
        .coordinator
        .unregister("id-00", None, soon())
        .await
        .unwrap();
    assert!(!fixture.names(Filter::new()).await.contains(&"id-00".to_owned()));
}

#[tokio::test]
async fn pages_stay_at_their_revision_on_any_runner() {
    let fixture = fixture(|_| {});
    for number in 0..25 {
        fixture.register(&format!("id-{number:02}"), "{}").await;
    }
    let sibling = fixture.sibling();
    let first = Enumerate {
        limit: 10,
        ..Default::default()
    };
    sibling.enumerate(first.clone(), soon()).await.unwrap();
    let page = fixture.coordinator.enumerate(first, soon()).await.unwrap();
    assert_eq!((page.total, page.rows.len()), (25, 10));
    fixture
        .coordinator
        .unregister("id-15", None, soon())
        .await
        .unwrap();
    fixture.register("id-155", "{}").await;
    let (mut seen, mut cursor) = (names(&page), page.next);
    while let Some(next) = cursor {
        let request = Enumerate {
            limit: 10,
            cursor: Some(next),
            ..Default::default()
        };
        let page = sibling.enumerate(request, soon()).await.unwrap();
        assert_eq!(page.total, 25);
        seen.extend(names(&page));
        cursor = page.next;
    }
    assert_eq!(seen, (0..25).map(|n| format!("id-{n:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn cursors_are_refused_where_they_do_not_belong() {
    let fixture = fixture(|config| config.behavior.history_age = Duration::ZERO);
    for number in 0..5 {
        fixture.register(&format!("id-{number}"), "{}").await;
    }
    let page = Enumerate {
        limit: 2,
        ..Default::default()
    };
    let cursor = fixture
        .coordinator
        .enumerate(page.clone(), soon())
        .await
        .unwrap()
        .next;
    let other = Enumerate {
        cursor: cursor.clone(),
        filter: Some(Filter::new().exists("x")),
        ..page.clone()
    };
    assert!(matches!(
        fixture.coordinator.enumerate(other, soon()).await,
        Err(Error::InvalidCursor(_))
    ));
    let forged = Enumerate {
        cursor: Some("AAAA".into()),
        ..page.clone()
    };
    assert!(matches!(
        fixture.coordinator.enumerate(forged, soon()).await,
        Err(Error::InvalidCursor(_))
    ));
    // Past the horizon, which is no time at all here.
    fixture
        .coordinator
        .unregister("id-4", None, soon())
        .await
        .unwrap();
    let late = Enumerate { cursor, ..page };
    let deadline = soon();
    loop {
        match fixture.coordinator.enumerate(late.clone(), soon()).await {
            Err(Error::Compacted { .. }) => break,
            outcome => assert!(Instant::now() < deadline, "{outcome:?}"),
        }
        fixture.coordinator.directory().nudge();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn sorting_goes_by_kind_then_value_then_identity() {
    let fixture = fixture(|_| {});
    for (name, metadata) in [
        ("a", r#"{"n":2}"#),
        ("b", r#"{"n":1}"#),
        ("c", "{}"),
        ("d", r#"{"n":"x"}"#),
        ("e", r#"{"n":1}"#),
    ] {
        fixture.register(name, metadata).await;
    }
    let sorted = async |descending| {
        let sort = vec![SortKey {
            path: Path::parse("n").unwrap(),
            descending,
        }];
        names(
            &fixture
                .coordinator
                .enumerate(
                    Enumerate {
                        sort,
                        ..Default::default()
                    },
                    soon(),
                )
                .await
                .unwrap(),
        )
    };
    assert_eq!(sorted(false).await, ["c", "b", "e", "a", "d"]);
    assert_eq!(sorted(true).await, ["d", "a", "b", "e", "c"]);
}

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
        delivery: super::Delivery::AtLeastOnce,
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
async fn a_multicast_says_what_it_knows_of_each() {
    let fixture = fixture(|_| {});
    for name in ["a", "b", "c"] {
        fixture.register(name, r#"{"room":"x"}"#).await;
    }
    fixture.register("elsewhere", r#"{"room":"y"}"#).await;
    let mut session = fixture.coordinator.subscribe("b", None, soon()).await.unwrap();
    let multicast = Multicast {
        filter: Some(Filter::new().eq("room", "x")),
        payload: "hello".into(),
        content_type: Some("text/plain".into()),
        ..Default::default()
    };
    let report = fixture
        .coordinator
        .multicast(multicast.clone(), soon())
        .await
        .unwrap();
    let outcomes: Vec<_> = report
        .targets
        .iter()
        .map(|target| (target.identity.as_str(), target.status(), target.reason()))
        .collect();
    let expected = [
        ("a", Status::Failed, "NO_SUBSCRIBER"),
        ("b", Status::Delivered, ""),
        ("c", Status::Failed, "NO_SUBSCRIBER"),
    ];
    assert_eq!(outcomes, expected);
    let Some(Ok(SessionEvent::Message(message))) = session.next().await else {
        panic!("no message")
    };
    assert_eq!(
        (&message.payload[..], &*message.content_type, message.multicast),
        (&b"hello"[..], "text/plain", report.id)
    );

    let nobody = Multicast {
        filter: Some(Filter::new().eq("room", "z")),
        ..multicast
    };
    assert!(
        fixture
            .coordinator
            .multicast(nobody, soon())
            .await
            .unwrap()
            .targets
            .is_empty()
    );
}

#[tokio::test]
async fn a_newer_session_takes_over_wherever_it_is() {
    let fixture = fixture(|_| {});
    let sibling = fixture.sibling();
    fixture.register("a", "{}").await;
    let mut first = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    let mut second = sibling.subscribe("a", None, soon()).await.unwrap();
    assert_eq!(
        first.next().await,
        Some(Err(Closed::Superseded)),
        "told across runners"
    );
    assert_eq!(first.next().await, None);
    let third = sibling.subscribe("a", None, soon()).await.unwrap();
    assert_eq!(
        second.next().await,
        Some(Err(Closed::Superseded)),
        "and on the same one"
    );
    assert!(third.claim().session_seq > second.claim().session_seq);
    drop((first, second));
    assert_eq!(
        (fixture.coordinator.session_count(), sibling.session_count()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_session_ends_with_its_registration() {
    let fixture = fixture(|_| {});
    let open = async |name: &str| {
        let leased = Register {
            ttl: Some(Duration::from_secs(1)),
            ..request(name, "{}")
        };
        fixture.coordinator.register(leased, soon()).await.unwrap();
        fixture.coordinator.subscribe(name, None, soon()).await.unwrap()
    };
    let mut removed = open("removed").await;
    fixture
        .coordinator
        .unregister("removed", None, soon())
        .await
        .unwrap();
    assert_eq!(removed.next().await, Some(Err(Closed::Unregistered)));

    let mut replaced = open("replaced").await;
    let taken = Register {
        replace: true,
        ..request("replaced", "{}")
    };
    fixture.coordinator.register(taken, soon()).await.unwrap();
    assert_eq!(replaced.next().await, Some(Err(Closed::Replaced)));

    let mut expired = open("expired").await;
    fixture.clock.advance(Duration::from_millis(1_001));
    assert_eq!(
        expired.next().await,
        Some(Err(Closed::Expired)),
        "noticed by the ticking view"
    );

    let mut drained = open("drained").await;
    fixture.coordinator.close_sessions();
    assert_eq!(drained.next().await, Some(Err(Closed::Draining)));
}

#[tokio::test]
async fn a_session_belongs_to_a_registration() {
    let fixture = fixture(|_| {});
    let subscribe = async |generation| fixture.coordinator.subscribe("a", generation, soon()).await;
    assert_eq!(
        slot_error(subscribe(None).await.unwrap_err()),
        SlotError::NotFound(id("a"))
    );
    let held = fixture.register("a", "{}").await;
    let replaced = Register {
        replace: true,
        ..request("a", "{}")
    };
    fixture.coordinator.register(replaced, soon()).await.unwrap();
    let stale = slot_error(subscribe(Some(held.generation)).await.unwrap_err());
    assert!(matches!(stale, SlotError::StaleGeneration { .. }));
    assert_eq!(
        fixture.coordinator.session_count(),
        0,
        "a failed subscription leaves nothing behind"
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

#[tokio::test]
async fn a_lost_store_fails_or_serves_what_is_known() {
    for (on_store_loss, fails) in [(StoreLoss::Fail, true), (StoreLoss::Stale, false)] {
        let fixture = fixture(|config| config.behavior.on_store_loss = on_store_loss);
        fixture.register("a", "{}").await;
        assert_eq!(fixture.names(Filter::new()).await, ["a"]);
        fixture.registry.close().await;
        match fixture.coordinator.enumerate(Enumerate::default(), soon()).await {
            Err(error) => assert!(fails && matches!(slot_error(error), SlotError::Unavailable { .. })),
            Ok(page) => assert!(!fails && page.age.is_some() && page.rows.len() == 1),
        }
        let stale = Enumerate {
            consistency: Some(ReadConsistency::Stale),
            ..Default::default()
        };
        let page = fixture.coordinator.enumerate(stale, soon()).await.unwrap();
        assert!(page.age.is_some(), "a stale answer says how old it is");
    }
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
