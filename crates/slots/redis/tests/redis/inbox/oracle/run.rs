//! Making the same calls on one slot as on another.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prism_slot::{
    Address, Consumer, DeadId, DeadLetter, DeadQuery, DurableInbox, Enqueued, Epoch, Error, Fetch, Fetched,
    Holder, Identity, InboxLimits, Message, MulticastId, Overflow, Terms, Ticket, Timestamp,
    memory::ManualClock,
};

use super::{
    super::{super::support::Admin, identity, set_clock, soon},
    steps::{DEAD, How, Limits, Order, Session, Step, TICK},
};

/// The hand on a slot's clock.
pub(super) enum Time<'a> {
    Memory(&'a ManualClock),
    Redis {
        admin: &'a Admin,
        namespace: &'a str,
        now: i64,
    },
}

/// Makes the same calls on one slot and writes down what came of them.
pub(super) struct Run<'a, S> {
    slot: &'a S,
    time: Time<'a>,
    start: Timestamp,
    redrives: bool,
    sessions: BTreeMap<u8, (u8, u64, u64)>,
    /// Dead letters in the order in which they were first seen.
    seen: Vec<DeadId>,
    dead: Vec<DeadLetter>,
    /// Whose inboxes were emptied, so that what they had is forgotten.
    discarded: BTreeSet<Identity>,
    log: Vec<String>,
}

impl<'a, S: DurableInbox> Run<'a, S> {
    pub(super) fn new(slot: &'a S, time: Time<'a>, start: Timestamp, redrives: bool) -> Self {
        Self {
            slot,
            time,
            start,
            redrives,
            sessions: BTreeMap::new(),
            seen: Vec::new(),
            dead: Vec::new(),
            discarded: BTreeSet::new(),
            log: Vec::new(),
        }
    }

    /// Makes the calls and returns what came of each.
    pub(super) async fn all(mut self, steps: &[Step]) -> Vec<String> {
        for step in steps {
            let outcome = self.step(step).await;
            let dead = self.look().await;
            self.log.push(format!("{step:?} -> {outcome}; {dead}"));
        }
        let depth = self.now().await.depth(None, soon()).await.unwrap();
        self.log.push(format!("{}", depth.messages));
        self.log
    }

    async fn step(&mut self, step: &Step) -> String {
        match step {
            Step::Pass { ticks } => self.pass(*ticks).await,
            Step::Store(order) => self.store(order).await,
            Step::Open(session) => self.open(session).await,
            Step::Fetch { session, how } => self.fetch(session, how).await,
            Step::Settle { session, verdicts } => {
                let verdicts = verdicts
                    .iter()
                    .map(|(what, verdict)| (multicast(*what), verdict.clone()));
                let verdicts = verdicts.collect();
                let consumer = self.consumer(session);
                format!("{:?}", self.now().await.settle(&consumer, verdicts, soon()).await)
            }
            Step::Cancel { what, who } => {
                let identities: Vec<Identity> = who.iter().map(|&who| name(who)).collect();
                let cancelled = self
                    .now()
                    .await
                    .cancel(multicast(*what), &identities, soon())
                    .await;
                format!("{cancelled:?}")
            }
            Step::Discard { who, holder } => {
                self.discarded.insert(name(*who));
                let dropped = self.now().await.discard(&address(*who, *holder), soon()).await;
                format!("{dropped:?}")
            }
            Step::Depth { who } => {
                let whose = who.map(name);
                let depth = self.now().await.depth(whose.as_ref(), soon()).await.unwrap();
                let out = depth.out.filter(|_| whose.is_some());
                format!("{} {out:?} {}", depth.messages, depth.dead)
            }
            Step::Dead { after, whose, limit } => {
                let query = DeadQuery {
                    after: self.seen.get(*after).copied(),
                    identity: whose.map(name),
                    limit: *limit,
                };
                let page = self.now().await.dead_letters(query, soon()).await.unwrap();
                let letters: Vec<String> = page.letters.iter().map(|letter| self.letter(letter)).collect();
                format!("{letters:?} {}", page.more)
            }
            Step::Redrive { which, wrong, order } => self.redrive(which, *wrong, order).await,
            Step::Configure(limits) => self.configure(limits).await,
        }
    }

    async fn pass(&mut self, ticks: u64) -> String {
        match &mut self.time {
            Time::Memory(clock) => clock.advance(Duration::from_millis(ticks * TICK)),
            Time::Redis { now, .. } => *now += (ticks * TICK) as i64,
        }
        let mut expired = Vec::new();
        loop {
            let swept = self.now().await.sweep(soon()).await.unwrap();
            let told = swept
                .expired
                .iter()
                .map(|(identity, it)| format!("{identity} {}", ticket(it)));
            expired.extend(told);
            if !swept.more {
                expired.sort();
                return format!("{expired:?}");
            }
        }
    }

    async fn store(&mut self, order: &Order) -> String {
        let addresses: Vec<Address> = order.who.iter().map(|&who| address(who, order.holder)).collect();
        let slot = self.now().await;
        let outcomes = slot
            .enqueue(&addresses, message(order), terms(order), soon())
            .await;
        let plain = |outcome: Enqueued| match outcome {
            Enqueued::Stored {
                displaced: Some(displaced),
            } => format!("displaced {}", ticket(&displaced)),
            other => format!("{other:?}"),
        };
        format!("{:?}", outcomes.into_iter().map(plain).collect::<Vec<_>>())
    }

