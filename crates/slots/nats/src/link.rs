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
use futures::{FutureExt, StreamExt};
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
    rules::{self, Rules},
    statistics::Counters,
};

/// How many messages of ours may be under way on one connection before the broker has confirmed them. Each
/// may come back as a "no responders", and all of these fit into the inbox's queue.
const UNDER_WAY: usize = 32 * 1_024;
/// How many messages async-nats holds for one subscription until they are taken, which happens as soon as
/// the runtime gets to it. Beyond this it drops them.
pub(crate) const SUBSCRIPTION_QUEUE: usize = 2 * UNDER_WAY;
/// How long a report of async-nats may take to arrive after the messages that it preceded.
const REPORTS: Duration = Duration::from_millis(20);
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
    /// Subscribes to the inbox of a connection that has just been made, and keeps learning the rules about
    /// `subjects` over each one after it.
    pub(crate) async fn start(
        client: Client,
        health: Arc<Health>,
        subjects: String,
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
        let learning = keep_learning(client.clone(), health.clone(), subjects);
        tasks.spawn(stop.clone().run_until_cancelled_owned(learning));
        Ok(Self {
            client,
            inbox,
            health,
            budget: Semaphore::new(UNDER_WAY),
        })
    }

    /// Learns the rules about `subjects` over the current connection.
    pub(crate) async fn learn_rules(&self, subjects: &str) -> Rules {
        learn_rules(&self.client, &self.health, subjects).await
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
            // It will be read when there is a connection again, and end that.
            let _ = self.client.drain().now_or_never();
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

async fn learn_rules(client: &Client, health: &Health, subjects: &str) -> Rules {
    let connection = health.connection();
    let rules = Rules::ask(client, subjects).await;
    // An old broker is given the benefit of the doubt, until its first complaint.
    if matches!(rules, Rules::None | Rules::Unsupported) {
        health.free.store(connection, Ordering::SeqCst);
    }
    rules
}

/// Learns the rules again over each new connection: the broker may have been restarted with others.
async fn keep_learning(client: Client, health: Arc<Health>, subjects: String) {
    let mut connected = health.connected.subscribe();
    while connected.changed().await.is_ok() {
        let rules = learn_rules(&client, &health, &subjects).await;
        if let Rules::Against(rule) = rules {
            let namespace = &*health.namespace;
            tracing::error!(namespace, rule, "nats has a rule now against some identities");
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
    /// Told of each connection after the first.
    connected: watch::Sender<()>,
    /// The number of the connection over which no rule is in the way of anything.
    free: AtomicU64,
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
            connected: watch::Sender::default(),
            free: AtomicU64::new(0),
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
    /// Only a broker that has complained before, or that may have rules about single identities, is given
    /// this time. A rule that is added to a running broker shows in its first complaint; the message that it
    /// was about may have counted as accepted.
    pub(crate) async fn catch_up(&self) {
        let free = self.free.load(Ordering::SeqCst) == self.connection();
        if !free || self.faults.load(Ordering::SeqCst) > 0 {
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
            self.connected.send_replace(());
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
        // Not being told the rules is no fault.
        if error.contains(rules::SUBJECT) {
            return;
        }
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

#[cfg(test)]
mod tests {
    use prism_slot::Messaging;
    use prism_testkit::{NatsServer, eventually};

    use super::*;
    use crate::{Config, NatsMessaging};

    const LONG: Duration = Duration::from_secs(10);

    async fn slot(server: &NatsServer) -> NatsMessaging {
        let config = Config {
            servers: vec![server.url()],
            reconnect_wait: Duration::from_millis(2),
            ..Config::default()
        };
        NatsMessaging::open("test", "test", config).await.unwrap()
    }

    /// async-nats goes on until it has had a connection once more, and then ends.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_slot_that_was_closed_without_a_broker_ends_with_the_next_one() {
        let mut server = NatsServer::start().await.unwrap();
        let slot = slot(&server).await;
        server.stop();
        for link in slot.publishing.iter().chain(&slot.listening) {
            eventually(LONG, "the loss is noticed", || async { link.mark().is_none() }).await;
        }
        slot.close().await;
        server.restart().await.unwrap();
        for link in slot.publishing.iter().chain(&slot.listening) {
            let mut closed = link.health.closed.subscribe();
            timeout(LONG, closed.wait_for(|closed| *closed))
                .await
                .unwrap()
                .unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_rules_are_learned_over_each_connection() {
        let mut server = NatsServer::start().await.unwrap();
        let slot = slot(&server).await;
        let health = &slot.publishing[0].health;
        for connection in 1..4 {
            eventually(LONG, "there are known to be no rules", || async {
                health.free.load(Ordering::SeqCst) == connection && health.connection() == connection
            })
            .await;
            server.restart().await.unwrap();
        }
    }
}
