//! What is there after the backend has ended, lost its data, or had no room.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use tokio::time::sleep;

use super::{faults::everything, *};
use crate::conformance::{
    Fault,
    fault::known,
    work::{PAUSE, Say, until_known},
};

/// How often the backend is killed.
const KILLS: u64 = 6;
/// Inboxes that are stored to and emptied at the same time, and one that is only stored to.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KEPT: &str = "kept";
/// How long a call may take.
const BRIEF: Duration = Duration::from_millis(700);

/// Stores, hands out and acknowledges; says what it was told of each message.
pub(in super::super) fn work(slot: InboxSubject, session: u64, say: Say) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let slot = Subject(slot);
        let consumers = NAMES.map(|name| consume(&slot, name, 2 * session + 1, &say));
        tokio::join!(
            store(&slot, &say),
            store(&slot, &say),
            keep(&slot, &say),
            join_all(consumers)
        );
    })
}

async fn store(slot: &Subject, say: &Say) {
    let to = NAMES.map(address);
    loop {
        let sent = message(&"x".repeat(300));
        let outcomes = slot
            .slot()
            .enqueue(&to, sent.clone(), terms(), Instant::now() + BRIEF)
            .await;
        for (name, outcome) in NAMES.iter().zip(&outcomes) {
            match outcome {
                Enqueued::Stored { .. } => say(format!("stored {name} {}", sent.multicast)),
                Enqueued::NotStored(_) => say(format!("refused {name} {}", sent.multicast)),
                Enqueued::Unknown(_) => {}
                other => panic!("{other:?} of a message that was not stored before"),
            }
        }
        if !matches!(outcomes[0], Enqueued::Stored { .. }) {
            sleep(PAUSE).await;
        }
    }
}

/// Stores until each message is known to be there.
async fn keep(slot: &Subject, say: &Say) {
    loop {
        let sent = message("kept");
        slot.stored(&[KEPT], &sent).await;
        say(format!("stored {KEPT} {}", sent.multicast));
    }
}

async fn consume(slot: &Subject, name: &str, session_seq: u64, say: &Say) {
    let consumer = consumer(name, session_seq);
    let few = Fetch {
        max_messages: 6,
        ack_timeout: Duration::from_millis(50),
        ..everything()
    };
    loop {
        let fetched = match slot.slot().fetch(&consumer, few, Instant::now() + BRIEF).await {
            Ok(fetched) => fetched.deliveries,
            Err(Error::Fenced(_)) => {
                let _ = slot.slot().open(&consumer, Instant::now() + BRIEF).await;
                continue;
            }
            Err(_) => Vec::new(),
        };
        if fetched.is_empty() {
            sleep(PAUSE).await;
        }
        for delivery in &fetched {
            say(format!(
                "attempt {name} {} {}",
                delivery.message.multicast, delivery.attempt
            ));
        }
        for delivery in fetched.iter().step_by(3) {
            let multicast = delivery.message.multicast;
            say(format!("acking {name} {multicast}"));
            let verdict = vec![(multicast, Verdict::Ack)];
            let settled = slot
                .slot()
                .settle(&consumer, verdict, Instant::now() + BRIEF)
                .await;
            if settled.as_deref() == Ok(&[Settled::Done]) {
                say(format!("acked {name} {multicast}"));
            }
        }
    }
}

/// What was told of each message for each inbox.
#[derive(Default)]
struct Told {
    stored: BTreeSet<(String, u128)>,
    refused: BTreeSet<(String, u128)>,
    acking: BTreeSet<(String, u128)>,
    acked: BTreeSet<(String, u128)>,
    attempts: BTreeMap<(String, u128), u32>,
}

