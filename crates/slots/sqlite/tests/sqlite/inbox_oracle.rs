//! The same calls to inboxes in a file and in memory have the same outcomes; closing and opening the file in between
//! makes no difference.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prism_slot::{
    Address, Consumer, DeadId, DeadLetter, DeadQuery, Depth, DurableInbox, Enqueued, Epoch, Fetch, Holder,
    Identity, InboxLimits, Message, MulticastId, Overflow, Priority, Swept, Terms, Timestamp, Verdict,
    memory::{InboxConfig as MemoryConfig, ManualClock, MemoryInbox},
};
use prism_slot_sqlite::SqliteInbox;
use prism_testkit::seed;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use super::support::*;

const NAMES: u8 = 3;
const MESSAGES: u8 = 12;

#[derive(Debug, Clone)]
enum Step {
    Pass {
        millis: u64,
    },
    Store {
        to: Vec<(u8, u8)>,
        what: u8,
        priority: u8,
        ttl: u8,
    },
    Open {
        who: Who,
    },
    Fetch {
        who: Who,
        most: usize,
        bytes: usize,
        patience: u8,
        max_deliver: u32,
    },
    Settle {
        who: Who,
        verdicts: Vec<(u8, u8)>,
    },
    Cancel {
        what: u8,
    },
    Discard {
        name: u8,
        holder: u8,
    },
    Depth,
    Dead {
        after: u8,
        name: Option<u8>,
        limit: usize,
    },
    Redrive {
        which: u8,
        holder: u8,
        priority: u8,
        ttl: u8,
    },
    Configure {
        most: u32,
        drops: bool,
        dedupe: u8,
        dead: usize,
    },
    Sweep,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
struct Who {
    name: u8,
    holder: u8,
    epoch: u8,
    seq: u8,
}

fn who() -> impl Strategy<Value = Who> {
    // Mostly the same ones, so that they get somewhere.
    let of = |most: u8| prop_oneof![6 => Just(0), 1 => 0..most];
    (0..NAMES, of(2), of(2), of(3)).prop_map(|(name, holder, epoch, seq)| Who {
        name,
        holder,
        epoch,
        seq,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (what, name) = (0..MESSAGES, 0..NAMES);
    let holder = prop_oneof![5 => Just(0_u8), 1 => Just(1)];
    let to = prop::collection::vec((name.clone(), holder.clone()), 1..5);
    let fetch = (
        who(),
        0..5_usize,
        prop_oneof![Just(1_usize), Just(25), Just(1_000)],
        0..3_u8,
        1..4_u32,
    );
    prop_oneof![
        4 => prop_oneof![Just(1), Just(400), Just(1_000), Just(3_000)].prop_map(|millis| Step::Pass { millis }),
        9 => (to, what.clone(), 0..3_u8, 0..3_u8)
            .prop_map(|(to, what, priority, ttl)| Step::Store { to, what, priority, ttl }),
        4 => who().prop_map(|who| Step::Open { who }),
        8 => fetch.prop_map(|(who, most, bytes, patience, max_deliver)| Step::Fetch {
            who, most, bytes, patience, max_deliver
        }),
        5 => (who(), prop::collection::vec((what.clone(), 0..4_u8), 1..5))
            .prop_map(|(who, verdicts)| Step::Settle { who, verdicts }),
        2 => what.prop_map(|what| Step::Cancel { what }),
        1 => (name.clone(), holder.clone()).prop_map(|(name, holder)| Step::Discard { name, holder }),
        2 => Just(Step::Depth),
        2 => (0..4_u8, prop::option::of(name), 0..4_usize)
            .prop_map(|(after, name, limit)| Step::Dead { after, name, limit }),
        3 => (0..4_u8, holder, 0..3_u8, 0..3_u8)
            .prop_map(|(which, holder, priority, ttl)| Step::Redrive { which, holder, priority, ttl }),
        2 => (1..5_u32, any::<bool>(), 0..3_u8, 0..5_usize)
            .prop_map(|(most, drops, dedupe, dead)| Step::Configure { most, drops, dedupe, dead }),
        3 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ]
}

#[test]
fn inboxes_in_a_file_and_in_memory_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases: 150,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed().to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(config, random);
    let steps = prop::collection::vec(step(), 1..90);
    if let Err(failure) = runner.run(&steps, |steps| runtime.block_on(compare(&steps))) {
        panic!("{failure}");
    }
}

async fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut run = Run::new().await;
    for step in steps {
        run.step(step).await?;
    }
    for step in [
        Step::Reopen,
        Step::Sweep,
        Step::Depth,
        Step::Dead {
            after: 0,
            name: None,
            limit: 100,
        },
    ] {
        run.step(&step).await?;
    }
    run.ends_with_nothing().await
}

struct Run {
    place: Place,
    clock: Arc<ManualClock>,
    limits: InboxLimits,
    ours: SqliteInbox,
    memory: MemoryInbox,
    messages: Vec<Arc<Message>>,
    /// How often each message was stored in each inbox.
    stored: BTreeMap<(Identity, u128), u32>,
}

fn name(number: u8) -> Identity {
    identity(["a", "b", "ä"][usize::from(number)])
}

fn holder(number: u8) -> Holder {
    Holder([number + 1; 16])
}

fn to(number: u8, of: u8) -> Address {
    Address {
        identity: name(number),
        holder: holder(of),
    }
}

fn some_terms(priority: u8, ttl: u8) -> Terms {
    Terms {
        priority: [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)],
        ttl: Duration::from_millis([900, 2_500, 3_600_000][usize::from(ttl)]),
    }
}

