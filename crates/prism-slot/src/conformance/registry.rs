//! The cases of [`RegistryStore`](crate::RegistryStore).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{Options, RegistrySubject, deadline};
use crate::{
    Applied, Call, Cause, Change, Epoch, Error, Identity, Mode, Owner, Position, Put, Record, Register,
    Registered, RegistryCapability, Renew, RequestId, Result, Revision, Scan, Scope, SessionId, Ttl,
    Unregister, Written, capability::Survives,
};

pub(super) type Open = dyn Fn(String, Options) -> BoxFuture<'static, RegistrySubject> + Send + Sync;

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) applies: fn(&RegistryCapability) -> bool,
    pub(super) run: fn(Arc<Open>, String) -> BoxFuture<'static, ()>,
}

macro_rules! cases {
    ($($name:ident $(if $applies:expr)?,)*) => {
        pub(super) const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            applies: cases!(@applies $($applies)?),
            run: |open, namespace| Box::pin($name(Fixture { open, namespace })),
        },)*];
    };
    (@applies) => { |_| true };
    (@applies $applies:expr) => { $applies };
}

cases! {
    register_assigns_dense_revisions,
    register_create_refuses_existing,
    register_replace_makes_a_new_generation,
    register_same_session_renews_or_updates,
    register_over_a_due_record_expires_it_first,
    register_quota_is_exact,
    register_quota_ignores_the_due,
    register_replay_returns_the_first_result,
    put_checks_revision_and_generation,
    put_never_creates,
    put_replay_returns_the_first_result,
    renew_never_creates,
    renew_moves_only_the_lease,
    renew_is_fenced,
    unregister_is_idempotent,
    unregister_is_fenced,
    get_reads_the_last_write,
    get_never_serves_the_due,
    leases_follow_renewals,
    sync_returns_dense_history,
    sync_expires_what_is_due,
    sync_says_compacted,
    calls_refuse_another_epoch,
    scan_finds_everything,
    claims_are_ordered,
    claims_need_the_registration,
    openings_share_one_history if |capability| capability.scope == Scope::Shared,
    records_outlive_the_runner if |capability| capability.survives >= Survives::RunnerRestart,
}

const TTL: Duration = Duration::from_millis(200);
const PAST_TTL: Duration = Duration::from_millis(260);

struct Fixture {
    open: Arc<Open>,
    namespace: String,
}

impl Fixture {
    async fn open(&self) -> Subject {
        self.open_with(Options::default()).await
    }

    async fn open_with(&self, options: Options) -> Subject {
        Subject((self.open)(self.namespace.clone(), options).await)
    }
}

/// The slot with short ways to say common things.
#[derive(Clone)]
struct Subject(RegistrySubject);

impl Subject {
    async fn register(&self, request: Register) -> Result<Registered> {
        let mut results = self.0.store.register(call(), vec![request]).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    async fn put(&self, put: Put) -> Result<Arc<Record>> {
        self.0.store.put(call(), put).await
    }

    async fn renew(&self, name: &str, generation: Option<Position>) -> Result<crate::Renewed> {
        let request = Renew {
            identity: identity(name),
            generation,
        };
        self.0.store.renew(call(), vec![request]).await.remove(0)
    }

    async fn unregister(&self, name: &str, generation: Option<Position>) -> Result<crate::Unregistered> {
        let request = Unregister {
            identity: identity(name),
            generation,
        };
        self.0.store.unregister(call(), request).await
    }

    async fn get(&self, name: &str) -> Option<Arc<Record>> {
        self.0.store.get(call(), identity(name)).await.unwrap().record
    }

    async fn history(&self, from: Revision) -> Vec<Change> {
        let (mut changes, mut last) = (Vec::new(), from);
        loop {
            let sync = self.0.store.sync(call(), last, 3).await.unwrap();
            last = sync.changes.last().map_or(last, |change| change.revision);
            changes.extend(sync.changes);
            if !sync.more {
                assert_eq!(
                    last, sync.head.revision,
                    "a sync that is complete ends at its head"
                );
                return changes;
            }
        }
    }

    async fn head(&self) -> Position {
        self.0.store.get(call(), identity("nobody")).await.unwrap().head
    }

    async fn pass(&self, by: Duration) {
        (self.0.pass)(by).await;
    }
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: deadline(),
    }
}

fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn session(number: u8) -> Owner {
    Owner {
        principal: "".into(),
        session: Some(SessionId([number; 16])),
    }
}

