//! One connection to the broker, and what is known about its health.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ClientError, Event, connection::State};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use prism_slot::Result;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::{timeout as timed_out, unavailable},
    inbox::Inbox,
    listen::{Listeners, subscription_id},
    statistics::Counters,
};

/// How many messages of ours may be under way on one connection before the broker has confirmed them. Each
/// may come back as a "no responders", and all of these fit into the inbox's queue.
const UNDER_WAY: usize = 32 * 1_024;
/// How many messages async-nats holds for one subscription until they are taken, which happens as soon as
/// the runtime gets to it. Beyond this it drops them.
pub(crate) const SUBSCRIPTION_QUEUE: usize = 2 * UNDER_WAY;
/// How long a report of async-nats may take to arrive after the messages that it preceded.
const REPORTS: Duration = Duration::from_millis(5);
/// How long a connection may take to say goodbye.
const DRAIN: Duration = Duration::from_secs(2);

/// A connection with its inbox.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) health: Arc<Health>,
    pub(crate) budget: Semaphore,
}

/// What an echo proves holds only if this is the same before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    connection: u64,
    faults: u64,
}

impl Link {
    /// Subscribes to the inbox of a connection that has just been made.
    pub(crate) async fn start(
        client: Client,
        health: Arc<Health>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self> {
        health.begin(&client);
        let inbox = Arc::new(Inbox::new());
        let subscribed = client.subscribe(inbox.wildcard()).await;
        let mut arrivals = subscribed.map_err(|error| unavailable(error.to_string()))?;
        if let Some(id) = subscription_id(&arrivals) {
            health.inbox.store(id, Ordering::Relaxed);
        }
        let sorter = inbox.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(message) = arrivals.next().await {
                sorter.take(&message);
            }
        }));
        Ok(Self {
            client,
            inbox,
            health,
            budget: Semaphore::new(UNDER_WAY),
        })
    }

    /// What holds now; `None` while there is no connection.
    pub(crate) fn mark(&self) -> Option<Mark> {
        (self.client.connection_state() == State::Connected).then(|| self.current_mark())
    }

    /// Whether nothing has happened since `mark` that would spoil what an echo proves.
    pub(crate) fn holds(&self, mark: Mark) -> bool {
        self.current_mark() == mark
    }

    /// Waits until the broker has processed everything that this connection was given before the call.
    ///
    /// # Errors
    /// When there is no connection, or it is lost meanwhile; the deadline.
    pub(crate) async fn barrier(&self, deadline: Instant) -> Result<()> {
        let mut losses = self.health.losses();
        let mark = self.mark().ok_or_else(|| self.not_connected())?;
        let mut expectation = self.inbox.expect();
        let subject = expectation.echo_subject();
        let round_trip = async {
            let sent = self.client.publish(subject, Bytes::new()).await;
            sent.map_err(|error| unavailable(error.to_string()))?;
            expectation.echoed().await;
            self.health.catch_up().await;
            Ok::<(), prism_slot::Error>(())
        };
        tokio::select! {
            biased;
            done = round_trip => done?,
            _ = losses.changed() => return Err(self.not_connected()),
            () = sleep_until(deadline) => return Err(timed_out()),
        }
        // After a reconnection the echo would come all the same, and prove nothing about what was lost.
        if self.holds(mark) {
            Ok(())
        } else {
            Err(unavailable(self.doubt(mark)))
        }
    }

    /// Why an echo does not prove what it should, when `mark` does not hold any more.
    pub(crate) fn doubt(&self, mark: Mark) -> String {
        match self.health.last_error() {
            Some(error) if self.health.connection() == mark.connection => error,
            _ => "the connection was lost and made again meanwhile".to_owned(),
        }
    }

    /// The error for a call that finds no connection.
    pub(crate) fn not_connected(&self) -> prism_slot::Error {
        unavailable(self.health.trouble())
    }

    /// Sends what is queued and closes the connection; gives up after a moment.
    pub(crate) async fn close(&self) {
        if self.mark().is_none() {
            return;
        }
        let mut closed = self.health.closed.subscribe();
        let goodbye = async {
            if self.client.drain().await.is_ok() {
                // An error means that the connection is gone already.
                let _ = closed.wait_for(|closed| *closed).await;
            }
        };
        if timeout(DRAIN, goodbye).await.is_err() {
            tracing::debug!(
                namespace = &*self.health.namespace,
                "the broker did not let the connection drain"
            );
        }
    }

    fn current_mark(&self) -> Mark {
        Mark {
            connection: self.health.connection(),
            faults: self.health.faults.load(Ordering::SeqCst),
        }
    }
}

