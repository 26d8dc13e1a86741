//! The subscribers of a run: real sessions, at whose end is counted what arrives.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use prism_client::{Credits, Event, GapReason, Registry, Result as Answer, SubscribeRequest, Subscription};
use tokio::task::JoinSet;

use super::{
    ledger::Ledger,
    stamp::{Run, Stamp},
    tally::{Times, reason},
};

/// How many messages may be on their way to one: reading and counting is all it does.
const WINDOW: u32 = 1_024;

/// The subscribers of a run. Dropping this ends their sessions.
pub(crate) struct Listeners {
    shared: Arc<Shared>,
    readers: Mutex<JoinSet<()>>,
}

struct Shared {
    run: Run,
    began: Instant,
    ledger: Arc<Ledger>,
    /// From when a multicast was due until a target received it.
    times: Times,
    open: AtomicU64,
    opened: AtomicU64,
    reopened: AtomicU64,
    strays: AtomicU64,
    gaps: Mutex<BTreeMap<String, u64>>,
    lost: Mutex<BTreeMap<String, u64>>,
}

/// What became of the sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    /// How many have not ended for good: they are open, or the client is opening them again.
    pub(crate) open: u64,
    /// How many were opened on purpose.
    pub(crate) opened: u64,
    /// How often one was lost and opened again by the client.
    pub(crate) reopened: u64,
    /// Messages that were none of the run's.
    pub(crate) strays: u64,
    /// How often messages may be missing, by reason.
    pub(crate) gaps: BTreeMap<String, u64>,
    /// How many ended for good, by reason.
    pub(crate) lost: BTreeMap<String, u64>,
}

impl Listeners {
    pub(crate) fn new(run: Run, began: Instant, ledger: Arc<Ledger>) -> Self {
        Self {
            shared: Arc::new(Shared {
                run,
                began,
                ledger,
                times: Times::default(),
                open: AtomicU64::new(0),
                opened: AtomicU64::new(0),
                reopened: AtomicU64::new(0),
                strays: AtomicU64::new(0),
                gaps: Mutex::default(),
                lost: Mutex::default(),
            }),
            readers: Mutex::default(),
        }
    }

    /// Opens the session of an identity. From the moment this returns it counts what arrives.
    ///
    /// # Errors
    /// Whatever a subscription may fail with.
    pub(crate) async fn open(&self, registry: &Registry, number: u32) -> Answer<()> {
        let request = SubscribeRequest {
            credits: Credits::Window(WINDOW),
            ..SubscribeRequest::from(self.shared.run.name(number))
        };
        let session = registry.subscribe(request).await?;
        self.shared.opened.fetch_add(1, Relaxed);
        self.shared.open.fetch_add(1, Relaxed);
        let shared = self.shared.clone();
        let mut readers = self.readers.lock();
        readers.spawn(async move { shared.read(session, number).await });
        // Those that ended for good are not kept.
        while readers.try_join_next().is_some() {}
        Ok(())
    }

    /// Ends all sessions at once.
    pub(crate) async fn close(&self) {
        let mut readers = std::mem::take(&mut *self.readers.lock());
        readers.shutdown().await;
        self.shared.open.store(0, Relaxed);
    }

    pub(crate) fn times(&self) -> &Times {
        &self.shared.times
    }

    pub(crate) fn sessions(&self) -> Sessions {
        let shared = &self.shared;
        Sessions {
            open: shared.open.load(Relaxed),
            opened: shared.opened.load(Relaxed),
            reopened: shared.reopened.load(Relaxed),
            strays: shared.strays.load(Relaxed),
            gaps: shared.gaps.lock().clone(),
            lost: shared.lost.lock().clone(),
        }
    }
}

impl Shared {
    async fn read(&self, mut session: Subscription, number: u32) {
        let mut is_first = true;
        while let Some(event) = session.next().await {
            match event {
                Ok(Event::Message(message)) => {
                    self.received(&message.payload, number);
                    if message.stored {
                        // What it fails with ends the session, and is told then.
                        let _ = message.ack().await;
                    }
                }
                Ok(Event::Opened(_)) => {
                    self.reopened.fetch_add(u64::from(!is_first), Relaxed);
                    is_first = false;
                }
                Ok(Event::Gap(gap)) => count(&self.gaps, gap_reason(&gap.reason)),
                Err(error) => {
                    self.open.fetch_sub(1, Relaxed);
                    count(&self.lost, reason(&error));
                }
            }
        }
    }

    fn received(&self, payload: &[u8], number: u32) {
        let now = Instant::now();
        let stamp = Stamp::read(payload).filter(|stamp| stamp.run == self.run);
        let Some(stamp) = stamp else {
            self.strays.fetch_add(1, Relaxed);
            return;
        };
        if self.ledger.receive(stamp.number, number, now) {
            self.times
                .record(now.saturating_duration_since(self.began + stamp.due));
        }
    }
}

fn count(counts: &Mutex<BTreeMap<String, u64>>, reason: String) {
    *counts.lock().entry(reason).or_default() += 1;
}

fn gap_reason(reason: &GapReason) -> String {
    match reason {
        GapReason::SlowConsumer => "SLOW_CONSUMER".to_owned(),
        GapReason::Reconnected => "RECONNECTED".to_owned(),
        GapReason::ConnectionLost => "CONNECTION_LOST".to_owned(),
        GapReason::Other(reason) => reason.clone(),
        other => format!("{other:?}"),
    }
}
