//! What is there after the backend has ended, lost its data, or had no room.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{faults::roomy, *};
use crate::{
    Applied, Epoch, Error, Scan,
    conformance::{
        CALL_LIMIT, Fault,
        fault::known,
        work::{Say, until_known},
    },
};

/// How often the backend is killed.
const KILLS: u64 = 6;
/// How many registrations go on at a time.
const WRITERS: u64 = 4;

/// Registers, and removes some of that; says what it was told of each.
pub(in super::super) fn work(slot: RegistrySubject, session: u64, say: Say) -> BoxFuture<'static, ()> {
    let writers = (0..WRITERS)
        .map(move |writer| write(Subject(slot.clone()), format!("{session}-{writer}"), say.clone()));
    Box::pin(async { drop(futures::future::join_all(writers).await) })
}

async fn write(slot: Subject, prefix: String, say: Say) {
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        let Position { epoch, revision } = slot.registered(&[roomy(&name)]).await[0].generation;
        say(format!("registered {name} {} {}", epoch.0, revision.0));
        if number % 3 == 0 {
            say(format!("removing {name}"));
            until_known(|| async { known(slot.unregister(&name, None).await) }).await;
            say(format!("removed {name}"));
        }
    }
}

/// What was told of each name.
#[derive(Default)]
struct Told {
    /// The generation of each.
    registered: BTreeMap<String, Position>,
    removing: Vec<String>,
    removed: Vec<String>,
}

impl Told {
    fn note(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["registered", name, epoch, revision] => {
                let position = Position {
                    epoch: Epoch(epoch.parse().unwrap()),
                    revision: Revision(revision.parse().unwrap()),
                };
                self.registered.insert(name.to_owned(), position);
            }
            ["removing", name] => self.removing.push(name.to_owned()),
            ["removed", name] => self.removed.push(name.to_owned()),
            _ => panic!("{line}"),
        }
    }

    /// All that was told is so.
    async fn check(&self, slot: &Subject) {
        let there = slot.all().await;
        for (name, generation) in &self.registered {
            match there.get(name) {
                Some(record) => assert_eq!(record.generation, *generation, "{name}"),
                None => assert!(self.removing.contains(name), "{name} is lost"),
            }
        }
        for name in &self.removed {
            assert!(!there.contains_key(name), "{name} came again");
        }
        self.check_history(slot).await;
    }

    /// History has no gap, and what was told of it in its epoch stands where it was told.
    async fn check_history(&self, slot: &Subject) {
        let (from, epoch) = (slot.reaches_back_to().await, slot.head().await.epoch);
        let changes = slot.changes(from).await;
        for (name, position) in self
            .registered
            .iter()
            .filter(|(_, position)| position.epoch == epoch)
        {
            let Some(place) = position.revision.0.checked_sub(from.0 + 1) else {
                continue;
            };
            let change = &changes[place as usize];
            assert_eq!(
                (change.cause, change.record.identity.as_str()),
                (Cause::Registered, name.as_str())
            );
        }
    }
}

