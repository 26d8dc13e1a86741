//! Listeners: from a broker's subscription into the queue of a session.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_nats::Subscriber;
use futures::StreamExt;
use parking_lot::Mutex;
use prism_slot::{GapReason, Identity, Listener, ListenerSink, PostSink, Result, Room, listener};
use tokio::time::{Instant, timeout_at};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    address::Prefix,
    codec::{Reader, Unreadable},
    error::{timeout, unavailable},
    health::Health,
    link::Link,
    posts::Posts,
    statistics::Counters,
};

/// Who listens over one connection, by async-nats' number of the subscription.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<HashMap<u64, Place>>);

/// Where what arrives goes to.
#[derive(Debug)]
pub(crate) enum Place {
    Session(Arc<Session>),
    Post(PostSink),
}

impl Listeners {
    /// Tells all of them that the connection with this number is a new one.
    pub(crate) fn announce(&self, connection: u64) {
        for place in self.0.lock().values() {
            if let Place::Session(session) = place {
                session.announce(connection);
            }
        }
    }

    /// Tells one of them that async-nats dropped a message. What async-nats still holds for it follows, so
    /// the gap stands at the place of the loss or before it.
    pub(crate) fn overflowed(&self, subscription: u64) {
        match self.0.lock().get(&subscription) {
            Some(Place::Session(session)) => session.sink.gap(1, GapReason::SlowConsumer),
            Some(Place::Post(sink)) => sink.lost(1),
            None => {}
        }
    }

    /// Adds one.
    pub(crate) fn insert(&self, subscription: u64, place: Place) {
        self.0.lock().insert(subscription, place);
    }

    /// Removes one.
    pub(crate) fn remove(&self, subscription: u64) {
        self.0.lock().remove(&subscription);
    }

    /// A number that async-nats never reports.
    fn unreported_id(&self) -> u64 {
        let listeners = self.0.lock();
        let mut id = u64::MAX;
        while listeners.contains_key(&id) {
            id -= 1;
        }
        id
    }

    /// Ends all of them, once they have read what waits.
    pub(crate) fn close(&self) {
        for (_, place) in self.0.lock().drain() {
            if let Place::Session(session) = place {
                session.sink.close();
            }
        }
    }
}

/// One listening session.
#[derive(Debug)]
pub(crate) struct Session {
    sink: ListenerSink,
    /// The number of the connection that the listener knows about.
    connection: AtomicU64,
    announcing: Mutex<()>,
}

impl Session {
    /// Queues a gap, once for each connection that is new to the listener. Called by whoever notices
    /// first: the report of the new connection, or the first message that came over it.
    fn announce(&self, connection: u64) {
        if self.connection.load(Ordering::Acquire) >= connection {
            return;
        }
        // Under a lock, so that nobody else goes on to queue messages before the gap stands there.
        let _announcing = self.announcing.lock();
        if self.connection.load(Ordering::Acquire) < connection {
            self.sink.gap(0, GapReason::Reconnected);
            self.connection.store(connection, Ordering::Release);
        }
    }
}

/// What all listeners of a slot share.
#[derive(Debug)]
pub(crate) struct Lounge {
    pub(crate) room: Room,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) counters: Arc<Counters>,
    pub(crate) posts: Posts,
    pub(crate) reader: Arc<Reader>,
}

