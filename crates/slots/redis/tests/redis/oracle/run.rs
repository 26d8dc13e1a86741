//! Making the same calls on one slot as on another.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prism_slot::{
    Change, Claim, Error, Identity, Mode, Owner, Position, Put, Record, Register, Registered, RegistryStore,
    Renew, Renewed, RequestId, Revision, Scan, SessionId, Timestamp, Ttl, Unregister, Unregistered,
};

use super::{
    super::support::*,
    steps::{Guess, Registration, Rewrite, Step, TTLS},
    warp::Warped,
};

/// Half a tick more than some whole ones, and so is what is left of each lease at any time: the moments that
/// real calls take do not matter.
const LEASES: [u64; TTLS] = [0, 600, 1_800, 3_000, 3_600_600];
/// How many identities there are.
const NAMES: std::ops::Range<u8> = 0..6;

/// Makes the same calls on one slot and writes down what came of them, without epochs, and of times what
/// they say about each other.
pub(super) struct Run<'a, S> {
    slot: Warped<'a, S>,
    /// Whether time went by since the last look.
    passed: bool,
    /// As the records were after the last step that looked.
    known: BTreeMap<Identity, (Position, Revision)>,
    /// When each generation was registered, as it was first said.
    registered: BTreeMap<Revision, Timestamp>,
    requests: Vec<RequestId>,
    log: Vec<String>,
}