impl Subject {
    /// All records, by their names.
    async fn all(&self) -> BTreeMap<String, Arc<Record>> {
        let (mut all, mut cursor) = (BTreeMap::new(), None);
        loop {
            let scan = Scan {
                cursor,
                limit: 1_000,
                hold: Duration::ZERO,
            };
            let page = self.0.store.scan(call(), scan).await.unwrap();
            all.extend(
                page.records
                    .into_iter()
                    .map(|record| (record.identity.to_string(), record)),
            );
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// The earliest revision after which everything is kept.
    async fn reaches_back_to(&self) -> Revision {
        match self.0.store.sync(call(), Revision::ZERO, 1).await {
            Ok(_) => Revision::ZERO,
            Err(Error::Compacted { up_to }) => up_to,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// All changes after that one, of which none may be missing.
    pub(super) async fn changes(&self, from: Revision) -> Vec<Change> {
        let (mut changes, mut last) = (Vec::<Change>::new(), from);
        loop {
            let sync = self.0.store.sync(call(), last, 1_000).await.unwrap();
            for change in sync.changes {
                assert_eq!(change.revision, last.next());
                last = change.revision;
                changes.push(change);
            }
            if !sync.more {
                assert_eq!(last, sync.head.revision);
                return changes;
            }
        }
    }
}

pub(super) async fn acknowledged_records_outlive_a_restart(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Restarted, 2).await;
}

pub(super) async fn acknowledged_records_outlive_kills(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Killed, KILLS).await;
}

async fn what_was_told_holds(scene: Scene<Open>, fault: Fault, rounds: u64) {
    let (mut told, mut epochs, mut is_kept) = (Told::default(), BTreeSet::new(), false);
    for round in 0..rounds {
        let opening = async { scene.open().await.0 };
        let lines = scene.work_through(fault, round, opening, work).await;
        lines.iter().for_each(|line| told.note(line));
        let slot = scene.beside().await;
        told.check(&slot).await;
        epochs.insert(slot.head().await.epoch.0);
        is_kept = slot.0.store.capability().survives == Survives::BackendRestart;
    }
    assert!(
        !is_kept || epochs.len() == 1,
        "nothing was lost, so the epoch stays"
    );
    assert!(
        told.registered.len() > 20 && !told.removed.is_empty(),
        "hardly anything was done"
    );
}

/// What a view does that follows the feed: it goes on, or is told to begin anew.
pub(super) async fn a_feed_goes_on_or_says_that_it_cannot(scene: Scene<Open>) {
    let slot = scene.open().await;
    let seen = slot.register(request("before")).await.unwrap().position;
    let waiting = slot.clone();
    let waiting = tokio::spawn(async move { waiting.0.store.changed(call(), seen.revision).await });
    scene.befall(Fault::Restarted).await;
    slot.recovers().await;
    slot.registered(&[request("after")]).await;
    let woken = tokio::time::timeout(CALL_LIMIT * 2, waiting).await;
    drop(woken.expect("it ends by its deadline").unwrap());

    let within = Call {
        epoch: Some(seen.epoch),
        ..call()
    };
    match slot.0.store.sync(within, seen.revision, 10).await {
        Ok(sync) => assert_eq!(causes(&sync.changes), [(2, Cause::Registered, "after")]),
        Err(Error::EpochChanged { current }) => assert_ne!(current, seen.epoch),
        Err(Error::Compacted { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    // From here on changes are told as before, once what waits for them is connected again.
    let head = slot.head().await;
    let patient = Call {
        deadline: deadline() + CALL_LIMIT,
        ..call()
    };
    let (next, begun) = ([request("next")], Instant::now());
    let told = until_known(|| async { known(slot.0.store.changed(patient, head.revision).await) });
    tokio::join!(told, slot.registered(&next));
    assert!(begun.elapsed() < CALL_LIMIT, "it was not told");
    assert_eq!(
        causes(&slot.changes(head.revision).await),
        [(head.revision.0 + 1, Cause::Registered, "next")]
    );
}

pub(super) async fn a_lost_history_is_another_epoch(scene: Scene<Open>) {
    let slot = scene.open().await;
    let before = slot.register(leased("a")).await.unwrap();
    let claim = slot
        .0
        .store
        .claim_session(call(), identity("a"), None)
        .await
        .unwrap();
    scene.befall(Fault::Emptied).await;
    slot.recovers().await;
    let within = Call {
        epoch: Some(before.position.epoch),
        ..call()
    };
    let refused = [
        slot.0
            .store
            .sync(within, before.position.revision, 10)
            .await
            .err(),
        slot.0.store.get(within, identity("a")).await.err(),
        slot.0
            .store
            .register(within, vec![request("b")])
            .await
            .remove(0)
            .err(),
        slot.0
            .store
            .claim_session(within, identity("a"), None)
            .await
            .err(),
    ];
    for refused in refused {
        let Some(Error::EpochChanged { current }) = refused else {
            panic!("{refused:?}")
        };
        assert_ne!(current, before.position.epoch);
    }
    assert_eq!(slot.get("a").await, None, "nothing that is gone is served");
    assert_eq!(slot.renew("a", None).await, Err(Error::NotFound(identity("a"))));
    let after = slot.register(request("a")).await.unwrap();
    assert_ne!(after.generation, before.generation);
    let stale = slot.renew("a", Some(claim.generation)).await;
    assert!(matches!(stale, Err(Error::StaleGeneration { .. })), "{stale:?}");
    assert_eq!(slot.changes(Revision::ZERO).await.len(), 1);
}

pub(super) async fn a_full_disk_refuses_and_loses_nothing(scene: Scene<Open>) {
    let slot = scene.open().await;
    let mut kept: Vec<Register> = (0..20)
        .map(|number| request(&format!("small-{number}")))
        .collect();
    slot.registered(&kept).await;
    scene.begin(Fault::DiskFull).await;
    let mut refused = Vec::new();
    for number in 0..200 {
        let large = Register {
            metadata: vec![b'x'; 60_000].into(),
            ..request(&format!("large-{number}"))
        };
        match slot.register(large.clone()).await {
            Ok(_) => kept.push(large),
            Err(Error::Unavailable { applied, .. }) => {
                assert_eq!(applied, Applied::No);
                refused.push(large);
            }
            Err(other) => panic!("{other:?}"),
        }
        if refused.len() == 5 {
            break;
        }
    }
    assert_eq!(refused.len(), 5, "there is no end to its room");
    assert!(slot.get("small-0").await.is_some(), "it is read as before");
    assert_eq!(
        slot.all().await.len(),
        kept.len(),
        "nothing of what was refused is there"
    );
    assert_eq!(slot.changes(Revision::ZERO).await.len(), kept.len());
    scene.end(Fault::DiskFull).await;
    for large in refused {
        slot.register(large.clone()).await.unwrap();
        kept.push(large);
    }
    for slot in [slot, scene.beside().await] {
        let there = slot.all().await;
        assert!(
            kept.iter()
                .all(|request| there[request.identity.as_str()].metadata == request.metadata)
        );
        assert_eq!(slot.changes(Revision::ZERO).await.len(), kept.len());
    }
}
