//! Point reads, updates and removals.

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Cause, Fixture, Mode, PAST_TTL, Position, Put, Register, Revision, SessionId, Subject, TTL, Ttl, causes,
    identity, leased, put, request,
};
use crate::{Error, Owner};

pub(super) async fn put_checks_revision_and_generation(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(leased("a")).await.unwrap();
    let current = registered.position.revision;
    let conflict = subject.put(put("a", Revision(current.0 + 1))).await;
    assert_eq!(
        conflict,
        Err(Error::Conflict {
            identity: identity("a"),
            current
        })
    );
    let other = Position {
        revision: Revision(77),
        ..registered.generation
    };
    let stale = subject
        .put(Put {
            generation: Some(other),
            ..put("a", current)
        })
        .await;
    let expected = Error::StaleGeneration {
        identity: identity("a"),
        current: registered.generation,
    };
    assert_eq!(stale, Err(expected));

    subject.pass(TTL / 3).await;
    let written = subject.put(Put {
        generation: Some(registered.generation),
        ..put("a", current)
    });
    let record = written.await.unwrap();
    assert_eq!(record.revision, current.next());
    assert_eq!(record.generation, registered.generation);
    assert_eq!(record.registered_at, registered.registered_at);
    assert_eq!(record.metadata, &br#"{"status":"away"}"#[..]);
    assert_eq!(subject.get("a").await.unwrap().metadata, record.metadata);
    let expires_at = |at: Option<crate::Timestamp>| at.map_or(0, |at| at.0);
    let moved = (expires_at(record.expires_at) - expires_at(registered.expires_at)).abs();
    assert!(
        moved < 200,
        "a put leaves the lease alone, this one moved it by {moved} ms"
    );
}

pub(super) async fn put_never_creates(fixture: Fixture) {
    let subject = fixture.open().await;
    assert_eq!(
        subject.put(put("a", Revision(0))).await,
        Err(Error::NotFound(identity("a")))
    );
    let registered = subject.register(leased("a")).await.unwrap();
    subject.pass(PAST_TTL).await;
    let late = subject.put(put("a", registered.position.revision)).await;
    assert_eq!(late, Err(Error::NotFound(identity("a"))));
}

pub(super) async fn put_replay_returns_the_first_result(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(request("a")).await.unwrap();
    let write = put("a", registered.position.revision);
    let first = subject.put(write.clone()).await.unwrap();
    assert_eq!(subject.put(write).await, Ok(first));
    assert_eq!(subject.head().await.revision, Revision(2));
}

pub(super) async fn unregister_is_idempotent(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(request("a")).await.unwrap();
    let first = subject.unregister("a", None).await.unwrap();
    assert_eq!((first.existed, first.position.revision), (true, Revision(2)));
    let second = subject.unregister("a", None).await.unwrap();
    assert_eq!((second.existed, second.position.revision), (false, Revision(2)));
    subject.register(leased("b")).await.unwrap();
    subject.pass(PAST_TTL).await;
    assert!(
        !subject.unregister("b", None).await.unwrap().existed,
        "a due record is absent"
    );
    let last = subject.history(Revision(2)).await;
    assert_eq!(
        causes(&last),
        [(3, Cause::Registered, "b"), (4, Cause::Expired, "b")]
    );
}

pub(super) async fn unregister_is_fenced(fixture: Fixture) {
    let subject = fixture.open().await;
    let first = subject.register(request("a")).await.unwrap();
    let second = subject
        .register(Register {
            mode: Mode::Replace,
            ..request("a")
        })
        .await
        .unwrap();
    let stale = Error::StaleGeneration {
        identity: identity("a"),
        current: second.generation,
    };
    assert_eq!(subject.unregister("a", Some(first.generation)).await, Err(stale));
    assert!(subject.get("a").await.is_some());
    assert!(
        subject
            .unregister("a", Some(second.generation))
            .await
            .unwrap()
            .existed
    );
    let gone = subject.unregister("a", Some(second.generation)).await.unwrap();
    assert!(!gone.existed, "a repeated removal finds nothing and is no error");
}

pub(super) async fn get_reads_the_last_write(fixture: Fixture) {
    let subject = fixture.open().await;
    assert_eq!(subject.get("a").await, None);
    let owner = Owner {
        principal: "someone".into(),
        session: Some(SessionId([255; 16])),
    };
    let metadata = Bytes::from("{\"a\":[],\"b\":1.0,\"c\":9007199254740993,\"d\":\"\u{1F600}\\u0000\"}");
    let sent = Register {
        owner: owner.clone(),
        metadata: metadata.clone(),
        ..leased("a")
    };
    let registered = subject.register(sent).await.unwrap();
    let record = subject.get("a").await.unwrap();
    assert_eq!(record.identity, identity("a"));
    assert_eq!(record.metadata, metadata, "metadata is opaque bytes");
    assert_eq!(record.owner, owner);
    assert_eq!(record.ttl, Ttl::from_millis(TTL.as_millis() as u64));
    assert_eq!(record.generation, registered.generation);
    assert_eq!(record.registered_at, registered.registered_at);
    assert_eq!(record.updated_at, registered.registered_at);
    let drift = record.expires_at.unwrap().0 - registered.expires_at.unwrap().0;
    assert!(drift.abs() < 200, "{drift} ms between two reads of one lease");
    let lasts = record.expires_at.unwrap().0 - record.registered_at.0;
    assert!(
        (lasts - TTL.as_millis() as i64).abs() < 200,
        "the lease lasts {lasts} ms"
    );
}

pub(super) async fn get_never_serves_the_due(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(leased("a")).await.unwrap();
    subject.register(request("b")).await.unwrap();
    subject.pass(PAST_TTL).await;
    assert_eq!(subject.get("a").await, None);
    assert!(subject.get("b").await.is_some());
    let expected = [
        (1, Cause::Registered, "a"),
        (2, Cause::Registered, "b"),
        (3, Cause::Expired, "a"),
    ];
    assert_eq!(causes(&subject.history(Revision::ZERO).await), expected);
}

/// Reads a number and writes the next one, until nobody has come in between.
async fn count_up(subject: Subject, times: usize) {
    for _ in 0..times {
        loop {
            let record = subject.get("counter").await.unwrap();
            let number: u64 = std::str::from_utf8(&record.metadata).unwrap().parse().unwrap();
            let next = Put {
                metadata: (number + 1).to_string().into(),
                ..put("counter", record.revision)
            };
            match subject.put(next).await {
                Ok(_) => break,
                Err(error) => assert!(matches!(error, Error::Conflict { .. }), "{error:?}"),
            }
        }
    }
}

pub(super) async fn concurrent_puts_are_steps(fixture: Fixture) {
    let subject = fixture.open().await;
    let counter = Register {
        metadata: "0".into(),
        ..request("counter")
    };
    subject.register(counter).await.unwrap();
    let counting = (0..8).map(|_| tokio::spawn(count_up(subject.clone(), 25)));
    for counted in join_all(counting).await {
        counted.unwrap();
    }
    assert_eq!(subject.get("counter").await.unwrap().metadata, "200");
    let history = subject.history(Revision(1)).await;
    let numbers: Vec<String> = history
        .iter()
        .map(|change| String::from_utf8_lossy(&change.record.metadata).into_owned())
        .collect();
    let expected: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected, "no write was lost or applied twice");
}
