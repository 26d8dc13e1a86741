//! The same calls to a registry in a file and in memory have the same outcomes, epochs aside; closing and opening the
//! file in between makes no difference.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prism_slot::{
    Call, Change, Identity, Mode, Owner, Position, Put, Record, Register, RegistryStore, Renew, RequestId,
    Revision, Scan, SessionId, Timestamp, Ttl, Unregister,
    memory::{ManualClock, MemoryRegistry, RegistryConfig},
};
use prism_slot_sqlite::{Config, SqliteRegistry};
use prism_testkit::seed;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use super::support::*;

const NAMES: u8 = 5;
const FEED: usize = 20;

#[derive(Debug, Clone)]
enum Step {
    Pass {
        millis: u64,
    },
    Register {
        who: Vec<u8>,
        what: u8,
        ttl: u8,
        replace: bool,
        session: u8,
        most: u64,
        request: u8,
    },
    Put {
        who: u8,
        what: u8,
        wrong: bool,
        generation: Guess,
        request: u8,
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
    Reopen,
}

/// What a caller believes of the record.
#[derive(Debug, Clone, Copy)]
enum Guess {
    None,
    Right,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let guess = || prop_oneof![2 => Just(Guess::None), 5 => Just(Guess::Right), 2 => Just(Guess::Wrong)];
    let (who, several) = (0..NAMES, || prop::collection::vec(0..NAMES, 1..4));
    let registration = (
        several(),
        0..3_u8,
        0..4_u8,
        any::<bool>(),
        0..3_u8,
        2..7_u64,
        0..40_u8,
    );
    prop_oneof![
        8 => registration.prop_map(|(who, what, ttl, replace, session, most, request)| Step::Register {
            who, what, ttl, replace, session, most, request
        }),
        4 => (who.clone(), 0..3_u8, any::<bool>(), guess(), 0..40_u8)
            .prop_map(|(who, what, wrong, generation, request)| Step::Put { who, what, wrong, generation, request }),
        3 => (several(), guess()).prop_map(|(who, generation)| Step::Renew { who, generation }),
        3 => (who.clone(), guess()).prop_map(|(who, generation)| Step::Unregister { who, generation }),
        2 => who.clone().prop_map(|who| Step::Get { who }),
        1 => Just(Step::Leases),
        1 => (who, guess()).prop_map(|(who, generation)| Step::Claim { who, generation }),
        2 => (0..40_u64, 0..8_usize).prop_map(|(from, limit)| Step::Sync { from, limit }),
        1 => Just(Step::Scan),
        1 => Just(Step::Reopen),
        // The longest one is an interruption.
        5 => prop_oneof![Just(300), Just(1_200), Just(2_000), Just(5_000)].prop_map(|millis| Step::Pass { millis }),
    ]
}

#[test]
fn a_registry_in_a_file_and_in_memory_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases: 150,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed().to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(config, random);
    let steps = prop::collection::vec(step(), 1..80);
    if let Err(failure) = runner.run(&steps, |steps| runtime.block_on(compare(&steps))) {
        panic!("{failure}");
    }
}

async fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let (place, clock) = (Place::fast(), Arc::new(ManualClock::new(Timestamp(1_000_000))));
    let config = Config {
        feed_max_changes: FEED as u64,
        ..registry_config(&place.path)
    };
    let open = || SqliteRegistry::open_with_clock(NAMESPACE, config.clone(), clock.clone());
    let of_memory = RegistryConfig {
        feed_max_changes: FEED,
        ..RegistryConfig::default()
    };
    let memory = MemoryRegistry::with_clock(of_memory, clock.clone());
    let mut ours = open().await.unwrap();
    for step in steps.iter().chain([&Step::Scan]) {
        match step {
            Step::Pass { millis } => {
                clock.advance(Duration::from_millis(*millis));
                // In which order several due leases end is nobody's promise: they end one by one, then.
                prop_assert_eq!(look(&ours).await, look(&memory).await);
            }
            Step::Reopen => {
                ours.close().await;
                ours = open().await.unwrap();
            }
            step => prop_assert_eq!(said(&ours, step).await, said(&memory, step).await, "{:?}", step),
        }
    }
    Ok(())
}

fn name(who: u8) -> Identity {
    identity(&format!("id-{who}"))
}

/// Expires what is due, in one order, and says what is left.
async fn look(slot: &impl RegistryStore) -> String {
    let mut all = String::new();
    for who in 0..NAMES {
        all += &said(slot, &Step::Get { who }).await;
    }
    all
}

