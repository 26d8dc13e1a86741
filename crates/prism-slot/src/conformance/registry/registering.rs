//! Registering.

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Cause, Fixture, Mode, PAST_TTL, Register, RequestId, Revision, Ttl, call, causes, identity, leased,
    request, session,
};
use crate::{Error, Owner, Written};

pub(super) async fn register_assigns_dense_revisions(fixture: Fixture) {
    let subject = fixture.open().await;
    let batch = (1..=9).map(|number| request(&format!("id-{number}"))).collect();
    let results = subject.0.store.register(call(), batch).await;
    for (expected, result) in (1..).zip(results) {
        let registered = result.unwrap();
        assert_eq!(registered.written, Written::Registered);
        assert_eq!(registered.position.revision, Revision(expected));
        assert_eq!(registered.generation, registered.position);
        assert_eq!(registered.expires_at, None);
    }
    assert_eq!(subject.head().await.revision, Revision(9));
}

pub(super) async fn register_create_refuses_existing(fixture: Fixture) {
    let subject = fixture.open().await;
    for owner in [Owner::default(), session(1)] {
        let name = format!("held-by-{}", owner.session.is_some());
        subject
            .register(Register {
                owner,
                ..request(&name)
            })
            .await
            .unwrap();
        let somebody_else = Owner {
            principal: "somebody else".into(),
            ..session(1)
        };
        for other in [Owner::default(), session(2), somebody_else] {
            let refused = subject
                .register(Register {
                    owner: other,
                    ..request(&name)
                })
                .await;
            assert_eq!(refused, Err(Error::AlreadyExists(identity(&name))));
        }
    }
    assert_eq!(
        subject.head().await.revision,
        Revision(2),
        "a refusal uses no revision"
    );
}

pub(super) async fn register_replace_makes_a_new_generation(fixture: Fixture) {
    let subject = fixture.open().await;
    let first = subject
        .register(Register {
            owner: session(1),
            ..request("a")
        })
        .await
        .unwrap();
    let replace = Register {
        owner: session(2),
        mode: Mode::Replace,
        ..request("a")
    };
    let second = subject.register(replace).await.unwrap();
    assert_eq!(second.written, Written::Replaced);
    assert_eq!(second.generation, second.position);
    assert_ne!(second.generation, first.generation);
    assert_eq!(subject.get("a").await.unwrap().owner, session(2));
    let expected = [(1, Cause::Registered, "a"), (2, Cause::Replaced, "a")];
    assert_eq!(causes(&subject.history(Revision::ZERO).await), expected);
}

