//! Which lease ends next.
//!
//! A heap with at most one *live* entry per identity. Renewing a lease does not touch it: the entry
//! comes up at the old deadline and is then put back at the new one. Entries that no longer count
//! are recognised when they come up, and swept out when they outnumber the live ones.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::Identity;

#[derive(Debug, Default)]
pub(super) struct LeaseQueue {
    heap: BinaryHeap<Reverse<(u64, Identity)>>,
}

impl LeaseQueue {
    pub(super) fn push(&mut self, deadline: u64, identity: Identity) {
        self.heap.push(Reverse((deadline, identity)));
    }

    /// Takes the entry with the earliest deadline, if that is not after `now`.
    pub(super) fn pop_until(&mut self, now: u64) -> Option<(u64, Identity)> {
        if self.heap.peek()?.0.0 > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether some entry's deadline is not after `now`.
    pub(super) fn has_until(&self, now: u64) -> bool {
        self.heap
            .peek()
            .is_some_and(|Reverse((deadline, _))| *deadline <= now)
    }

    /// Drops what `is_live` rejects, once more than half of a sizeable heap must be dead.
    pub(super) fn sweep(&mut self, live: usize, is_live: impl Fn(u64, &Identity) -> bool) {
        if self.heap.len() > 2 * live + 1024 {
            self.heap
                .retain(|Reverse((deadline, identity))| is_live(*deadline, identity));
        }
    }
}
