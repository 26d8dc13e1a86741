//! What holds while the backend, or the way to it, does not answer.

use tokio::time::sleep;

use super::*;
use crate::{
    Applied, Error, Scan, Written,
    conformance::{
        Fault,
        fault::{Cuts, eventually, in_time, known, soon, unavailable},
        work::{PAUSE, until_known},
    },
};

/// How many registrations a batch has that is cut, and how many batches there are.
const BATCH: usize = 300;
const ROUNDS: usize = 8;

impl Scene<Open> {
    pub(super) async fn open(&self) -> Subject {
        Subject((self.stage.open)(self.namespace.clone(), Options::default()).await)
    }

    /// Past the way that faults befall.
    pub(super) async fn beside(&self) -> Subject {
        Subject((self.stage.beside)(self.namespace.clone(), Options::default()).await)
    }
}

impl Subject {
    /// Waits until it answers again.
    pub(super) async fn recovers(&self) {
        eventually("the slot works again", || async {
            self.0.store.get(call(), identity("nobody")).await.ok()
        })
        .await;
    }

    /// Repeats registrations until each is known to be done.
    pub(super) async fn registered(&self, batch: &[Register]) -> Vec<Registered> {
        let mut done = vec![None; batch.len()];
        loop {
            let open: Vec<usize> = (0..batch.len()).filter(|place| done[*place].is_none()).collect();
            let again = open.iter().map(|place| batch[*place].clone()).collect();
            for (place, result) in open.iter().zip(self.0.store.register(call(), again).await) {
                done[*place] = known(result);
            }
            if let Some(all) = done.iter().copied().collect() {
                return all;
            }
            sleep(PAUSE).await;
        }
    }
}

fn shortly() -> Call {
    Call {
        epoch: None,
        deadline: soon(),
    }
}

pub(super) async fn calls_end_in_the_dark(scene: Scene<Open>) {
    every_call_ends(scene, Fault::BlackHole).await;
}

pub(super) async fn calls_end_while_the_backend_stands_still(scene: Scene<Open>) {
    every_call_ends(scene, Fault::Frozen).await;
}

async fn every_call_ends(scene: Scene<Open>, fault: Fault) {
    let slot = scene.open().await;
    let changed = slot.register(request("changed")).await.unwrap();
    slot.register(request("removed")).await.unwrap();
    let (create, change) = (request("created"), put("changed", changed.position.revision));
    let backend = slot.0.store.capability().backend;
    scene.begin(fault).await;
    let reads = reads(&slot);
    let (reads, writes) = in_time(async { tokio::join!(reads, writes(&slot, &create, &change)) }).await;
    for error in reads {
        assert_eq!(unavailable(&error), backend);
        assert_eq!(error.applied(), Applied::No, "a read: {error:?}");
    }
    assert!(writes.iter().all(|error| unavailable(error) == backend));
    scene.end(fault).await;
    slot.recovers().await;

    let is_untouched = |error: &Error| error.applied() == Applied::No;
    assert!(!is_untouched(&writes[0]) || slot.get("created").await.is_none());
    assert!(!is_untouched(&writes[1]) || slot.get("changed").await.unwrap().revision == change.if_revision);
    assert!(!is_untouched(&writes[2]) || slot.get("removed").await.is_some());
    // Repeated, each of them is there once.
    let created = slot.registered(&[create]).await;
    assert_eq!(created[0].written, Written::Registered);
    let record = until_known(|| async { known(slot.put(change.clone()).await) });
    assert_eq!(record.await.metadata, change.metadata);
    until_known(|| async { known(slot.unregister("removed", None).await) }).await;
    let history = slot.history(Revision::ZERO).await;
    let mut happened: Vec<_> = causes(&history)[2..]
        .iter()
        .map(|(_, cause, name)| (*name, *cause))
        .collect();
    happened.sort_unstable_by_key(|(name, _)| *name);
    let once = [
        ("changed", Cause::Updated),
        ("created", Cause::Registered),
        ("removed", Cause::Unregistered),
    ];
    assert_eq!(happened, once);
}

