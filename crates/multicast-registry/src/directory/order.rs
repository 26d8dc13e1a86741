//! Rows in the order of their identities.
//!
//! A two-level sorted list of row ids, about four bytes a row: leaves of bounded size, each sorted,
//! in sorted order. The keys are read through the rows themselves.

use super::rows::{Row, RowId, Rows};

const LEAF_MAX: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Order {
    leaves: Vec<Vec<RowId>>,
    len: usize,
}

/// Versions of one identity are ordered by age.
fn sort_key(row: &Row) -> (&str, u64) {
    (row.identity.as_str(), row.from.0)
}

impl Order {
    /// From rows that are sorted already.
    pub(crate) fn from_sorted(ids: &[RowId]) -> Self {
        // Not quite full, so that the first insertions do not split every leaf.
        Self {
            leaves: ids.chunks(LEAF_MAX * 3 / 4).map(<[RowId]>::to_vec).collect(),
            len: ids.len(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, rows: &Rows, id: RowId) {
        self.len += 1;
        let key = sort_key(rows.get(id));
        let leaf = self.leaf_of(rows, key);
        let Some(ids) = self.leaves.get_mut(leaf) else {
            self.leaves.push(vec![id]);
            return;
        };
        let at = ids.partition_point(|&other| sort_key(rows.get(other)) < key);
        ids.insert(at, id);
        if ids.len() > LEAF_MAX {
            let upper = ids.split_off(LEAF_MAX / 2);
            self.leaves.insert(leaf + 1, upper);
        }
    }

    pub(crate) fn remove(&mut self, rows: &Rows, id: RowId) {
        if let Some((leaf, at)) = self.find(rows, id) {
            self.len -= 1;
            self.leaves[leaf].remove(at);
            if self.leaves[leaf].is_empty() {
                self.leaves.remove(leaf);
            }
        }
    }

    /// Puts one row in the place of another one with the same key.
    pub(crate) fn replace(&mut self, rows: &Rows, before: RowId, after: RowId) {
        if let Some((leaf, at)) = self.find(rows, before) {
            self.leaves[leaf][at] = after;
        }
    }

    /// All rows in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RowId> {
        self.leaves.iter().flatten().copied()
    }

    /// The rows whose identity is greater than `after`, in order.
    pub(crate) fn iter_after<'a>(&'a self, rows: &'a Rows, after: &str) -> impl Iterator<Item = RowId> + 'a {
        let bound = (after, u64::MAX);
        let leaf = self.leaf_of(rows, bound);
        let ids = self.leaves.get(leaf).map_or(&[][..], Vec::as_slice);
        let at = ids.partition_point(|&id| sort_key(rows.get(id)) <= bound);
        let rest = self.leaves.get(leaf + 1..).unwrap_or_default();
        ids[at..].iter().chain(rest.iter().flatten()).copied()
    }

    /// The rows of one identity, the oldest first.
    pub(crate) fn versions<'a>(
        &'a self,
        rows: &'a Rows,
        identity: &'a str,
    ) -> impl Iterator<Item = RowId> + 'a {
        let key = (identity, 0);
        let leaf = self.leaf_of(rows, key);
        let ids = self.leaves.get(leaf).map_or(&[][..], Vec::as_slice);
        let at = ids.partition_point(|&id| sort_key(rows.get(id)) < key);
        let rest = self.leaves.get(leaf + 1..).unwrap_or_default();
        let from = ids[at..].iter().chain(rest.iter().flatten()).copied();
        from.take_while(move |&id| rows.get(id).identity.as_str() == identity)
    }

    /// The first `limit` rows.
    pub(crate) fn first(&self, limit: usize) -> Vec<RowId> {
        let mut ids = Vec::with_capacity(limit.min(self.len));
        for leaf in &self.leaves {
            let wanted = (limit - ids.len()).min(leaf.len());
            ids.extend_from_slice(&leaf[..wanted]);
            if ids.len() == limit {
                break;
            }
        }
        ids
    }

    /// The leaf in which a key is or would be.
    fn leaf_of(&self, rows: &Rows, key: (&str, u64)) -> usize {
        self.leaves
            .partition_point(|leaf| sort_key(rows.get(leaf[0])) <= key)
            .saturating_sub(1)
    }

    fn find(&self, rows: &Rows, id: RowId) -> Option<(usize, usize)> {
        let key = sort_key(rows.get(id));
        let leaf = self.leaf_of(rows, key);
        let ids = self.leaves.get(leaf)?;
        let at = ids.partition_point(|&other| sort_key(rows.get(other)) < key);
        (ids.get(at) == Some(&id)).then_some((leaf, at))
    }
}
