//! Leases: who is served, who ends when, and when renewals are asked for.

use std::time::Duration;

use prism_filter::Filter;
use prism_slot::{Applied, Cause, Error as SlotError, Renew, Revision, Timestamp, memory::Clock};
use tokio::time::advance;

use super::{
    super::{Enumerate, Error, Extended, Multicast, Register, Update},
    Fixture, fixture, names, request, slot_error,
};
use crate::{
    config::ReadConsistency,
    testing::{Fate, Op, id, soon, unavailable},
    watch::WatchItem,
};

const TTL: Duration = Duration::from_secs(30);

fn lease(name: &str) -> Renew {
    Renew {
        identity: id(name),
        generation: None,
    }
}

impl Fixture {
    /// The view learns of nothing by itself any more: nobody waits for changes and nobody asks for what is due.
    async fn without_background(self) -> Self {
        self.names(Filter::new()).await;
        self.coordinator.shared.closing.cancel();
        tokio::task::yield_now().await;
        self
    }

    /// Lets time pass for the slot, which is called all the while, as by a runner.
    async fn serve(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(500));
            self.clock.advance(step);
            self.coordinator.get(id("nobody"), soon()).await.unwrap();
            left -= step;
        }
    }

    async fn renew_all(&self, leases: Vec<Renew>) -> Vec<Result<Extended, Error>> {
        self.coordinator.renew(leases, soon()).await.unwrap()
    }

    /// How many there are, as nobody doubts it.
    async fn count(&self) -> u64 {
        let count = Enumerate {
            count_only: true,
            ..Default::default()
        };
        self.coordinator.enumerate(count, soon()).await.unwrap().total
    }

    async fn is_there(&self, name: &str) -> bool {
        self.coordinator
            .get(id(name), soon())
            .await
            .unwrap()
            .record
            .is_some()
    }
}

fn leased(ttl: Duration) -> Fixture {
    fixture(|config| {
        config.behavior.ttl_default = Some(ttl);
        config.behavior.max_identities = 100_000;
    })
}

/// However a due registration is asked for first, it is not there, though nobody has swept.
#[tokio::test(start_paused = true)]
async fn nothing_due_is_served_with_the_sweeper_stopped() {
    for way in [
        "get",
        "enumerate",
        "count",
        "multicast",
        "renew",
        "update",
        "subscribe",
        "unregister",
        "register",
    ] {
        let fixture = leased(Duration::from_millis(1_500)).without_background().await;
        fixture.store.know_head();
        fixture.register("a", "{}").await;
        assert_eq!(fixture.names(Filter::new()).await, ["a"], "the view has it");
        let asked = fixture.script().count(Op::Sync);
        fixture.clock.advance(Duration::from_millis(1_500));
        advance(Duration::from_secs(60)).await;
        assert_eq!(fixture.script().count(Op::Sync), asked, "nobody has swept");
        assert!(is_absent(&fixture, way).await, "{way}");
    }
}

async fn is_absent(fixture: &Fixture, way: &str) -> bool {
    let coordinator = &fixture.coordinator;
    let refused = match way {
        "get" => return !fixture.is_there("a").await,
        "enumerate" => return fixture.names(Filter::new()).await.is_empty(),
        "count" => return fixture.count().await == 0,
        "multicast" => {
            let report = coordinator.multicast(Multicast::default(), soon()).await;
            return report.unwrap().targets.is_empty();
        }
        "unregister" => return !coordinator.unregister("a", None, soon()).await.unwrap().existed,
        // By somebody else, who may not take it over.
        "register" => return coordinator.register(request("a", "{}"), soon()).await.is_ok(),
        "renew" => fixture.renew_all(vec![lease("a")]).await.remove(0).err(),
        "subscribe" => coordinator.subscribe("a", None, soon()).await.err(),
        _ => coordinator.update(Update::of_nothing("a"), soon()).await.err(),
    };
    refused.is_some_and(|error| matches!(slot_error(error), SlotError::NotFound(_)))
}

impl Update {
    fn of_nothing(name: &str) -> Self {
        Self {
            identity: id(name),
            patch: Default::default(),
            generation: None,
            if_revision: None,
        }
    }
}

