//! A process that is killed in the middle of its work takes nothing with it that it was told is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prism_slot::{
    DurableInbox, Enqueued, Expect, Identity, Ledger, MulticastId, RegistryStore, Revision, Settled, Verdict,
    Write, Wrote,
};
use prism_slot_sqlite::{SqliteInbox, SqliteLedger, SqliteRegistry};
use prism_testkit::seed;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt;

use super::{
    child::{Running, Task, say},
    support::*,
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ROUNDS: u64 = 8;

/// Stores, hands out, acknowledges, registers and writes until it is killed; says what it was told, each time.
/// Sessions have the number `argument`.
pub(super) async fn writer(task: Task) {
    let session: u64 = task.argument.parse().unwrap();
    let (slot, registry) = (Arc::new(inbox(&task.path).await), registry(&task.path).await);
    let ledger = SqliteLedger::open(NAMESPACE, inbox_config(&task.path))
        .await
        .unwrap();
    say(format_args!("ready {}", head(&registry).await.epoch.0));
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..3 {
        work.spawn(storing(slot.clone()));
    }
    for name in NAMES {
        work.spawn(consuming(slot.clone(), name, session));
    }
    work.spawn(registering(registry, session));
    work.spawn(keeping_books(ledger, session));
    while let Some(ended) = work.join_next().await {
        ended.unwrap();
    }
}

async fn storing(slot: Arc<SqliteInbox>) {
    loop {
        let (message, to) = (message(vec![3; 300]), NAMES.map(address));
        let outcomes = slot.enqueue(&to, message.clone(), terms(), deadline()).await;
        for (name, outcome) in NAMES.iter().zip(outcomes) {
            assert!(matches!(outcome, Enqueued::Stored { .. }), "{outcome:?}");
            say(format_args!("stored {name} {}", message.multicast));
        }
    }
}

async fn consuming(slot: Arc<SqliteInbox>, name: &'static str, session: u64) {
    let consumer = consumer(name, session);
    slot.open(&consumer, deadline()).await.unwrap();
    loop {
        let fetch = prism_slot::Fetch {
            max_messages: 6,
            ack_timeout: Duration::from_millis(20),
            ..everything()
        };
        let fetched = slot.fetch(&consumer, fetch, deadline()).await.unwrap();
        for delivery in &fetched.deliveries {
            let (multicast, attempt) = (delivery.message.multicast, delivery.attempt);
            say(format_args!("attempt {name} {multicast} {attempt}"));
        }
        let acked = fetched
            .deliveries
            .iter()
            .step_by(3)
            .map(|delivery| delivery.message.multicast);
        for multicast in acked {
            say(format_args!("acking {name} {multicast}"));
            let settled = slot
                .settle(&consumer, vec![(multicast, Verdict::Ack)], deadline())
                .await;
            assert_eq!(settled, Ok(vec![Settled::Done]));
            say(format_args!("acked {name} {multicast}"));
        }
    }
}

async fn registering(slot: SqliteRegistry, session: u64) {
    for number in 0.. {
        let name = format!("{session}-{number}");
        let registered = register(&slot, request(&name)).await.unwrap();
        say(format_args!(
            "registered {name} {}",
            registered.position.revision.0
        ));
    }
}

async fn keeping_books(ledger: SqliteLedger, session: u64) {
    for number in 0.. {
        let write = Write {
            key: format!("{session}/{}", number % 5),
            expect: Expect::Anything,
            body: Some(format!("{number}").into()),
            ttl: Duration::from_secs(3_600),
        };
        let key = write.key.clone();
        let wrote = ledger.write(vec![write], deadline()).await.remove(0);
        let Ok(Wrote::Done(version)) = wrote else {
            panic!("{wrote:?}")
        };
        say(format_args!("wrote {key} {version}"));
    }
}

/// What the children were told.
#[derive(Default)]
struct Told {
    stored: BTreeSet<(String, u128)>,
    acking: BTreeSet<(String, u128)>,
    acked: BTreeSet<(String, u128)>,
    attempts: BTreeMap<(String, u128), u32>,
    registered: BTreeMap<u64, Identity>,
    wrote: BTreeMap<String, u64>,
}

fn letter(name: &str, multicast: &str) -> (String, u128) {
    let multicast: MulticastId = multicast.parse().unwrap();
    (name.to_owned(), multicast.0)
}

impl Told {
    fn note(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["stored", name, multicast] => drop(self.stored.insert(letter(name, multicast))),
            ["acking", name, multicast] => drop(self.acking.insert(letter(name, multicast))),
            ["acked", name, multicast] => drop(self.acked.insert(letter(name, multicast))),
            ["attempt", name, multicast, attempt] => {
                let before = self
                    .attempts
                    .insert(letter(name, multicast), attempt.parse().unwrap());
                assert!(
                    before.is_none_or(|before| before < attempt.parse().unwrap()),
                    "{line}"
                );
            }
            ["registered", name, revision] => {
                self.registered.insert(revision.parse().unwrap(), identity(name));
            }
            ["wrote", key, version] => drop(self.wrote.insert(key.to_owned(), version.parse().unwrap())),
            _ => panic!("{line}"),
        }
    }

    /// Everything that was told is so.
    async fn check(&mut self, place: &Place, session: u64) {
        let slot = inbox(&place.path).await;
        let mut there: BTreeMap<(String, u128), u32> = BTreeMap::new();
        for name in NAMES {
            let found = delivered(&slot, name, session).await;
            there.extend(
                found
                    .into_iter()
                    .map(|(multicast, attempt)| ((name.to_owned(), multicast.0), attempt)),
            );
        }
        for letter in &self.stored {
            assert!(
                there.contains_key(letter) || self.acking.contains(letter),
                "{letter:x?} is lost"
            );
        }
        for letter in &self.acked {
            assert!(!there.contains_key(letter), "{letter:x?} came again");
        }
        for (letter, attempt) in &there {
            let before = self.attempts.insert(letter.clone(), *attempt);
            assert!(
                before.is_none_or(|before| before < *attempt),
                "{letter:x?}: {attempt} after {before:?}"
            );
        }
        slot.close().await;
        self.check_registry(place).await;
        let ledger = SqliteLedger::open(NAMESPACE, inbox_config(&place.path))
            .await
            .unwrap();
        let keys: Vec<String> = self.wrote.keys().cloned().collect();
        let entries = ledger.read(keys, deadline()).await.unwrap();
        for ((key, version), entry) in self.wrote.iter().zip(entries) {
            assert!(
                entry.is_some_and(|entry| entry.version >= *version),
                "{key} is older than it was"
            );
        }
        ledger.close().await;
    }

    async fn check_registry(&self, place: &Place) {
        let slot = registry(&place.path).await;
        let history = history(&slot, Revision::ZERO).await;
        for (revision, name) in &self.registered {
            let change = &history[usize::try_from(*revision).unwrap() - 1];
            assert_eq!((change.revision.0, &change.record.identity), (*revision, name));
        }
        slot.close().await;
    }
}

#[test]
fn what_was_told_is_there_after_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed().to_le_bytes(); 4].concat());
    let (place, mut told, mut epochs) = (Place::new(), Told::default(), BTreeSet::new());
    for round in 0..ROUNDS {
        let child = Running::start("writer", &place.path, &(round * 2 + 1).to_string());
        let ready = child.line();
        epochs.insert(ready.strip_prefix("ready ").unwrap().to_owned());
        // A moment like any other: nothing is waited for here.
        std::thread::sleep(Duration::from_millis(random.random_range(20..400)));
        child.kill().iter().for_each(|line| told.note(line));
        runtime.block_on(told.check(&place, round * 2 + 2));
    }
    assert!(told.stored.len() > 100 && told.acked.len() > 10 && told.registered.len() > 10);
    assert_eq!(epochs.len(), 1, "nothing was lost, so the epoch stays");
}
