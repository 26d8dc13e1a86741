//! What a registry in memory remembers of its history.

use std::collections::VecDeque;

use crate::{Change, Error, Record, Result, Revision, memory::RegistryConfig};

/// The last changes, bounded by count and bytes.
pub(super) struct Feed {
    changes: VecDeque<Change>,
    bytes: usize,
    pub(super) max_changes: usize,
    pub(super) max_bytes: usize,
    /// The last revision that is not kept any more.
    compacted_to: Revision,
}

impl Feed {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            max_changes: config.feed_max_changes,
            max_bytes: config.feed_max_bytes,
            compacted_to: Revision::ZERO,
        }
    }

    fn size(change: &Change) -> usize {
        let size = |record: &Record| size_of::<Record>() + record.metadata.len();
        let before = change.before.as_deref().map_or(0, size);
        size(&change.record) + change.record.identity.as_str().len() + before
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += Self::size(&change);
        self.changes.push_back(change);
        self.trim();
    }

    pub(super) fn trim(&mut self) {
        while self.changes.len() > self.max_changes || self.bytes > self.max_bytes {
            let Some(oldest) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= Self::size(&oldest);
            self.compacted_to = oldest.revision;
        }
    }

    pub(super) fn after(&self, from: Revision, limit: usize) -> Result<Vec<Change>> {
        let up_to = self.compacted_to;
        // A caller ahead of the head has seen a history that this one is not.
        let skip = from
            .0
            .checked_sub(up_to.0)
            .filter(|skip| *skip <= self.changes.len() as u64);
        let skip = skip.ok_or(Error::Compacted { up_to })? as usize;
        Ok(self.changes.range(skip..).take(limit).cloned().collect())
    }
}
