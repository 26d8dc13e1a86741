//! Whatever is done in whatever order, it comes to the same as in memory.

use std::{sync::Arc, time::Duration};

use prism_slot::{
    DeadQuery, DurableInbox, Fetch, InboxLimits, Message, MulticastId, Overflow, Priority, Terms, Timestamp,
    Verdict,
    memory::{InboxConfig, MemoryInbox},
};
use prism_slot_nats::JetStreamInbox;
use prism_testkit::{NatsServer, seed};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{address, all, config, consumer, message, terms};
use crate::{identity, soon};

const NAMES: [&str; 3] = ["a", "b.c", "d *"];
const STEPS: usize = 150;

/// A step that both slots take.
#[derive(Debug, Clone)]
enum Step {
    Enqueue(Vec<usize>, Arc<Message>, Priority),
    Open(usize, u64),
    Fetch(usize, u64, Fetch),
    Settle(usize, u64, Vec<(MulticastId, Verdict)>),
    Cancel(MulticastId),
    Discard(usize),
    Redrive(usize),
    Depth(usize),
}

/// What may come next.
struct Life {
    random: StdRng,
    messages: Vec<Arc<Message>>,
    /// What was handed out of each inbox: nothing else is settled.
    handed_out: [Vec<MulticastId>; NAMES.len()],
}

impl Life {
    fn new(random: StdRng) -> Self {
        let mut life = Self {
            random,
            messages: Vec::new(),
            handed_out: Default::default(),
        };
        life.renew();
        life
    }

    /// Other messages from here on: memory forgets with an inbox what was in it, and a stream does not.
    fn renew(&mut self) {
        let message = |number: usize| Message {
            published_at: Timestamp(7),
            ..(*message(&"x".repeat(number))).clone()
        };
        self.messages = (0..12).map(|number| Arc::new(message(number))).collect();
    }

    fn step(&mut self) -> Step {
        let random = &mut self.random;
        let (name, seq) = (random.random_range(0..NAMES.len()), random.random_range(1..4));
        let message = self.messages[random.random_range(0..self.messages.len())].clone();
        match random.random_range(0..20_u32) {
            0..6 => {
                let priority =
                    [Priority::High, Priority::Normal, Priority::Low][random.random_range(0..3_usize)];
                let names = (0..NAMES.len()).filter(|_| random.random_bool(0.6)).collect();
                Step::Enqueue(names, message, priority)
            }
            6..8 => Step::Open(name, seq),
            8..13 => Step::Fetch(name, seq, fetch(random)),
            13..16 => Step::Settle(name, seq, self.verdicts(name)),
            16 => Step::Cancel(message.multicast),
            17 => {
                self.renew();
                Step::Discard(name)
            }
            18 => Step::Redrive(name),
            _ => Step::Depth(name),
        }
    }

    fn verdicts(&mut self, name: usize) -> Vec<(MulticastId, Verdict)> {
        let (random, handed_out) = (&mut self.random, &self.handed_out[name]);
        if handed_out.is_empty() {
            return Vec::new();
        }
        let said = (0..random.random_range(1..4_u32)).map(|number| {
            let verdict = match random.random_range(0..5_u32) {
                // One for each call: those of one call die in no order.
                0 if number == 0 => Verdict::Term {
                    reason: "no".to_owned(),
                },
                1 => Verdict::Nack {
                    delay: some_time(random),
                },
                2 => Verdict::Release,
                _ => Verdict::Ack,
            };
            (handed_out[random.random_range(0..handed_out.len())], verdict)
        });
        said.collect()
    }
}

/// Long, or over at once, so that both agree whatever the time is.
fn some_time(random: &mut StdRng) -> Duration {
    if random.random_bool(0.5) {
        Duration::ZERO
    } else {
        Duration::from_secs(600)
    }
}

fn fetch(random: &mut StdRng) -> Fetch {
    Fetch {
        max_messages: random.random_range(0..6),
        max_bytes: random.random_range(0..60),
        max_deliver: 1_000,
        ack_timeout: some_time(random),
    }
}

