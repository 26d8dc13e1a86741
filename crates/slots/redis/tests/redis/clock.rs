//! The lease clock, which runs inside Redis, against its reference.

use std::time::Duration;

use fred::types::Value;
use prism_slot::{RegistryStore, Renew, Revision, Timestamp, lease::LeaseClock};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{RedisServer, eventually};
use tokio::time::Instant;

use super::support::*;

/// Where the clock stands in the head: now, the wall clock at the last call, and when it was resumed.
const CLOCK: usize = 89;

struct Served {
    _server: RedisServer,
    slot: RedisRegistry,
    admin: Admin,
}

async fn served() -> Served {
    let server = RedisServer::start().await.unwrap();
    let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
    Served {
        _server: server,
        slot,
        admin,
    }
}

impl Served {
    async fn clock(&self) -> LeaseClock {
        let head = self.admin.run(&["GET", &key("head")]).await.into_bytes().unwrap();
        let field = |index: usize| {
            let at = CLOCK + 8 * index;
            u64::from_be_bytes(head[at..at + 8].try_into().unwrap())
        };
        LeaseClock {
            now: field(0),
            last_seen: Timestamp(field(1) as i64),
            resumed_at: field(2),
        }
    }

    /// Makes the next call appear `millis` later than it is, or earlier.
    async fn jump(&self, millis: i64) {
        let seen = self.clock().await.last_seen.0 - millis;
        let arguments = vec![
            key("head").into(),
            ((CLOCK + 8) as i64).into(),
            Value::Bytes(seen.to_be_bytes().to_vec().into()),
        ];
        self.admin.run_bytes("SETRANGE", arguments).await.unwrap();
    }

    /// A call that saves the clock.
    async fn step(&self) {
        let renew = Renew {
            identity: identity("nobody"),
            generation: None,
        };
        assert_eq!(self.slot.renew(call(), vec![renew]).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_that_of_the_reference() {
    let served = served().await;
    let hour = 3_600_000;
    for jump in [
        0, 1, 99, 1_500, 1_990, 2_100, 60_000, hour, -1, -500, -1_990, -2_100, -hour, 5, 0,
    ] {
        served.step().await;
        served.jump(jump).await;
        let mut reference = served.clock().await;
        served.step().await;
        let after = served.clock().await;
        reference.tick(after.last_seen);
        assert_eq!(after, reference, "after a jump of {jump} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_between_writes_lose_no_time() {
    let served = served().await;
    served.step().await;
    let (before, started) = (served.clock().await, Instant::now());
    // Longer than the longest step: reads alone must keep the clock going.
    eventually(SOON, "more than two seconds passed", || async {
        assert!(served.slot.get(call(), identity("nobody")).await.is_ok());
        started.elapsed() > Duration::from_millis(2_200)
    })
    .await;
    served.step().await;
    let after = served.clock().await;
    assert_eq!(
        after.now - before.now,
        (after.last_seen.0 - before.last_seen.0) as u64
    );
    assert_eq!(after.resumed_at, before.resumed_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_wall_clock_gives_one_more_ttl_and_no_more() {
    for jump in [3_600_000, -3_600_000] {
        let served = served().await;
        register(&served.slot, leased("a", 1_000)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        served.jump(jump).await;
        let jumped = Instant::now();
        while jumped.elapsed() < Duration::from_millis(900) {
            assert!(
                get(&served.slot, "a").await.is_some(),
                "{jump}: after {:?}",
                jumped.elapsed()
            );
        }
        eventually(Duration::from_secs(1), "the dead client is gone", || async {
            get(&served.slot, "a").await.is_none()
        })
        .await;
        let took = jumped.elapsed();
        assert!(took < Duration::from_millis(1_300), "{jump}: after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_expires_nobody_who_could_not_renew() {
    let served = served().await;
    let names: Vec<String> = (0..200).map(|number| format!("id-{number}")).collect();
    let batch = names.iter().take(100).map(|name| leased(name, 700)).collect();
    served.slot.register(call(), batch).await;
    let batch = names.iter().skip(100).map(|name| leased(name, 700)).collect();
    served.slot.register(call(), batch).await;
    // Five minutes in which nobody called.
    served.jump(300_000).await;
    let resumed = Instant::now();
    assert_eq!(history(&served.slot, Revision(200)).await, []);
    let identities: Vec<_> = names.iter().map(|name| identity(name)).collect();
    let ends = served.slot.leases(call(), identities.clone()).await.unwrap();
    assert!(ends.iter().all(Option::is_some));
    let alive = names.iter().take(50).map(|name| Renew {
        identity: identity(name),
        generation: None,
    });
    let alive: Vec<_> = alive.collect();
    eventually(SOON, "the dead are gone", || async {
        assert!(
            served
                .slot
                .renew(call(), alive.clone())
                .await
                .iter()
                .all(Result::is_ok)
        );
        let ends = served.slot.leases(call(), identities.clone()).await.unwrap();
        let left = ends.iter().flatten().count();
        assert!(
            left == 200 || resumed.elapsed() >= Duration::from_millis(650),
            "{left} left too early"
        );
        left == 50
    })
    .await;
    assert!(
        resumed.elapsed() < Duration::from_millis(1_200),
        "{:?}",
        resumed.elapsed()
    );
}
