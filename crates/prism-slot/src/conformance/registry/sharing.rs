//! Sessions, several openings, and the end of one.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    Call, Cause, Fixture, Mode, PAST_TTL, Register, Renew, Revision, Unregister, call, causes, deadline,
    identity, leased, put, request,
};
use crate::{Applied, Error, Scan};

pub(super) async fn claims_are_ordered(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(request("a")).await.unwrap();
    let mut last = 0;
    for generation in [None, Some(registered.generation), None] {
        let claim = subject
            .0
            .store
            .claim_session(call(), identity("a"), generation)
            .await
            .unwrap();
        assert_eq!(claim.generation, registered.generation);
        assert!(claim.session_seq > last);
        last = claim.session_seq;
    }
    assert_eq!(
        subject.head().await.revision,
        Revision(1),
        "a claim uses no revision"
    );
}

pub(super) async fn claims_need_the_registration(fixture: Fixture) {
    let subject = fixture.open().await;
    let store = &subject.0.store;
    let absent = store.claim_session(call(), identity("a"), None).await;
    assert_eq!(absent, Err(Error::NotFound(identity("a"))));
    let first = subject.register(request("a")).await.unwrap();
    let second = subject
        .register(Register {
            mode: Mode::Replace,
            ..leased("a")
        })
        .await
        .unwrap();
    let stale = store
        .claim_session(call(), identity("a"), Some(first.generation))
        .await;
    let expected = Error::StaleGeneration {
        identity: identity("a"),
        current: second.generation,
    };
    assert_eq!(stale, Err(expected));
    subject.pass(PAST_TTL).await;
    let due = store
        .claim_session(call(), identity("a"), Some(second.generation))
        .await;
    assert_eq!(due, Err(Error::NotFound(identity("a"))));
}

/// Two runners over one backend see one history.
pub(super) async fn openings_share_one_history(fixture: Fixture) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let registered = one.register(request("a")).await.unwrap();
    assert_eq!(other.get("a").await.unwrap().generation, registered.generation);
    let refused = other.register(request("a")).await;
    assert_eq!(refused, Err(Error::AlreadyExists(identity("a"))));
    let next = other.register(request("b")).await.unwrap();
    assert_eq!(next.position.epoch, registered.position.epoch);
    assert_eq!(next.position.revision, registered.position.revision.next());
    let expected = [(1, Cause::Registered, "a"), (2, Cause::Registered, "b")];
    assert_eq!(causes(&one.history(Revision::ZERO).await), expected);
    let scan = || Scan {
        cursor: None,
        limit: 10,
        hold: Duration::ZERO,
    };
    let pages = (
        one.0.store.scan(call(), scan()).await.unwrap(),
        other.0.store.scan(call(), scan()).await.unwrap(),
    );
    assert_eq!(pages.0.secret, pages.1.secret);
}

/// What a runner wrote is there for the next one.
pub(super) async fn records_outlive_the_runner(fixture: Fixture) {
    let first = fixture.open().await;
    let registered = first.register(request("a")).await.unwrap();
    first.0.store.close().await;
    let second = fixture.open().await;
    assert_eq!(second.get("a").await.unwrap().generation, registered.generation);
    assert_eq!(second.head().await, registered.position);
}

pub(super) async fn a_slot_answers_until_it_is_closed(fixture: Fixture) {
    let subject = fixture.open().await;
    let store = &subject.0.store;
    assert_eq!(store.probe(deadline()).await, Ok(()));
    store.close().await;
    let (generation, a) = (None, || identity("a"));
    let renew = Renew {
        identity: a(),
        generation,
    };
    let unregister = Unregister {
        identity: a(),
        generation,
    };
    let refused = [
        store.register(call(), vec![request("a")]).await.remove(0).err(),
        store.put(call(), put("a", Revision(1))).await.err(),
        store.renew(call(), vec![renew]).await.remove(0).err(),
        store.unregister(call(), unregister).await.err(),
        store.get(call(), a()).await.err(),
        store.leases(call(), vec![a()]).await.err(),
        store.sync(call(), Revision::ZERO, 10).await.err(),
        store.claim_session(call(), a(), generation).await.err(),
        store.probe(deadline()).await.err(),
    ];
    for (number, error) in refused.into_iter().enumerate() {
        let Some(Error::Unavailable { applied, .. }) = error else {
            panic!("call {number}: {error:?}")
        };
        assert_eq!(applied, Applied::No, "call {number}");
    }
}

/// Of calls at once, each has a moment more than the one before it, so that some find out on the way, or in a queue, that
/// they are too late.
pub(super) async fn late_calls_change_nothing(fixture: Fixture) {
    let subject = fixture.open().await;
    let store = &subject.0.store;
    let names: Vec<String> = (0..200).map(|number| format!("id-{number}")).collect();
    let leaving: Vec<Register> = names
        .iter()
        .map(|name| request(&format!("leaving-{name}")))
        .collect();
    for outcome in store.register(call(), leaving).await {
        outcome.unwrap();
    }
    let (began, moment) = (Instant::now(), Duration::from_micros(100));
    let calls = names.iter().zip(0..).map(|(name, number)| async move {
        let late = Call {
            epoch: None,
            deadline: began + moment * number,
        };
        let unregister = Unregister {
            identity: identity(&format!("leaving-{name}")),
            generation: None,
        };
        tokio::join!(
            store.register(late, vec![request(name)]),
            store.unregister(late, unregister),
            store.get(late, identity(name)),
        )
    });
    let outcomes = join_all(calls).await;
    let (registered, unregistered, read) = &outcomes[0];
    let all_at_once = [registered[0].is_err(), unregistered.is_err(), read.is_err()];
    assert_eq!(all_at_once, [true; 3], "a deadline that has passed");
    let is_late = |error: Option<&Error>| match error {
        Some(error @ Error::Timeout { .. }) => error.applied() == Applied::No,
        Some(other) => panic!("{other:?}"),
        None => false,
    };
    for (name, (registered, unregistered, _)) in names.iter().zip(&outcomes) {
        if is_late(registered[0].as_ref().err()) {
            assert_eq!(subject.get(name).await, None, "it was said not to be registered");
        }
        if is_late(unregistered.as_ref().err()) {
            let there = subject.get(&format!("leaving-{name}")).await;
            assert!(there.is_some(), "it was said not to be unregistered");
        }
    }
}

/// The same identity in two namespaces of one backend is two registrations.
pub(super) async fn namespaces_have_their_own_history(fixture: Fixture) {
    let here = fixture.open().await;
    let elsewhere = Fixture {
        open: fixture.open.clone(),
        namespace: format!("{}-other", fixture.namespace),
    };
    let there = elsewhere.open().await;
    let first = here.register(request("a")).await.unwrap();
    assert_eq!(there.get("a").await, None);
    let second = there.register(request("a")).await.unwrap();
    assert_eq!(second.position.revision, Revision(1));
    assert_ne!(second.position.epoch, first.position.epoch);
    assert!(there.unregister("a", None).await.unwrap().existed);
    assert!(here.get("a").await.is_some());
    assert_eq!(here.history(Revision::ZERO).await.len(), 1);
}
