//! The same calls to Redis and to memory give the same answers.
//!
//! Times differ by the clocks they are read from, and leases are either none or far longer than the
//! test, so that none ends: what a lease does is tested elsewhere.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use prism_slot::{
    Change, Error, Identity, Mode, Owner, Position, Put, Record, Register, RegistryStore, Renew, RequestId,
    Revision, Scan, SessionId, Ttl, Unregister,
    memory::{MemoryRegistry, RegistryConfig},
};
use prism_slot_redis::RedisRegistry;
use prism_testkit::RedisServer;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;

use super::support::*;

#[derive(Debug, Clone)]
enum Step {
    Register {
        who: u8,
        what: u8,
        ttl: u8,
        replace: bool,
        session: u8,
        principal: bool,
        most: u64,
        again: bool,
    },
    Put {
        who: u8,
        what: u8,
        revision: Guess,
        generation: Guess,
        again: bool,
    },
    Renew {
        who: Vec<u8>,
        generation: Guess,
    },
    Unregister {
        who: u8,
        generation: Guess,
    },
    Get {
        who: u8,
    },
    Leases,
    Claim {
        who: u8,
        generation: Guess,
    },
    Sync {
        from: u64,
        limit: usize,
    },
    Scan,
}

/// What a caller believes of the record.
#[derive(Debug, Clone, Copy)]
enum Guess {
    None,
    Right,
    Wrong,
}

fn guess() -> impl Strategy<Value = Guess> {
    prop_oneof![2 => Just(Guess::None), 5 => Just(Guess::Right), 2 => Just(Guess::Wrong)]
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6_u8;
    let register = (
        who.clone(),
        0..3_u8,
        0..3_u8,
        any::<bool>(),
        0..3_u8,
        any::<bool>(),
        2..8_u64,
        0..6_u8,
    );
    prop_oneof![
        8 => register.prop_map(|(who, what, ttl, replace, session, principal, most, again)| Step::Register {
            who, what, ttl, replace, session, principal, most, again: again == 0,
        }),
        4 => (who.clone(), 0..3_u8, guess(), guess(), 0..6_u8).prop_map(|(who, what, revision, generation, again)| {
            Step::Put { who, what, revision, generation, again: again == 0 }
        }),
        3 => (prop::collection::vec(who.clone(), 1..5), guess()).prop_map(|(who, generation)| Step::Renew { who, generation }),
        3 => (who.clone(), guess()).prop_map(|(who, generation)| Step::Unregister { who, generation }),
        2 => who.clone().prop_map(|who| Step::Get { who }),
        1 => Just(Step::Leases),
        1 => (who, guess()).prop_map(|(who, generation)| Step::Claim { who, generation }),
        2 => (0..40_u64, 0..8_usize).prop_map(|(from, limit)| Step::Sync { from, limit }),
        1 => Just(Step::Scan),
    ]
}

/// Makes the same calls on one slot and writes down what came of them, without times and epochs.
struct Run<'a, S> {
    slot: &'a S,
    /// As the records were after the last step that looked.
    known: BTreeMap<Identity, (Position, Revision)>,
    requests: Vec<RequestId>,
    log: Vec<String>,
}

impl<S: RegistryStore> Run<'_, S> {
    async fn step(&mut self, step: &Step, fresh: RequestId) {
        let line = match step.clone() {
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
                    ttl: Ttl::from_millis(3_600_000 * u64::from(ttl)),
                    mode: if replace { Mode::Replace } else { Mode::Create },
                    owner: Owner {
                        principal: if principal { "someone" } else { "" }.into(),
                        session: (session > 0).then_some(SessionId([session; 16])),
                    },
                    max_identities: most,
                    request: self.request(fresh, again),
                };
                let results = self.slot.register(call(), vec![request]).await;
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
                let record = self.slot.put(call(), put).await;
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
                let results = self.slot.renew(call(), batch.collect()).await;
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
                let gone = self.slot.unregister(call(), gone).await;
                format!(
                    "{:?}",
                    gone.map(|gone| (gone.existed, gone.position.revision))
                        .map_err(plain_error)
                )
            }
            Step::Get { who } => {
                let read = self.slot.get(call(), name(who)).await.unwrap();
                format!(
                    "{:?} {:?}",
                    read.head.revision,
                    read.record.map(|record| plain_record(&record))
                )
            }
            Step::Leases => {
                let leases = self
                    .slot
                    .leases(call(), (0..6).map(name).collect())
                    .await
                    .unwrap();
                format!("{:?}", leases.iter().map(Option::is_some).collect::<Vec<_>>())
            }
            Step::Claim { who, generation } => {
                let generation = self.generation(who, generation);
                let claim = self.slot.claim_session(call(), name(who), generation).await;
                format!(
                    "{:?}",
                    claim
                        .map(|claim| (claim.session_seq, claim.generation.revision))
                        .map_err(plain_error)
                )
            }
            Step::Sync { from, limit } => {
                let sync = self.slot.sync(call(), Revision(from), limit).await;
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

    async fn scan(&self) -> BTreeMap<Identity, String> {
        let scan = Scan {
            cursor: None,
            limit: 100,
            hold: Duration::from_secs(1),
        };
        let page = self.slot.scan(call(), scan).await.unwrap();
        assert_eq!(page.next, None);
        page.records
            .iter()
            .map(|record| (record.identity.clone(), plain_record(record)))
            .collect()
    }

    /// Learns what a caller could know.
    async fn look(&mut self) {
        self.known.clear();
        for who in 0..6 {
            if let Some(record) = self.slot.get(call(), name(who)).await.unwrap().record {
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

#[test]
fn redis_and_memory_agree() {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start()).unwrap();
    let steps = prop::collection::vec((step(), any::<[u8; 16]>()), 1..60);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 60,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let namespace = format!("oracle-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
            let settings = config(server.addr(), json!({ "pool_size": 1, "feed_max_changes": 20 }));
            let redis = RedisRegistry::open(&namespace, settings).await.unwrap();
            let memory = MemoryRegistry::new(RegistryConfig {
                feed_max_changes: 20,
                ..RegistryConfig::default()
            });
            let (redis, memory) = (compare(&redis, &steps).await, compare(&memory, &steps).await);
            for (ours, oracle) in redis.iter().zip(&memory) {
                prop_assert_eq!(ours, oracle);
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

async fn compare<S: RegistryStore>(slot: &S, steps: &[(Step, [u8; 16])]) -> Vec<String> {
    let mut run = Run {
        slot,
        known: BTreeMap::new(),
        requests: Vec::new(),
        log: Vec::new(),
    };
    for (step, fresh) in steps {
        run.step(step, RequestId(*fresh)).await;
    }
    run.step(&Step::Scan, RequestId([0; 16])).await;
    run.log
}