impl Lounge {
    /// Subscribes and waits until the broker has processed that.
    pub(crate) async fn listen(
        &self,
        link: &Link,
        prefix: &Prefix,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<Listener> {
        let subscriber = self.subscribe(link, prefix.subject(identity), deadline).await?;
        let listener = self.forward(link.health.clone(), subscriber);
        // Dropping the listener on the way out ends the subscription.
        link.barrier(deadline).await?;
        Ok(listener)
    }

    /// Has async-nats subscribe; a barrier says when the broker has.
    pub(crate) async fn subscribe(
        &self,
        link: &Link,
        subject: String,
        deadline: Instant,
    ) -> Result<Subscriber> {
        if link.mark().is_none() {
            return Err(link.not_connected());
        }
        let subscribing = timeout_at(deadline, link.client.subscribe(subject));
        let subscriber = subscribing.await.map_err(|_| timeout())?;
        subscriber.map_err(|error| unavailable(error.to_string()))
    }

    fn forward(&self, health: Arc<Health>, subscriber: Subscriber) -> Listener {
        let (unlisten, mut arrivals) = self.unlisten(health.clone(), subscriber);
        let (id, stop) = (unlisten.id, unlisten.stop.clone());
        let (sink, listener) = listener(self.room, unlisten);
        let session = Arc::new(Session {
            sink,
            connection: AtomicU64::new(health.connection()),
            announcing: Mutex::new(()),
        });
        health.listeners.insert(id, Place::Session(session.clone()));
        let (counters, reader) = (self.counters.clone(), self.reader.clone());
        let forwarder = async move {
            while let Some(message) = arrivals.next().await {
                session.announce(health.connection());
                match reader.read(message) {
                    // What does not fit is counted by the queue itself.
                    Ok(message) => drop(session.sink.push(message)),
                    Err(error) => unreadable(&counters, &error),
                }
            }
            // The connection is given up: nothing is heard any more, and no gap follows.
            session.sink.close();
        };
        self.tasks.spawn(stop.run_until_cancelled_owned(forwarder));
        listener
    }

    /// What ends a subscription, and what is read from it.
    pub(crate) fn unlisten(&self, health: Arc<Health>, subscriber: Subscriber) -> (Unlisten, Arrivals) {
        let id = subscription_id(&subscriber).unwrap_or_else(|| health.listeners.unreported_id());
        let subscription = Arc::new(Mutex::new(Some(subscriber)));
        let stop = self.stop.child_token();
        let unlisten = Unlisten {
            id,
            subscription: subscription.clone(),
            health,
            _stop: stop.clone().drop_guard(),
            stop,
        };
        (unlisten, Arrivals(subscription))
    }
}

/// The messages of a subscription that may be taken away at any time.
pub(crate) struct Arrivals(Arc<Mutex<Option<Subscriber>>>);

impl Arrivals {
    pub(crate) async fn next(&mut self) -> Option<async_nats::Message> {
        let poll = |context: &mut Context<'_>| match &mut *self.0.lock() {
            Some(subscriber) => subscriber.poll_next_unpin(context),
            None => Poll::Ready(None),
        };
        std::future::poll_fn(poll).await
    }
}

fn unreadable(counters: &Counters, error: &Unreadable) {
    tracing::debug!(%error, "dropped a message");
    Counters::increment(match error {
        Unreadable::Foreign => &counters.foreign_messages,
        Unreadable::Newer(_) | Unreadable::Malformed(_) => &counters.unreadable_messages,
    });
}

/// Ends a subscription with its listener or post.
pub(crate) struct Unlisten {
    pub(crate) id: u64,
    subscription: Arc<Mutex<Option<Subscriber>>>,
    health: Arc<Health>,
    /// Ends the forwarding task.
    pub(crate) stop: CancellationToken,
    _stop: DropGuard,
}

impl Drop for Unlisten {
    fn drop(&mut self) {
        self.health.listeners.remove(self.id);
        // Here and not in the task, so that the broker is told before anything that is published later
        // over the same connection.
        drop(self.subscription.lock().take());
    }
}

