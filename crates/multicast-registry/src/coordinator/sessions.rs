//! Live sessions: who listens here, and until when.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prism_slot::{
    Cause, Change, Claim, DynMessaging, Epoch, GapReason, Identity, Kind, Listener, Message, MulticastId,
    Outcome, Position, Received, Revision, Timestamp,
};
use tokio::{sync::watch, time::Instant};

use super::{Coordinator, Error};
use crate::{
    directory::{Observer, Standing},
    metrics::NamespaceMetrics,
};

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// A newer session of the same identity is the live one.
    #[error("a newer session of the identity took over")]
    Superseded,
    /// The registration was removed.
    #[error("the identity was unregistered")]
    Unregistered,
    /// The registration's lease ended.
    #[error("the lease of the identity ended")]
    Expired,
    /// The identity was registered anew by somebody else.
    #[error("the identity was registered anew")]
    Replaced,
    /// The namespace goes elsewhere; open the session again.
    #[error("the namespace is being drained here, subscribe again")]
    Draining,
    /// The messaging slot ended the listener.
    #[error("the messaging slot ended the subscription, subscribe again")]
    SlotClosed,
}

/// What a session is handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// A message for the identity.
    Message(Arc<Message>),
    /// Messages are, or may be, missing here.
    Gap {
        /// How many are known to be missing.
        dropped: u64,
        /// Why.
        reason: GapReason,
    },
}

/// A live session of one identity. Ends when dropped.
#[derive(Debug)]
pub struct Session {
    claim: Claim,
    listener: Listener,
    end: watch::Receiver<Option<Closed>>,
    ended: bool,
    entry: Entry,
    /// The slot that feeds the listener stays open as long as somebody listens.
    _messaging: Kept,
}

/// Kept, not used.
struct Kept(#[allow(dead_code)] Arc<dyn DynMessaging>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl Session {
    /// The registration that it belongs to, and its number among the identity's sessions.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// The next event. After an error, which says why the session ended, `None`. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<SessionEvent, Closed>> {
        if self.ended {
            return None;
        }
        let closed = loop {
            tokio::select! {
                biased;
                closed = self.end.wait_for(Option::is_some) => {
                    break closed.ok().and_then(|closed| *closed).unwrap_or(Closed::SlotClosed);
                }
                received = self.listener.next() => match received {
                    None => break Closed::SlotClosed,
                    Some(Received::Gap { dropped, reason }) => {
                        self.entry.sessions.metrics.dropped(dropped);
                        return Some(Ok(SessionEvent::Gap { dropped, reason }));
                    }
                    Some(Received::Message(message)) => match message.kind {
                        Kind::Payload => return Some(Ok(SessionEvent::Message(message))),
                        Kind::Superseded { session_seq } if session_seq > self.claim.session_seq => {
                            break Closed::Superseded;
                        }
                        Kind::Superseded { .. } => {}
                    },
                },
            }
        };
        self.ended = true;
        Some(Err(closed))
    }
}

impl Coordinator {
    /// Opens a session for a registered identity. When it returns, a multicast through any runner
    /// reaches it. A session that the identity had before is closed.
    ///
    /// # Errors
    /// `NotFound`, `StaleGeneration`; unavailability.
    pub async fn subscribe(
        &self,
        identity: impl TryInto<Identity, Error: Into<Error>>,
        generation: Option<Position>,
        deadline: Instant,
    ) -> Result<Session, Error> {
        let identity = identity.try_into().map_err(Into::into)?;
        self.call(deadline).await?;
        // Listening comes first: what is accepted after the claim must find it.
        let messaging = self.messaging();
        let listener = messaging.listen(&identity, deadline).await?;
        let (entry, end) = self.shared.sessions.enter(identity.clone());
        let claimed = self.claim(&identity, generation, deadline).await?;
        self.shared.sessions.claimed(&entry, claimed, self.epoch());
        self.end_if_gone(&entry, claimed, deadline).await?;
        let claim = claimed.claim;
        self.announce(&identity, claim, deadline).await;
        if self.shared.closing.is_cancelled() {
            return Err(Error::Draining);
        }
        tracing::debug!(namespace = self.shared.sessions.namespace, %identity, session = claim.session_seq, "subscribed");
        Ok(Session {
            claim,
            listener,
            end,
            ended: false,
            entry,
            _messaging: Kept(messaging),
        })
    }

