//! Renewing, and leases in general.

use std::time::Duration;

use super::{
    Call, Fixture, Mode, PAST_TTL, Record, Register, Renew, Revision, TTL, Ttl, call, deadline, identity,
    leased, request,
};
use crate::Error;

pub(super) async fn renew_never_creates(fixture: Fixture) {
    let subject = fixture.open().await;
    assert_eq!(
        subject.renew("a", None).await,
        Err(Error::NotFound(identity("a")))
    );
    subject.register(leased("a")).await.unwrap();
    subject.pass(PAST_TTL).await;
    assert_eq!(
        subject.renew("a", None).await,
        Err(Error::NotFound(identity("a")))
    );
    assert_eq!(subject.get("a").await, None);
}

pub(super) async fn renew_moves_only_the_lease(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(leased("a")).await.unwrap();
    let before = subject.get("a").await.unwrap();
    for _ in 0..4 {
        subject.pass(TTL / 2).await;
        let renewed = subject.renew("a", Some(registered.generation)).await.unwrap();
        assert_eq!(renewed.ttl, before.ttl);
        assert!(renewed.expires_at > registered.expires_at);
    }
    let after = subject.get("a").await.unwrap();
    assert_eq!(
        Record {
            expires_at: before.expires_at,
            ..(*after).clone()
        },
        *before
    );
    assert_eq!(subject.head().await.revision, Revision(1));

    subject.register(request("forever")).await.unwrap();
    let renewed = subject.renew("forever", None).await.unwrap();
    assert_eq!((renewed.ttl, renewed.expires_at), (None, None));
}

pub(super) async fn renew_wakes_nobody(fixture: Fixture) {
    let subject = fixture.open().await;
    let mine = Register {
        ttl: Ttl::from_millis(60_000),
        ..request("a")
    };
    let head = subject.register(mine).await.unwrap().position;
    let patient = Call {
        epoch: Some(head.epoch),
        deadline: deadline() + Duration::from_secs(120),
    };
    let mut waiting = std::pin::pin!(subject.0.store.changed(patient, head.revision));
    for _ in 0..3 {
        let told = tokio::time::timeout(TTL / 6, &mut waiting).await;
        assert!(told.is_err(), "nothing was written");
        subject.renew("a", Some(head)).await.unwrap();
    }
    let told = tokio::time::timeout(TTL / 2, &mut waiting).await;
    assert!(told.is_err(), "a renewal is not told");
    subject.register(request("b")).await.unwrap();
    let told = tokio::time::timeout_at(deadline(), waiting).await;
    told.expect("a registration is").unwrap();
}

pub(super) async fn renew_is_fenced(fixture: Fixture) {
    let subject = fixture.open().await;
    let first = subject.register(leased("a")).await.unwrap();
    let second = subject
        .register(Register {
            mode: Mode::Replace,
            ..leased("a")
        })
        .await
        .unwrap();
    let stale = Error::StaleGeneration {
        identity: identity("a"),
        current: second.generation,
    };
    assert_eq!(subject.renew("a", Some(first.generation)).await, Err(stale));
    assert!(subject.renew("a", Some(second.generation)).await.is_ok());
}

pub(super) async fn leases_follow_renewals(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(leased("a")).await.unwrap();
    subject.register(request("forever")).await.unwrap();
    subject.pass(TTL / 2).await;
    subject.renew("a", None).await.unwrap();
    let asked = ["a", "forever", "nobody"].map(identity).to_vec();
    let leases = subject.0.store.leases(call(), asked.clone()).await.unwrap();
    assert!(leases[0] > registered.expires_at);
    assert_eq!(leases[1..], [None, None]);
    subject.pass(PAST_TTL).await;
    assert_eq!(
        subject.0.store.leases(call(), asked).await.unwrap(),
        [None, None, None]
    );
}

pub(super) async fn renew_answers_in_order(fixture: Fixture) {
    let subject = fixture.open().await;
    let a = subject.register(leased("a")).await.unwrap();
    subject.register(request("forever")).await.unwrap();
    let kinds = [
        ("a", Some(a.generation)),
        ("nobody", None),
        ("forever", None),
        ("forever", Some(a.generation)),
    ];
    let renew = |number: usize| Renew {
        identity: identity(kinds[number % 4].0),
        generation: kinds[number % 4].1,
    };
    // More of them than one call takes.
    let results = subject
        .0
        .store
        .renew(call(), (0..5_000).map(renew).collect())
        .await;
    assert_eq!(results.len(), 5_000);
    for (number, result) in results.iter().enumerate() {
        let as_expected = match number % 4 {
            0 => result.as_ref().is_ok_and(|renewed| renewed.expires_at.is_some()),
            1 => *result == Err(Error::NotFound(identity("nobody"))),
            2 => result.as_ref().is_ok_and(|renewed| renewed.expires_at.is_none()),
            _ => matches!(result, Err(Error::StaleGeneration { .. })),
        };
        assert!(as_expected, "{number}: {result:?}");
    }
}

/// Nobody called for a while, so nobody could renew: the lease lasts once more, and no longer.
pub(super) async fn leases_survive_an_interruption(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(leased("a")).await.unwrap();
    subject.pass(Duration::from_millis(2_200)).await;
    assert!(subject.get("a").await.is_some());
    subject.pass(PAST_TTL).await;
    assert_eq!(subject.get("a").await, None);
}
