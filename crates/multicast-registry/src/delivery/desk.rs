//! The multicasts that this runner has in memory: those under way, and those done, as long as there is room.

use std::sync::Arc;

use hashbrown::HashSet;
use hashlink::LinkedHashMap;
use parking_lot::Mutex;
use prism_slot::{MulticastId, Timestamp};
use smallvec::SmallVec;

use super::{Delivery, cast::Phase, tracker::Tracker};

/// What a target costs in memory, roughly: its name's pointer, its state with a cause in words, and a place in a table.
const TARGET_BYTES: usize = 64;
/// A multicast takes as much as so many targets, beside its own.
const ITSELF: usize = 8;
/// With what the table and the allocator take for it, about.
const _: () = assert!(size_of::<Tracker>() + 96 <= ITSELF * TARGET_BYTES);

/// The multicasts in memory.
#[derive(Debug)]
pub(crate) struct Desk {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order in which they came, but for those that were looked at in vain since.
    trackers: LinkedHashMap<MulticastId, Arc<Tracker>>,
    /// What is being written down.
    beginning: HashSet<MulticastId>,
    /// What nobody sends any more though it is not sent.
    given_up: HashSet<MulticastId>,
    /// How much they take, and may take, in targets.
    weight: usize,
    max_weight: usize,
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
            max_weight: max_bytes / TARGET_BYTES,
            ..Inner::default()
        };
        Self {
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn resize(&self, max_bytes: usize) {
        self.inner.lock().max_weight = max_bytes / TARGET_BYTES;
    }

    /// Takes a multicast up. The oldest that are done make room.
    pub(crate) fn put(&self, tracker: Arc<Tracker>) {
        let mut inner = self.inner.lock();
        let before = inner.remove(tracker.cast.id);
        inner.given_up.remove(&tracker.cast.id);
        let weight = weight(&tracker);
        let gone = inner.make_room(weight);
        inner.weight += weight;
        inner.trackers.insert(tracker.cast.id, tracker);
        drop(inner);
        // What they hold is given back when nobody waits for it.
        drop((before, gone));
    }

    /// One is being written down, for as long as the answer lives.
    pub(crate) fn beginning(&self, id: MulticastId) -> Beginning<'_> {
        self.inner.lock().beginning.insert(id);
        Beginning { desk: self, id }
    }

    /// Whether this runner is at work on one, or has been lately.
    pub(crate) fn has(&self, id: MulticastId) -> bool {
        let inner = self.inner.lock();
        let is_in_hand = inner.trackers.contains_key(&id) && !inner.given_up.contains(&id);
        is_in_hand || inner.beginning.contains(&id)
    }

    /// Nobody sends this one any more; it stays here until somebody does again, so that what is known of it is kept.
    pub(crate) fn give_up(&self, id: MulticastId) {
        let mut inner = self.inner.lock();
        if inner.trackers.contains_key(&id) {
            inner.given_up.insert(id);
        }
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
        inner.remove(id);
        inner.given_up.remove(&id);
    }

    /// Forgets those whose receipts are not kept any longer.
    pub(crate) fn tidy(&self, now: Timestamp) {
        let mut inner = self.inner.lock();
        while let Some((_, oldest)) = inner.trackers.front() {
            let id = oldest.cast.id;
            let is_sent = !is_under_way(oldest) || inner.given_up.contains(&id);
            if oldest.cast.kept_until > now || !is_sent {
                return;
            }
            inner.remove(id);
            inner.given_up.remove(&id);
        }
    }
}

/// One that is in nobody's hands but the desk's, and done, can go, once the ledger knows of it where it was begun there.
fn is_under_way(tracker: &Arc<Tracker>) -> bool {
    let cast = &tracker.cast;
    let is_begun_there = cast.key_window.is_some() || cast.delivery != Delivery::AtMostOnce;
    tracker.phase() == Phase::Running
        || Arc::strong_count(tracker) > 1
        || (is_begun_there && tracker.is_unfinished())
}

fn weight(tracker: &Tracker) -> usize {
    ITSELF + tracker.targets.len()
}

impl Inner {
    fn remove(&mut self, id: MulticastId) -> Option<Arc<Tracker>> {
        let tracker = self.trackers.remove(&id)?;
        self.weight -= weight(&tracker);
        Some(tracker)
    }

    /// Looks at each once: those under way go to the back. Those that go.
    fn make_room(&mut self, for_weight: usize) -> SmallVec<[Arc<Tracker>; 2]> {
        let mut gone = SmallVec::new();
        for _ in 0..self.trackers.len() {
            let fits = self.weight + for_weight <= self.max_weight;
            let Some((&id, oldest)) = self.trackers.front().filter(|_| !fits) else {
                break;
            };
            match is_under_way(oldest) {
                true => drop(self.trackers.to_back(&id)),
                false => gone.extend(self.remove(id)),
            }
        }
        gone
    }
}
