//! The durability slot on JetStream.

use std::sync::Arc;

use prism_slot::{
    Address, Consumer, DeadId, DeadPage, DeadQuery, Depth, Discarded, DurableInbox, Enqueued, Fetch, Fetched,
    Identity, InboxCapability, InboxLimits, Message, MulticastId, Redriven, Result, Scope, Settled, Swept,
    Terms, Timestamp, Verdict,
    capability::{Room, Survives},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    error::BACKEND,
    jetstream::{
        JetStreamConfig, Storage,
        client::JetStream,
        inboxes::{Inboxes, Step},
        layout::{Kind, Layout},
        streams,
    },
    messaging::USUAL_MAX_PAYLOAD,
};

/// What the slot can do, as known before it is opened: the payload is bounded by a server as it comes, and messages live
/// as long as files do. An open slot knows what its own server takes.
pub const INBOX_CAPABILITY: InboxCapability = InboxCapability {
    backend: BACKEND,
    interfaces: &["QueueInterface"],
    scope: Scope::Shared,
    survives: Survives::BackendRestart,
    max_payload: USUAL_MAX_PAYLOAD - (4 << 10),
    room: Room::Priority,
    tells_losses: false,
};

/// The durability slot on NATS JetStream.
///
/// All inboxes of a namespace are in one stream of messages, one subject for each identity and priority, so an idle
/// identity costs nothing, and the stream itself bounds each inbox, notices what was stored before, and removes what has
/// expired. There are no JetStream consumers: an inbox is read by asking for the next messages with its subject. Who
/// works on an inbox, and what is out, is a small record in a second stream, written only if nobody else has written it
/// since it was read, and kept until nobody was heard of for long. A third one holds dead letters.
///
/// "Stored" is the server's own acknowledgment. What it is worth is JetStream's: with one replica a message is in the
/// server's file, written and not synced unless the server says `sync_interval: always`; with more it is with most of
/// them.
#[derive(Debug)]
pub struct JetStreamInbox {
    capability: InboxCapability,
    storage: Storage,
    replicas: usize,
    pub(crate) inboxes: Inboxes,
}

impl JetStreamInbox {
    /// Connects and makes what is missing of the streams. Takes no longer than the configured `timeout`.
    ///
    /// # Errors
    /// `Misconfigured` for settings, a server, a login or permissions that cannot work; `Unavailable` or `Timeout` for
    /// a server that cannot be reached.
    pub async fn open(namespace: &str, config: JetStreamConfig, limits: InboxLimits) -> Result<Self> {
        let (storage, replicas) = (config.storage, config.replicas);
        let wanted = |layout: &Layout| {
            vec![
                (
                    Kind::Messages,
                    streams::messages(layout, storage, replicas, &limits),
                ),
                (Kind::Sessions, streams::sessions(layout, storage, replicas)),
                (Kind::Dead, streams::dead(layout, storage, replicas, &limits)),
            ]
        };
        let jetstream = JetStream::open(namespace, &config, wanted).await?;
        Ok(Self {
            capability: InboxCapability {
                survives: storage.survives(),
                max_payload: jetstream.max_payload(),
                ..INBOX_CAPABILITY
            },
            storage,
            replicas,
            inboxes: Inboxes::new(jetstream, limits),
        })
    }

    fn jetstream(&self) -> &JetStream {
        &self.inboxes.jetstream
    }

    /// How many messages are in a stream, or have this subject in it.
    async fn count(&self, kind: Kind, subject: Option<String>, deadline: Instant) -> Result<u64> {
        let (stream, _) = self.jetstream().stream(kind, deadline).await?;
        let filter = subject.map_or_else(|| json!({}), |subject| json!({ "subjects_filter": subject }));
        let info = self.jetstream().info(stream, &filter, deadline).await?;
        Ok(match filter.get("subjects_filter") {
            Some(_) => info.state.subjects.values().sum(),
            None => info.state.messages,
        })
    }
}

impl DurableInbox for JetStreamInbox {
    fn capability(&self) -> &InboxCapability {
        &self.capability
    }

    async fn enqueue(
        &self,
        addresses: &[Address],
        message: Arc<Message>,
        terms: Terms,
        deadline: Instant,
    ) -> Vec<Enqueued> {
        self.inboxes.enqueue(addresses, &message, terms, deadline).await
    }

