//! The same calls to Redis and to memory give the same answers.
//!
//! Time goes by only when the test lets it. What expired is looked for on both then, so that it does not matter
//! which call would have found it; names of dead letters are compared by their order.

mod run;
mod steps;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prism_slot::{
    Timestamp,
    memory::{InboxConfig as MemoryConfig, ManualClock, MemoryInbox},
};
use prism_slot_redis::RedisInbox;
use prism_testkit::{RedisServer, seed};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use run::{Run, Time};
use serde_json::json;
use steps::Step;

use super::{super::support::Admin, config};

#[test]
fn redis_and_memory_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start()).unwrap();
    let admin = runtime.block_on(Admin::to(server.addr()));
    let steps = (any::<bool>(), prop::collection::vec(steps::step(), 1..80));
    let config = ProptestConfig {
        cases: 120,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed().to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&steps, |(redrives, steps)| {
        runtime.block_on(compare(&server, &admin, redrives, &steps))
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// `redrives`: dead letters are put back, and what left is known for ever. Otherwise what was forgotten may be stored
/// again while it is a dead letter, and putting that back has no meaning that both would have to share.
async fn compare(
    server: &RedisServer,
    admin: &Admin,
    redrives: bool,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let namespace = format!("oracle-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
    let limits = steps::limits(redrives);
    let settings = config(
        server.addr(),
        json!({ "pool_size": 1, "store_max_inboxes": 3, "store_calls": 1 }),
    );
    let redis = RedisInbox::open(&namespace, settings, limits).await.unwrap();
    let start = Timestamp::now();
    let clock = Arc::new(ManualClock::new(start));
    let memory = MemoryInbox::with_clock(MemoryConfig::default(), limits, clock.clone());
    let oracle = Run::new(&memory, Time::Memory(&clock), start, redrives)
        .all(steps)
        .await;
    let ours = Time::Redis {
        admin,
        namespace: &namespace,
        now: start.0,
    };
    let ours = Run::new(&redis, ours, start, redrives).all(steps).await;
    for (ours, oracle) in ours.iter().zip(&oracle) {
        prop_assert_eq!(ours, oracle);
    }
    prop_assert_eq!(ours.len(), oracle.len());
    Ok(())
}
