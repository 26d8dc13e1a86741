//! The slot itself.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use prism_slot::{
    EVERY_POST, Identity, Listener, Message, Messaging, MessagingCapability, Outcome, Post, Result, Room,
    Scope, capability::AcceptedBy,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, Statistics,
    address::Prefix,
    answers,
    connect::{check_permissions, connect, refused},
    error::{BACKEND, timeout, unavailable},
    health::Health,
    link::Link,
    listen::Lounge,
    posts::Posts,
    publish::{self, Parcel, publish},
    statistics::Counters,
};

/// What a server takes unless it is configured otherwise, headers included.
pub(crate) const USUAL_MAX_PAYLOAD: usize = 1 << 20;
/// What is kept free for headers: 8 KiB that a sender may give, their names once more for their order, and our own.
const HEADER_ROOM: usize = 20 << 10;

/// What the slot can do, as known before it is opened: the payload is bounded by a server as it comes.
/// An open slot knows what its own server takes.
pub const CAPABILITY: MessagingCapability = MessagingCapability {
    backend: BACKEND,
    interfaces: &["PubSubInterface"],
    scope: Scope::Shared,
    accepted_by: AcceptedBy::Broker,
    max_payload: USUAL_MAX_PAYLOAD - HEADER_ROOM,
};

/// The messaging slot on NATS.
///
/// Identity `i` of namespace `n` listens at subject `<topic_prefix>.<escape(n)>.<escape(i)>`, so no two
/// namespaces on one broker share a subject, whatever their prefixes. What any subscriber of the broker sees
/// there is the payload, with `Prism-Multicast` and further headers beside it; see the crate's documentation.
///
/// A subscription with a wildcard over the prefix, or a stream that captures it, counts as somebody
/// listening: with it, no identity is ever without a subscriber.
#[derive(Debug)]
pub struct NatsMessaging {
    capability: MessagingCapability,
    prefix: Prefix,
    window: usize,
    pub(crate) publishing: Vec<Link>,
    /// Apart from those that publish: what strangers send to an identity can end the connection over which
    /// it arrives (async-nats takes a header that it cannot read for the end), and must not put in doubt what
    /// is published meanwhile.
    pub(crate) listening: Vec<Link>,
    pub(crate) lounge: Lounge,
}

impl NatsMessaging {
    /// Connects and makes sure that publishing and subscribing under `topic_prefix` is allowed. Takes no
    /// longer than the configured `timeout`.
    ///
    /// # Errors
    /// `Misconfigured` for settings, a prefix, a login or permissions that cannot work; `Unavailable` or
    /// `Timeout` for a broker that cannot be reached.
    pub async fn open(namespace: &str, topic_prefix: &str, config: Config) -> Result<Self> {
        config.validate().map_err(refused)?;
        let prefix = Prefix::new(topic_prefix, namespace)?;
        let deadline = Instant::now() + config.timeout;
        let opening = Self::connect(namespace, prefix, &config);
        let slot = timeout_at(deadline, opening).await.map_err(|_| timeout())??;
        check_permissions(slot.links(), &slot.prefix, deadline).await?;
        Ok(slot)
    }

    /// What happened since the slot was opened.
    pub fn statistics(&self) -> Statistics {
        self.lounge.counters.read()
    }

    async fn connect(namespace: &str, prefix: Prefix, config: &Config) -> Result<Self> {
        let lounge = Lounge {
            room: Room {
                messages: config.listener_queue,
                bytes: config.listener_queue_bytes,
            },
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            counters: Arc::new(Counters::default()),
            posts: Posts::default(),
            reader: Arc::default(),
        };
        // Ends the tasks of connections that were made when another one fails.
        let guard = lounge.stop.clone().drop_guard();
        let most_answers = answers::MOST_TARGETS / config.connections;
        let link = |_| async {
            let health = Arc::new(Health::new(namespace, lounge.counters.clone()));
            let client = connect(namespace, config, &health).await?;
            Link::start(client, health, prefix.all(), most_answers, &lounge).await
        };
        let mut publishing = try_join_all((0..2 * config.connections).map(link)).await?;
        let listening = publishing.split_off(config.connections);
        let most = publishing.iter().map(|link| link.client.max_payload()).min();
        let max_payload = most.unwrap_or(USUAL_MAX_PAYLOAD).saturating_sub(HEADER_ROOM);
        guard.disarm();
        Ok(Self {
            capability: MessagingCapability {
                max_payload,
                ..CAPABILITY
            },
            prefix,
            window: config.publish_window,
            publishing,
            listening,
            lounge,
        })
    }