impl<'a, S: RegistryStore> Run<'a, S> {
    pub(super) fn new(slot: Warped<'a, S>) -> Self {
        Self {
            slot,
            passed: false,
            known: BTreeMap::new(),
            registered: BTreeMap::new(),
            requests: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Makes the calls and returns what came of each.
    pub(super) async fn all(mut self, steps: &[(Step, [u8; 16])]) -> Vec<String> {
        for (step, fresh) in steps {
            self.step(step, *fresh).await;
        }
        self.step(&Step::Scan, [0; 16]).await;
        self.log
    }

    async fn step(&mut self, step: &Step, fresh: [u8; 16]) {
        if let Step::Pass { millis } = step {
            self.slot.pass(*millis);
            self.passed = true;
            return;
        }
        // In which order several due leases end is nobody's promise: they end one by one, then.
        if self.passed && matches!(step, Step::Sync { .. } | Step::Register(_)) {
            self.look().await;
        }
        let outcome = match step {
            Step::Pass { .. } => return,
            Step::Register(batch) => self.register(batch, fresh).await,
            Step::Put(rewrite) => self.put(rewrite, fresh).await,
            Step::Renew { who, generation } => self.renew(who, *generation).await,
            Step::Unregister { who, generation } => self.unregister(*who, *generation).await,
            Step::Get { who } => self.get(*who).await,
            Step::Leases => self.leases().await,
            Step::Claim { who, generation } => self.claim(*who, *generation).await,
            Step::Sync { from, limit } => self.sync(Revision(*from), *limit).await,
            Step::Scan => self.scan().await,
        };
        self.log.push(format!("{step:?} -> {outcome}"));
        self.look().await;
    }

    async fn register(&mut self, batch: &[Registration], fresh: [u8; 16]) -> String {
        let numbered = batch.iter().zip(0..);
        let batch = numbered.map(|(one, number)| Register {
            identity: name(one.who),
            metadata: metadata(one.what),
            ttl: Ttl::from_millis(LEASES[usize::from(one.ttl)]),
            mode: if one.replace { Mode::Replace } else { Mode::Create },
            owner: Owner {
                principal: if one.principal { "someone" } else { "" }.into(),
                session: (one.session > 0).then_some(SessionId([one.session; 16])),
            },
            max_identities: one.most,
            request: self.request(fresh, number, one.again),
        });
        let batch = batch.collect();
        let results = self.slot.now().await.register(call(), batch).await;
        let results: Vec<_> = results
            .into_iter()
            .map(|result| result.map(|done| self.registered(&done)).map_err(plain_error))
            .collect();
        format!("{results:?}")
    }

    fn registered(&mut self, done: &Registered) -> String {
        format!(
            "{:?} {:?} {:?} {} {:?}",
            done.written,
            done.generation.revision,
            done.position.revision,
            self.is_steady(done.generation, done.registered_at),
            self.slot.left(done.expires_at),
        )
    }

    async fn put(&mut self, rewrite: &Rewrite, fresh: [u8; 16]) -> String {
        let put = Put {
            identity: name(rewrite.who),
            metadata: metadata(rewrite.what),
            if_revision: self.revision(rewrite.who, rewrite.revision),
            generation: self.generation(rewrite.who, rewrite.generation),
            request: self.request(fresh, 0, rewrite.again),
        };
        match self.slot.now().await.put(call(), put).await {
            Ok(record) => self.record(&record),
            Err(error) => plain_error(error),
        }
    }

    async fn renew(&mut self, who: &[u8], generation: Guess) -> String {
        let batch = who.iter().map(|&who| Renew {
            identity: name(who),
            generation: self.generation(who, generation),
        });
        let batch = batch.collect();
        let results = self.slot.now().await.renew(call(), batch).await;
        let plain = |renewed: Renewed| (renewed.ttl, self.slot.left(renewed.expires_at));
        let results = results
            .into_iter()
            .map(|result| result.map(plain).map_err(plain_error));
        format!("{:?}", results.collect::<Vec<_>>())
    }

    async fn unregister(&mut self, who: u8, generation: Guess) -> String {
        let request = Unregister {
            identity: name(who),
            generation: self.generation(who, generation),
        };
        let gone = self.slot.now().await.unregister(call(), request).await;
        let plain = |gone: Unregistered| (gone.existed, gone.position.revision);
        format!("{:?}", gone.map(plain).map_err(plain_error))
    }

    async fn get(&mut self, who: u8) -> String {
        let read = self.slot.now().await.get(call(), name(who)).await.unwrap();
        let record = read.record.map(|record| self.record(&record));
        format!("{:?} {record:?}", read.head.revision)
    }

    async fn leases(&mut self) -> String {
        let identities = NAMES.map(name).collect();
        let ends = self.slot.now().await.leases(call(), identities).await.unwrap();
        let left: Vec<_> = ends.into_iter().map(|end| self.slot.left(end)).collect();
        format!("{left:?}")
    }

    async fn claim(&mut self, who: u8, generation: Guess) -> String {
        let generation = self.generation(who, generation);
        let slot = self.slot.now().await;
        let claim = slot.claim_session(call(), name(who), generation).await;
        let plain = |claim: Claim| (claim.session_seq, claim.generation.revision);
        format!("{:?}", claim.map(plain).map_err(plain_error))
    }

    async fn sync(&mut self, from: Revision, limit: usize) -> String {
        let sync = self.slot.now().await.sync(call(), from, limit).await;
        let plain = sync.map(|sync| {
            let changes: Vec<_> = sync.changes.iter().map(plain_change).collect();
            (sync.head.revision, changes, sync.more)
        });
        format!("{:?}", plain.map_err(plain_error))
    }

    async fn scan(&mut self) -> String {
        let scan = Scan {
            cursor: None,
            limit: 100,
            hold: Duration::from_secs(1),
        };
        let page = self.slot.now().await.scan(call(), scan).await.unwrap();
        assert_eq!(page.next, None);
        let records: BTreeMap<_, _> = page
            .records
            .iter()
            .map(|record| (record.identity.clone(), self.record(record)))
            .collect();
        format!("{:?} {records:?}", page.head.revision)
    }

    /// Learns what a caller could know.
    async fn look(&mut self) {
        self.passed = false;
        self.known.clear();
        for who in NAMES {
            if let Some(record) = self.slot.now().await.get(call(), name(who)).await.unwrap().record {
                self.known.insert(name(who), (record.generation, record.revision));
            }
        }
    }

    /// A fresh one, or one that was used before.
    fn request(&mut self, fresh: [u8; 16], number: u8, again: bool) -> RequestId {
        let used = if self.requests.is_empty() {
            0
        } else {
            usize::from(fresh[0]) % self.requests.len()
        };
        match self.requests.get(used) {
            Some(used) if again => *used,
            _ => {
                let mut fresh = fresh;
                fresh[15] = number;
                self.requests.push(RequestId(fresh));
                RequestId(fresh)
            }
        }
    }

    fn revision(&self, who: u8, guess: Guess) -> Revision {
        let known = self.known.get(&name(who)).map_or(Revision::ZERO, |known| known.1);
        if matches!(guess, Guess::Wrong) {
            Revision(known.0 + 3)
        } else {
            known
        }
    }

    fn generation(&self, who: u8, guess: Guess) -> Option<Position> {
        let known = self.known.get(&name(who)).map(|known| known.0);
        match guess {
            Guess::None => None,
            Guess::Right => known,
            Guess::Wrong => known.map(|known| Position {
                revision: Revision(known.revision.0 + 1),
                ..known
            }),
        }
    }

    fn record(&mut self, record: &Record) -> String {
        let steady = self.is_steady(record.generation, record.registered_at);
        let left = self.slot.left(record.expires_at);
        format!("{} {steady} {left:?}", plain_content(record))
    }

    /// Whether the generation was always said to be of this time.
    fn is_steady(&mut self, generation: Position, registered_at: Timestamp) -> bool {
        let first = self
            .registered
            .entry(generation.revision)
            .or_insert(registered_at);
        *first == registered_at
    }
}

fn name(who: u8) -> Identity {
    identity(&format!("id-{who}"))
}

fn metadata(what: u8) -> Bytes {
    Bytes::from(format!("{{\"n\":{what},\"z\":\"\0\u{fffd}\"}}"))
}

fn plain_content(record: &Record) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        record.identity,
        record.metadata,
        record.ttl,
        record.generation.revision,
        record.revision,
        record.owner,
    )
}

/// When a lease ends may be older in the feed than in the record.
fn plain_change(change: &Change) -> String {
    format!(
        "{:?} {:?} {}",
        change.revision,
        change.cause,
        plain_content(&change.record)
    )
}

fn plain_error(error: Error) -> String {
    match error {
        Error::StaleGeneration { identity, current } => format!("stale {identity} {:?}", current.revision),
        other => format!("{other:?}"),
    }
}
