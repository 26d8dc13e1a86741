//! What holds when the backend, or the way to it, fails.

use std::collections::BTreeMap;

use super::*;
use crate::{
    Applied,
    conformance::{
        Fault,
        fault::{Cuts, eventually, in_time, soon, unavailable},
        work::{Say, until_known},
    },
};

/// How often the backend is killed.
const KILLS: u64 = 6;
/// How many entries are written one after the other, at the same time.
const WRITERS: u64 = 4;
/// How many writes a batch has that is cut, and how many batches there are.
const BATCH: usize = 300;
const ROUNDS: usize = 8;

impl Scene<Open> {
    async fn open(&self) -> Subject {
        Subject((self.stage.open)(self.namespace.clone()).await)
    }

    /// Past the way that faults befall.
    async fn beside(&self) -> Subject {
        Subject((self.stage.beside)(self.namespace.clone()).await)
    }
}

impl Subject {
    /// Waits until it answers again.
    async fn recovers(&self) {
        let nobody = || self.ledger().read(vec!["nobody".to_owned()], deadline());
        eventually("the ledger works again", || async { nobody().await.ok() }).await;
    }

    /// Repeats a write that nobody else makes until it is known to be done, as its own conflict tells; the version.
    async fn written(&self, write: &Write) -> u64 {
        until_known(|| async {
            match self.write(write.clone()).await {
                Ok(Wrote::Done(version)) => Some(version),
                Ok(Wrote::Conflict(Some(entry))) if Some(&entry.body) == write.body.as_ref() => {
                    Some(entry.version)
                }
                Err(error) => {
                    unavailable(&error);
                    None
                }
                other => panic!("{other:?} of {write:?}"),
            }
        })
        .await
    }

    /// The text of each entry, in the order of the keys.
    async fn texts(&self, keys: &[String]) -> Vec<Option<String>> {
        let entries = self.ledger().read(keys.to_vec(), deadline()).await.unwrap();
        let text = |entry: Entry| String::from_utf8(entry.body.to_vec()).unwrap();
        entries.into_iter().map(|entry| entry.map(text)).collect()
    }
}

pub(super) async fn calls_end_in_the_dark(scene: Scene<Open>) {
    every_call_ends(scene, Fault::BlackHole).await;
}

pub(super) async fn calls_end_while_the_backend_stands_still(scene: Scene<Open>) {
    every_call_ends(scene, Fault::Frozen).await;
}

async fn every_call_ends(scene: Scene<Open>, fault: Fault) {
    let subject = scene.open().await;
    let before = subject.put("a", "before").await;
    let (create, change) = (
        write("b", "b", Expect::Absent),
        write("a", "after", Expect::Version(before)),
    );
    scene.begin(fault).await;
    let ledger = subject.ledger();
    let backend = ledger.capability().backend;
    let (read, list, written) = in_time(async {
        tokio::join!(
            ledger.read(vec!["a".to_owned()], soon()),
            ledger.list(String::new(), None, 10, soon()),
            ledger.write(vec![create.clone(), change.clone()], soon()),
        )
    })
    .await;
    for error in [read.map(drop), list.map(drop)].map(Result::unwrap_err) {
        assert_eq!(unavailable(&error), backend);
        assert_eq!(error.applied(), Applied::No, "a read: {error:?}");
    }
    let errors: Vec<Error> = written.into_iter().map(Result::unwrap_err).collect();
    assert!(
        errors.iter().all(|error| unavailable(error) == backend),
        "{errors:?}"
    );
    scene.end(fault).await;
    subject.recovers().await;
    assert!(errors[0].applied() == Applied::Unknown || subject.get("b").await.is_none());
    assert!(errors[1].applied() == Applied::Unknown || subject.get("a").await.unwrap().version == before);
    let (created, changed) = (subject.written(&create).await, subject.written(&change).await);
    assert_eq!(subject.get("b").await.unwrap().version, created);
    assert_eq!(subject.get("a").await.unwrap().version, changed);
    assert_eq!(subject.text("a").await.as_deref(), Some("after"));
}

pub(super) async fn what_lost_answers_said_is_read(scene: Scene<Open>) {
    let (subject, beside) = (scene.open().await, scene.beside().await);
    let create = write("a", "x", Expect::Absent);
    scene.begin(Fault::LostReplies).await;
    let lost = in_time(subject.ledger().write(vec![create.clone()], soon()))
        .await
        .remove(0);
    assert_eq!(lost.unwrap_err().applied(), Applied::Unknown);
    let entry = eventually("it is there", || beside.get("a")).await;
    scene.end(Fault::LostReplies).await;
    subject.recovers().await;
    assert_eq!(subject.get("a").await.as_ref(), Some(&entry));
    assert_eq!(subject.write(create).await, Ok(Wrote::Conflict(Some(entry))));
}