    async fn claim(
        &self,
        identity: &Identity,
        generation: Option<Position>,
        deadline: Instant,
    ) -> Result<Claimed, Error> {
        self.retrying(deadline, |slot, call| {
            let identity = identity.clone();
            async move {
                let claim = slot.claim_session(call, identity, generation).await?;
                Ok(Claimed {
                    epoch: call.epoch,
                    claim,
                })
            }
        })
        .await
    }

    /// Ends a session whose registration went away between the claim and its being noted: the view may
    /// have followed past that already, and will not say it again.
    async fn end_if_gone(&self, entry: &Entry, claimed: Claimed, deadline: Instant) -> Result<(), Error> {
        let (head, current) = if self.shared.directory.is_bare() {
            let read = self.get(entry.identity.clone(), deadline).await?;
            (read.head, read.record.map(|record| record.generation))
        } else {
            self.shared.directory.read(|view| {
                let row = view.get(entry.identity.as_str());
                (view.head(), row.map(|row| row.generation))
            })
        };
        if claimed.is_gone(head, current) {
            self.shared.sessions.end(
                entry,
                match current {
                    Some(_) => Closed::Replaced,
                    None => Closed::Unregistered,
                },
            );
        }
        Ok(())
    }

    /// Tells the identity's other sessions, wherever they are, that a newer one took over.
    async fn announce(&self, identity: &Identity, claim: Claim, deadline: Instant) {
        let notice = Message {
            multicast: MulticastId::random(),
            kind: Kind::Superseded {
                session_seq: claim.session_seq,
            },
            payload: bytes::Bytes::new(),
            content_type: "".into(),
            published_at: Timestamp::now(),
            headers: Vec::new(),
        };
        let messaging = self.messaging();
        let outcomes = messaging
            .publish_batch(std::slice::from_ref(identity), Arc::new(notice), deadline)
            .await;
        if !matches!(outcomes.as_slice(), [Outcome::Accepted]) {
            // The session itself works. An older one elsewhere may stay for a while and hear the same.
            let namespace = &self.shared.sessions.namespace;
            tracing::warn!(namespace, %identity, ?outcomes, "could not tell older sessions that a newer one took over");
        }
    }
}

/// The sessions that are open here.
#[derive(Debug)]
pub(super) struct Sessions {
    namespace: String,
    metrics: NamespaceMetrics,
    next: AtomicU64,
    /// Whether it is known how many registrations there are.
    counted: AtomicBool,
    open: Mutex<HashMap<Identity, Vec<Open>>>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// Set once claimed.
    claimed: Option<Claimed>,
    end: watch::Sender<Option<Closed>>,
}

/// A claim, and the epoch that it was made in. The registration may be of an earlier one, where its
/// record outlived the change.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    epoch: Option<Epoch>,
    claim: Claim,
}

impl Claimed {
    /// Whether the registration is known to be gone by a view that stands at `head` and holds the
    /// generation `current` of the identity. One that has not followed up to the registration yet
    /// knows nothing of it.
    fn is_gone(&self, head: Position, current: Option<Position>) -> bool {
        let generation = self.claim.generation;
        let knows = self.epoch != Some(head.epoch) || generation.revision <= head.revision;
        knows && current != Some(generation)
    }

    /// Orders claims while `epoch` is the current one: whoever claimed before it comes first.
    fn order(&self, epoch: Epoch) -> (bool, u64) {
        (self.epoch == Some(epoch), self.claim.session_seq)
    }
}

/// A session's place among the open ones, given up when dropped.
#[derive(Debug)]
struct Entry {
    sessions: Arc<Sessions>,
    identity: Identity,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.sessions.open.lock();
        if let Some(sessions) = open.get_mut(&self.identity) {
            sessions.retain(|session| session.number != self.number);
            if sessions.is_empty() {
                open.remove(&self.identity);
            }
        }
        self.sessions.metrics.sessions_changed(-1);
    }
}