/// What every kind of read says that is not answered.
async fn reads(slot: &Subject) -> Vec<Error> {
    let (store, call) = (&slot.0.store, shortly());
    let scan = Scan {
        cursor: None,
        limit: 10,
        hold: Duration::ZERO,
    };
    let answers = tokio::join!(
        async { store.get(call, identity("changed")).await.map(drop) },
        async { store.leases(call, vec![identity("changed")]).await.map(drop) },
        async { store.sync(call, Revision::ZERO, 10).await.map(drop) },
        async { store.scan(call, scan).await.map(drop) },
        store.probe(call.deadline),
        store.changed(call, Revision(1_000)),
    );
    // To wait in vain is how the last of them ends.
    let _ = answers.5;
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4];
    answers
        .map(|answer| answer.expect_err("nothing answers"))
        .to_vec()
}

/// The same of writes: of one that registers, one that changes, one that removes, and of those that can be made again.
async fn writes(slot: &Subject, create: &Register, change: &Put) -> Vec<Error> {
    let (store, call) = (&slot.0.store, shortly());
    let remove = Unregister {
        identity: identity("removed"),
        generation: None,
    };
    let renew = Renew {
        identity: identity("changed"),
        generation: None,
    };
    let answers = tokio::join!(
        async {
            store
                .register(call, vec![create.clone()])
                .await
                .remove(0)
                .map(drop)
        },
        async { store.put(call, change.clone()).await.map(drop) },
        async { store.unregister(call, remove).await.map(drop) },
        async { store.renew(call, vec![renew]).await.remove(0).map(drop) },
        async {
            store
                .claim_session(call, identity("changed"), None)
                .await
                .map(drop)
        },
    );
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4];
    answers
        .map(|answer| answer.expect_err("nothing answers"))
        .to_vec()
}

pub(super) async fn lost_answers_are_given_again(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let create = request("a");
    scene.begin(Fault::LostReplies).await;
    let lost = in_time(slot.0.store.register(shortly(), vec![create.clone()]))
        .await
        .remove(0);
    assert_eq!(lost.unwrap_err().applied(), Applied::Unknown);
    let created = eventually("it is there", || beside.get("a")).await;
    scene.end(Fault::LostReplies).await;
    let again = slot.registered(&[create]).await.remove(0);
    assert_eq!(
        (again.written, again.generation),
        (Written::Registered, created.generation)
    );

    // Whose connections are all up.
    let slot = scene.open().await;
    let change = put("a", created.revision);
    scene.begin(Fault::LostReplies).await;
    let lost = in_time(slot.0.store.put(shortly(), change.clone())).await;
    assert_eq!(lost.unwrap_err().applied(), Applied::Unknown);
    let was_changed = || async {
        beside
            .get("a")
            .await
            .filter(|record| record.revision > created.revision)
    };
    let changed = eventually("it is changed", was_changed).await;
    scene.end(Fault::LostReplies).await;
    let again = until_known(|| async { known(slot.put(change.clone()).await) });
    assert_eq!(again.await, changed);
    assert_eq!(beside.head().await.revision, Revision(2), "each was done once");
}

pub(super) async fn a_batch_that_is_cut_is_told_one_by_one(scene: Scene<Open>) {
    let (slot, beside) = (scene.open().await, scene.beside().await);
    let mut cuts = Cuts::new(&scene);
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let batch: Vec<Register> = (0..BATCH)
            .map(|number| roomy(&format!("{round}-{number}")))
            .collect();
        let told = cuts.within(slot.0.store.register(call(), batch.clone())).await;
        assert_eq!(told.len(), BATCH);
        for (request, told) in batch.iter().zip(&told) {
            let there = beside.get(request.identity.as_str()).await;
            match told {
                Ok(told) => assert_eq!(there.unwrap().generation, told.generation),
                Err(error) => {
                    unavailable(error);
                    unknown += usize::from(error.applied() == Applied::Unknown);
                    assert!(
                        error.applied() == Applied::Unknown || there.is_none(),
                        "{error:?}"
                    );
                }
            }
        }
        for (first, again) in told.iter().zip(slot.registered(&batch).await) {
            assert_eq!(again.written, Written::Registered);
            assert!(
                first.as_ref().map_or(true, |first| *first == again),
                "{first:?}, then {again:?}"
            );
        }
    }
    assert!(unknown > 0, "nothing was cut");
    let changes = slot.changes(Revision::ZERO).await;
    assert_eq!(changes.len(), ROUNDS * BATCH, "each was done once");
}

/// One of more than the other cases have.
pub(super) fn roomy(name: &str) -> Register {
    Register {
        max_identities: 1_000_000,
        ..request(name)
    }
}
