//! Making the same calls on one slot as on another.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prism_slot::{
    Change, Error, Identity, Mode, Owner, Position, Put, Record, Register, RegistryStore, Renew, RequestId,
    Revision, Scan, SessionId, Ttl, Unregister,
};

use super::{
    super::support::*,
    steps::{Guess, Step},
    warp::Warped,
};

/// No sum of steps of time comes near the end of a lease or the longest step of the lease clock, so that
/// the moments that real calls take do not matter.
const TTLS: [u64; 4] = [0, 400, 1_200, 3_600_000];

/// Makes the same calls on one slot and writes down what came of them, without times and epochs.
pub(super) struct Run<'a, S> {
    slot: Warped<'a, S>,
    /// Whether time went by since the last look.
    passed: bool,
    /// As the records were after the last step that looked.
    known: BTreeMap<Identity, (Position, Revision)>,
    requests: Vec<RequestId>,
    log: Vec<String>,
}

impl<'a, S: RegistryStore> Run<'a, S> {
    pub(super) fn new(slot: Warped<'a, S>) -> Self {
        Self {
            slot,
            passed: false,
            known: BTreeMap::new(),
            requests: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Makes the calls and returns what came of each.
    pub(super) async fn all(mut self, steps: &[(Step, [u8; 16])]) -> Vec<String> {
        for (step, fresh) in steps {
            self.step(step, RequestId(*fresh)).await;
        }
        self.step(&Step::Scan, RequestId([0; 16])).await;
        self.log
    }

    async fn step(&mut self, step: &Step, fresh: RequestId) {
        if let Step::Pass { millis } = step {
            self.slot.pass(*millis);
            self.passed = true;
            return;
        }
        // In which order several due leases end is nobody's promise: they end one by one, then.
        if self.passed && matches!(step, Step::Sync { .. } | Step::Register { .. }) {
            self.look().await;
        }
        let line = match step.clone() {
            Step::Pass { .. } => String::new(),
            Step::Register {
                who,
                what,
                ttl,
                replace,
                session,
                principal,
                most,
                again,
            } => {
                let request = Register {
                    identity: name(who),
                    metadata: metadata(what),
                    ttl: Ttl::from_millis(TTLS[usize::from(ttl)]),
                    mode: if replace { Mode::Replace } else { Mode::Create },
                    owner: Owner {
                        principal: if principal { "someone" } else { "" }.into(),
                        session: (session > 0).then_some(SessionId([session; 16])),
                    },
                    max_identities: most,
                    request: self.request(fresh, again),
                };
                let results = self.slot.now().await.register(call(), vec![request]).await;
                let plain = results.into_iter().map(|result| {
                    let done = result.map_err(plain_error)?;
                    let leased = done.expires_at.is_some();
                    Ok::<_, String>((
                        done.written,
                        done.generation.revision,
                        done.position.revision,
                        leased,
                    ))
                });
                format!("{:?}", plain.collect::<Vec<_>>())
            }
            Step::Put {
                who,
                what,
                revision,
                generation,
                again,
            } => {
                let put = Put {
                    identity: name(who),
                    metadata: metadata(what),
                    if_revision: self.revision(who, revision),
                    generation: self.generation(who, generation),
                    request: self.request(fresh, again),
                };
                let record = self.slot.now().await.put(call(), put).await;
                format!(
                    "{:?}",
                    record.map(|record| plain_record(&record)).map_err(plain_error)
                )
            }
            Step::Renew { who, generation } => {
                let batch = who.iter().map(|&who| Renew {
                    identity: name(who),
                    generation: self.generation(who, generation),
                });
                let batch = batch.collect();
                let results = self.slot.now().await.renew(call(), batch).await;
                let plain = results.into_iter().map(|result| {
                    result
                        .map(|renewed| (renewed.ttl, renewed.expires_at.is_some()))
                        .map_err(plain_error)
                });
                format!("{:?}", plain.collect::<Vec<_>>())
            }
            Step::Unregister { who, generation } => {
                let gone = Unregister {
                    identity: name(who),
                    generation: self.generation(who, generation),
                };
                let gone = self.slot.now().await.unregister(call(), gone).await;
                format!(
                    "{:?}",
                    gone.map(|gone| (gone.existed, gone.position.revision))
                        .map_err(plain_error)
                )
            }
            Step::Get { who } => {
                let read = self.slot.now().await.get(call(), name(who)).await.unwrap();
                format!(
                    "{:?} {:?}",
                    read.head.revision,
                    read.record.map(|record| plain_record(&record))
                )
            }
            Step::Leases => {
                let leases = self
                    .slot
                    .now()
                    .await
                    .leases(call(), (0..6).map(name).collect())
                    .await
                    .unwrap();
                format!("{:?}", leases.iter().map(Option::is_some).collect::<Vec<_>>())
            }
            Step::Claim { who, generation } => {
                let generation = self.generation(who, generation);
                let claim = self
                    .slot
                    .now()
                    .await
                    .claim_session(call(), name(who), generation)
                    .await;
                format!(
                    "{:?}",
                    claim
                        .map(|claim| (claim.session_seq, claim.generation.revision))
                        .map_err(plain_error)
                )
            }
            Step::Sync { from, limit } => {
                let sync = self.slot.now().await.sync(call(), Revision(from), limit).await;
                let plain = sync.map(|sync| {
                    let changes: Vec<_> = sync.changes.iter().map(plain_change).collect();
                    (sync.head.revision, changes, sync.more)
                });
                format!("{:?}", plain.map_err(plain_error))
            }
            Step::Scan => format!("{:?}", self.scan().await),
        };
        self.log.push(format!("{step:?} -> {line}"));
        self.look().await;
    }

    async fn scan(&mut self) -> BTreeMap<Identity, String> {
        let scan = Scan {
            cursor: None,
            limit: 100,
            hold: Duration::from_secs(1),
        };
        let page = self.slot.now().await.scan(call(), scan).await.unwrap();
        assert_eq!(page.next, None);
        page.records
            .iter()
            .map(|record| (record.identity.clone(), plain_record(record)))
            .collect()
    }

    /// Learns what a caller could know.
    async fn look(&mut self) {
        self.passed = false;
        self.known.clear();
        for who in 0..6 {
            if let Some(record) = self.slot.now().await.get(call(), name(who)).await.unwrap().record {
                self.known.insert(name(who), (record.generation, record.revision));
            }
        }
    }

    /// A fresh one, or one that was used before.
    fn request(&mut self, fresh: RequestId, again: bool) -> RequestId {
        let used = if self.requests.is_empty() {
            0
        } else {
            usize::from(fresh.0[0]) % self.requests.len()
        };
        match self.requests.get(used) {
            Some(used) if again => *used,
            _ => {
                self.requests.push(fresh);
                fresh
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
}

fn name(who: u8) -> Identity {
    identity(&format!("id-{who}"))
}

fn metadata(what: u8) -> Bytes {
    Bytes::from(format!("{{\"n\":{what},\"z\":\"\0\u{fffd}\"}}"))
}

fn plain_record(record: &Record) -> String {
    format!("{} {}", plain_content(record), record.expires_at.is_some())
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
