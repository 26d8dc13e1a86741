//! One connection to the broker.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, connection::State};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use prism_slot::Result;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    answers,
    error::{timeout as timed_out, unavailable},
    health::Health,
    listen::{Lounge, subscription_id},
    replies::Replies,
    rules::Rules,
};

/// How many messages of ours may be under way on one connection before the broker has confirmed them. Each
/// may come back as a "no responders", and all of these fit into the inbox's queue.
const UNDER_WAY: usize = 32 * 1_024;
/// How many messages async-nats holds for one subscription until they are taken, which happens as soon as
/// the runtime gets to it. Beyond this it drops them.
pub(crate) const SUBSCRIPTION_QUEUE: usize = 2 * UNDER_WAY;
/// How long a connection may take to say goodbye.
const DRAIN: Duration = Duration::from_secs(2);

/// A connection with its inbox.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) replies: Arc<Replies>,
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
        most_answers: usize,
        lounge: &Lounge,
    ) -> Result<Self> {
        let (tasks, stop) = (&lounge.tasks, &lounge.stop);
        health.begin(&client);
        let replies = Arc::new(Replies::new(most_answers));
        let subscribed = client.subscribe(replies.wildcard()).await;
        let mut arrivals = subscribed.map_err(|error| unavailable(error.to_string()))?;
        if let Some(id) = subscription_id(&arrivals) {
            health.inbox.store(id, Ordering::Relaxed);
        }
        let sorter = replies.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(message) = arrivals.next().await {
                sorter.take(message);
            }
        }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(keep_tidy(replies.clone())));
        let learning = keep_learning(client.clone(), health.clone(), subjects);
        tasks.spawn(stop.clone().run_until_cancelled_owned(learning));
        Ok(Self {
            client,
            replies,
            health,
            budget: Semaphore::new(UNDER_WAY),
        })
    }

    /// Room for so many messages, if there is some now.
    pub(crate) fn room(&self, size: usize) -> Option<SemaphorePermit<'_>> {
        self.budget.try_acquire_many(share(size)).ok()
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
        let mut expectation = self.replies.expect(None);
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

/// How much of the budget so many messages take.
pub(crate) fn share(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

async fn learn_rules(client: &Client, health: &Health, subjects: &str) -> Rules {
    let connection = health.connection();
    let mut denied = health.denied.subscribe();
    let rules = tokio::select! {
        rules = Rules::ask(client, subjects) => rules,
        _ = denied.changed() => Rules::Hidden,
    };
    // An old broker is given the benefit of the doubt, until its first complaint.
    if matches!(rules, Rules::None | Rules::Unsupported) {
        health.free.store(connection, Ordering::SeqCst);
    }
    rules
}

/// Forgets whose answers nobody waits for, also while nothing is sent.
async fn keep_tidy(replies: Arc<Replies>) {
    loop {
        sleep(answers::MEMORY / 4).await;
        replies.answers.forget(Instant::now());
    }
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
