//! The boxed twin, over a slot that only counts.

use parking_lot::Mutex;
use tokio::time::Duration;

use super::*;
use crate::{RequestId, capability::Survives};

const MAX_BATCH: usize = 3;

/// Refuses every item of a batch, remembers how many there were, and answers nothing else.
#[derive(Default)]
struct Mute {
    batches: Mutex<Vec<usize>>,
}

impl Mute {
    fn refuse<T>(&self, identities: impl ExactSizeIterator<Item = Identity>) -> Vec<Result<T>> {
        self.batches.lock().push(identities.len());
        identities
            .map(|identity| Err(Error::NotFound(identity)))
            .collect()
    }
}

impl RegistryStore for Mute {
    fn capability(&self) -> &RegistryCapability {
        const CAPABILITY: RegistryCapability = RegistryCapability {
            backend: "mute",
            interfaces: &[],
            scope: Scope::Shared,
            survives: Survives::Nothing,
            max_batch: MAX_BATCH,
            query: true,
        };
        &CAPABILITY
    }

    async fn register(&self, _: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        self.refuse(batch.into_iter().map(|request| request.identity))
    }

    async fn put(&self, _: Call, _: Put) -> Result<Arc<Record>> {
        std::future::pending().await
    }

    async fn renew(&self, _: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        if batch.iter().any(|request| request.identity.as_str() == "slow") {
            std::future::pending::<()>().await;
        }
        self.refuse(batch.into_iter().map(|request| request.identity))
    }

    async fn unregister(&self, _: Call, _: Unregister) -> Result<Unregistered> {
        std::future::pending().await
    }

    async fn get(&self, _: Call, _: Identity) -> Result<Read> {
        std::future::pending().await
    }

    async fn leases(&self, _: Call, _: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        std::future::pending().await
    }

    async fn sync(&self, _: Call, _: Revision, _: usize) -> Result<Sync> {
        std::future::pending().await
    }

    async fn changed(&self, _: Call, _: Revision) -> Result<()> {
        std::future::pending().await
    }

    async fn scan(&self, _: Call, _: Scan) -> Result<ScanPage> {
        std::future::pending().await
    }

    async fn query(&self, _: Call, _: Query) -> Result<QueryPage> {
        std::future::pending().await
    }

    async fn claim_session(&self, _: Call, _: Identity, _: Option<Position>) -> Result<Claim> {
        std::future::pending().await
    }

    async fn probe(&self, _: Instant) -> Result<()> {
        std::future::pending().await
    }

    async fn close(&self) {}
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: Instant::now() + Duration::from_secs(1),
    }
}

fn identity(name: &str) -> Identity {
    Identity::new(name).unwrap()
}

fn register(name: &str) -> Register {
    Register {
        identity: identity(name),
        metadata: Bytes::new(),
        ttl: None,
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 1,
        request: RequestId::next(),
    }
}

fn renew(name: &str) -> Renew {
    Renew {
        identity: identity(name),
        generation: None,
    }
}

#[tokio::test]
async fn batches_are_split_to_what_the_slot_takes() {
    let slot = Mute::default();
    let names: Vec<String> = (0..8).map(|number| number.to_string()).collect();
    let twin = &slot as &dyn DynRegistryStore;
    let registered = twin.register(call(), names.iter().map(|name| register(name)).collect());
    let refused: Vec<_> = registered.await.into_iter().map(Result::unwrap_err).collect();
    let expected: Vec<_> = names.iter().map(|name| Error::NotFound(identity(name))).collect();
    assert_eq!(refused, expected, "in order");
    let renewed = twin.renew(call(), names.iter().map(|name| renew(name)).collect());
    assert_eq!(renewed.await.len(), 8);
    assert_eq!(*slot.batches.lock(), [3, 3, 2, 3, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_never_answers_is_given_up() {
    let slot = Mute::default();
    let (twin, call) = (&slot as &dyn DynRegistryStore, call());
    let put = Put {
        identity: identity("a"),
        metadata: Bytes::new(),
        if_revision: Revision::ZERO,
        generation: None,
        request: RequestId::next(),
    };
    let unregister = Unregister {
        identity: identity("a"),
        generation: None,
    };
    let scan = Scan {
        cursor: None,
        limit: 1,
        hold: Duration::ZERO,
    };
    let query = Query {
        filter: None,
        cursor: None,
        limit: 1,
    };
    let names = ["a", "a", "a", "slow", "a", "a", "a"];
    let (writes, reads, renewed) = tokio::join!(
        async {
            tokio::join!(
                async { twin.put(call, put).await.unwrap_err() },
                async { twin.unregister(call, unregister).await.unwrap_err() },
                async { twin.claim_session(call, identity("a"), None).await.unwrap_err() },
            )
        },
        async {
            tokio::join!(
                async { twin.get(call, identity("a")).await.unwrap_err() },
                async { twin.leases(call, vec![identity("a")]).await.unwrap_err() },
                async { twin.sync(call, Revision::ZERO, 1).await.unwrap_err() },
                async { twin.scan(call, scan).await.unwrap_err() },
                async { twin.query(call, query).await.unwrap_err() },
                async { twin.probe(call.deadline).await.unwrap_err() },
            )
        },
        twin.renew(call, names.map(renew).to_vec()),
    );
    assert_eq!(Instant::now(), call.deadline, "all at once, and no later");
    let late = |applied| Error::Timeout {
        backend: "mute",
        applied,
    };
    for error in [writes.0, writes.1, writes.2] {
        assert_eq!(error, late(Applied::Unknown));
    }
    for error in [reads.0, reads.1, reads.2, reads.3, reads.4, reads.5] {
        assert_eq!(error, late(Applied::No));
    }
    // What was answered before stands, and what is answered at once is worth more than a guess.
    let late: Vec<bool> = renewed
        .into_iter()
        .map(|result| result == Err(late(Applied::Unknown)))
        .collect();
    assert_eq!(late, [false, false, false, true, true, true, false]);
}
