//! Enumerate: what is found, in which order, how fresh, page by page.

use std::{task::Poll, time::Duration};

use prism_filter::{Filter, Path};
use prism_slot::{Error as SlotError, RegistryStore, Renew, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::{
    super::{
        Coordinator, Enumerate, Error, Multicast, Page, Register,
        enumerate::{Freshness, query_digest},
    },
    fixture, names, request, slot_error,
};
use crate::{
    config::{ReadConsistency, StoreLoss},
    directory::{Cursor, Seal, SortKey},
    testing::{Fate, Op, id, soon, unavailable},
};

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
    let follower = fixture.sibling();
    let first = Enumerate {
        limit: 10,
        ..Default::default()
    };
    follower.enumerate(first.clone(), soon()).await.unwrap();
    let page = fixture.coordinator.enumerate(first, soon()).await.unwrap();
    assert_eq!((page.total, page.rows.len()), (25, 10));
    fixture
        .coordinator
        .unregister("id-15", None, soon())
        .await
        .unwrap();
    fixture.register("id-155", "{}").await;
    let newcomer = fixture.sibling();
    for runner in [follower, newcomer] {
        let (mut seen, mut cursor) = (names(&page), page.next.clone());
        while let Some(next) = cursor {
            let request = Enumerate {
                limit: 10,
                cursor: Some(next),
                ..Default::default()
            };
            let page = runner.enumerate(request, soon()).await.unwrap();
            assert_eq!(page.total, 25);
            seen.extend(names(&page));
            cursor = page.next;
        }
        assert_eq!(seen, (0..25).map(|n| format!("id-{n:02}")).collect::<Vec<_>>());
    }
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

/// The first page says which moment `now` is, and every later one means the same.
#[tokio::test]
async fn pages_agree_on_what_is_now() {
    let fixture = fixture(|_| {});
    let began = Timestamp::now().0;
    for number in 0..6_i64 {
        let seen = json!({ "seen": 1_000 * number, "later": began + 3_600_000 });
        fixture.register(&format!("id-{number}"), &seen.to_string()).await;
    }
    let request = Enumerate {
        filter: Some(Filter::new().lt("seen", "now-1s").gt("later", "now")),
        limit: 2,
        ..Default::default()
    };
    let first = fixture
        .coordinator
        .enumerate(request.clone(), soon())
        .await
        .unwrap();
    assert_eq!(
        (names(&first), first.total),
        (vec!["id-0".into(), "id-1".into()], 6)
    );
    let seal = seal(&fixture.coordinator);
    let opened = |page: Page| {
        let digest = query_digest(request.filter.as_ref(), &[]);
        Cursor::open(&page.next.unwrap(), &seal, digest).unwrap()
    };
    let cursor = opened(first);
    assert!(
        (began..=Timestamp::now().0).contains(&cursor.now.unwrap()),
        "{cursor:?}"
    );
    // As if the first page had been asked for at the beginning of 1970.
    let next = |now| Enumerate {
        cursor: Some(cursor.clone().at_moment(now).seal(&seal)),
        ..request.clone()
    };
    for reader in [fixture.coordinator.clone(), fixture.sibling()] {
        let page = reader.enumerate(next(Some(4_500)), soon()).await.unwrap();
        assert_eq!(
            (names(&page), page.next),
            (vec!["id-2".to_owned(), "id-3".to_owned()], None)
        );
        let page = reader.enumerate(next(cursor.now), soon()).await.unwrap();
        assert_eq!(opened(page).now, cursor.now);
        let timeless = reader.enumerate(next(None), soon()).await.unwrap_err();
        assert!(matches!(timeless, Error::InvalidCursor(_)), "{timeless:?}");
    }
}

/// What the cursors of a coordinator's namespace are sealed with.
fn seal(coordinator: &Coordinator) -> Seal<'static> {
    let (epoch, secret) = coordinator.shared.directory.secret();
    Seal {
        namespace: "test",
        epoch,
        secret,
    }
}