/// async-nats' number of a subscription, by which it reports what it drops. It shows the number nowhere
/// but in its `Debug` form; a test fails if that changes.
pub(crate) fn subscription_id(subscriber: &Subscriber) -> Option<u64> {
    let shown = format!("{subscriber:?}");
    let (_, rest) = shown.split_once("sid: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::{ConnectOptions, Event};
    use prism_slot::{Message, Messaging, MulticastId, Received, Timestamp};
    use prism_testkit::NatsServer;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::{Config, NatsMessaging};

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_new_connection_is_announced_once() {
        let (sink, mut listener) = listener(Room::default(), ());
        let session = Session {
            sink,
            connection: AtomicU64::new(1),
            announcing: Mutex::new(()),
        };
        for (announced, gaps) in [(1, 0), (2, 1), (2, 0), (1, 0), (4, 1), (3, 0)] {
            session.announce(announced);
            // Gaps that follow one another would become one.
            session.sink.push(Arc::new(message()));
            for _ in 0..gaps {
                let gap = Received::Gap {
                    dropped: 0,
                    reason: GapReason::Reconnected,
                };
                assert_eq!(listener.next().await, Some(gap));
            }
            assert_eq!(
                listener.next().await,
                Some(Received::Message(Arc::new(message())))
            );
        }
    }

    fn message() -> Message {
        Message {
            published_at: Timestamp(1),
            ..Message::new(MulticastId(1), "")
        }
    }

    /// Whether or not async-nats has reported the new connection by then.
    #[tokio::test]
    async fn the_first_message_over_a_new_connection_comes_after_the_gap() {
        let server = NatsServer::start().await.unwrap();
        let config = Config {
            servers: vec![server.url()],
            ..Config::default()
        };
        let slot = NatsMessaging::open("test", "test", config).await.unwrap();
        let (identity, deadline) = (Identity::new("a").unwrap(), Instant::now() + LONG);
        let mut listener = slot.listen(&identity, deadline).await.unwrap();
        slot.listening[0]
            .client
            .statistics()
            .connects
            .fetch_add(1, Ordering::SeqCst);
        let sent = Arc::new(message());
        for _ in 0..2 {
            slot.publish_batch(std::slice::from_ref(&identity), sent.clone(), deadline)
                .await;
        }
        let gap = Received::Gap {
            dropped: 0,
            reason: GapReason::Reconnected,
        };
        for expected in [gap, Received::Message(sent.clone()), Received::Message(sent)] {
            assert_eq!(timeout(LONG, listener.next()).await.unwrap(), Some(expected));
        }
    }

    /// What the whole attribution of overflows stands on.
    #[tokio::test]
    async fn async_nats_reports_the_number_that_we_read() {
        let server = NatsServer::start().await.unwrap();
        let (reports, mut reported) = mpsc::unbounded_channel();
        let options = ConnectOptions::new()
            .subscription_capacity(1)
            .event_callback(move |event| {
                let _ = reports.send(event);
                std::future::ready(())
            });
        let client = options.connect(server.url()).await.unwrap();
        for round in 0..3 {
            let subscriber = client.subscribe(format!("s.{round}")).await.unwrap();
            for _ in 0..5 {
                client.publish(format!("s.{round}"), "x".into()).await.unwrap();
            }
            let number = loop {
                let event = timeout(LONG, reported.recv()).await.unwrap();
                if let Some(Event::SlowConsumer(number)) = event {
                    break number;
                }
            };
            assert_eq!(subscription_id(&subscriber), Some(number));
            // The others of this round.
            client.flush().await.unwrap();
            drop(subscriber);
            while timeout(Duration::from_millis(50), reported.recv()).await.is_ok() {}
        }
    }

    #[tokio::test]
    async fn an_overflow_is_told_to_its_listener_only() {
        let server = NatsServer::start().await.unwrap();
        let config = Config {
            servers: vec![server.url()],
            ..Config::default()
        };
        let slot = NatsMessaging::open("test", "test", config).await.unwrap();
        let listen = async |name| {
            let identity = Identity::new(name).unwrap();
            slot.listen(&identity, Instant::now() + LONG).await.unwrap()
        };
        let mut unlucky = listen("unlucky").await;
        let health = &slot.listening[0].health;
        let number = *health.listeners.0.lock().keys().next().unwrap();
        let mut lucky = listen("lucky").await;
        health.report(Event::SlowConsumer(number));
        let gap = Received::Gap {
            dropped: 1,
            reason: GapReason::SlowConsumer,
        };
        assert_eq!(unlucky.next().await, Some(gap));
        assert_eq!(slot.statistics().overflows, 1);
        slot.close().await;
        assert_eq!(lucky.next().await, None);
    }
}
