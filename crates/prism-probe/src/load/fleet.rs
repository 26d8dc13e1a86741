//! The identities of a run.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use prism_client::{
    Client, ClientBuilder, EnumerateRequest, Filter, RegisterRequest, Registration, Registry,
    Result as Answer, SessionId, UnregisterRequest,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{stage::let_in, stamp::Run};

/// The field by which everything of a run is found, and nothing else.
pub(crate) const FIELD: &str = "load";
/// How many are registered in one call.
const BATCH: u32 = 1_000;
/// How many calls tidy up at a time.
const AT_ONCE: usize = 32;
/// How long tidying up may take.
const TIDYING: Duration = Duration::from_secs(120);

/// The identities of a run, and the connections that they are spread over.
pub(crate) struct Fleet {
    pub(crate) run: Run,
    registries: Vec<Registry>,
    /// One for all, so that a registration is recognised whichever connection it comes by.
    session: SessionId,
    /// Of each registration, in seconds.
    ttl: u64,
    next: AtomicU32,
}

impl Fleet {
    /// With so many connections for calls; sessions have their own, a hundred each. Calls are made once: what
    /// is to be measured is the service and not the client's patience.
    ///
    /// # Errors
    /// For settings that cannot be.
    pub(crate) fn new(builder: &ClientBuilder, connections: usize, ttl: u64) -> Answer<Self> {
        let client = |_| builder.clone().attempts(1).connect_lazy();
        let clients: Vec<Client> = (0..connections.max(1)).map(client).collect::<Answer<_>>()?;
        Ok(Self {
            run: Run::random(),
            registries: clients.into_iter().map(|client| client.registry).collect(),
            session: SessionId::random(),
            ttl,
            next: AtomicU32::new(0),
        })
    }

    /// The connection for the thing of that number.
    pub(crate) fn registry(&self, number: u32) -> &Registry {
        &self.registries[number as usize % self.registries.len()]
    }

    /// A number that no identity has yet.
    pub(crate) fn next(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many numbers were given out.
    pub(crate) fn given(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// Those of this run, and no others that the namespace may have.
    pub(crate) fn filter(&self) -> Filter {
        Filter::new().eq(FIELD, self.run.to_string())
    }

    /// How many are registered.
    ///
    /// # Errors
    /// Whatever an enumeration may fail with.
    pub(crate) async fn count(&self) -> Answer<u64> {
        let request = EnumerateRequest {
            filter: Some(self.filter()),
            count_only: true,
            ..EnumerateRequest::default()
        };
        Ok(self.registry(0).enumerate(request).await?.total_count)
    }

    /// What registers an identity with these fields beside that of the run.
    pub(crate) fn request(&self, number: u32, mut metadata: Value) -> RegisterRequest {
        metadata[FIELD] = json!(self.run.to_string());
        RegisterRequest {
            metadata,
            ttl: Some(self.ttl),
            session: Some(self.session),
            ..RegisterRequest::new(self.run.name(number))
        }
    }

    /// Registers so many, in portions that are handed on as they are there.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn fill(
        &self,
        count: u32,
        metadata: impl Fn(u32) -> Value,
        mut portion: impl FnMut(u32, Vec<Registration>),
    ) -> Answer<()> {
        let mut done = 0;
        while done < count {
            let size = BATCH.min(count - done);
            let first = self.next.fetch_add(size, Ordering::Relaxed);
            let requests = (first..first + size).map(|number| self.request(number, metadata(number)));
            let results = self.registry(first).register_many(requests).await?;
            portion(first, results.into_iter().collect::<Answer<_>>()?);
            done += size;
        }
        Ok(())
    }

    /// Unregisters everything of the run, as far as there is time; how many may be left.
    pub(crate) async fn tidy(&self, told: impl Fn(u32)) -> u64 {
        let all = stream::iter(0..self.given()).map(async |number| {
            let name = self.run.name(number);
            let registry = self.registry(number);
            let_in(|| registry.unregister(UnregisterRequest::from(name.clone()))).await
        });
        let (mut done, mut removed) = (0, 0);
        let work = async {
            let mut all = all.buffer_unordered(AT_ONCE);
            let mut absences = 0;
            while let Some(answer) = all.next().await {
                done += 1;
                removed += u32::from(answer.is_ok());
                absences += usize::from(answer.is_err_and(|error| error.is_transient()));
                told(done);
                // Nobody is there to tidy up with.
                if absences > AT_ONCE * 4 {
                    break;
                }
            }
        };
        let _ = timeout(TIDYING, work).await;
        match self.count().await {
            Ok(left) => left,
            Err(_) => u64::from(self.given() - removed),
        }
    }
}
