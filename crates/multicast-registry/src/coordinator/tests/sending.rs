//! Multicast: what is sent, how often, and what is said of it.

use std::time::Duration;

use prism_filter::Filter;
use prism_slot::Outcome;
use tokio::time::Instant;

use super::{
    super::{Multicast, SessionEvent},
    fixture,
};
use crate::{
    Pace, Stage, Status,
    testing::{Fate, Op, soon},
};

/// Nobody whose turn comes later than that is said to have been reached.
#[tokio::test]
async fn what_has_expired_is_not_sent() {
    let fixture = fixture(|_| {});
    for name in ["a", "b"] {
        fixture.register(name, "{}").await;
    }
    let _sessions = [
        fixture.coordinator.subscribe("a", None, soon()).await.unwrap(),
        fixture.coordinator.subscribe("b", None, soon()).await.unwrap(),
    ];
    let brief = Multicast {
        expires_in: Some(Duration::from_millis(100)),
        pace: Pace {
            per_second: Some(5),
            batch: Some(1),
        },
        ..Default::default()
    };
    let before = fixture.broker.batches().len();
    let report = fixture.coordinator.multicast(brief, soon()).await.unwrap();
    let told = report.targets.iter();
    let mut told: Vec<_> = told.map(|target| (target.stage(), target.reason())).collect();
    told.sort_unstable();
    assert_eq!(told, [(Stage::Resolved, "EXPIRED"), (Stage::Accepted, "")]);
    assert_eq!(fixture.broker.batches().len(), before + 1);
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
        .map(|target| (target.identity.to_string(), target.status(), target.reason()))
        .collect();
    let expected = [
        ("a".to_owned(), Status::Failed, "NO_SUBSCRIBER"),
        ("b".to_owned(), Status::Delivered, ""),
        ("c".to_owned(), Status::Failed, "NO_SUBSCRIBER"),
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

/// Sent again is only what is known not to have been sent; a second copy of anything else could be one
/// too many.
#[tokio::test(start_paused = true)]
async fn only_what_was_certainly_not_sent_is_sent_again() {
    let fixture = fixture(|_| {});
    for name in ["accepted", "nobody", "unknown", "unsent"] {
        fixture.register(name, "{}").await;
    }
    let unsent = || Outcome::NotSent("no connection".to_owned());
    let unknown = || Outcome::Unknown("no confirmation".to_owned());
    fixture
        .broker
        .judge(move |_| vec![Outcome::Accepted, Outcome::NoSubscriber, unknown(), unsent()]);
    fixture.broker.judge(move |_| vec![unsent()]);
    fixture.broker.judge(|_| vec![Outcome::Accepted]);
    let report = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    let batches = fixture.broker.batches();
    assert_eq!(batches.len(), 3);
    assert!(
        batches[1..].iter().all(|batch| batch == &["unsent"]),
        "{batches:?}"
    );
    let statuses: Vec<Status> = report.targets.iter().map(|target| target.status()).collect();
    let expected = [
        Status::Delivered,
        Status::Failed,
        Status::Timeout,
        Status::Delivered,
    ];
    assert_eq!(statuses, expected);
    let sum: usize = [Status::Delivered, Status::Failed, Status::Timeout]
        .map(|status| report.count(status))
        .iter()
        .sum();
    assert_eq!(sum, report.targets.len());
}

/// What was asked for holds for whatever is sent, also for what is sent again.
#[tokio::test(start_paused = true)]
async fn batches_and_rates_hold_when_sending_again() {
    let fixture = fixture(|_| {});
    for number in 0..6 {
        fixture.register(&format!("id-{number}"), "{}").await;
    }
    let unsent = || Outcome::NotSent("no connection".to_owned());
    for _ in 0..6 {
        fixture
            .broker
            .judge(move |targets| targets.iter().map(|_| unsent()).collect());
    }
    let slow = |per_second, batch| Multicast {
        pace: Pace { per_second, batch },
        ..Default::default()
    };
    let began = Instant::now();
    let report = fixture
        .coordinator
        .multicast(slow(Some(10), Some(4)), soon())
        .await
        .unwrap();
    let reasons: Vec<&str> = report.targets.iter().map(|target| target.reason()).collect();
    assert_eq!(reasons, ["NO_SUBSCRIBER"; 6], "as the second attempt found");
    // A tenth of a second's worth is smaller than the batch.
    assert!(fixture.broker.batches().iter().all(|batch| batch.len() == 1));
    assert!(
        began.elapsed() >= Duration::from_millis(1_100),
        "{:?}",
        began.elapsed()
    );
    let before = fixture.broker.batches().len();
    assert_eq!(before, 12);
    let batch = slow(None, Some(4));
    fixture.coordinator.multicast(batch, soon()).await.unwrap();
    let sizes: Vec<usize> = fixture.broker.batches()[before..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [4, 2]);
}

#[tokio::test(start_paused = true)]
async fn retries_are_as_many_and_as_far_apart_as_configured() {
    for (attempts, delay, pauses) in [(0, 100, 0..=0), (2, 100, 100..=300), (2, 1_000, 1_000..=3_000)] {
        let fixture = fixture(|config| {
            config.behavior.retry_attempts = attempts;
            config.behavior.retry_delay_ms = delay;
        });
        fixture.register("a", "{}").await;
        for _ in 0..9 {
            fixture
                .broker
                .judge(|_| vec![Outcome::NotSent("no connection".to_owned())]);
        }
        let started = Instant::now();
        let deadline = started + Duration::from_secs(60);
        let report = fixture
            .coordinator
            .multicast(Multicast::default(), deadline)
            .await
            .unwrap();
        assert_eq!(fixture.broker.batches().len() as u32, 1 + attempts);
        let took = started.elapsed().as_millis() as u64;
        assert!(pauses.contains(&took), "{attempts} x {delay} ms took {took} ms");
        assert_eq!(report.targets.get(0).unwrap().reason(), "NOT_SENT");
    }
}

#[tokio::test]
async fn a_payload_is_bytes_unless_the_sender_says_what() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let mut session = fixture.coordinator.subscribe("a", None, soon()).await.unwrap();
    for (content_type, expected) in [
        (None, "application/octet-stream"),
        (Some("text/plain"), "text/plain"),
    ] {
        let request = Multicast {
            content_type: content_type.map(str::to_owned),
            ..Default::default()
        };
        fixture.coordinator.multicast(request, soon()).await.unwrap();
        let Some(Ok(SessionEvent::Message(message))) = session.next().await else {
            panic!("no message")
        };
        assert_eq!(&*message.content_type, expected);
    }
}

/// Retries end with the time that the caller gave, and say what is known.
#[tokio::test(start_paused = true)]
async fn retries_end_with_the_timeout() {
    let fixture = fixture(|config| config.behavior.retry_attempts = 100);
    fixture.register("a", "{}").await;
    for _ in 0..100 {
        fixture
            .broker
            .judge(|_| vec![Outcome::NotSent("no connection".to_owned())]);
    }
    let started = Instant::now();
    let brief = Multicast {
        timeout: Some(Duration::from_millis(500)),
        ..Default::default()
    };
    let report = fixture.coordinator.multicast(brief, soon()).await.unwrap();
    assert!(
        started.elapsed() <= Duration::from_millis(501),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(report.targets.get(0).unwrap().status(), Status::Failed);
}

/// Totals add up even where a slot says nothing of some targets.
#[tokio::test]
async fn a_target_that_the_slot_says_nothing_of_is_unknown() {
    let fixture = fixture(|_| {});
    for name in ["a", "b", "c"] {
        fixture.register(name, "{}").await;
    }
    fixture.broker.judge(|_| vec![Outcome::Accepted]);
    let report = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    let reasons: Vec<&str> = report.targets.iter().map(|target| target.reason()).collect();
    assert_eq!(reasons, ["", "UNKNOWN_OUTCOME", "UNKNOWN_OUTCOME"]);
    assert_eq!(fixture.broker.batches().len(), 1);
}

/// The set is taken at one position, and written to it is whoever was in it then.
#[tokio::test]
async fn the_targets_are_pinned_where_the_answer_says() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let registered = fixture.sibling();
    let late = registered
        .register(super::request("b", "{}"), soon())
        .await
        .unwrap();
    let report = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap();
    assert_eq!(
        report.targets.len(),
        2,
        "registered through another runner, and acknowledged"
    );
    assert_eq!(report.position, late.position);
}

/// Whoever listened and reads too slowly is told what it missed, and delays nobody.
#[tokio::test]
async fn a_full_session_fails_alone() {
    /// More than a session's queue holds.
    const COUNT: usize = 1_100;
    let fixture = fixture(|config| config.behavior.retry_attempts = 0);
    for name in ["quick", "stuck"] {
        fixture.register(name, "{}").await;
    }
    let mut quick = fixture
        .coordinator
        .subscribe("quick", None, soon())
        .await
        .unwrap();
    let mut stuck = fixture
        .coordinator
        .subscribe("stuck", None, soon())
        .await
        .unwrap();
    let mut failed = 0;
    for _ in 0..COUNT {
        let report = fixture
            .coordinator
            .multicast(Multicast::default(), soon())
            .await
            .unwrap();
        let [quick_one, stuck_one] = report.targets.statuses() else {
            panic!("{report:?}")
        };
        assert_eq!(*quick_one, Status::Delivered);
        failed += usize::from(*stuck_one == Status::Failed);
        assert!(matches!(quick.next().await, Some(Ok(SessionEvent::Message(_)))));
    }
    let mut received = 0;
    loop {
        match stuck.next().await {
            Some(Ok(SessionEvent::Message(_))) => received += 1,
            Some(Ok(SessionEvent::Gap { dropped, .. })) => {
                assert_eq!((received + failed, dropped as usize), (COUNT, failed));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The store's own trouble before anything was sent is an error, and not a report.
#[tokio::test]
async fn without_the_registry_nothing_is_sent() {
    let fixture = fixture(|_| {});
    fixture.register("a", "{}").await;
    let lost = crate::testing::unavailable(prism_slot::Applied::No);
    fixture.script().always(Op::Sync, Fate::Refuse(lost.clone()));
    let error = fixture
        .coordinator
        .multicast(Multicast::default(), soon())
        .await
        .unwrap_err();
    assert_eq!(super::slot_error(error), lost);
    assert!(fixture.broker.batches().is_empty());
}