/// What a step said, in words that both slots share; and what it handed out.
async fn take(slot: &impl DurableInbox, step: &Step) -> (String, Vec<MulticastId>) {
    let mut handed_out = Vec::new();
    let told = match step.clone() {
        Step::Enqueue(names, message, priority) => {
            let addresses: Vec<_> = names.iter().map(|name| address(NAMES[*name])).collect();
            let terms = Terms { priority, ..terms() };
            format!("{:?}", slot.enqueue(&addresses, message, terms, soon()).await)
        }
        Step::Open(name, seq) => format!("{:?}", slot.open(&consumer(NAMES[name], seq), soon()).await),
        Step::Fetch(name, seq, fetch) => {
            match slot.fetch(&consumer(NAMES[name], seq), fetch, soon()).await {
                Ok(fetched) => {
                    let deliveries = fetched.deliveries.iter();
                    let told: Vec<_> = deliveries
                        .map(|delivery| (delivery.attempt, &delivery.message))
                        .collect();
                    handed_out.extend(told.iter().map(|(_, message)| message.multicast));
                    // Memory does not look further than it has to.
                    let due = fetched.next_due.filter(|_| !fetched.more);
                    format!(
                        "{told:?} {:?} {:?}",
                        fetched.more,
                        due.map(|due| due > Duration::from_secs(1))
                    )
                }
                Err(error) => format!("{error:?}"),
            }
        }
        Step::Settle(name, seq, said) => {
            format!(
                "{:?}",
                slot.settle(&consumer(NAMES[name], seq), said, soon()).await
            )
        }
        Step::Cancel(multicast) => {
            format!("{:?}", slot.cancel(multicast, &NAMES.map(identity), soon()).await)
        }
        Step::Discard(name) => {
            let mut discarded = slot.discard(&address(NAMES[name]), soon()).await.unwrap();
            // In no order.
            discarded.dropped.sort_by_key(|ticket| ticket.multicast.0);
            format!("{discarded:?}")
        }
        Step::Redrive(name) => redrive(slot, name).await,
        Step::Depth(name) => format!("{:?}", slot.depth(Some(&identity(NAMES[name])), soon()).await),
    };
    (told, handed_out)
}

/// The oldest dead letter of an inbox goes back.
async fn redrive(slot: &impl DurableInbox, name: usize) -> String {
    let query = DeadQuery {
        identity: Some(identity(NAMES[name])),
        limit: 1,
        after: None,
    };
    let page = slot.dead_letters(query, soon()).await.unwrap();
    let Some(letter) = page.letters.first() else {
        return "nothing is dead".to_owned();
    };
    let told = format!("{:?} {} {:?}", letter.reason, letter.attempts, letter.message);
    let redriven = slot
        .redrive(vec![(letter.id, address(NAMES[name]))], terms(), soon())
        .await;
    format!("{told} {} {redriven:?}", page.more)
}

/// The last word on every inbox: what is there, in which order.
async fn rest(slot: &impl DurableInbox) -> Vec<String> {
    let mut told = Vec::new();
    for name in NAMES {
        let last = consumer(name, 1_000);
        slot.open(&last, soon()).await.unwrap();
        let mut deliveries = Vec::new();
        loop {
            let fetched = slot.fetch(&last, all(), soon()).await.unwrap();
            deliveries.extend(
                fetched
                    .deliveries
                    .iter()
                    .map(|delivery| (delivery.attempt, delivery.message.clone())),
            );
            if !fetched.more {
                break;
            }
        }
        told.push(format!("{name}: {deliveries:?}"));
    }
    let query = DeadQuery {
        limit: 1_000,
        ..DeadQuery::default()
    };
    let dead = slot.dead_letters(query, soon()).await.unwrap();
    let mut dead: Vec<String> = dead
        .letters
        .iter()
        .map(|letter| {
            format!(
                "{} {:?} {} {:?}",
                letter.identity, letter.reason, letter.attempts, letter.message
            )
        })
        .collect();
    // Those of one call die in no order.
    dead.sort_unstable();
    told.extend(dead);
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_life_is_the_same_as_in_memory() {
    let mut random = StdRng::seed_from_u64(seed());
    let server = NatsServer::start_with_jetstream().await.unwrap();
    for life in 0..8 {
        // Enough room, because what it counts is not the same.
        let limits = InboxLimits {
            max_messages: 1_000,
            overflow: if random.random_bool(0.5) {
                Overflow::Reject
            } else {
                Overflow::DropOldest
            },
            ..InboxLimits::default()
        };
        let namespace = format!("life-{life}");
        let ours = JetStreamInbox::open(&namespace, config(&server.url()), limits)
            .await
            .unwrap();
        let memory = MemoryInbox::new(InboxConfig::default(), limits);
        let mut living = Life::new(StdRng::from_rng(&mut random));
        let mut steps = Vec::new();
        for _ in 0..STEPS {
            let step = living.step();
            let ((expected, handed_out), (found, _)) = (take(&memory, &step).await, take(&ours, &step).await);
            if let Step::Fetch(name, ..) = step {
                living.handed_out[name].extend(handed_out);
            }
            steps.push(step);
            let last = &steps[steps.len().saturating_sub(30)..];
            assert_eq!(found, expected, "life {life}, after {last:?}");
        }
        assert_eq!(rest(&ours).await, rest(&memory).await, "life {life}");
        ours.close().await;
    }
}
