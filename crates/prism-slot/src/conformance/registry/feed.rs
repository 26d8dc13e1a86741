//! History, and scans of everything.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Call, Cause, Fixture, Mode, Options, PAST_TTL, Register, Renew, Result, Revision, TTL, Ttl, Unregister,
    call, causes, deadline, identity, leased, put, request, session,
};
use crate::{Applied, Epoch, Error, Position, Scan};

pub(super) async fn sync_returns_dense_history(fixture: Fixture) {
    let subject = fixture.open().await;
    subject.register(request("a")).await.unwrap();
    let b = subject.register(request("b")).await.unwrap();
    subject.put(put("b", b.position.revision)).await.unwrap();
    subject
        .register(Register {
            mode: Mode::Replace,
            ..request("a")
        })
        .await
        .unwrap();
    subject.unregister("b", None).await.unwrap();
    let expected = [
        (1, Cause::Registered, "a"),
        (2, Cause::Registered, "b"),
        (3, Cause::Updated, "b"),
        (4, Cause::Replaced, "a"),
        (5, Cause::Unregistered, "b"),
    ];
    let history = subject.history(Revision::ZERO).await;
    assert_eq!(causes(&history), expected);
    assert_eq!(causes(&subject.history(Revision(3)).await), expected[3..]);
    assert_eq!(subject.history(Revision(5)).await, []);
    assert_eq!(
        history[2].record.metadata,
        &br#"{"status":"away"}"#[..],
        "the after-image"
    );
    assert_eq!(
        history[4].record.metadata, history[2].record.metadata,
        "as it last was"
    );
    assert_eq!(history[2].record.generation, b.generation);
    let before: Vec<_> = history.iter().map(|change| change.before.as_ref()).collect();
    let was = |index: usize| Some(history[index].record.revision);
    let revisions: Vec<_> = before
        .iter()
        .map(|record| record.map(|record| record.revision))
        .collect();
    assert_eq!(
        revisions,
        [None, None, was(1), was(0), None],
        "what each took the place of"
    );
    assert_eq!(before[2].unwrap().metadata, history[1].record.metadata);
    assert_eq!(before[2].unwrap().generation, b.generation);
}

pub(super) async fn sync_expires_what_is_due(fixture: Fixture) {
    let subject = fixture.open().await;
    for number in (0..9).filter(|number| *number != 7) {
        subject.register(leased(&format!("id-{number}"))).await.unwrap();
    }
    // It ends meanwhile, unless it is renewed.
    let renewed = Register {
        ttl: Ttl::from_millis(2 * TTL.as_millis() as u64),
        ..request("id-7")
    };
    subject.register(renewed).await.unwrap();
    // Shortened: it ends sooner than it was first to end.
    for ttl in [Ttl::from_millis(3_600_000), leased("id-9").ttl] {
        let shorter = Register {
            ttl,
            owner: session(1),
            ..request("id-9")
        };
        subject.register(shorter).await.unwrap();
    }
    subject.pass(PAST_TTL).await;
    subject.renew("id-7", None).await.unwrap();
    subject.pass(PAST_TTL).await;
    let history = subject.history(Revision(11)).await;
    assert_eq!(history.len(), 9);
    assert!(history.iter().all(|change| change.cause == Cause::Expired));
    assert!(
        history
            .iter()
            .all(|change| change.record.identity.as_str() != "id-7")
    );
}

pub(super) async fn sync_says_compacted(fixture: Fixture) {
    let subject = fixture
        .open_with(Options {
            feed_max_changes: Some(16),
            ..Options::default()
        })
        .await;
    for number in 0..400 {
        subject.register(request(&format!("id-{number}"))).await.unwrap();
    }
    let gone = subject.0.store.sync(call(), Revision(1), 10).await;
    let Err(Error::Compacted { up_to }) = gone else {
        panic!("{gone:?}")
    };
    assert!(up_to >= Revision(1) && up_to < Revision(400));
    let kept = subject.history(up_to).await;
    assert_eq!(kept.len() as u64, 400 - up_to.0);
    assert!(subject.0.store.sync(call(), Revision(399), 10).await.is_ok());
}

pub(super) async fn changes_are_told(fixture: Fixture) {
    let subject = fixture.open().await;
    let head = subject.register(request("a")).await.unwrap().position;
    let patient = Call {
        epoch: Some(head.epoch),
        deadline: deadline() + LONG,
    };
    let store = &subject.0.store;
    // One that waits already, and one that comes when it has happened.
    let told = async {
        tokio::join!(store.changed(patient, head.revision), async {
            subject.register(request("b")).await.unwrap();
        })
        .0
        .unwrap();
        store.changed(patient, head.revision).await.unwrap();
    };
    tokio::time::timeout_at(deadline() + LONG / 2, told)
        .await
        .expect("told before the deadline");

    // Without a change it ends all the same.
    let short = Call {
        deadline: tokio::time::Instant::now() + TTL / 4,
        ..patient
    };
    let waited = store.changed(short, head.revision.next());
    tokio::time::timeout_at(deadline(), waited)
        .await
        .expect("ends with its deadline")
        .unwrap();
}