    async fn open(&mut self, session: &Session) -> String {
        let consumer = self.consumer(session);
        let opened = self.now().await.open(&consumer, soon()).await;
        if let (Ok(()), Some(own)) = (&opened, session.other) {
            self.sessions.insert(session.who, own);
        }
        format!("{opened:?}")
    }

    async fn fetch(&mut self, session: &Session, how: &How) -> String {
        let consumer = self.consumer(session);
        let fetch = Fetch {
            max_messages: how.messages,
            max_bytes: how.bytes,
            ack_timeout: how.ack_timeout,
            max_deliver: how.max_deliver,
        };
        match self.now().await.fetch(&consumer, fetch, soon()).await {
            Ok(fetched) => self.fetched(&fetched),
            Err(error) => plain_error(error),
        }
    }

    fn fetched(&self, fetched: &Fetched) -> String {
        let deliveries = fetched.deliveries.iter().map(|delivery| {
            let since = delivery.stored_at.0 - self.start.0;
            format!(
                "{:?} {} {}",
                delivery.message,
                delivery.attempt,
                since.div_euclid(TICK as i64)
            )
        });
        let deliveries: Vec<String> = deliveries.collect();
        let dead: Vec<String> = fetched
            .dead
            .iter()
            .map(|(it, why)| format!("{} {why:?}", ticket(it)))
            .collect();
        // Where there is more, memory has not looked at all.
        let next_due = fetched.next_due.filter(|_| !fetched.more);
        let next_due = next_due.map(|due| (due.as_millis() + 300) / 600);
        let expired = &fetched.expired;
        format!(
            "{deliveries:?} {dead:?} {expired:?} {next_due:?} {}",
            fetched.more
        )
    }

    async fn redrive(&mut self, which: &[usize], wrong: bool, order: &Order) -> String {
        if !self.redrives {
            return String::new();
        }
        let asked = which.iter().map(|&which| {
            let id = self.seen.get(which).copied().unwrap_or(DeadId(1 << 60));
            let letter = self.dead.iter().find(|letter| letter.id == id);
            let whose = letter.map_or_else(|| name(0), |letter| letter.identity.clone());
            let identity = if wrong { name(9) } else { whose };
            let holder = holder(order.holder);
            (id, Address { identity, holder })
        });
        let asked = asked.filter(|(_, address)| !self.discarded.contains(&address.identity));
        let asked: Vec<_> = asked.collect();
        format!(
            "{:?}",
            self.now().await.redrive(asked, terms(order), soon()).await
        )
    }

    async fn configure(&mut self, limits: &Limits) -> String {
        let limits = InboxLimits {
            max_messages: limits.messages,
            overflow: if limits.drop_oldest {
                Overflow::DropOldest
            } else {
                Overflow::Reject
            },
            dedupe: if self.redrives {
                super::steps::limits(true).dedupe
            } else {
                limits.dedupe
            },
            max_dead_letters: DEAD,
            ..InboxLimits::default()
        };
        format!("{:?}", self.now().await.configure(limits, soon()).await)
    }

    /// Learns which dead letters there are.
    async fn look(&mut self) -> String {
        let query = DeadQuery {
            limit: 100,
            ..DeadQuery::default()
        };
        self.dead = self
            .now()
            .await
            .dead_letters(query, soon())
            .await
            .unwrap()
            .letters;
        for letter in &self.dead {
            if !self.seen.contains(&letter.id) {
                self.seen.push(letter.id);
            }
        }
        let letters: Vec<String> = self.dead.iter().map(|letter| self.letter(letter)).collect();
        format!("{letters:?}")
    }

    fn letter(&self, letter: &DeadLetter) -> String {
        let number = self.seen.iter().position(|id| *id == letter.id);
        let since = (letter.died_at.0 - self.start.0).div_euclid(TICK as i64);
        format!(
            "{number:?} {} {:?} {} {since} {:?}",
            letter.identity, letter.reason, letter.attempts, letter.message
        )
    }

    /// The slot, for one call.
    async fn now(&mut self) -> &'a S {
        if let Time::Redis {
            admin,
            namespace,
            now,
        } = &self.time
        {
            // A clock that is behind what it was makes no time go by.
            set_clock(admin, namespace, *now, Timestamp::now().0 + 60_000).await;
        }
        self.slot
    }

    fn consumer(&self, session: &Session) -> Consumer {
        let own = self.sessions.get(&session.who).copied();
        let (holder, epoch, session_seq) = session.other.or(own).unwrap_or((0, 1, 1));
        Consumer {
            address: address(session.who, holder),
            epoch: Epoch(epoch),
            session_seq,
        }
    }
}

fn name(who: u8) -> Identity {
    identity(&format!("id-{who}"))
}

fn holder(number: u8) -> Holder {
    Holder([number; 16])
}

fn address(who: u8, number: u8) -> Address {
    Address {
        identity: name(who),
        holder: holder(number),
    }
}

fn multicast(what: u8) -> MulticastId {
    MulticastId(what.into())
}

fn message(order: &Order) -> Arc<Message> {
    Arc::new(Message {
        published_at: Timestamp(5),
        receipts: order.variant.then(|| "elsewhere".into()),
        ..Message::new(multicast(order.what), vec![order.what; 10])
    })
}

fn terms(order: &Order) -> Terms {
    Terms {
        priority: order.priority,
        ttl: order.ttl,
    }
}

fn ticket(ticket: &Ticket) -> String {
    format!("{} {:?}", ticket.multicast, ticket.receipts)
}

fn plain_error(error: Error) -> String {
    format!("{error:?}")
}
