//! Namespaces without a view: the slot is asked, and the answers are those of a view.

use std::{sync::Arc, time::Duration};

use prism_filter::{Filter, Path};
use prism_slot::{Applied, Error as SlotError, Unregister};
use proptest::prelude::*;
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use super::{
    super::{Access, Closed, Config, Coordinator, Enumerate, Error, Multicast, Page, Register, SessionEvent},
    Fixture, fixture, names, request, slot_error,
};
use crate::{
    config::ViewKind,
    directory::SortKey,
    testing::{
        Fate, Op,
        generated::{self, MAX_DEPTH, PATHS},
        id, soon, unavailable,
    },
};

fn without_view(config: &mut Config) {
    config.behavior.view = ViewKind::None;
    config.behavior.max_filter_depth = MAX_DEPTH;
}

/// A namespace without a view, on a slot that selects.
fn searching() -> Fixture {
    let fixture = fixture(without_view);
    fixture.store.select();
    fixture
}

/// A runner of the same namespace that has a view.
fn viewing(fixture: &Fixture) -> Coordinator {
    let mut config = Config::named("test");
    config.behavior.max_filter_depth = MAX_DEPTH;
    Coordinator::new(config, fixture.store.clone(), fixture.broker.clone(), None)
}

async fn register_many(fixture: &Fixture, count: usize) {
    for number in 0..count {
        let metadata = json!({ "number": number, "odd": number % 2 == 1 });
        fixture
            .register(&format!("id-{number:02}"), &metadata.to_string())
            .await;
    }
}