fn request(name: &str) -> Register {
    Register {
        identity: identity(name),
        metadata: Bytes::from_static(br#"{"status":"online"}"#),
        ttl: None,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 1_000,
        request: RequestId::next(),
    }
}

fn leased(name: &str) -> Register {
    Register {
        ttl: Ttl::from_millis(TTL.as_millis() as u64),
        ..request(name)
    }
}

fn put(name: &str, if_revision: Revision) -> Put {
    Put {
        identity: identity(name),
        metadata: Bytes::from_static(br#"{"status":"away"}"#),
        if_revision,
        generation: None,
        request: RequestId::next(),
    }
}

fn causes(changes: &[Change]) -> Vec<(u64, Cause, &str)> {
    changes
        .iter()
        .map(|change| (change.revision.0, change.cause, change.record.identity.as_str()))
        .collect()
}

async fn register_assigns_dense_revisions(fixture: Fixture) {
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

async fn register_create_refuses_existing(fixture: Fixture) {
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
        for other in [Owner::default(), session(2)] {
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

async fn register_replace_makes_a_new_generation(fixture: Fixture) {
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

async fn register_same_session_renews_or_updates(fixture: Fixture) {
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
        metadata,
        ..again()
    };
    assert_eq!(
        subject.register(replaced).await.unwrap().written,
        Written::Renewed
    );
    let longer = Register {
        ttl: Ttl::from_millis(90_000),
        ..again()
    };
    assert_eq!(
        subject.register(longer).await.unwrap().written,
        Written::Updated,
        "another ttl is a change"
    );
    assert_eq!(subject.head().await.revision, Revision(3));
}

async fn register_over_a_due_record_expires_it_first(fixture: Fixture) {
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
            ..leased("a")
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

async fn register_quota_is_exact(fixture: Fixture) {
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

async fn register_quota_ignores_the_due(fixture: Fixture) {
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

async fn register_replay_returns_the_first_result(fixture: Fixture) {
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

async fn put_checks_revision_and_generation(fixture: Fixture) {
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
        moved < 50,
        "a put leaves the lease alone, this one moved it by {moved} ms"
    );
}

async fn put_never_creates(fixture: Fixture) {
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

async fn put_replay_returns_the_first_result(fixture: Fixture) {
    let subject = fixture.open().await;
    let registered = subject.register(request("a")).await.unwrap();
    let write = put("a", registered.position.revision);
    let first = subject.put(write.clone()).await.unwrap();
    assert_eq!(subject.put(write).await, Ok(first));
    assert_eq!(subject.head().await.revision, Revision(2));
}

async fn renew_never_creates(fixture: Fixture) {
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

async fn renew_moves_only_the_lease(fixture: Fixture) {
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

async fn renew_is_fenced(fixture: Fixture) {
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

async fn unregister_is_idempotent(fixture: Fixture) {
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

async fn unregister_is_fenced(fixture: Fixture) {
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

async fn get_reads_the_last_write(fixture: Fixture) {
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
    assert!(drift.abs() < 50, "{drift} ms between two reads of one lease");
    let lasts = record.expires_at.unwrap().0 - record.registered_at.0;
    assert!(
        (lasts - TTL.as_millis() as i64).abs() < 50,
        "the lease lasts {lasts} ms"
    );
}

async fn get_never_serves_the_due(fixture: Fixture) {
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

async fn leases_follow_renewals(fixture: Fixture) {
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

async fn sync_returns_dense_history(fixture: Fixture) {
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
}

async fn sync_expires_what_is_due(fixture: Fixture) {
    let subject = fixture.open().await;
    for number in 0..10 {
        subject.register(leased(&format!("id-{number}"))).await.unwrap();
    }
    subject.pass(TTL / 2).await;
    subject.renew("id-7", None).await.unwrap();
    subject.pass(PAST_TTL - TTL / 2).await;
    let history = subject.history(Revision(10)).await;
    assert_eq!(history.len(), 9);
    assert!(history.iter().all(|change| change.cause == Cause::Expired));
    assert!(
        history
            .iter()
            .all(|change| change.record.identity.as_str() != "id-7")
    );
}

async fn sync_says_compacted(fixture: Fixture) {
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

async fn calls_refuse_another_epoch(fixture: Fixture) {
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

async fn scan_finds_everything(fixture: Fixture) {
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

async fn claims_are_ordered(fixture: Fixture) {
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

async fn claims_need_the_registration(fixture: Fixture) {
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
async fn openings_share_one_history(fixture: Fixture) {
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
async fn records_outlive_the_runner(fixture: Fixture) {
    let first = fixture.open().await;
    let registered = first.register(request("a")).await.unwrap();
    first.0.store.close().await;
    let second = fixture.open().await;
    assert_eq!(second.get("a").await.unwrap().generation, registered.generation);
    assert_eq!(second.head().await, registered.position);
}