fn some_consumer(who: Who) -> Consumer {
    Consumer {
        address: to(who.name, who.holder),
        epoch: Epoch(u64::from(who.epoch) + 1),
        session_seq: u64::from(who.seq),
    }
}

fn some_verdict(number: u8) -> Verdict {
    match number {
        0 => Verdict::Ack,
        1 => Verdict::Nack {
            delay: Duration::ZERO,
        },
        2 => Verdict::Nack {
            delay: Duration::from_millis(1_000),
        },
        _ => Verdict::Term {
            reason: "no".to_owned(),
        },
    }
}

/// Letters without their names, which differ.
fn plain(letters: &[DeadLetter]) -> Vec<DeadLetter> {
    let unnamed = |letter: &DeadLetter| DeadLetter {
        id: DeadId(0),
        ..letter.clone()
    };
    letters.iter().map(unnamed).collect()
}

fn sorted(mut swept: Swept) -> Swept {
    swept
        .expired
        .sort_by_key(|(identity, ticket)| (identity.clone(), ticket.multicast.0));
    swept
}

impl Run {
    async fn new() -> Self {
        let (place, clock) = (Place::fast(), Arc::new(ManualClock::new(Timestamp(1_000_000))));
        let limits = InboxLimits {
            max_messages: 4,
            dedupe: Duration::from_millis(1_500),
            ..InboxLimits::default()
        };
        let ours = SqliteInbox::open_with_clock(NAMESPACE, inbox_config(&place.path), limits, clock.clone());
        let some = |number: u8| {
            let receipts = number.is_multiple_of(2).then(|| "here".into());
            let multicast = MulticastId(u128::from(number) << 100);
            Arc::new(Message {
                receipts,
                ..Message::new(multicast, vec![number; usize::from(number)])
            })
        };
        Self {
            ours: ours.await.unwrap(),
            memory: MemoryInbox::with_clock(MemoryConfig::default(), limits, clock.clone()),
            messages: (0..MESSAGES).map(some).collect(),
            stored: BTreeMap::new(),
            place,
            clock,
            limits,
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Pass { millis } => self.clock.advance(Duration::from_millis(*millis)),
            Step::Store {
                to: addresses,
                what,
                priority,
                ttl,
            } => {
                let addresses = addresses
                    .iter()
                    .map(|(number, of)| to(*number, *of))
                    .collect::<Vec<_>>();
                self.store(&addresses, *what, some_terms(*priority, *ttl)).await?;
            }
            Step::Dead { after, name, limit } => self.dead(*after, *name, *limit).await?,
            Step::Redrive {
                which,
                holder,
                priority,
                ttl,
            } => {
                self.redrive(*which, *holder, some_terms(*priority, *ttl)).await?;
            }
            Step::Configure {
                most,
                drops,
                dedupe,
                dead,
            } => {
                self.limits = InboxLimits {
                    max_messages: *most,
                    overflow: if *drops {
                        Overflow::DropOldest
                    } else {
                        Overflow::Reject
                    },
                    dedupe: Duration::from_millis([0, 1_500, 60_000][usize::from(*dedupe)]),
                    max_dead_letters: *dead,
                    ..InboxLimits::default()
                };
                self.ours.configure(self.limits, deadline()).await.unwrap();
                self.memory.configure(self.limits, deadline()).await.unwrap();
            }
            Step::Reopen => {
                self.ours.close().await;
                let config = inbox_config(&self.place.path);
                let again = SqliteInbox::open_with_clock(NAMESPACE, config, self.limits, self.clock.clone());
                self.ours = again.await.unwrap();
            }
            step => self.consume(step).await?,
        }
        Ok(())
    }