/// What another runner writes reaches this one only when somebody asks.
#[tokio::test(start_paused = true)]
async fn with_the_feed_paused_and_the_sweeper_stopped_answers_are_as_good_as_they_say() {
    let fixture = leased(TTL).without_background().await;
    let sibling = fixture.sibling();
    sibling.register(request("old", "{}"), soon()).await.unwrap();
    assert_eq!(fixture.names(Filter::new()).await, ["old"]);
    // The other one is gone as well: nobody sweeps.
    sibling.shared.closing.cancel();
    fixture.script().always(Op::Changed, Fate::Hang);

    let new = Register {
        ttl: Some(TTL),
        ..request("new", "{}")
    };
    sibling.register(new, soon()).await.unwrap();
    sibling.unregister("old", None, soon()).await.unwrap();
    advance(Duration::from_secs(7)).await;
    let stale = || Enumerate {
        consistency: Some(ReadConsistency::Stale),
        ..Default::default()
    };
    let page = fixture.coordinator.enumerate(stale(), soon()).await.unwrap();
    assert_eq!(
        (names(&page), page.age),
        (vec!["old".into()], Some(Duration::from_secs(7)))
    );
    assert_eq!(fixture.names(Filter::new()).await, ["new"]);
    let page = fixture.coordinator.enumerate(stale(), soon()).await.unwrap();
    assert_eq!(
        (names(&page), page.age),
        (vec!["new".into()], Some(Duration::ZERO))
    );

    let mut left = TTL;
    while !left.is_zero() {
        fixture.clock.advance(Duration::from_secs(1));
        fixture.renew_all(vec![lease("nobody")]).await;
        left -= Duration::from_secs(1);
    }
    advance(TTL).await;
    let page = fixture.coordinator.enumerate(stale(), soon()).await.unwrap();
    assert_eq!(
        (names(&page), page.age),
        (vec!["new".into()], Some(TTL)),
        "due, and not yet known to be"
    );
    assert_eq!(fixture.names(Filter::new()).await, [""; 0]);
}

/// Many in one call to the slot, at no revision, and nobody is told.
#[tokio::test(start_paused = true)]
async fn renewals_are_one_call_and_wake_no_watcher() {
    let fixture = leased(TTL);
    for number in 0..100 {
        fixture.register(&format!("id-{number}"), "{}").await;
    }
    let mut watch = fixture.coordinator.watch(None, None, soon()).await.unwrap();
    while !matches!(watch.next().await.unwrap(), WatchItem::Bookmark(_)) {}
    let before = fixture.coordinator.get(id("id-0"), soon()).await.unwrap();
    let calls = fixture.script().count(Op::Renew);
    for _ in 0..5 {
        fixture.serve(Duration::from_secs(10)).await;
        let leases = (0..100).map(|number| lease(&format!("id-{number}"))).collect();
        assert!(fixture.renew_all(leases).await.iter().all(Result::is_ok));
    }
    assert_eq!(fixture.script().count(Op::Renew), calls + 5);
    let after = fixture.coordinator.get(id("id-0"), soon()).await.unwrap();
    assert_eq!(after.head, before.head);
    let (before, after) = (before.record.unwrap(), after.record.unwrap());
    assert!(after.expires_at > before.expires_at);
    assert_eq!(
        (after.revision, after.updated_at),
        (before.revision, before.updated_at)
    );

    let marker = fixture.register("marker", "{}").await;
    assert_eq!(marker.position.revision, Revision(101));
    loop {
        match watch.next().await.unwrap() {
            WatchItem::Bookmark(_) => {}
            WatchItem::Changed(event) => {
                assert_eq!(
                    (event.cause, event.row.identity().as_str()),
                    (Cause::Registered, "marker")
                );
                return;
            }
            WatchItem::Present { .. } => panic!("the snapshot is over"),
        }
    }
}

const ALIVE: usize = 4_000;
const OUTAGE: Duration = Duration::from_secs(300);

/// 10,000 leases of 30 s, the last of which was granted just before: the later of them have more left than
/// the earlier. Those of the first 4,000 belong to clients that live on.
async fn ten_thousand(fixture: &Fixture) {
    for part in 0..20 {
        let requests = (0..500).map(|number| request(&format!("id-{:05}", part * 500 + number), "{}"));
        let held = fixture
            .coordinator
            .register_many(requests.collect(), soon())
            .await;
        assert!(held.iter().all(Result::is_ok));
        fixture.serve(Duration::from_secs(1)).await;
    }
}