/// Others compare with no moment, and their cursors carry none.
#[tokio::test]
async fn cursors_of_other_filters_know_no_moment() {
    let fixture = fixture(|_| {});
    for name in ["a", "b"] {
        fixture.register(name, r#"{"seen":"now"}"#).await;
    }
    for filter in [None, Some(Filter::new().eq("seen", "now"))] {
        let request = Enumerate {
            filter: filter.clone(),
            limit: 1,
            ..Default::default()
        };
        let page = fixture.coordinator.enumerate(request, soon()).await.unwrap();
        let digest = query_digest(filter.as_ref(), &[]);
        let cursor = Cursor::open(&page.next.unwrap(), &seal(&fixture.coordinator), digest).unwrap();
        assert_eq!((page.total, cursor.now), (2, None));
    }
}

#[tokio::test]
async fn a_multicast_resolves_now_once() {
    let fixture = fixture(|_| {});
    let now = Timestamp::now().0;
    fixture
        .register("past", &json!({ "due": now - 60_000 }).to_string())
        .await;
    fixture
        .register("future", &json!({ "due": now + 3_600_000 }).to_string())
        .await;
    let request = Multicast {
        filter: Some(Filter::new().lte("due", "now")),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(request, soon()).await.unwrap();
    let targets: Vec<String> = report
        .targets
        .iter()
        .map(|target| target.identity.to_string())
        .collect();
    assert_eq!(targets, ["past"]);
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
async fn a_lost_store_fails_or_serves_what_is_known() {
    for (on_store_loss, fails) in [(StoreLoss::Fail, true), (StoreLoss::Stale, false)] {
        let fixture = fixture(|config| config.behavior.on_store_loss = on_store_loss);
        fixture.register("a", "{}").await;
        assert_eq!(fixture.names(Filter::new()).await, ["a"]);
        fixture.store.close().await;
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

/// Whoever asks for a stale answer is not kept waiting by a store that does not answer.
#[tokio::test(start_paused = true)]
async fn a_stale_answer_asks_nobody() {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_secs(60)));
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    fixture.names(Filter::new()).await;
    for op in [Op::Sync, Op::Leases, Op::Get] {
        fixture.script().always(op, Fate::Hang);
    }
    let asked = fixture.script().count(Op::Leases);
    let started = Instant::now();
    let mut request = Enumerate {
        filter: Some(Filter::new().exists("$expires_at")),
        consistency: Some(ReadConsistency::Stale),
        limit: 2,
        ..Default::default()
    };
    let first = fixture
        .coordinator
        .enumerate(request.clone(), soon())
        .await
        .unwrap();
    assert_eq!((names(&first), first.total), (vec!["a".into(), "b".into()], 3));
    request.cursor = first.next;
    let second = fixture.coordinator.enumerate(request, soon()).await.unwrap();
    assert_eq!(names(&second), ["c"]);
    assert!(second.age.is_some(), "and says how old it is");
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(fixture.script().count(Op::Leases), asked);
}

/// `on_store_loss: stale` is worth something only if the answer comes before the caller gives up.
#[tokio::test(start_paused = true)]
async fn a_lost_store_leaves_time_for_the_stale_answer() {
    let fixture = fixture(|config| config.behavior.on_store_loss = StoreLoss::Stale);
    fixture.register("a", "{}").await;
    fixture.names(Filter::new()).await;
    fixture.script().always(Op::Sync, Fate::Hang);
    let deadline = Instant::now() + Duration::from_secs(1);
    let page = fixture
        .coordinator
        .enumerate(Enumerate::default(), deadline)
        .await
        .unwrap();
    assert_eq!((names(&page), page.age.is_some()), (vec!["a".to_owned()], true));
    assert!(Instant::now() < deadline);
}

/// The leases of a page are asked for after its rows were found; losing the store in between is no
/// different.
#[tokio::test]
async fn a_store_lost_half_way_is_a_lost_store() {
    for on_store_loss in [StoreLoss::Fail, StoreLoss::Stale] {
        let fixture = fixture(|config| {
            config.behavior.on_store_loss = on_store_loss;
            config.behavior.ttl_default = Some(Duration::from_secs(60));
        });
        fixture.register("a", "{}").await;
        let lost = unavailable(prism_slot::Applied::No);
        fixture.script().always(Op::Leases, Fate::Refuse(lost.clone()));
        for filter in [Filter::new(), Filter::new().exists("$expires_at")] {
            let request = Enumerate {
                filter: Some(filter),
                ..Default::default()
            };
            match fixture.coordinator.enumerate(request, soon()).await {
                Ok(page) => assert!(on_store_loss == StoreLoss::Stale && page.age.is_some()),
                Err(error) => assert!(on_store_loss == StoreLoss::Fail && slot_error(error) == lost),
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_not_from_before_the_position_asked_for() {
    let fixture = fixture(|_| {});
    let sibling = fixture.sibling();
    let held = fixture.register("a", "{}").await;
    let at = |position, consistency| Enumerate {
        min_position: Some(position),
        consistency: Some(consistency),
        ..Default::default()
    };
    for consistency in [ReadConsistency::Stale, ReadConsistency::Consistent] {
        let held = fixture.register(&format!("{consistency:?}"), "{}").await;
        let page = sibling
            .enumerate(at(held.position, consistency), soon())
            .await
            .unwrap();
        assert!(page.position.revision >= held.position.revision);
    }
    let mut ahead = held.position;
    ahead.revision.0 += 1_000;
    let error = fixture
        .coordinator
        .enumerate(at(ahead, ReadConsistency::Consistent), soon())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidArgument {
                field: "min_position",
                ..
            }
        ),
        "{error:?}"
    );
}

/// It may have been written; only the store would know, and it does not answer.
#[tokio::test]
async fn a_position_that_cannot_be_reached_is_not_called_wrong() {
    let fixture = fixture(|config| config.behavior.on_store_loss = StoreLoss::Stale);
    let mut position = fixture.register("a", "{}").await.position;
    fixture.names(Filter::new()).await;
    let lost = unavailable(prism_slot::Applied::No);
    fixture.script().always(Op::Sync, Fate::Refuse(lost.clone()));
    position.revision.0 += 1;
    let request = Enumerate {
        min_position: Some(position),
        ..Default::default()
    };
    let error = fixture.coordinator.enumerate(request, soon()).await.unwrap_err();
    assert_eq!(slot_error(error), lost);
}

#[tokio::test]
async fn a_cursor_cannot_be_ahead_of_its_own_pages() {
    let fixture = fixture(|_| {});
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    let first = Enumerate {
        limit: 1,
        ..Default::default()
    };
    let cursor = fixture
        .coordinator
        .enumerate(first.clone(), soon())
        .await
        .unwrap()
        .next;
    let later = fixture.register("d", "{}").await.position;
    let request = Enumerate {
        cursor,
        min_position: Some(later),
        ..first
    };
    let error = fixture.coordinator.enumerate(request, soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidArgument {
                field: "min_position",
                ..
            }
        ),
        "{error:?}"
    );
}

/// A page may be cut to the size of an answer, and then goes on right after the cut.
#[tokio::test]
async fn a_page_that_was_cut_goes_on_where_it_was_cut() {
    let fixture = fixture(|_| {});
    for number in 0..20 {
        fixture
            .register(&format!("id-{number:02}"), &format!(r#"{{"n":{}}}"#, number % 7))
            .await;
    }
    let sort = vec![SortKey {
        path: Path::parse("n").unwrap(),
        descending: true,
    }];
    for sort in [vec![], sort] {
        let all = Enumerate {
            sort: sort.clone(),
            ..Default::default()
        };
        let expected = names(&fixture.coordinator.enumerate(all, soon()).await.unwrap());
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let request = Enumerate {
                sort: sort.clone(),
                limit: 9,
                cursor,
                ..Default::default()
            };
            let mut page = fixture.coordinator.enumerate(request, soon()).await.unwrap();
            page.truncate(4);
            seen.extend(names(&page));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
    }
}

/// A filter on leases sees renewals, which no change tells of.
#[tokio::test]
async fn a_multicast_by_lease_sees_renewals() {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_millis(1_500)));
    let held = fixture.register("a", "{}").await;
    fixture.register("b", "{}").await;
    fixture.clock.advance(Duration::from_secs(1));
    let lease = Renew {
        identity: id("a"),
        generation: None,
    };
    fixture.coordinator.renew(vec![lease], soon()).await.unwrap();
    let end = Timestamp(held.expires_at.unwrap().0 + 1).0 as f64;
    let longer = Multicast {
        filter: Some(Filter::new().gt("$expires_at", end)),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(longer, soon()).await.unwrap();
    let targets: Vec<String> = report
        .targets
        .iter()
        .map(|target| target.identity.to_string())
        .collect();
    assert_eq!(targets, ["a"]);
}

/// A read of a registration that is somebody else's fault to be broken.
#[tokio::test]
async fn what_cannot_be_read_back_is_not_the_callers_mistake() {
    let fixture = fixture(|_| {});
    let position = fixture.register("a", "{}").await.position;
    let call = prism_slot::Call {
        epoch: Some(position.epoch),
        deadline: soon(),
    };
    let record = fixture.store.get(call, id("a")).await.unwrap().record.unwrap();
    let damaged = prism_slot::Record {
        metadata: bytes::Bytes::from_static(b"{"),
        ..(*record).clone()
    };
    let error = fixture.coordinator.stored_document(&damaged).unwrap_err();
    assert!(matches!(slot_error(error), SlotError::Unreadable { .. }));
}

/// Whatever is read of long rows or of many is read in parts, and others get their turn in between.
#[tokio::test]
async fn a_long_read_gives_others_their_turn() {
    let fixture = fixture(|_| {});
    let text = "x".repeat(60 << 10);
    for number in 0..40 {
        let metadata = format!(r#"{{"text":"{text}","n":{number}}}"#);
        fixture.register(&format!("id-{number:02}"), &metadata).await;
    }
    let long = Filter::new().contains("text", "x");
    let few = Filter::new().contains("text", "x").eq("$identity", "id-07");
    assert_eq!(fixture.names(long.clone()).await.len(), 40);
    for (filter, targets) in [(few, 1), (long, 40)] {
        let multicast = Multicast {
            consistency: Some(ReadConsistency::Stale),
            filter: Some(filter.clone()),
            ..Default::default()
        };
        let planned = fixture.coordinator.targets(&multicast, true, soon());
        tokio::pin!(planned);
        let at_once = futures::poll!(planned.as_mut());
        assert_eq!(at_once.is_ready(), targets == 1, "{filter}");
        let planned = match at_once {
            Poll::Ready(planned) => planned,
            Poll::Pending => planned.await,
        };
        let planned = planned.unwrap();
        assert_eq!(planned.identities.len(), targets);
        assert_eq!(planned.holders.map(|holders| holders.len()), Some(targets));

        let request = Enumerate {
            consistency: Some(ReadConsistency::Stale),
            filter: Some(filter),
            limit: 5,
            ..Default::default()
        };
        let page = fixture.coordinator.enumerate(request, soon());
        tokio::pin!(page);
        assert_eq!(futures::poll!(page.as_mut()).is_ready(), targets == 1);
    }
}

/// So are those whose leases a filter asks for.
#[tokio::test]
async fn many_leases_are_gathered_in_parts() {
    let fixture = fixture(|_| {});
    let metadata = format!(r#"{{"text":"{}"}}"#, "x".repeat(200));
    for number in 0..6_000 {
        let leased = Register {
            ttl: Some(Duration::from_secs(60)),
            ..request(&format!("id-{number:04}"), &metadata)
        };
        fixture.coordinator.register(leased, soon()).await.unwrap();
    }
    assert_eq!(fixture.names(Filter::new()).await.len(), 100);
    let filter = Filter::new()
        .exists("$expires_at")
        .compile(&Default::default())
        .unwrap();
    let asked = fixture.script().count(Op::Leases);
    let leases = fixture
        .coordinator
        .filter_leases(Some(&filter), Freshness::Current, soon());
    tokio::pin!(leases);
    assert!(futures::poll!(leases.as_mut()).is_pending());
    assert_eq!(
        fixture.script().count(Op::Leases),
        asked,
        "they are still gathered"
    );
    assert_eq!(leases.await.unwrap().unwrap().len(), 6_000);
}
