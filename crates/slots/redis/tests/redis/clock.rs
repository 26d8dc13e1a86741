//! The lease clock, which runs inside Redis, against its reference.

use std::time::Duration;

use fred::types::Value;
use prism_slot::{
    Cause, Error, Put, Query, RegistryStore, Renew, RequestId, Revision, Timestamp, Unregister,
    lease::LeaseClock,
};
use prism_slot_redis::RedisRegistry;
use prism_testkit::{RedisServer, eventually};
use tokio::time::Instant;

use super::support::*;

/// Where the clock stands in the head: now, the wall clock at the last call, and when it was resumed.
const CLOCK: usize = 89;

/// In milliseconds.
pub(super) const TTL: u64 = 30_000;
/// Much more than the time that a test takes by itself.
pub(super) const MARGIN: u64 = 5_000;

/// A slot whose lease clock is in the hands of the test. All that the clock looks at is how much later than
/// the call before a call is, so a call seems as late as is wanted when the time of the one before is moved back.
pub(super) struct Served {
    pub(super) server: RedisServer,
    pub(super) slot: RedisRegistry,
    admin: Admin,
}

async fn served() -> Served {
    Served::over(RedisServer::start().await.unwrap()).await
}

impl Served {
    pub(super) async fn over(server: RedisServer) -> Self {
        let (slot, admin) = (open(server.addr()).await, Admin::to(server.addr()).await);
        Self { server, slot, admin }
    }

    /// After the server was started again.
    pub(super) async fn again(self) -> Self {
        let admin = Admin::to(self.server.addr()).await;
        Self { admin, ..self }
    }

    pub(super) async fn clock(&self) -> LeaseClock {
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
    pub(super) async fn jump(&self, millis: i64) {
        let seen = self.clock().await.last_seen.0 - millis;
        let arguments = vec![
            key("head").into(),
            ((CLOCK + 8) as i64).into(),
            Value::Bytes(seen.to_be_bytes().to_vec().into()),
        ];
        self.admin.run_bytes("SETRANGE", arguments).await.unwrap();
    }

    /// Lets the clock reach this time, called as often as by a runner.
    pub(super) async fn serve_until(&self, end: u64) {
        loop {
            let left = end.saturating_sub(self.clock().await.now);
            if left == 0 {
                return;
            }
            self.jump(left.min(1_500) as i64).await;
            self.step().await;
        }
    }

    /// A call that saves the clock.
    pub(super) async fn step(&self) {
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

/// An hour ahead and an hour back.
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_wall_clock_gives_one_more_ttl_and_no_more() {
    for jump in [3_600_000, -3_600_000] {
        let served = served().await;
        register(&served.slot, leased("a", TTL)).await.unwrap();
        served.serve_until(TTL / 2).await;
        served.jump(jump).await;
        served.step().await;
        let resumed = served.clock().await.now;
        served.serve_until(resumed + TTL - MARGIN).await;
        assert!(get(&served.slot, "a").await.is_some(), "{jump}");
        served.serve_until(resumed + TTL).await;
        assert!(
            get(&served.slot, "a").await.is_none(),
            "{jump}: the dead client is gone"
        );
    }
}

/// However a due registration is asked for first, it is not there: nothing sweeps here.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_due_is_served() {
    let served = served().await;
    // The last one ends all that are left.
    let ways = [
        "get",
        "leases",
        "query",
        "renew",
        "put",
        "unregister",
        "claim",
        "register",
        "sync",
    ];
    for way in ways {
        register(&served.slot, leased(way, TTL)).await.unwrap();
    }
    served.serve_until(TTL - MARGIN).await;
    let kept = served
        .slot
        .leases(call(), ways.map(identity).to_vec())
        .await
        .unwrap();
    assert!(kept.iter().all(Option::is_some));
    served.serve_until(TTL + MARGIN).await;
    for way in ways {
        assert!(is_absent(&served.slot, way).await, "{way}");
    }
}

async fn is_absent(slot: &RedisRegistry, way: &str) -> bool {
    let (identity, generation) = (identity(way), None);
    let refused = match way {
        "get" => return get(slot, way).await.is_none(),
        "leases" => return slot.leases(call(), vec![identity]).await.unwrap() == [None],
        "register" => return register(slot, leased(way, TTL)).await.is_ok(),
        "sync" => {
            let last = history(slot, Revision::ZERO).await;
            return last
                .iter()
                .any(|change| change.cause == Cause::Expired && change.record.identity == identity);
        }
        "query" => {
            let query = Query {
                filter: None,
                cursor: None,
                limit: 100,
            };
            let page = slot.query(call(), query).await.unwrap();
            return page.records.iter().all(|record| record.identity != identity);
        }
        "unregister" => {
            let removal = Unregister { identity, generation };
            return !slot.unregister(call(), removal).await.unwrap().existed;
        }
        "renew" => slot
            .renew(call(), vec![Renew { identity, generation }])
            .await
            .remove(0)
            .err(),
        "claim" => slot.claim_session(call(), identity, generation).await.err(),
        _ => {
            let put = Put {
                identity,
                metadata: Default::default(),
                if_revision: Revision(1),
                generation,
                request: RequestId::next(),
            };
            slot.put(call(), put).await.err()
        }
    };
    matches!(refused, Some(Error::NotFound(_)))
}