impl Sessions {
    pub(super) fn new(namespace: String, metrics: NamespaceMetrics) -> Self {
        Self {
            namespace,
            metrics,
            next: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            open: Mutex::default(),
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().values().map(Vec::len).sum()
    }

    /// Whether an identity has a session here.
    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.open.lock().contains_key(identity)
    }

    pub(super) fn close_all(&self, reason: Closed) {
        for session in self.open.lock().values().flatten() {
            session.end.send_replace(Some(reason));
        }
    }

    fn enter(self: &Arc<Self>, identity: Identity) -> (Entry, watch::Receiver<Option<Closed>>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = watch::channel(None);
        let session = Open {
            number,
            claimed: None,
            end,
        };
        self.open
            .lock()
            .entry(identity.clone())
            .or_default()
            .push(session);
        self.metrics.sessions_changed(1);
        (
            Entry {
                sessions: self.clone(),
                identity,
                number,
            },
            ended,
        )
    }

    /// Notes a claim. Of the sessions with one, the newest stays, in whatever order they are noted.
    fn claimed(&self, entry: &Entry, claimed: Claimed, epoch: Epoch) {
        let mut open = self.open.lock();
        let Some(sessions) = open.get_mut(&entry.identity) else {
            return;
        };
        if let Some(session) = sessions.iter_mut().find(|session| session.number == entry.number) {
            session.claimed = Some(claimed);
        }
        let order = |session: &Open| session.claimed.map(|claimed| claimed.order(epoch));
        let newest = sessions.iter().filter_map(order).max();
        for session in sessions.iter().filter(|session| order(session).is_some()) {
            if order(session) < newest {
                session.end.send_replace(Some(Closed::Superseded));
            }
        }
    }

    fn end(&self, entry: &Entry, reason: Closed) {
        let open = self.open.lock();
        let sessions = open.get(&entry.identity).into_iter().flatten();
        for session in sessions.filter(|session| session.number == entry.number) {
            session.end.send_replace(Some(reason));
        }
    }

    /// At a revision a registration went away; sessions of it, and of those before it, end. One that
    /// was made later may have sessions already, if this view is behind.
    fn gone(&self, identity: &Identity, at: Revision, reason: Closed) {
        let open = self.open.lock();
        for session in open.get(identity).into_iter().flatten() {
            let before = |claimed: Claimed| claimed.claim.generation.revision < at;
            if session.claimed.is_some_and(before) {
                session.end.send_replace(Some(reason));
            }
        }
    }
}

/// Closes sessions as the view learns what became of their registrations.
pub(super) struct Following(pub(super) Arc<Sessions>);

impl Observer for Following {
    fn changed(&self, change: &Change) {
        let (identity, sessions) = (&change.record.identity, &self.0);
        match change.cause {
            Cause::Registered | Cause::Updated => {}
            Cause::Replaced => sessions.gone(identity, change.revision, Closed::Replaced),
            Cause::Unregistered | Cause::Evicted => {
                sessions.gone(identity, change.revision, Closed::Unregistered);
            }
            Cause::Expired => {
                tracing::debug!(namespace = sessions.namespace, %identity, "expired");
                sessions.metrics.expired();
                sessions.gone(identity, change.revision, Closed::Expired);
            }
        }
        if !sessions.counted.load(Ordering::Relaxed) {
            return;
        }
        sessions.metrics.registrations_changed(match change.cause {
            Cause::Registered => 1,
            Cause::Replaced | Cause::Updated => 0,
            Cause::Unregistered | Cause::Evicted | Cause::Expired => -1,
        });
    }

    fn rebuilt(&self, head: Position, standing_of: &dyn Fn(&Identity) -> Standing, count: Option<usize>) {
        self.0.counted.store(count.is_some(), Ordering::Relaxed);
        if let Some(count) = count {
            self.0.metrics.registrations(count);
        }
        for (identity, sessions) in self.0.open.lock().iter() {
            let Standing::Known(current) = standing_of(identity) else {
                continue;
            };
            for session in sessions {
                if session
                    .claimed
                    .is_some_and(|claimed| claimed.is_gone(head, current))
                {
                    session.end.send_replace(Some(Closed::Unregistered));
                }
            }
        }
    }

    fn of_interest(&self) -> Vec<Identity> {
        self.0.open.lock().keys().cloned().collect()
    }
}