    async fn consume(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let (ours, memory) = (&self.ours, &self.memory);
        match step {
            Step::Open { who } => {
                let consumer = some_consumer(*who);
                let outcomes = (
                    ours.open(&consumer, deadline()).await,
                    memory.open(&consumer, deadline()).await,
                );
                prop_assert_eq!(outcomes.0, outcomes.1);
            }
            Step::Fetch {
                who,
                most,
                bytes,
                patience,
                max_deliver,
            } => {
                let fetch = Fetch {
                    max_messages: *most,
                    max_bytes: *bytes,
                    ack_timeout: Duration::from_millis([100, 1_000, 10_000][usize::from(*patience)]),
                    max_deliver: *max_deliver,
                };
                let consumer = some_consumer(*who);
                let theirs = memory.fetch(&consumer, fetch, deadline()).await;
                prop_assert_eq!(ours.fetch(&consumer, fetch, deadline()).await, theirs);
            }
            Step::Settle { who, verdicts } => {
                let consumer = some_consumer(*who);
                let verdict = |(what, how): &(u8, u8)| {
                    (self.messages[usize::from(*what)].multicast, some_verdict(*how))
                };
                let verdicts: Vec<_> = verdicts.iter().map(verdict).collect();
                let theirs = memory.settle(&consumer, verdicts.clone(), deadline()).await;
                prop_assert_eq!(ours.settle(&consumer, verdicts, deadline()).await, theirs);
            }
            Step::Cancel { what } => {
                let multicast = self.messages[usize::from(*what)].multicast;
                let all: Vec<Identity> = (0..NAMES).map(name).collect();
                let theirs = memory.cancel(multicast, &all, deadline()).await;
                prop_assert_eq!(ours.cancel(multicast, &all, deadline()).await, theirs);
            }
            Step::Discard { name, holder } => {
                let address = to(*name, *holder);
                let theirs = memory.discard(&address, deadline()).await;
                prop_assert_eq!(ours.discard(&address, deadline()).await, theirs);
            }
            Step::Sweep => {
                let swept = (
                    ours.sweep(deadline()).await.unwrap(),
                    memory.sweep(deadline()).await.unwrap(),
                );
                prop_assert_eq!(sorted(swept.0), sorted(swept.1));
            }
            _ => self.depth().await?,
        }
        Ok(())
    }

    async fn depth(&self) -> Result<(), TestCaseError> {
        for number in 0..NAMES {
            let theirs = self.memory.depth(Some(&name(number)), deadline()).await;
            prop_assert_eq!(self.ours.depth(Some(&name(number)), deadline()).await, theirs);
        }
        let theirs = self.memory.depth(None, deadline()).await.unwrap();
        let ours = self.ours.depth(None, deadline()).await.unwrap();
        prop_assert_eq!(ours, Depth { out: None, ..theirs });
        Ok(())
    }