impl Told {
    fn note(&mut self, line: &str) {
        let letter = |name: &str, id: &str| (name.to_owned(), id.parse::<MulticastId>().unwrap().0);
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["stored", name, id] => drop(self.stored.insert(letter(name, id))),
            ["refused", name, id] => drop(self.refused.insert(letter(name, id))),
            ["acking", name, id] => drop(self.acking.insert(letter(name, id))),
            ["acked", name, id] => drop(self.acked.insert(letter(name, id))),
            ["attempt", name, id, attempt] => self.handed(letter(name, id), attempt.parse().unwrap()),
            _ => panic!("{line}"),
        }
    }

    fn handed(&mut self, letter: (String, u128), attempt: u32) {
        assert!(!self.acked.contains(&letter), "{letter:x?} came again");
        assert!(
            !self.refused.contains(&letter),
            "{letter:x?} was said not to be stored"
        );
        let before = self.attempts.insert(letter.clone(), attempt);
        assert!(
            before < Some(attempt),
            "{letter:x?}: attempt {attempt} after {before:?}"
        );
    }

    /// All that was told is so. Sessions of this number are later than those before.
    async fn check(&mut self, slot: &Subject, session_seq: u64) {
        let mut there = BTreeSet::new();
        for name in NAMES.into_iter().chain([KEPT]) {
            for delivery in slot.left(name, session_seq).await {
                let letter = (name.to_owned(), delivery.message.multicast.0);
                self.handed(letter.clone(), delivery.attempt);
                assert!(there.insert(letter), "it is there twice");
                if there.len() % 20 == 0 {
                    let again = slot.enqueue(&[name], &delivery.message, terms()).await;
                    assert_eq!(again, [Enqueued::Duplicate]);
                }
            }
        }
        let lost = self
            .stored
            .iter()
            .find(|letter| !there.contains(letter) && !self.acking.contains(letter));
        assert_eq!(lost, None, "it was stored");
    }
}

pub(super) async fn stored_messages_outlive_a_restart(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Restarted, 2).await;
}

pub(super) async fn stored_messages_outlive_kills(scene: Scene<Open>) {
    what_was_told_holds(scene, Fault::Killed, KILLS).await;
}

async fn what_was_told_holds(scene: Scene<Open>, fault: Fault, rounds: u64) {
    let mut told = Told::default();
    for round in 0..rounds {
        let opening = async { scene.open().await.0 };
        let lines = scene.work_through(fault, round, opening, work).await;
        lines.iter().for_each(|line| told.note(line));
        told.check(&scene.beside().await, 2 * round + 2).await;
    }
    assert!(
        told.stored.len() > 50 && told.acked.len() > 5,
        "hardly anything was done"
    );
}

pub(super) async fn lost_messages_are_stored_as_new(scene: Scene<Open>) {
    let slot = scene.open().await;
    let lost = slot.store("a", "lost").await;
    let consumer = slot.consumer("a", 5).await;
    assert_eq!(slot.texts(&consumer).await, ["lost"]);
    scene.befall(Fault::Emptied).await;
    slot.recovers().await;
    let handed = until_known(|| async {
        match slot.try_fetch(&consumer, all()).await {
            Err(Error::Fenced(_)) => Some(Vec::new()),
            answer => known(answer).map(|fetched| fetched.deliveries),
        }
    })
    .await;
    assert_eq!(handed, []);
    slot.slot().open(&consumer, deadline()).await.unwrap();
    assert_eq!(slot.fetch(&consumer).await, []);
    assert_eq!(
        slot.depth(None).await.messages,
        0,
        "nothing that is gone is counted"
    );
    assert_eq!(slot.enqueue(&["a"], &lost, terms()).await, [STORED]);
    assert_eq!(slot.texts(&consumer).await, ["lost"]);
    assert_eq!(slot.settle(&consumer, &lost, Verdict::Ack).await, Settled::Done);
}

pub(super) async fn a_full_disk_refuses_and_loses_nothing(scene: Scene<Open>) {
    let slot = scene.open().await;
    let mut kept = Vec::new();
    for number in 0..20 {
        kept.push(slot.store("a", &format!("small {number}")).await);
    }
    scene.begin(Fault::DiskFull).await;
    let (mut refused, mut tries) = (Vec::new(), 0);
    while refused.len() < 5 {
        let large = message(&"x".repeat(100_000));
        match &slot.enqueue(&["a", "b"], &large, terms()).await[..] {
            [Enqueued::Stored { .. }, Enqueued::Stored { .. }] => kept.push(large),
            [Enqueued::NotStored(_), Enqueued::NotStored(_)] => refused.push(large),
            other => panic!("{other:?}"),
        }
        tries += 1;
        assert!(tries < 200, "there is no end to its room");
    }
    let stored = async |slot: &Subject| slot.depth(Some("a")).await.messages as usize;
    assert_eq!(stored(&slot).await, kept.len(), "it is read as before");
    scene.end(Fault::DiskFull).await;
    for large in refused {
        assert_eq!(slot.enqueue(&["a", "b"], &large, terms()).await, [STORED, STORED]);
        kept.push(large);
    }
    assert_eq!(stored(&scene.beside().await).await, kept.len());
    let messages: Vec<_> = slot
        .left("a", 1)
        .await
        .into_iter()
        .map(|delivery| delivery.message)
        .collect();
    assert_eq!(
        messages, kept,
        "each once, in the order in which they were stored"
    );
}
