//! A slot that never answers: every call ends at its deadline.

use std::time::Duration;

use prism_filter::Document;
use prism_slot::Renew;
use tokio::time::Instant;

use super::{
    super::{Coordinator, Enumerate, Multicast, Update},
    Fixture, fixture, request,
};
use crate::Target;
use crate::testing::{Fate, Op, id, soon};

const PATIENCE: Duration = Duration::from_secs(2);
/// What a publish may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(60);

/// Every call that a coordinator has.
const CALLS: [&str; 8] = [
    "register",
    "renew",
    "update",
    "get",
    "enumerate",
    "multicast",
    "unregister",
    "subscribe",
];

/// Makes one call; whether it failed. One that never ends is given up well after its deadline.
async fn call(coordinator: &Coordinator, name: &str, deadline: Instant) -> bool {
    let outcome = tokio::time::timeout(10 * PATIENCE, outcome(coordinator, name, deadline));
    outcome.await.unwrap_or_else(|_| panic!("{name} never ends"))
}

async fn outcome(coordinator: &Coordinator, name: &str, deadline: Instant) -> bool {
    let lease = Renew {
        identity: id("a"),
        generation: None,
    };
    let update = Update {
        identity: id("a"),
        patch: Document::empty(),
        generation: None,
        if_revision: None,
    };
    match name {
        "register" => coordinator.register(request("b", "{}"), deadline).await.is_err(),
        "renew" => match coordinator.renew(vec![lease], deadline).await {
            Ok(results) => results.iter().any(Result::is_err),
            Err(_) => true,
        },
        "update" => coordinator.update(update, deadline).await.is_err(),
        "get" => coordinator.get(id("a"), deadline).await.is_err(),
        "enumerate" => coordinator
            .enumerate(Enumerate::default(), deadline)
            .await
            .is_err(),
        "multicast" => match coordinator.multicast(Multicast::default(), deadline).await {
            Ok(report) => report.delivered() < report.targets.len(),
            Err(_) => true,
        },
        "unregister" => coordinator.unregister("a", None, deadline).await.is_err(),
        "subscribe" => coordinator.subscribe("a", None, deadline).await.is_err(),
        other => panic!("{other}"),
    }
}

async fn prepared() -> Fixture {
    let fixture = fixture(|config| config.behavior.ttl_default = Some(Duration::from_secs(60)));
    fixture.register("a", "{}").await;
    fixture.names(Default::default()).await;
    fixture
}

#[tokio::test(start_paused = true)]
async fn no_call_outlasts_its_deadline_whichever_slot_call_hangs() {
    let hanging = [
        (Op::Register, "register"),
        (Op::Renew, "renew"),
        (Op::Get, "update"),
        (Op::Put, "update"),
        (Op::Get, "get"),
        (Op::Sync, "enumerate"),
        (Op::Leases, "enumerate"),
        (Op::Sync, "multicast"),
        (Op::Publish, "multicast"),
        (Op::Unregister, "unregister"),
        (Op::Listen, "subscribe"),
        (Op::Claim, "subscribe"),
    ];
    for (op, name) in hanging {
        let fixture = prepared().await;
        fixture.script().always(op, Fate::Hang);
        fixture.broker.script.always(op, Fate::Hang);
        let deadline = Instant::now() + PATIENCE;
        assert!(
            call(&fixture.coordinator, name, deadline).await,
            "{name} without {op:?}"
        );
        let over = Instant::now().saturating_duration_since(deadline);
        assert!(over <= GRACE, "{name} without {op:?} took {over:?} too long");
    }
    let covered = |name: &&str| hanging.iter().any(|(_, call)| call == name);
    assert!(CALLS.iter().all(covered), "every call has its case");
}

/// A namespace whose view was never built.
#[tokio::test(start_paused = true)]
async fn no_call_outlasts_its_deadline_while_there_is_no_view() {
    for op in [Op::Scan, Op::Sync] {
        let fixture = fixture(|_| {});
        fixture.script().always(op, Fate::Hang);
        for name in CALLS {
            let deadline = Instant::now() + PATIENCE;
            assert!(
                call(&fixture.coordinator, name, deadline).await,
                "{name} without {op:?}"
            );
            assert!(Instant::now() <= deadline + GRACE, "{name} without {op:?}");
        }
    }
}

/// A session works even if the word that it took over gets nowhere; that, too, is not waited for longer
/// than the call allows.
#[tokio::test(start_paused = true)]
async fn a_session_does_not_wait_for_the_older_ones_to_be_told() {
    let fixture = prepared().await;
    fixture.broker.script.always(Op::Publish, Fate::Hang);
    let deadline = Instant::now() + PATIENCE;
    let session = fixture.coordinator.subscribe("a", None, deadline).await;
    assert!(session.is_ok());
    assert!(Instant::now() <= deadline + GRACE);
}

/// What the broker was not even asked to take is known not to have been sent.
#[tokio::test(start_paused = true)]
async fn what_had_no_turn_before_the_deadline_was_not_sent() {
    let fixture = fixture(|config| config.behavior.max_identities = 20_000);
    for number in 0..5_000 {
        fixture.register(&format!("id-{number:04}"), "{}").await;
    }
    fixture.broker.script.always(Op::Publish, Fate::Hang);
    let deadline = Instant::now() + PATIENCE;
    let report = fixture
        .coordinator
        .multicast(Multicast::default(), deadline)
        .await
        .unwrap();
    assert!(Instant::now() <= deadline + GRACE);
    assert_eq!(fixture.broker.batches().len(), 2, "later windows were not begun");
    let unknown = |target: &Target| target.reason() == "UNKNOWN_OUTCOME";
    let unsent = |target: &Target| target.reason() == "NOT_SENT";
    let counts = (
        report.targets.iter().filter(unknown).count(),
        report.targets.iter().filter(unsent).count(),
    );
    assert_eq!(counts, (2_048, 2_952));
}

/// Health is asked for every few seconds, and waits for no slot.
#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_is_given_up() {
    let fixture = prepared().await;
    fixture.script().always(Op::Probe, Fate::Hang);
    fixture.broker.script.always(Op::Probe, Fate::Hang);
    let started = Instant::now();
    let (registry, messaging) = (fixture.coordinator.registry(), fixture.coordinator.messaging());
    assert!(registry.probe(soon()).await.is_err() && messaging.probe(soon()).await.is_err());
    assert!(started.elapsed() <= Duration::from_secs(11));
}