pub(super) async fn register_same_session_renews_or_updates(fixture: Fixture) {
    let subject = fixture.open().await;
    let mine = Register {
        owner: session(1),
        ttl: Ttl::from_millis(60_000),
        ..request("a")
    };
    let again = || Register {
        request: RequestId::next(),
        ..mine.clone()
    };
    let first = subject.register(mine.clone()).await.unwrap();

    let renewed = subject.register(again()).await.unwrap();
    assert_eq!(renewed.written, Written::Renewed);
    assert_eq!(
        (renewed.generation, renewed.position),
        (first.generation, first.position)
    );

    let metadata = Bytes::from_static(br#"{"status":"busy"}"#);
    let changed = subject
        .register(Register {
            metadata: metadata.clone(),
            ..again()
        })
        .await
        .unwrap();
    assert_eq!(changed.written, Written::Updated);
    assert_eq!(changed.generation, first.generation);
    assert_eq!(changed.position.revision, Revision(2));
    assert_eq!(changed.registered_at, first.registered_at);

    let replaced = Register {
        mode: Mode::Replace,
        metadata: metadata.clone(),
        ..again()
    };
    assert_eq!(
        subject.register(replaced).await.unwrap().written,
        Written::Renewed
    );
    let longer = Register {
        ttl: Ttl::from_millis(90_000),
        metadata,
        ..again()
    };
    assert_eq!(
        subject.register(longer).await.unwrap().written,
        Written::Updated,
        "another ttl is a change"
    );
    assert_eq!(subject.head().await.revision, Revision(3));
}

pub(super) async fn register_over_a_due_record_expires_it_first(fixture: Fixture) {
    let subject = fixture.open().await;
    let first = subject
        .register(Register {
            owner: session(1),
            ..leased("a")
        })
        .await
        .unwrap();
    subject.pass(PAST_TTL).await;
    let second = subject
        .register(Register {
            owner: session(1),
            ..request("a")
        })
        .await
        .unwrap();
    assert_eq!(
        second.written,
        Written::Registered,
        "not even its own session finds a due record"
    );
    assert_ne!(second.generation, first.generation);
    let expected = [
        (1, Cause::Registered, "a"),
        (2, Cause::Expired, "a"),
        (3, Cause::Registered, "a"),
    ];
    assert_eq!(causes(&subject.history(Revision::ZERO).await), expected);
}

pub(super) async fn register_quota_is_exact(fixture: Fixture) {
    let subject = fixture.open().await;
    let attempts = (0..200).map(|number| {
        let subject = subject.clone();
        let request = Register {
            max_identities: 20,
            ..request(&format!("id-{number}"))
        };
        tokio::spawn(async move { subject.register(request).await })
    });
    let results: Vec<_> = join_all(attempts)
        .await
        .into_iter()
        .map(|joined| joined.unwrap())
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
    let refused = results
        .iter()
        .filter(|result| **result == Err(Error::QuotaExceeded { limit: 20 }));
    assert_eq!(refused.count(), 180);
    subject.unregister("nobody", None).await.unwrap();
    let held = subject.history(Revision::ZERO).await;
    let holder = held[0].record.identity.as_str();
    let over = Register {
        mode: Mode::Replace,
        max_identities: 20,
        ..request(holder)
    };
    assert!(
        subject.register(over).await.is_ok(),
        "a replacement needs no room"
    );
}

pub(super) async fn register_quota_ignores_the_due(fixture: Fixture) {
    let subject = fixture.open().await;
    for number in 0..3 {
        subject
            .register(leased(&format!("short-{number}")))
            .await
            .unwrap();
    }
    let attempt = || Register {
        max_identities: 3,
        ..request("late")
    };
    assert_eq!(
        subject.register(attempt()).await,
        Err(Error::QuotaExceeded { limit: 3 })
    );
    subject.pass(PAST_TTL).await;
    assert!(subject.register(attempt()).await.is_ok());
}

pub(super) async fn register_replay_returns_the_first_result(fixture: Fixture) {
    let subject = fixture.open().await;
    let create = request("a");
    let first = subject.register(create.clone()).await.unwrap();
    assert_eq!(subject.register(create).await, Ok(first));

    let replace = Register {
        mode: Mode::Replace,
        owner: session(1),
        ..request("a")
    };
    let second = subject.register(replace.clone()).await.unwrap();
    assert_eq!(subject.register(replace).await, Ok(second));

    let metadata = Bytes::from_static(b"{}");
    let update = Register {
        metadata,
        owner: session(1),
        ..request("a")
    };
    let third = subject.register(update.clone()).await.unwrap();
    assert_eq!(third.written, Written::Updated);
    assert_eq!(subject.register(update).await, Ok(third));
    assert_eq!(subject.head().await.revision, Revision(3));
}

/// More of them than one call takes.
pub(super) async fn register_answers_in_order(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(request("taken")).await.unwrap();
    let batch = (0..5_000).map(|number| match number % 3 {
        0 => request("taken"),
        1 => request(&format!("id-{number}")),
        _ => Register {
            mode: Mode::Replace,
            ..request(&format!("id-{}", number - 1))
        },
    });
    let batch = batch.map(|request| Register {
        max_identities: 1_000_000,
        ..request
    });
    let results = subject.0.store.register(call(), batch.collect()).await;
    assert_eq!(results.len(), 5_000);
    let mut revision = 1;
    for (number, result) in results.into_iter().enumerate() {
        let Ok(done) = result else {
            assert_eq!(result, Err(Error::AlreadyExists(identity("taken"))), "{number}");
            assert_eq!(number % 3, 0);
            continue;
        };
        revision += 1;
        let written = [Written::Registered, Written::Replaced][number % 3 - 1];
        assert_eq!(
            (done.written, done.position.revision),
            (written, Revision(revision)),
            "{number}"
        );
    }
    assert!(subject.0.store.register(call(), Vec::new()).await.is_empty());
}