async fn known(slot: &impl RegistryStore, who: u8) -> Option<Arc<Record>> {
    slot.get(call(), name(who)).await.unwrap().record
}

async fn generation(slot: &impl RegistryStore, who: u8, guess: Guess) -> Option<Position> {
    let known = known(slot, who).await.map(|record| record.generation);
    match guess {
        Guess::None => None,
        Guess::Right => known,
        Guess::Wrong => known.map(|known| Position {
            revision: Revision(known.revision.0 + 1),
            ..known
        }),
    }
}

fn metadata(what: u8) -> Bytes {
    Bytes::from(format!("{{\"n\":{what},\"z\":\"\0\u{fffd}\"}}"))
}

/// What a slot says to a call, without its epoch.
async fn said(slot: &impl RegistryStore, step: &Step) -> String {
    let epoch = slot.get(call(), identity("nobody")).await.unwrap().head.epoch;
    let call = Call {
        epoch: Some(epoch),
        ..call()
    };
    let said = match step {
        Step::Register {
            who,
            what,
            ttl,
            replace,
            session,
            most,
            request,
        } => {
            let one = |(who, number): (&u8, u8)| Register {
                identity: name(*who),
                metadata: metadata(*what),
                ttl: Ttl::from_millis([0, 1_000, 3_000, 3_600_000][usize::from(*ttl)]),
                mode: if *replace { Mode::Replace } else { Mode::Create },
                owner: Owner {
                    principal: "someone".into(),
                    session: (*session > 0).then_some(SessionId([*session; 16])),
                },
                max_identities: *most,
                request: RequestId([*request, number, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            };
            let batch = who.iter().zip(0..).map(one).collect();
            format!("{:?}", slot.register(call, batch).await)
        }
        Step::Put {
            who,
            what,
            wrong,
            generation: guess,
            request,
        } => {
            let current = known(slot, *who)
                .await
                .map_or(Revision::ZERO, |record| record.revision);
            let put = Put {
                identity: name(*who),
                metadata: metadata(*what),
                if_revision: if *wrong { Revision(current.0 + 3) } else { current },
                generation: generation(slot, *who, *guess).await,
                request: RequestId([*request; 16]),
            };
            format!("{:?}", slot.put(call, put).await)
        }
        Step::Renew {
            who,
            generation: guess,
        } => {
            let mut batch = Vec::new();
            for who in who {
                let generation = generation(slot, *who, *guess).await;
                batch.push(Renew {
                    identity: name(*who),
                    generation,
                });
            }
            format!("{:?}", slot.renew(call, batch).await)
        }
        step => said_briefly(slot, call, step).await,
    };
    said.replace(&format!("{epoch:?}"), "the epoch")
}

async fn said_briefly(slot: &impl RegistryStore, call: Call, step: &Step) -> String {
    match step {
        Step::Unregister {
            who,
            generation: guess,
        } => {
            let generation = generation(slot, *who, *guess).await;
            let request = Unregister {
                identity: name(*who),
                generation,
            };
            format!("{:?}", slot.unregister(call, request).await)
        }
        Step::Get { who } => format!("{:?}", slot.get(call, name(*who)).await),
        Step::Leases => format!("{:?}", slot.leases(call, (0..NAMES).map(name).collect()).await),
        Step::Claim {
            who,
            generation: guess,
        } => {
            let generation = generation(slot, *who, *guess).await;
            format!("{:?}", slot.claim_session(call, name(*who), generation).await)
        }
        Step::Sync { from, limit } => {
            let sync = slot.sync(call, Revision(*from), *limit).await;
            let plain = sync.map(|sync| {
                (
                    sync.head,
                    sync.changes.iter().map(plain).collect::<Vec<_>>(),
                    sync.more,
                )
            });
            format!("{plain:?}")
        }
        _ => {
            let scan = Scan {
                cursor: None,
                limit: 100,
                hold: Duration::ZERO,
            };
            let page = slot.scan(call, scan).await.unwrap();
            let records = page
                .records
                .into_iter()
                .map(|record| (record.identity.clone(), record));
            format!("{:?} {:?}", page.head, records.collect::<BTreeMap<_, _>>())
        }
    }
}

/// When a lease ends may be older in the feed than in the record.
fn plain(change: &Change) -> Change {
    let undated = |record: &Arc<Record>| {
        Arc::new(Record {
            expires_at: None,
            ..(**record).clone()
        })
    };
    Change {
        record: undated(&change.record),
        before: change.before.as_ref().map(undated),
        ..change.clone()
    }
}