pub(super) async fn a_batch_that_is_cut_is_told_one_by_one(scene: Scene<Open>) {
    let (subject, beside) = (scene.open().await, scene.beside().await);
    let mut cuts = Cuts::new(&scene);
    let mut unknown = 0;
    for round in 0..ROUNDS {
        let keys: Vec<String> = (0..BATCH).map(|number| format!("{round}/{number}")).collect();
        let batch: Vec<Write> = keys.iter().map(|key| write(key, key, Expect::Absent)).collect();
        let call = subject.ledger().write(batch.clone(), deadline());
        let told = cuts.within(call).await;
        assert_eq!(told.len(), BATCH);
        let there = beside.texts(&keys).await;
        for ((key, told), there) in keys.iter().zip(&told).zip(there) {
            match told {
                Ok(Wrote::Done(_)) => assert_eq!(there.as_ref(), Some(key)),
                Ok(conflict) => panic!("{conflict:?} with nobody else there"),
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
        for (write, told) in batch.iter().zip(&told).filter(|(_, told)| told.is_err()) {
            assert!(subject.written(write).await > 0, "{told:?}");
        }
        assert!(
            beside
                .texts(&keys)
                .await
                .iter()
                .eq(keys.iter().cloned().map(Some).collect::<Vec<_>>().iter())
        );
    }
    assert!(unknown > 0, "nothing was cut");
}

/// Writes each of some entries again and again; says what it was told.
pub(in super::super) fn work(subject: LedgerSubject, session: u64, say: Say) -> BoxFuture<'static, ()> {
    let writers = (0..WRITERS).map(move |writer| {
        keep(
            Subject(subject.clone()),
            format!("{session}/{writer}"),
            say.clone(),
        )
    });
    Box::pin(async { drop(join_all(writers).await) })
}

async fn keep(subject: Subject, key: String, say: Say) {
    let mut expect = Expect::Absent;
    for number in 0.. {
        say(format!("writing {key} {number}"));
        let version = subject.written(&write(&key, &number.to_string(), expect)).await;
        say(format!("wrote {key} {number}"));
        expect = Expect::Version(version);
    }
}

pub(super) async fn acknowledged_entries_outlive_a_restart(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Restarted, 2).await;
}

pub(super) async fn acknowledged_entries_outlive_kills(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Killed, KILLS).await;
}

async fn what_was_told_holds(scene: Scene<Open>, fault: Fault, rounds: u64) {
    let (mut writing, mut wrote) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..rounds {
        let opening = async { scene.open().await.0 };
        for line in scene.work_through(fault, round, opening, work).await {
            let (to, entry) = match line.split_once(' ').unwrap() {
                ("writing", entry) => (&mut writing, entry),
                ("wrote", entry) => (&mut wrote, entry),
                _ => panic!("{line}"),
            };
            let (key, text) = entry.split_once(' ').unwrap();
            to.insert(key.to_owned(), text.to_owned());
        }
        let keys: Vec<String> = wrote.keys().cloned().collect();
        for (key, there) in keys.iter().zip(scene.beside().await.texts(&keys).await) {
            assert!(
                [Some(&wrote[key]), Some(&writing[key])].contains(&there.as_ref()),
                "{key}: {there:?}"
            );
        }
    }
    let writes: u64 = wrote.values().map(|text| text.parse::<u64>().unwrap()).sum();
    assert!(writes > 20, "hardly anything was done");
}

pub(super) async fn lost_versions_are_not_given_again(scene: Scene<Open>) {
    let subject = scene.open().await;
    let (one, other) = (subject.put("a", "before").await, subject.put("a", "before").await);
    scene.befall(Fault::Emptied).await;
    subject.recovers().await;
    assert_eq!(subject.get("a").await, None, "nothing that is gone is read");
    for text in ["after", "later"] {
        let version = subject.written(&write("a", text, Expect::Anything)).await;
        assert!(![one, other].contains(&version));
        for stale in [one, other] {
            let refused = subject.write(write("a", "stale", Expect::Version(stale))).await;
            assert!(matches!(refused, Ok(Wrote::Conflict(Some(_)))), "{refused:?}");
        }
    }
}

pub(super) async fn a_full_disk_refuses_and_loses_nothing(scene: Scene<Open>) {
    let subject = scene.open().await;
    let mut kept: Vec<String> = (0..20).map(|number| format!("small/{number}")).collect();
    for key in &kept {
        subject.put(key, key).await;
    }
    let large = |key: &str| write(key, &format!("{key:_<60000}"), Expect::Absent);
    scene.begin(Fault::DiskFull).await;
    let (mut refused, mut tries) = (Vec::new(), 0);
    while refused.len() < 5 {
        let key = format!("large/{tries}");
        match subject.write(large(&key)).await {
            Ok(Wrote::Done(_)) => kept.push(key),
            Err(Error::Unavailable { applied, .. }) => {
                assert_eq!(applied, Applied::No);
                refused.push(key);
            }
            other => panic!("{other:?}"),
        }
        tries += 1;
        assert!(tries < 200, "there is no end to its room");
    }
    assert_eq!(
        subject.text("small/0").await.as_deref(),
        Some("small/0"),
        "it is read as before"
    );
    assert!(subject.texts(&refused).await.iter().all(Option::is_none));
    scene.end(Fault::DiskFull).await;
    for key in refused {
        assert!(
            matches!(subject.write(large(&key)).await, Ok(Wrote::Done(_))),
            "there is room again"
        );
        kept.push(key);
    }
    let there = scene.beside().await.texts(&kept).await;
    assert!(
        kept.iter()
            .zip(there)
            .all(|(key, there)| there.is_some_and(|there| there.starts_with(key)))
    );
}