/// No case waits for as long.
const LONG: Duration = Duration::from_secs(120);

pub(super) async fn is_head_is_known_and_never_wrong(fixture: Fixture) {
    let subject = fixture.open().await;
    let store = &subject.0.store;
    let first = subject.register(request("a")).await.unwrap().position;
    let second = subject.register(leased("b")).await.unwrap().position;
    assert!(store.is_head(second), "nobody else could have written");
    assert!(!store.is_head(first), "something was written since");
    let elsewhere = Position {
        epoch: Epoch(second.epoch.0 ^ 1),
        ..second
    };
    assert!(!store.is_head(elsewhere), "that is another history");
    subject.pass(PAST_TTL).await;
    assert!(!store.is_head(second), "a lease is due");
}

pub(super) async fn calls_refuse_another_epoch(fixture: Fixture) {
    let subject = fixture.open().await;
    let current = subject.register(request("a")).await.unwrap().position.epoch;
    let call = Call {
        epoch: Some(Epoch(current.0 ^ 1)),
        deadline: deadline(),
    };
    let refused = Error::EpochChanged { current };
    let store = &subject.0.store;
    let renew = Renew {
        identity: identity("a"),
        generation: None,
    };
    let unregister = Unregister {
        identity: identity("a"),
        generation: None,
    };
    let scan = Scan {
        cursor: None,
        limit: 10,
        hold: Duration::ZERO,
    };
    assert_eq!(
        store.register(call, vec![request("b")]).await,
        [Err(refused.clone())]
    );
    assert_eq!(store.put(call, put("a", Revision(1))).await, Err(refused.clone()));
    assert_eq!(store.renew(call, vec![renew]).await, [Err(refused.clone())]);
    assert_eq!(store.unregister(call, unregister).await, Err(refused.clone()));
    assert_eq!(store.get(call, identity("a")).await, Err(refused.clone()));
    assert_eq!(
        store.leases(call, vec![identity("a")]).await,
        Err(refused.clone())
    );
    assert_eq!(store.sync(call, Revision::ZERO, 10).await, Err(refused.clone()));
    assert_eq!(store.scan(call, scan).await, Err(refused.clone()));
    assert_eq!(
        store.claim_session(call, identity("a"), None).await,
        Err(refused.clone())
    );
    assert_eq!(refused.applied(), Applied::No);
    assert_eq!(subject.head().await.revision, Revision(1));
    let right = Call {
        epoch: Some(current),
        ..call
    };
    assert!(store.get(right, identity("a")).await.unwrap().record.is_some());
}

pub(super) async fn scan_finds_everything(fixture: Fixture) {
    let subject = fixture.open().await;
    let batch = (0..700).map(|number| request(&format!("id-{number}"))).collect();
    assert!(
        subject
            .0
            .store
            .register(call(), batch)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let (mut found, mut cursor) = (BTreeMap::new(), None);
    loop {
        let scan = Scan {
            cursor,
            limit: 50,
            hold: Duration::from_secs(5),
        };
        let page = subject.0.store.scan(call(), scan).await.unwrap();
        assert_eq!(page.head.revision, Revision(700));
        found.extend(
            page.records
                .into_iter()
                .map(|record| (record.identity.clone(), record)),
        );
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 700);
    let one = &found[&identity("id-123")];
    assert_eq!(Some(one), subject.get("id-123").await.as_ref());
}

pub(super) async fn sync_is_bounded(fixture: Fixture) {
    let subject = fixture.open().await;
    for number in 0..10 {
        subject.register(request(&format!("id-{number}"))).await.unwrap();
    }
    for (from, limit, changes, more) in [
        (0, 4, 1..5, true),
        (4, 6, 5..11, false),
        (8, 100, 9..11, false),
        (3, 0, 4..4, true),
    ] {
        let sync = subject.0.store.sync(call(), Revision(from), limit).await.unwrap();
        let revisions = sync.changes.iter().map(|change| change.revision.0);
        assert!(revisions.eq(changes), "{limit} after {from}: {:?}", sync.changes);
        assert_eq!(
            (sync.more, sync.head.revision),
            (more, Revision(10)),
            "{limit} after {from}"
        );
    }
}
