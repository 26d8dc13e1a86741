//! The same calls to Redis and to memory give the same answers.
//!
//! Epochs differ and are not compared; of times what is left of each lease is. Time goes by only when the
//! test lets it.

mod run;
mod steps;
mod warp;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prism_slot::{
    Timestamp,
    memory::{ManualClock, MemoryRegistry, RegistryConfig},
};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{RedisServer, seed};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use run::Run;
use serde_json::json;
use steps::Step;
use warp::Warped;

use super::support::*;

#[test]
fn redis_and_memory_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start()).unwrap();
    let admin = runtime.block_on(Admin::to(server.addr()));
    let steps = prop::collection::vec((steps::step(), any::<[u8; 16]>()), 1..60);
    let config = ProptestConfig {
        cases: 60,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed().to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&steps, |steps| runtime.block_on(compare(&server, &admin, &steps)));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

async fn compare(
    server: &RedisServer,
    admin: &Admin,
    steps: &[(Step, [u8; 16])],
) -> Result<(), TestCaseError> {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let namespace = format!("oracle-{}", NAMESPACES.fetch_add(1, Ordering::Relaxed));
    let settings = config(server.addr(), json!({ "pool_size": 1, "feed_max_changes": 20 }));
    let redis = RedisRegistry::open(&namespace, settings).await.unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(0)));
    let feed = RegistryConfig {
        feed_max_changes: 20,
        ..RegistryConfig::default()
    };
    let memory = MemoryRegistry::with_clock(feed, clock.clone());
    let ours = Run::new(Warped::redis(&redis, admin, &namespace))
        .all(steps)
        .await;
    let oracle = Run::new(Warped::memory(&memory, &clock)).all(steps).await;
    for (ours, oracle) in ours.iter().zip(&oracle) {
        prop_assert_eq!(ours, oracle);
    }
    prop_assert_eq!(ours.len(), oracle.len());
    Ok(())
}