    /// Ends the tasks and the listeners, and accepts no more calls.
    fn end(&self) {
        self.lounge.stop.cancel();
        for link in self.links() {
            link.health.end();
            link.replies.answers.close();
        }
        self.lounge.posts.close();
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        self.publishing.iter().chain(&self.listening)
    }

    fn is_closed(&self) -> bool {
        self.lounge.stop.is_cancelled()
    }

    /// Always the same for an identity or an address, so that what is sent there keeps its order.
    fn link_number(&self, to: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        to.hash(&mut hasher);
        let links = self.publishing.len() as u64;
        usize::try_from(hasher.finish() % links.max(1)).unwrap_or_default()
    }

    async fn publish_over(
        &self,
        link: &Link,
        targets: &[&Identity],
        parcel: &Parcel,
        deadline: Instant,
    ) -> Vec<Outcome> {
        publish(link, &self.prefix, targets, parcel, self.window, deadline).await
    }

    /// Each connection publishes its share; the outcomes come back in the order of the targets.
    async fn publish_over_all(
        &self,
        targets: &[Identity],
        parcel: &Parcel,
        deadline: Instant,
    ) -> Vec<Outcome> {
        let mut shares = vec![(Vec::new(), Vec::new()); self.publishing.len()];
        for (place, target) in targets.iter().enumerate() {
            let (places, share) = &mut shares[self.link_number(target.as_str())];
            places.push(place);
            share.push(target);
        }
        let publishing = self
            .publishing
            .iter()
            .zip(&shares)
            .map(|(link, (_, share))| self.publish_over(link, share, parcel, deadline));
        let published = join_all(publishing).await;
        let mut outcomes = vec![Outcome::Accepted; targets.len()];
        for ((places, _), share) in shares.iter().zip(published) {
            for (place, outcome) in places.iter().zip(share) {
                outcomes[*place] = outcome;
            }
        }
        outcomes
    }
}

impl Drop for NatsMessaging {
    fn drop(&mut self) {
        self.end();
    }
}

impl Messaging for NatsMessaging {
    fn capability(&self) -> &MessagingCapability {
        &self.capability
    }

    async fn publish_batch(
        &self,
        targets: &[Identity],
        message: Arc<Message>,
        deadline: Instant,
    ) -> Vec<Outcome> {
        let answers = message.receipts.as_ref();
        let answers = answers.and_then(|address| self.lounge.posts.get(address));
        let parcel = match Parcel::new(&message, answers) {
            Ok(_) if self.is_closed() => Err("the slot is closed".to_owned()),
            parcel => parcel,
        };
        match (parcel, &*self.publishing) {
            (Err(why), _) => vec![Outcome::NotSent(why); targets.len()],
            (Ok(parcel), [only]) => {
                let targets: Vec<&Identity> = targets.iter().collect();
                self.publish_over(only, &targets, &parcel, deadline).await
            }
            (Ok(parcel), _) => self.publish_over_all(targets, &parcel, deadline).await,
        }
    }

    async fn listen(&self, identity: &Identity, deadline: Instant) -> Result<Listener> {
        if self.is_closed() {
            return Err(unavailable("the slot is closed"));
        }
        let link = &self.listening[self.link_number(identity.as_str())];
        self.lounge.listen(link, &self.prefix, identity, deadline).await
    }

    async fn post(&self, deadline: Instant) -> Result<Post> {
        if self.is_closed() {
            return Err(unavailable("the slot is closed"));
        }
        let address = self.prefix.unused_subject();
        let link = &self.listening[self.link_number(&address)];
        let of_all = self.prefix.subject_of_all_posts();
        self.lounge.post(link, address, of_all, deadline).await
    }

    async fn send(&self, address: &str, note: Bytes, deadline: Instant) -> Outcome {
        if self.is_closed() {
            return Outcome::NotSent("the slot is closed".to_owned());
        }
        if address == EVERY_POST {
            let address = self.prefix.subject_of_all_posts();
            let link = &self.publishing[self.link_number(&address)];
            return publish::send(link, &address, note, deadline).await;
        }
        // It came with a message, and whoever sent that may be lying.
        if !self.prefix.is_unused_subject(address) {
            return Outcome::NotSent("that is no post of this namespace".to_owned());
        }
        let link = &self.publishing[self.link_number(address)];
        publish::send(link, address, note, deadline).await
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        if self.is_closed() {
            return Err(unavailable("the slot is closed"));
        }
        try_join_all(self.links().map(|link| link.barrier(deadline)))
            .await
            .map(drop)
    }

    async fn close(&self) {
        self.end();
        join_all(self.links().map(Link::close)).await;
        self.lounge.tasks.close();
        // They were told to stop above and wait for nothing else.
        self.lounge.tasks.wait().await;
    }
}
