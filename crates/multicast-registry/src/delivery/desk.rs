//! The multicasts that this runner has in memory: those under way, and those done, as long as there is room.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use prism_slot::{MulticastId, Timestamp};

use super::{
    Delivery,
    tracker::{Phase, Tracker},
};

/// What a target costs in memory, roughly: its state, its name's pointer, and a place in a table.
const TARGET_BYTES: usize = 96;

/// The multicasts in memory.
#[derive(Debug)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    trackers: HashMap<MulticastId, Arc<Tracker>>,
    /// What is being written down.
    beginning: HashSet<MulticastId>,
    /// In the order in which they came.
    order: VecDeque<MulticastId>,
    targets: usize,
    max_targets: usize,
}

/// A multicast that is being written down.
pub(crate) struct Beginning<'a> {
    desk: &'a Desk,
    id: MulticastId,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.desk.inner.lock().beginning.remove(&self.id);
    }
}

impl Desk {
    /// One that keeps about so many bytes of what is done.
    pub(crate) fn new(max_bytes: usize) -> Self {
        let inner = Inner {
            max_targets: max_bytes / TARGET_BYTES,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn resize(&self, max_bytes: usize) {
        self.inner.lock().max_targets = max_bytes / TARGET_BYTES;
    }

    /// Takes a multicast up. The oldest that are done make room.
    pub(crate) fn put(&self, tracker: Arc<Tracker>) {
        let mut inner = self.inner.lock();
        inner.make_room(tracker.targets.len());
        inner.targets += tracker.targets.len() + 1;
        inner.order.push_back(tracker.cast.id);
        inner.trackers.insert(tracker.cast.id, tracker);
    }

    /// One is being written down, for as long as the answer lives.
    pub(crate) fn beginning(&self, id: MulticastId) -> Beginning<'_> {
        self.inner.lock().beginning.insert(id);
        Beginning { desk: self, id }
    }

    /// Whether this runner is at work on one, or has been lately.
    pub(crate) fn has(&self, id: MulticastId) -> bool {
        let inner = self.inner.lock();
        inner.trackers.contains_key(&id) || inner.beginning.contains(&id)
    }

    pub(crate) fn get(&self, id: MulticastId) -> Option<Arc<Tracker>> {
        self.inner.lock().trackers.get(&id).cloned()
    }

    /// Those that the ledger has too.
    pub(crate) fn recorded(&self) -> Vec<Arc<Tracker>> {
        let inner = self.inner.lock();
        let recorded = inner.trackers.values().filter(|tracker| tracker.cast.recorded);
        recorded.cloned().collect()
    }

    /// Forgets one.
    pub(crate) fn remove(&self, id: MulticastId) {
        let mut inner = self.inner.lock();
        if let Some(tracker) = inner.trackers.remove(&id) {
            inner.targets -= tracker.targets.len() + 1;
        }
    }

    /// Forgets those whose receipts are not kept any longer.
    pub(crate) fn tidy(&self, now: Timestamp) {
        let mut inner = self.inner.lock();
        while let Some(id) = inner.order.front().copied() {
            let kept = |tracker: &Arc<Tracker>| tracker.cast.kept_until > now || is_under_way(tracker);
            if inner.trackers.get(&id).is_some_and(kept) {
                return;
            }
            inner.drop_front();
        }
    }
}

/// One that is in nobody's hands but the desk's, and done, can go, once the ledger knows of it where it was begun there.
fn is_under_way(tracker: &Arc<Tracker>) -> bool {
    let cast = &tracker.cast;
    let is_begun_there = cast.keyed || cast.delivery != Delivery::AtMostOnce;
    tracker.phase() == Phase::Running
        || Arc::strong_count(tracker) > 1
        || (is_begun_there && tracker.is_unfinished())
}

impl Inner {
    fn drop_front(&mut self) {
        if let Some(tracker) = self.order.pop_front().and_then(|id| self.trackers.remove(&id)) {
            self.targets -= tracker.targets.len() + 1;
        }
    }

    /// Looks at each once: those under way go to the back.
    fn make_room(&mut self, for_targets: usize) {
        for _ in 0..self.order.len() {
            if self.targets + for_targets <= self.max_targets {
                return;
            }
            let Some(id) = self.order.front().copied() else {
                return;
            };
            if self.trackers.get(&id).is_some_and(is_under_way) {
                self.order.rotate_left(1);
            } else {
                self.drop_front();
            }
        }
    }
}