/// From here on the slot is reached again.
async fn all_live_one_more_ttl_and_the_dead_end_then(fixture: &Fixture) {
    let revision = fixture
        .coordinator
        .get(id("nobody"), soon())
        .await
        .unwrap()
        .head
        .revision;
    fixture.serve(TTL - Duration::from_secs(1)).await;
    let alive: Vec<_> = (0..ALIVE)
        .map(|number| lease(&format!("id-{number:05}")))
        .collect();
    assert!(
        fixture.renew_all(alive).await.iter().all(Result::is_ok),
        "late, and in time"
    );
    assert_eq!(
        fixture.count().await,
        10_000,
        "nobody ended for not having been able to renew"
    );
    fixture.serve(Duration::from_millis(999)).await;
    assert_eq!(fixture.count().await, 10_000);
    fixture.serve(Duration::from_millis(1)).await;
    assert_eq!(
        fixture.count().await,
        ALIVE as u64,
        "the dead end one ttl after the outage, and not later"
    );
    assert!(fixture.is_there("id-03999").await);
    let head = fixture
        .coordinator
        .get(id("id-04000"), soon())
        .await
        .unwrap()
        .head
        .revision;
    assert_eq!(head.0 - revision.0, 10_000 - ALIVE as u64, "each by one change");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_all_runners_gives_each_lease_one_more_ttl() {
    let fixture = leased(TTL).without_background().await;
    ten_thousand(&fixture).await;
    fixture.clock.advance(OUTAGE);
    all_live_one_more_ttl_and_the_dead_end_then(&fixture).await;
}

/// The runners go on and try, and nothing of that reaches the store.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_gives_each_lease_one_more_ttl() {
    let fixture = leased(TTL);
    ten_thousand(&fixture).await;
    let reached = [
        Op::Register,
        Op::Put,
        Op::Renew,
        Op::Unregister,
        Op::Get,
        Op::Leases,
        Op::Sync,
        Op::Changed,
    ];
    for op in reached {
        fixture
            .script()
            .always(op, Fate::Refuse(unavailable(Applied::No)));
    }
    for _ in 0..OUTAGE.as_secs() {
        fixture.clock.advance(Duration::from_secs(1));
        advance(Duration::from_secs(1)).await;
        let refused = fixture.renew_all(vec![lease("id-00000")]).await.remove(0);
        assert!(matches!(
            slot_error(refused.unwrap_err()),
            SlotError::Unavailable { .. }
        ));
    }
    for op in reached {
        fixture.script().always(op, Fate::Pass);
    }
    all_live_one_more_ttl_and_the_dead_end_then(&fixture).await;
}

/// An hour ahead and an hour back.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_ends_nobody() {
    for hours in [1, -1] {
        let fixture = leased(TTL).without_background().await;
        fixture.register("a", "{}").await;
        fixture.serve(TTL / 2).await;
        let now = fixture.clock.now();
        fixture.clock.set(Timestamp(now.0 + hours * 3_600_000));
        assert!(fixture.is_there("a").await, "{hours} h");
        fixture.serve(TTL - Duration::from_millis(1)).await;
        assert_eq!(fixture.names(Filter::new()).await, ["a"], "{hours} h");
        fixture.serve(Duration::from_millis(1)).await;
        assert_eq!(fixture.names(Filter::new()).await, [""; 0], "{hours} h");
    }
}

/// Both answers that grant a lease say when to renew it, and spread a crowd.
#[tokio::test(start_paused = true)]
async fn registrations_and_renewals_that_come_at_once_are_asked_back_at_different_times() {
    let fixture = leased(TTL);
    let third = TTL / 3;
    let spread = |times: Vec<Duration>, what: &str| {
        let early = times.iter().filter(|time| **time < third.mul_f64(0.75)).count();
        assert!(
            early > times.len() / 4,
            "{what}: {early} of {} come early",
            times.len()
        );
        assert!(
            times.iter().all(|time| *time <= third.mul_f64(1.2)),
            "{what}: one is late"
        );
    };
    let (mut registered, mut many, mut renewed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..2_000 {
        let held = fixture.register(&format!("id-{number}"), "{}").await;
        registered.push(held.renew_after.unwrap());
    }
    spread(registered, "registrations");
    // What was asked for before is over by now.
    advance(TTL).await;
    for number in 0..2_000 {
        let extended = fixture
            .renew_all(vec![lease(&format!("id-{number}"))])
            .await
            .remove(0);
        renewed.push(extended.unwrap().renew_after.unwrap());
    }
    spread(renewed, "renewals");
    advance(TTL).await;
    for number in 0..2_000 {
        let requests = vec![request(&format!("more-{number}"), "{}")];
        let held = fixture
            .coordinator
            .register_many(requests, soon())
            .await
            .remove(0);
        many.push(held.unwrap().renew_after.unwrap());
    }
    spread(many, "registrations of many");

    let without = Register {
        ttl: Some(Duration::ZERO),
        ..request("forever", "{}")
    };
    let held = fixture.coordinator.register(without, soon()).await.unwrap();
    assert_eq!(held.renew_after, None);
    assert_eq!(
        fixture
            .renew_all(vec![lease("forever")])
            .await
            .remove(0)
            .unwrap()
            .renew_after,
        None
    );
}
