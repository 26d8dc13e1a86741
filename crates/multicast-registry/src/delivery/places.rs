//! Where the targets of a multicast are found by name: their places alone, so that no name is kept twice.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use prism_slot::Identity;

/// Where targets are found by name.
#[derive(Debug)]
pub(super) struct Places {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
}

impl Places {
    pub(super) fn of(targets: &[Identity]) -> Self {
        let hasher = DefaultHashBuilder::default();
        let hash = |place: &u32| hasher.hash_one(&targets[*place as usize]);
        let mut table = HashTable::with_capacity(targets.len());
        // A multicast has fewer targets than a directory has identities.
        for place in 0..u32::try_from(targets.len()).unwrap_or(u32::MAX) {
            table.insert_unique(hash(&place), place, hash);
        }
        Self { hasher, table }
    }

    pub(super) fn find(&self, targets: &[Identity], identity: &Identity) -> Option<usize> {
        let is_it = |place: &u32| targets[*place as usize] == *identity;
        let place = self.table.find(self.hasher.hash_one(identity), is_it)?;
        Some(*place as usize)
    }
}