/// What async-nats reports about one connection.
#[derive(Debug)]
pub(crate) struct Health {
    namespace: Arc<str>,
    counters: Arc<Counters>,
    pub(crate) listeners: Listeners,
    /// How often the connection was lost.
    losses: watch::Sender<u64>,
    /// How often the broker refused something, or an arrival at the inbox was dropped.
    faults: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Counts connections; set once there is one.
    connections: OnceLock<Arc<async_nats::Statistics>>,
    /// async-nats' number of the inbox's subscription.
    inbox: AtomicU64,
    gave_up: AtomicBool,
    closing: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new(namespace: &str, counters: Arc<Counters>) -> Self {
        Self {
            namespace: namespace.into(),
            counters,
            listeners: Listeners::default(),
            losses: watch::Sender::new(0),
            faults: AtomicU64::new(0),
            last_error: Mutex::default(),
            connections: OnceLock::new(),
            inbox: AtomicU64::new(u64::MAX),
            gave_up: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        }
    }

    /// Notices the losses from now on.
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Waits, after an echo, for the reports that async-nats made before it: they travel apart from the
    /// messages and may arrive a little later.
    ///
    /// Only a broker that has complained before is given this time. The permissions that every message
    /// needs were checked when the slot was opened, so a complaint means that there are rules about single
    /// identities, which are not worth slowing everybody down for; the first message against such a rule
    /// may count as accepted.
    pub(crate) async fn catch_up(&self) {
        if self.faults.load(Ordering::SeqCst) > 0 {
            sleep(REPORTS).await;
        }
    }

    /// The number of the current connection, from 1. async-nats counts before it uses a new one.
    pub(crate) fn connection(&self) -> u64 {
        self.connections
            .get()
            .map_or(0, |statistics| statistics.connects.load(Ordering::SeqCst))
    }

    /// Whether the slot is being closed, so that nothing should be tried again.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends the listeners, and all attempts to connect again.
    pub(crate) fn end(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.listeners.close();
    }

    /// What the broker said last, if it ever complained.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// What async-nats has to say. Called in its own task, one event after the other.
    pub(crate) fn report(&self, event: Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected => {
                tracing::warn!(namespace = &*self.namespace, "lost the connection to nats");
                self.losses.send_modify(|losses| *losses += 1);
            }
            Event::SlowConsumer(subscription) => self.overflowed(subscription),
            Event::ServerError(error) => self.refused(error.to_string()),
            Event::ClientError(ClientError::MaxReconnects) => {
                tracing::error!(namespace = &*self.namespace, "gave up connecting to nats");
                self.gave_up.store(true, Ordering::Relaxed);
            }
            Event::ClientError(error) => {
                tracing::warn!(namespace = &*self.namespace, %error, "cannot connect to nats");
                *self.last_error.lock() = Some(error.to_string());
            }
            Event::Closed => {
                self.closed.send_replace(true);
                self.losses.send_modify(|losses| *losses += 1);
            }
            Event::LameDuckMode | Event::Draining => {
                tracing::info!(namespace = &*self.namespace, %event, "nats is about to end this connection");
            }
        }
    }

    fn begin(&self, client: &Client) {
        // Set once: a link has one client.
        let _ = self.connections.set(client.statistics());
    }

    fn trouble(&self) -> String {
        if self.gave_up.load(Ordering::Relaxed) {
            return "gave up connecting after `max_reconnects` attempts; open the slot again".to_owned();
        }
        match self.last_error() {
            Some(error) => format!("not connected, trying again; the last error was: {error}"),
            None => "not connected, trying again".to_owned(),
        }
    }

    fn connected(&self) {
        let connection = self.connection();
        if connection > 1 {
            tracing::info!(
                namespace = &*self.namespace,
                connection,
                "connected to nats again"
            );
            *self.last_error.lock() = None;
            Counters::increment(&self.counters.reconnections);
            self.listeners.announce(connection);
        }
    }

    fn overflowed(&self, subscription: u64) {
        if subscription == self.inbox.load(Ordering::Relaxed) {
            tracing::warn!(
                namespace = &*self.namespace,
                "more answers from nats than can be read"
            );
            self.faults.fetch_add(1, Ordering::SeqCst);
        } else {
            Counters::increment(&self.counters.overflows);
            self.listeners.overflowed(subscription);
        }
    }

    fn refused(&self, error: String) {
        tracing::warn!(namespace = &*self.namespace, error, "nats refused something");
        Counters::increment(&self.counters.broker_errors);
        self.faults.fetch_add(1, Ordering::SeqCst);
        *self.last_error.lock() = Some(error);
    }
}

#[cfg(test)]
impl Health {
    /// As if there had been a connection.
    pub(crate) fn connected_for_the_first_time(&self) {
        let statistics = async_nats::Statistics::default();
        statistics.connects.store(1, Ordering::SeqCst);
        let _ = self.connections.set(Arc::new(statistics));
    }

    /// async-nats' number of the inbox's subscription.
    pub(crate) fn inbox_id(&self) -> u64 {
        self.inbox.load(Ordering::Relaxed)
    }
}
