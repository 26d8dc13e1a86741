//! After an outage leases last once more, and the dead end then.

use prism_slot::{Cause, Error, RegistryStore, Renew, Revision};
use prism_testkit::{RedisServer, eventually};

use super::{
    clock::{MARGIN, Served, TTL},
    support::*,
};

/// Leases that run when the outage begins.
const LEASES: usize = 10_000;
/// Of these clients some live on; others died before the outage, and the rest during it, right after a renewal.
const ALIVE: usize = 4_000;
const DIED_BEFORE: usize = 3_000;
const OUTAGE: i64 = 300_000;

fn name(number: usize) -> String {
    format!("id-{number:05}")
}

impl Served {
    async fn register_all(&self) {
        for first in (0..LEASES).step_by(1_000) {
            let batch = (first..first + 1_000).map(|number| leased(&name(number), TTL));
            let held = self.slot.register(call(), batch.collect()).await;
            assert!(held.iter().all(Result::is_ok));
        }
    }

    async fn renew(&self, numbers: std::ops::Range<usize>) {
        for first in numbers.clone().step_by(1_000) {
            let lease = |number| Renew {
                identity: identity(&name(number)),
                generation: None,
            };
            let batch = (first..numbers.end.min(first + 1_000)).map(lease).collect();
            let renewed = self.slot.renew(call(), batch).await;
            assert!(
                renewed.iter().all(Result::is_ok),
                "{:?}",
                renewed.iter().find(|result| result.is_err())
            );
        }
    }

    async fn count(&self) -> usize {
        let mut count = 0;
        for first in (0..LEASES).step_by(100) {
            let part = (first..first + 100)
                .map(|number| identity(&name(number)))
                .collect();
            count += self
                .slot
                .leases(call(), part)
                .await
                .unwrap()
                .iter()
                .flatten()
                .count();
        }
        count
    }

    /// Up to the outage.
    async fn before_the_outage(&self) {
        // One that ended before, which nothing brings back.
        register(&self.slot, leased("ended", 1_000)).await.unwrap();
        self.register_all().await;
        self.serve_until(TTL / 2).await;
        self.renew(ALIVE + DIED_BEFORE..LEASES).await;
        self.renew(0..ALIVE).await;
        self.serve_until(TTL - MARGIN).await;
        let ends = history(&self.slot, Revision(LEASES as u64 + 1)).await;
        assert!(matches!(&ends[..], [end] if end.cause == Cause::Expired));
    }

    /// From the first call on.
    async fn after_the_outage(&self) {
        self.step().await;
        let resumed = self.clock().await.resumed_at;
        assert!(resumed > TTL - MARGIN, "the interruption was noticed");
        let end = resumed + TTL;
        self.serve_until(end - MARGIN).await;
        assert_eq!(self.count().await, LEASES, "each lives one more ttl");
        self.renew(0..ALIVE).await;
        self.serve_until(end).await;
        assert_eq!(self.count().await, ALIVE, "the dead end on time, all of them");
        assert!(get(&self.slot, "ended").await.is_none());
    }
}

/// Nobody called for five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_all_runners_gives_each_lease_one_more_ttl() {
    let served = Served::over(RedisServer::start().await.unwrap()).await;
    served.before_the_outage().await;
    served.jump(OUTAGE).await;
    served.after_the_outage().await;
    let last = head(&served.slot).await.revision;
    assert_eq!(
        last,
        Revision((2 + 2 * LEASES - ALIVE) as u64),
        "each end is one change"
    );
}

/// The server was gone for five minutes, and came back with what it had on disk.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_gives_each_lease_one_more_ttl() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut served = Served::over(RedisServer::start_with(&options).await.unwrap()).await;
    served.before_the_outage().await;
    let before = head(&served.slot).await;
    served.server.stop();
    let refused = served.slot.get(call(), identity("id-00000")).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. } | Error::Timeout { .. })),
        "{refused:?}"
    );
    served.server.restart().await.unwrap();
    let served = served.again().await;
    served.jump(OUTAGE).await;
    eventually(SOON, "the slot works again", || async {
        served.slot.get(call(), identity("nobody")).await.is_ok()
    })
    .await;
    assert_ne!(
        head(&served.slot).await.epoch,
        before.epoch,
        "what was on disk may not have been all"
    );
    served.after_the_outage().await;
}
