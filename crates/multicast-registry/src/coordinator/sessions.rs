//! Live sessions: who listens here, and until when.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prism_slot::{Cause, Change, Claim, Epoch, Identity, Position, Revision};
use tokio::sync::{Notify, watch};

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
    /// What is stored is reached in another way from now on; open the session again.
    #[error("the durability slot was configured anew, subscribe again")]
    Reconfigured,
    /// The messaging slot ended the listener.
    #[error("the messaging slot ended the subscription, subscribe again")]
    SlotClosed,
}

/// The sessions that are open here.
#[derive(Debug)]
pub(super) struct Sessions {
    namespace: String,
    pub(super) metrics: NamespaceMetrics,
    next: AtomicU64,
    /// Whether it is known how many registrations there are.
    counted: AtomicBool,
    open: Mutex<HashMap<Identity, Vec<Open>>>,
    /// Told when the last one has gone.
    emptied: Notify,
}

#[derive(Debug)]
struct Open {
    number: u64,
    /// Set once claimed.
    claimed: Option<Claimed>,
    end: watch::Sender<Option<Closed>>,
    /// Rung when something is stored for the identity.
    bell: Arc<Notify>,
}

/// A claim, and the epoch that it was made in. The registration may be of an earlier one, where its
/// record outlived the change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub(super) epoch: Option<Epoch>,
    pub(super) claim: Claim,
}

impl Claimed {
    /// Whether the registration is known to be gone by a view that stands at `head` and holds the
    /// generation `current` of the identity. One that has not followed up to the registration yet
    /// knows nothing of it.
    pub(super) fn is_gone(&self, head: Position, current: Option<Position>) -> bool {
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
pub(super) struct Entry {
    pub(super) sessions: Arc<Sessions>,
    pub(super) identity: Identity,
    pub(super) bell: Arc<Notify>,
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
        if open.is_empty() {
            self.sessions.emptied.notify_waiters();
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
            emptied: Notify::new(),
        }
    }

    /// Waits until none is open.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.open.lock().is_empty() {
                return;
            }
            emptied.await;
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

    /// Something is stored for an identity.
    pub(super) fn ring(&self, identity: &Identity) {
        for session in self.open.lock().get(identity).into_iter().flatten() {
            session.bell.notify_one();
        }
    }

    pub(super) fn close_all(&self, reason: Closed) {
        for session in self.open.lock().values().flatten() {
            session.end.send_replace(Some(reason));
        }
    }

    pub(super) fn enter(self: &Arc<Self>, identity: Identity) -> (Entry, watch::Receiver<Option<Closed>>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (end, ended) = watch::channel(None);
        let bell = Arc::new(Notify::new());
        let session = Open {
            number,
            claimed: None,
            end,
            bell: bell.clone(),
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
                bell,
                number,
            },
            ended,
        )
    }

    /// Notes a claim. Of the sessions with one, the newest stays, in whatever order they are noted.
    pub(super) fn claimed(&self, entry: &Entry, claimed: Claimed, epoch: Epoch) {
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

    pub(super) fn end(&self, entry: &Entry, reason: Closed) {
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