    async fn store(&mut self, addresses: &[Address], what: u8, terms: Terms) -> Result<(), TestCaseError> {
        let message = self.messages[usize::from(what)].clone();
        let ours = self
            .ours
            .enqueue(addresses, message.clone(), terms, deadline())
            .await;
        let theirs = self
            .memory
            .enqueue(addresses, message.clone(), terms, deadline())
            .await;
        prop_assert_eq!(&ours, &theirs);
        for (address, outcome) in addresses.iter().zip(ours) {
            if matches!(outcome, Enqueued::Stored { .. }) {
                *self
                    .stored
                    .entry((address.identity.clone(), message.multicast.0))
                    .or_default() += 1;
            }
        }
        Ok(())
    }

    async fn letters(slot: &dyn prism_slot::DynDurableInbox) -> Vec<DeadLetter> {
        let all = DeadQuery {
            limit: 1_000,
            ..DeadQuery::default()
        };
        slot.dead_letters(all, deadline()).await.unwrap().letters
    }

    async fn dead(&self, after: u8, of: Option<u8>, limit: usize) -> Result<(), TestCaseError> {
        let (ours, theirs) = (Self::letters(&self.ours).await, Self::letters(&self.memory).await);
        prop_assert_eq!(plain(&ours), plain(&theirs));
        let query = |all: &[DeadLetter]| DeadQuery {
            after: all.get(usize::from(after)).map(|letter| letter.id),
            identity: of.map(name),
            limit,
        };
        let ours = self.ours.dead_letters(query(&ours), deadline()).await.unwrap();
        let theirs = self
            .memory
            .dead_letters(query(&theirs), deadline())
            .await
            .unwrap();
        prop_assert_eq!(
            (plain(&ours.letters), ours.more),
            (plain(&theirs.letters), theirs.more)
        );
        Ok(())
    }

    async fn redrive(&mut self, which: u8, of: u8, terms: Terms) -> Result<(), TestCaseError> {
        let (ours, theirs) = (Self::letters(&self.ours).await, Self::letters(&self.memory).await);
        let (Some(ours), Some(theirs)) = (ours.get(usize::from(which)), theirs.get(usize::from(which)))
        else {
            return Ok(());
        };
        let letter = (ours.identity.clone(), ours.message.multicast.0);
        if self.stored.get(&letter).is_some_and(|times| *times > 1) {
            // It may wait already. In memory it then waits twice.
            return Ok(());
        }
        let address = Address {
            identity: letter.0,
            holder: holder(of),
        };
        let redriven = self
            .memory
            .redrive(vec![(theirs.id, address.clone())], terms, deadline())
            .await;
        prop_assert_eq!(
            self.ours
                .redrive(vec![(ours.id, address)], terms, deadline())
                .await,
            redriven
        );
        Ok(())
    }

    /// When all time is over there are dead letters, and otherwise a row where a session has been.
    async fn ends_with_nothing(&mut self) -> Result<(), TestCaseError> {
        self.clock.advance(Duration::from_secs(7_200));
        while self.ours.sweep(deadline()).await.unwrap().more {}
        let look = rusqlite::Connection::open(&self.place.path).unwrap();
        let count = |sql: &str| look.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
        let left = [
            "SELECT count(*) FROM inboxes WHERE part > x'00'",
            "SELECT count(*) FROM sendings",
            "SELECT count(*) FROM targets",
            "SELECT count(*) FROM losses",
            "SELECT count(*) FROM messages WHERE uses != (SELECT count(*) FROM dead WHERE message = messages.id)",
            "SELECT (SELECT count(*) FROM messages) - (SELECT count(*) FROM bodies)",
            "SELECT messages FROM inbox_totals UNION ALL SELECT 0",
            "SELECT dead - (SELECT count(*) FROM dead) FROM inbox_totals UNION ALL SELECT 0",
        ];
        prop_assert_eq!(left.map(count), [0; 8]);
        Ok(())
    }
}