    async fn open(&self, consumer: &Consumer, deadline: Instant) -> Result<()> {
        let identity = &consumer.address.identity;
        let opened = self
            .inboxes
            .change(identity, deadline, |state, now| match state.open(consumer, now) {
                true => Step::Write(()),
                false => Step::Refuse(prism_slot::Error::Fenced(identity.clone())),
            });
        opened.await.map(|((), _)| ())
    }

    async fn fetch(&self, consumer: &Consumer, fetch: Fetch, deadline: Instant) -> Result<Fetched> {
        self.inboxes.fetch(consumer, fetch, deadline).await
    }

    async fn settle(
        &self,
        consumer: &Consumer,
        verdicts: Vec<(MulticastId, Verdict)>,
        deadline: Instant,
    ) -> Result<Vec<Settled>> {
        let settled = self
            .inboxes
            .change(&consumer.address.identity, deadline, |state, now| {
                if let Err(fenced) = Inboxes::check_consumer(state, consumer) {
                    return Step::Refuse(fenced);
                }
                match state.settle(&verdicts, self.inboxes.room(), now) {
                    (settled, true) => Step::Write(settled),
                    (settled, false) => Step::Heard(settled),
                }
            });
        settled.await.map(|(settled, _)| settled)
    }

    async fn cancel(
        &self,
        multicast: MulticastId,
        identities: &[Identity],
        deadline: Instant,
    ) -> Vec<Result<bool>> {
        self.inboxes.cancel(multicast, identities, deadline).await
    }

    async fn discard(&self, address: &Address, deadline: Instant) -> Result<Discarded> {
        self.inboxes.discard(address, deadline).await
    }

    async fn depth(&self, identity: Option<&Identity>, deadline: Instant) -> Result<Depth> {
        let layout = &self.jetstream().layout;
        let inbox = identity.map(|identity| layout.inbox(identity));
        let dead = identity.map(|identity| layout.named(Kind::Dead, identity.as_str()));
        let out = async {
            let Some(identity) = identity else {
                return Ok(None);
            };
            let state = self.inboxes.current(identity, deadline).await?;
            Ok(Some(state.out(Timestamp::now())))
        };
        let (messages, dead, out) = tokio::try_join!(
            self.count(Kind::Messages, inbox, deadline),
            self.count(Kind::Dead, dead, deadline),
            out,
        )?;
        Ok(Depth {
            messages,
            // What has expired may still be taken for out.
            out: out.map(|out| out.min(messages)),
            dead,
        })
    }

    async fn dead_letters(&self, query: DeadQuery, deadline: Instant) -> Result<DeadPage> {
        self.inboxes.dead_letters(query, deadline).await
    }

    async fn redrive(
        &self,
        letters: Vec<(DeadId, Address)>,
        terms: Terms,
        deadline: Instant,
    ) -> Result<Vec<Redriven>> {
        self.inboxes.redrive(letters, terms, deadline).await
    }

    async fn configure(&self, limits: InboxLimits, deadline: Instant) -> Result<()> {
        let (jetstream, layout) = (self.jetstream(), &self.jetstream().layout);
        let messages = streams::messages(layout, self.storage, self.replicas, &limits);
        let dead = streams::dead(layout, self.storage, self.replicas, &limits);
        for (kind, wanted) in [(Kind::Messages, messages), (Kind::Dead, dead)] {
            let (stream, _) = jetstream.stream(kind, deadline).await?;
            stream.configure(jetstream, wanted, deadline).await?;
        }
        *self.inboxes.limits.write() = limits;
        Ok(())
    }

    /// The server removes by itself what has expired, and sessions that were not heard of for long.
    async fn sweep(&self, _deadline: Instant) -> Result<Swept> {
        self.jetstream().check_open()?;
        Ok(Swept::default())
    }

    async fn probe(&self, deadline: Instant) -> Result<()> {
        let (stream, _) = self.jetstream().stream(Kind::Messages, deadline).await?;
        self.jetstream().info(stream, &json!({}), deadline).await?;
        Ok(())
    }

    async fn close(&self) {
        self.jetstream().close().await;
    }
}
