//! What is known about the state of one connection.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ClientError, Event};
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use crate::{listen::Listeners, rules, statistics::Counters};

/// How long a report of async-nats may take to arrive after the messages that it preceded.
const REPORTS: Duration = Duration::from_millis(20);

/// What async-nats reports about one connection.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) namespace: Arc<str>,
    counters: Arc<Counters>,
    pub(crate) listeners: Listeners,
    /// How often the connection was lost.
    losses: watch::Sender<u64>,
    /// Told of each connection after the first.
    pub(crate) connected: watch::Sender<()>,
    /// Told when the broker does not let this login ask for its rules.
    pub(crate) denied: watch::Sender<()>,
    /// The number of the connection over which no rule is in the way of anything, as far as is known.
    pub(crate) free: AtomicU64,
    /// How often the broker refused something, or an arrival at the inbox was dropped.
    pub(crate) faults: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Counts connections; set once there is one.
    connections: OnceLock<Arc<async_nats::Statistics>>,
    /// async-nats' number of the inbox's subscription.
    pub(crate) inbox: AtomicU64,
    gave_up: AtomicBool,
    closing: AtomicBool,
    pub(crate) closed: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new(namespace: &str, counters: Arc<Counters>) -> Self {
        Self {
            namespace: namespace.into(),
            counters,
            listeners: Listeners::default(),
            losses: watch::Sender::new(0),
            connected: watch::Sender::default(),
            denied: watch::Sender::default(),
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
    /// Only a connection over which there may be rules about single identities is given this time. A rule
    /// that is added to a running broker shows in its first complaint; the message that it was about may have
    /// counted as accepted.
    pub(crate) async fn catch_up(&self) {
        if self.free.load(Ordering::SeqCst) != self.connection() {
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
                self.losses.send_modify(|losses| *losses += 1);
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

    /// Of the connection that has just been made.
    pub(crate) fn begin(&self, client: &Client) {
        // Set once: a link has one client.
        let _ = self.connections.set(client.statistics());
    }

    /// Why there is no connection now.
    pub(crate) fn trouble(&self) -> String {
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
            self.denied.send_replace(());
            return;
        }
        tracing::warn!(namespace = &*self.namespace, error, "nats refused something");
        Counters::increment(&self.counters.broker_errors);
        self.free.store(0, Ordering::SeqCst);
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
    use async_nats::ServerError;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_are_waited_for_where_there_may_be_rules() {
        let health = Health::new("test", Arc::new(Counters::default()));
        health.connected_for_the_first_time();
        let waits = async || {
            let begun = Instant::now();
            health.catch_up().await;
            begun.elapsed() >= REPORTS
        };
        assert!(waits().await, "nothing is known");
        health.free.store(1, Ordering::SeqCst);
        assert!(!waits().await);
        let denied = "Permissions Violation for Publish to \"$SYS.REQ.USER.INFO\"";
        health.report(Event::ServerError(ServerError::Other(denied.to_owned())));
        assert!(!waits().await, "no complaint about a message");
        health.report(Event::ServerError(ServerError::Other("no permission".to_owned())));
        assert!(waits().await);
    }
}