/// What all pages show, beside the totals that each told.
async fn pages(coordinator: &Coordinator, request: &Enumerate) -> (Vec<Vec<String>>, Vec<u64>) {
    let (mut request, mut pages, mut totals) = (request.clone(), Vec::new(), Vec::new());
    loop {
        let page = coordinator.enumerate(request.clone(), soon()).await.unwrap();
        pages.push(names(&page));
        totals.push(page.total);
        (request.cursor, request.facets) = (page.next, Vec::new());
        if request.cursor.is_none() {
            return (pages, totals);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Any filter, order and page size, on a slot that selects and on one that does not: as from a view.
    #[test]
    fn a_search_answers_as_a_view_does(
        documents in prop::collection::vec(generated::document(), 0..14),
        filter in generated::filter(), selects in any::<bool>(), limit in 1_usize..6, offset in 0_usize..4,
        sort in prop::collection::vec((prop::sample::select(&PATHS[..]), any::<bool>()), 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = fixture(without_view);
            if selects {
                fixture.store.select();
            }
            for (at, document) in documents.into_iter().enumerate() {
                let request = Register::new(format!("id-{at}"), document).unwrap();
                fixture.coordinator.register(request, soon()).await.unwrap();
            }
            let path = |path: &str| Path::parse(path).unwrap();
            let request = Enumerate {
                filter: Some(filter.clone()),
                sort: sort.iter().map(|(at, descending)| SortKey { path: path(at), descending: *descending }).collect(),
                limit, offset,
                ..Default::default()
            };
            let view = viewing(&fixture);
            prop_assert_eq!(pages(&fixture.coordinator, &request).await, pages(&view, &request).await);
            let counted = Enumerate { count_only: true, facets: vec![path("a"), path("list")], ..request };
            let (one, other) = (
                fixture.coordinator.enumerate(counted.clone(), soon()).await.unwrap(),
                view.enumerate(counted, soon()).await.unwrap(),
            );
            prop_assert_eq!((one.total, one.facets, one.rows.len()), (other.total, other.facets, 0));
            let targets = Multicast { filter: Some(filter), ..Default::default() };
            let (position, mut found) = fixture.coordinator.resolve(&targets, soon()).await.unwrap();
            let (seen, mut expected) = view.resolve(&targets, soon()).await.unwrap();
            found.sort();
            expected.sort();
            prop_assert_eq!((position, found), (seen, expected));
            Ok(())
        })?;
    }
}

/// Nothing is held of what is registered.
#[tokio::test]
async fn no_registration_is_kept() {
    let fixture = searching();
    register_many(&fixture, 20).await;
    let all = Enumerate::default();
    assert_eq!(
        fixture.coordinator.enumerate(all, soon()).await.unwrap().total,
        20
    );
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    assert_eq!(
        fixture.coordinator.directory().head().revision.0,
        20,
        "it follows"
    );
    assert!(fixture.coordinator.directory().is_empty());
}

#[tokio::test]
async fn a_watch_is_refused() {
    let fixture = searching();
    let refused = fixture.coordinator.watch(None, None, soon()).await.map(drop);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[tokio::test]
async fn an_explanation_says_who_looked() {
    for (selects, access) in [(true, Access::Query), (false, Access::Scan)] {
        let fixture = fixture(without_view);
        if selects {
            fixture.store.select();
        }
        register_many(&fixture, 10).await;
        let filter = Filter::new().eq("odd", true);
        let told = fixture.coordinator.explain(Some(&filter), soon()).await.unwrap();
        assert_eq!((told.access, told.matches), (access, 5));
        assert!(!told.exact && told.asked == told.candidates && told.registered >= 10);
        assert_eq!(told.residual, ["odd eq true"]);
        let text = told.to_string();
        assert!(text.contains("no view"), "{text}");
        let why = fixture
            .coordinator
            .explain_why(id("id-04"), Some(&filter), soon())
            .await
            .unwrap();
        assert!(!why.matches);
        assert_eq!(why.verdicts[0].value.as_deref(), Some("false"));
        let absent = fixture
            .coordinator
            .explain_why(id("x"), None, soon())
            .await
            .unwrap_err();
        assert_eq!(slot_error(absent), SlotError::NotFound(id("x")));
    }
}

/// Due registrations are not served, by a slot that selects or by one that sends everything.
#[tokio::test]
async fn what_is_due_is_not_found() {
    for selects in [true, false] {
        let fixture = fixture(without_view);
        if selects {
            fixture.store.select();
        }
        let leased = Register {
            ttl: Some(Duration::from_secs(1)),
            ..request("leased", "{}")
        };
        fixture.coordinator.register(leased, soon()).await.unwrap();
        fixture.register("lasting", "{}").await;
        assert_eq!(fixture.names(Filter::new()).await, ["lasting", "leased"]);
        let ends = Filter::new().exists("$expires_at");
        assert_eq!(fixture.names(ends).await, ["leased"]);
        fixture.clock.advance(Duration::from_secs(1));
        assert_eq!(fixture.names(Filter::new()).await, ["lasting"]);
    }
}

/// Pages agree on what is not written in between, each time, in whatever order they go.
#[tokio::test]
async fn pages_show_what_stays_exactly_once() {
    let fixture = searching();
    register_many(&fixture, 30).await;
    let mut request = Enumerate {
        limit: 4,
        sort: vec![SortKey {
            path: Path::parse("odd").unwrap(),
            descending: true,
        }],
        ..Default::default()
    };
    let mut seen = Vec::new();
    for round in 0.. {
        let page: Page = fixture
            .coordinator
            .enumerate(request.clone(), soon())
            .await
            .unwrap();
        seen.extend(names(&page));
        request.cursor = page.next;
        if request.cursor.is_none() {
            break;
        }
        // Multiples of five come and go.
        let name = format!("id-{:02}", round % 6 * 5);
        fixture
            .coordinator
            .unregister(name.as_str(), None, soon())
            .await
            .unwrap();
        fixture.register(&format!("new-{round}"), "{}").await;
    }
    for number in (0..30).filter(|number| number % 5 != 0) {
        let name = format!("id-{number:02}");
        assert_eq!(
            seen.iter().filter(|seen| **seen == name).count(),
            1,
            "{name} in {seen:?}"
        );
    }
}

/// A page of a view is of one revision, and a page of a search is not.
#[tokio::test]
async fn cursors_of_views_and_searches_are_not_taken_for_each_other() {
    let fixture = searching();
    let view = viewing(&fixture);
    register_many(&fixture, 5).await;
    let request = Enumerate {
        limit: 2,
        ..Default::default()
    };
    for (one, other) in [(&fixture.coordinator, &view), (&view, &fixture.coordinator)] {
        let page = one.enumerate(request.clone(), soon()).await.unwrap();
        let next = Enumerate {
            cursor: page.next,
            ..request.clone()
        };
        let refused = other.enumerate(next, soon()).await.map(drop);
        assert!(matches!(refused, Err(Error::InvalidCursor(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_search_asks_again_where_nothing_was_lost() {
    let fixture = searching();
    register_many(&fixture, 5).await;
    fixture.script().next(Op::Query, Fate::Pass);
    fixture
        .script()
        .next(Op::Query, Fate::Refuse(unavailable(Applied::No)));
    assert_eq!(fixture.names(Filter::new()).await.len(), 5);
    fixture
        .script()
        .always(Op::Query, Fate::Refuse(unavailable(Applied::No)));
    let all = Enumerate::default();
    let failed = fixture.coordinator.enumerate(all, soon()).await.unwrap_err();
    assert!(matches!(slot_error(failed), SlotError::Unavailable { .. }));
}

/// One call asks for a bounded amount of a slot that sends everything: of large records, for few.
#[tokio::test]
async fn of_large_records_few_are_asked_for_at_a_time() {
    let scans = async |bytes: usize| {
        let fixture = fixture(without_view);
        fixture.store.scan_by_pages();
        let metadata = json!({ "text": "x".repeat(bytes) }).to_string();
        for number in 0..96 {
            fixture.register(&format!("id-{number:03}"), &metadata).await;
        }
        let before = fixture.script().count(Op::Scan);
        assert_eq!(fixture.names(Filter::new()).await.len(), 96);
        fixture.script().count(Op::Scan) - before
    };
    assert_eq!(scans(10).await, 2, "64 at first, and the rest");
    // Four at a time, after the first.
    let large = scans(60_000).await;
    assert!((8..=10).contains(&large), "{large}");
}

/// A slot may send everything at once; that is looked at in portions, in which others have their turn.
#[tokio::test]
async fn a_search_lets_others_have_their_turn() {
    let fixture = fixture(without_view);
    register_many(&fixture, 2_000).await;
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    let count = Enumerate {
        count_only: true,
        ..Default::default()
    };
    let search = fixture.coordinator.enumerate(count, soon());
    tokio::pin!(search);
    let mut turns = 0;
    let page = loop {
        // A poll that is over and done at once is a turn that nobody else got.
        match futures::poll!(search.as_mut()) {
            std::task::Poll::Ready(page) => break page.unwrap(),
            std::task::Poll::Pending => turns += 1,
        }
    };
    assert_eq!(page.total, 2_000);
    assert!(turns >= 3, "{turns}");
}

/// What belongs to two histories is never one answer: the search begins anew, a few times.
#[tokio::test]
async fn a_search_begins_anew_where_history_does() {
    let fixture = searching();
    register_many(&fixture, 9).await;
    let other = || {
        Fate::Refuse(SlotError::EpochChanged {
            current: prism_slot::Epoch(7),
        })
    };
    fixture.script().next(Op::Query, Fate::Pass);
    fixture.script().next(Op::Query, other());
    let before = fixture.script().count(Op::Query);
    let page = fixture
        .coordinator
        .enumerate(Enumerate::default(), soon())
        .await
        .unwrap();
    assert_eq!(
        (names(&page).len(), page.total),
        (9, 9),
        "nothing twice, nothing missing"
    );
    assert_eq!(fixture.script().count(Op::Query) - before, 2 + 3);
    fixture.script().always(Op::Query, other());
    let failed = fixture
        .coordinator
        .enumerate(Enumerate::default(), soon())
        .await
        .unwrap_err();
    assert!(matches!(slot_error(failed), SlotError::EpochChanged { .. }));
}

/// However many sessions are open, few of them are looked up at a time when history begins anew.
#[tokio::test]
async fn sessions_are_looked_up_together_but_not_all_at_once() {
    const SESSIONS: usize = 100;
    let fixture = searching();
    register_many(&fixture, SESSIONS).await;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let name = format!("id-{number:02}");
        sessions.push(
            fixture
                .coordinator
                .subscribe(name.as_str(), None, soon())
                .await
                .unwrap(),
        );
    }
    fixture
        .coordinator
        .unregister("id-07", None, soon())
        .await
        .unwrap();
    let go = Arc::new(Notify::new());
    fixture.script().always(Op::Get, Fate::Wait(go.clone()));
    let before = fixture.script().count(Op::Get);
    fixture
        .coordinator
        .directory()
        .epoch_changed(prism_slot::Epoch(7));
    fixture.script().reached(Op::Get, before + 64).await;
    // Whoever else may ask has had its turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.script().count(Op::Get) - before, 64);
    fixture.script().always(Op::Get, Fate::Pass);
    go.notify_waiters();
    let closed = sessions[7].next().await;
    assert!(matches!(closed, Some(Err(Closed::Unregistered))), "{closed:?}");
}

/// Searches take turns, and whoever waits has a deadline.
#[tokio::test(start_paused = true)]
async fn searches_wait_for_their_turn() {
    let fixture = searching();
    register_many(&fixture, 2).await;
    let go = Arc::new(Notify::new());
    fixture.script().always(Op::Query, Fate::Wait(go.clone()));
    let search = |deadline| {
        let coordinator = fixture.coordinator.clone();
        tokio::spawn(async move {
            coordinator
                .enumerate(Enumerate::default(), deadline)
                .await
                .map(drop)
        })
    };
    let under_way: Vec<_> = (0..2).map(|_| search(soon())).collect();
    while fixture.script().count(Op::Query) < 2 {
        tokio::task::yield_now().await;
    }
    let third = search(Instant::now() + Duration::from_millis(100)).await.unwrap();
    assert_eq!(third, Err(Error::DeadlineExceeded), "a third one waits");
    assert_eq!(fixture.script().count(Op::Query), 2);
    for search in under_way {
        assert!(search.await.unwrap().is_err());
    }
}

/// Sessions end with their registrations although nothing is kept of those.
#[tokio::test]
async fn sessions_end_with_their_registrations() {
    let fixture = searching();
    register_many(&fixture, 2).await;
    let mut first = fixture
        .coordinator
        .subscribe("id-00", None, soon())
        .await
        .unwrap();
    let message = Multicast {
        payload: "hello".into(),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(message, soon()).await.unwrap();
    assert_eq!((report.targets.len(), report.delivered()), (2, 1));
    assert!(matches!(first.next().await, Some(Ok(SessionEvent::Message(_)))));
    fixture
        .coordinator
        .unregister("id-00", None, soon())
        .await
        .unwrap();
    assert!(matches!(first.next().await, Some(Err(Closed::Unregistered))));
}

/// A registration that went away between the claim and its being noted ends the session all the same.
#[tokio::test]
async fn a_registration_that_went_away_meanwhile_is_noticed() {
    let fixture = searching();
    fixture.register("a", "{}").await;
    let go = Arc::new(Notify::new());
    fixture.script().next(Op::Claim, Fate::Late(go.clone()));
    let coordinator = fixture.coordinator.clone();
    let subscribing = tokio::spawn(async move { coordinator.subscribe("a", None, soon()).await });
    while fixture.script().count(Op::Claim) == 0 {
        tokio::task::yield_now().await;
    }
    let request = Unregister {
        identity: id("a"),
        generation: None,
    };
    fixture
        .coordinator
        .unregister(request.identity, None, soon())
        .await
        .unwrap();
    fixture
        .coordinator
        .directory()
        .make_current(soon())
        .await
        .unwrap();
    go.notify_one();
    let mut session = subscribing.await.unwrap().unwrap();
    assert!(matches!(session.next().await, Some(Err(Closed::Unregistered))));
}
