//! The registry slot: what the trait asks, in terms of steps on the file.

mod desk;
mod feed;
mod head;
mod leases;
mod operations;
mod records;
mod scan;

use std::sync::Arc;

use parking_lot::Mutex;
use prism_slot::{
    Call, Claim, Error, Identity, Position, Put, Read, Record, Register, Registered, RegistryCapability,
    RegistryStore, Renew, Renewed, Result, Revision, Scan, ScanPage, Scope, Sync, Timestamp, Unregister,
    Unregistered, capability::Survives, memory::Clock, memory::WallClock,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    call::Load,
    config::Config,
    error::{BACKEND, Fault},
    opening::Opening,
};
use desk::Desk;
pub(crate) use feed::FeedLimits;
pub(crate) use head::Head;

/// How many writes one call takes.
const MAX_BATCH: usize = 512;
/// How many bytes a call brings beside metadata, about.
const OVERHEAD: usize = 256;

/// The registry of one namespace in a file.
pub struct SqliteRegistry {
    opening: Opening,
    clock: Arc<dyn Clock>,
    feed: Mutex<FeedLimits>,
}

impl SqliteRegistry {
    /// What every one of them can do.
    pub const CAPABILITY: RegistryCapability = RegistryCapability {
        backend: BACKEND,
        interfaces: &[
            "KeyValueBasicInterface",
            "KeyValueScanInterface",
            "KeyValueTTLInterface",
        ],
        scope: Scope::Host,
        survives: Survives::BackendRestart,
        max_batch: MAX_BATCH,
        query: false,
    };

    /// Opens the file, which is made where there is none, and makes the namespace ready.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] for a setting that cannot be, a directory that does not exist, a file that cannot be
    /// written or belongs to somebody else; [`Error::Unreadable`] for one that is damaged or was written by a later
    /// version; [`Error::Unavailable`] and [`Error::Timeout`] where another process keeps it locked.
    pub async fn open(namespace: &str, config: Config) -> Result<Self> {
        Self::open_with_clock(namespace, config, WallClock).await
    }

    /// As [`SqliteRegistry::open`], on a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with_clock(namespace: &str, config: Config, clock: impl Clock) -> Result<Self> {
        config.validate()?;
        let registry = Self {
            opening: Opening::new(namespace, &(&config).into()).await?,
            clock: Arc::new(clock),
            feed: Mutex::new(FeedLimits::of(&config)),
        };
        let call = Call {
            epoch: None,
            deadline: Instant::now() + crate::worker::OPEN_LIMIT,
        };
        registry
            .step(call, Load::of(OVERHEAD), |desk| desk.position())
            .await?;
        Ok(registry)
    }

    /// Applies other settings of the feed in place.
    pub fn configure(&self, config: &Config) {
        *self.feed.lock() = FeedLimits::of(config);
    }

    /// Executes `work` in one step.
    async fn step<T, W>(&self, call: Call, load: Load, mut work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnMut(&mut Desk<'_, '_>) -> Result<T, Fault> + Send + 'static,
    {
        let (clock, limits, epoch) = (self.clock.clone(), *self.feed.lock(), call.epoch);
        let work = move |step: &mut crate::step::Step<'_>, ns| {
            let mut desk = Desk::new(step, ns, clock.now(), limits, epoch)?;
            work(&mut desk)
        };
        self.opening.call(call.deadline, load, work).await
    }

    /// Executes `work` for each of a batch; each of them is refused by itself.
    async fn each<I, T, W>(&self, call: Call, load: Load, batch: Vec<I>, work: W) -> Vec<Result<T>>
    where
        I: Clone + Send + 'static,
        T: Send + 'static,
        W: Fn(&mut Desk<'_, '_>, I) -> Result<T, Fault> + Send + 'static,
    {
        let count = batch.len();
        if count == 0 {
            return Vec::new();
        }
        let all = move |desk: &mut Desk<'_, '_>| {
            let one = |item| match work(desk, item) {
                Ok(done) => Ok(Ok(done)),
                Err(Fault::Refused(error)) => Ok(Err(error)),
                Err(fault) => Err(fault),
            };
            batch.iter().cloned().map(one).collect::<Result<Vec<_>, Fault>>()
        };
        let done = self.step(call, load, all).await;
        done.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
    }
}

impl RegistryStore for SqliteRegistry {
    fn capability(&self) -> &RegistryCapability {
        &Self::CAPABILITY
    }

    async fn register(&self, call: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        let size = batch
            .iter()
            .map(|request| request.metadata.len() + OVERHEAD)
            .sum();
        self.each(call, Load::stored(size), batch, |desk, request| {
            desk.register(request)
        })
        .await
    }

    async fn put(&self, call: Call, put: Put) -> Result<Arc<Record>> {
        self.step(call, Load::stored(put.metadata.len() + OVERHEAD), move |desk| {
            desk.put(put.clone())
        })
        .await
    }

    async fn renew(&self, call: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        self.each(call, Load::of(batch.len() * OVERHEAD), batch, |desk, request| {
            desk.renew(request)
        })
        .await
    }

    async fn unregister(&self, call: Call, request: Unregister) -> Result<Unregistered> {
        self.step(call, Load::of(OVERHEAD), move |desk| desk.unregister(&request))
            .await
    }

    async fn get(&self, call: Call, identity: Identity) -> Result<Read> {
        self.step(call, Load::of(OVERHEAD), move |desk| desk.get(&identity))
            .await
    }

    async fn leases(&self, call: Call, identities: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        let size = identities.len() * size_of::<Identity>();
        self.step(call, Load::of(size), move |desk| {
            identities.iter().map(|identity| desk.lease(identity)).collect()
        })
        .await
    }

    async fn sync(&self, call: Call, from: Revision, limit: usize) -> Result<Sync> {
        self.step(call, Load::of(OVERHEAD), move |desk| desk.sync(from, limit))
            .await
    }

    async fn changed(&self, call: Call, from: Revision) -> Result<()> {
        // Before the look at the head, so that no write falls in between.
        let mut heads = self.opening.watch()?;
        let now = self.step(call, Load::of(OVERHEAD), |desk| desk.position()).await;
        let now = match now {
            Err(Error::Timeout { .. }) => return Ok(()),
            now => now?,
        };
        if now.revision != from {
            return Ok(());
        }
        let gone_on = heads.wait_for(|head| head.is_some_and(|head| head != now));
        let _ = timeout_at(call.deadline, gone_on).await;
        Ok(())
    }

    async fn scan(&self, call: Call, scan: Scan) -> Result<ScanPage> {
        let cursor = scan::Cursor::read(scan.cursor)?;
        // A page of another epoch would not continue the pages before it.
        let call = Call {
            epoch: call.epoch.or(cursor.epoch),
            ..call
        };
        let (limit, hold) = (scan.limit, scan.hold);
        self.step(call, Load::of(OVERHEAD), move |desk| {
            desk.scan(&cursor, limit, hold)
        })
        .await
    }

    async fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> Result<Claim> {
        self.step(call, Load::of(OVERHEAD), move |desk| {
            desk.claim(&identity, generation)
        })
        .await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        self.opening.call(deadline, Load::of(0), |_, _| Ok(())).await
    }

    async fn close(&self) {
        self.opening.close().await;
    }
}
