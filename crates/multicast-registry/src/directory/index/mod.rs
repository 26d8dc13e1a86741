//! Finds the rows that may match without asking every row.
//!
//! A [`Field`] holds, for one path, which rows have which value. A filter's clauses become lookups in
//! fields, and its tree an algebra of row sets ([`plan`]). What the sets cannot tell apart is left to the
//! compiled filter, which is asked about every row of a set that is not exact: a lookup may find
//! too much, never too little.

mod field;
mod key;
mod ordered;
pub(crate) mod plan;
mod postings;
mod reading;

#[cfg(test)]
mod tests;

pub(crate) use field::{Estimate, Field, Lookup};
pub(crate) use key::Key;

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use prism_filter::{Document, Path};
use roaring::RoaringBitmap;

use super::rows::RowId;

/// How many fields are indexed without being declared.
const MAX_ADAPTIVE: usize = 4;
/// A field is worth an index once looking for it has asked every row this often.
const WORTH_SCANS: u64 = 8;
/// After so many calls of [`Indexes::age`] an unused one is given up.
const MAX_IDLE: u32 = 10;
/// Of how many fields without an index it is counted how often they were looked for.
const MAX_WANTED: usize = 64;

/// The indexes of a view: on the fields that are declared, and on some that are often looked for.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    fields: Vec<Indexed>,
    wanted: Mutex<HashMap<Path, u64>>,
}

#[derive(Debug)]
struct Indexed {
    field: Field,
    declared: bool,
    /// The rows that it does not hold yet. Nothing is looked up in it until none is left.
    missing: RoaringBitmap,
    /// How often it has been looked up in since [`Indexes::age`] was last called.
    uses: AtomicU64,
    /// How many calls of it found no use.
    idle: u32,
}

impl Indexed {
    fn new(path: Path, declared: bool, missing: RoaringBitmap) -> Self {
        Self {
            field: Field::new(path),
            declared,
            missing,
            uses: AtomicU64::new(0),
            idle: 0,
        }
    }
}

impl Indexes {
    /// Empty indexes on these paths.
    pub(crate) fn on(paths: &[Path]) -> Self {
        let field = |path: &Path| Indexed::new(path.clone(), true, RoaringBitmap::new());
        Self {
            fields: paths.iter().map(field).collect(),
            ..Self::default()
        }
    }

    /// The complete index on a path.
    pub(crate) fn get(&self, path: &Path) -> Option<&Field> {
        let indexed = self.fields.iter().find(|indexed| indexed.field.path() == path)?;
        indexed.uses.fetch_add(1, Ordering::Relaxed);
        indexed.missing.is_empty().then_some(&indexed.field)
    }

    /// Whether an index on a path is complete. No use of it.
    pub(crate) fn has(&self, path: &Path) -> bool {
        let mut indexed = self.fields.iter();
        indexed.any(|indexed| indexed.field.path() == path && indexed.missing.is_empty())
    }

    pub(crate) fn insert(&mut self, id: RowId, document: &Document) {
        for indexed in &mut self.fields {
            indexed.field.insert(id, document);
        }
    }

    pub(crate) fn remove(&mut self, id: RowId, document: &Document) {
        for indexed in &mut self.fields {
            indexed.missing.remove(id);
            indexed.field.remove(id, document);
        }
    }

    /// How often the index on a path was used lately.
    #[cfg(test)]
    pub(crate) fn uses(&self, path: &Path) -> u64 {
        let indexed = self.fields.iter().find(|indexed| indexed.field.path() == path);
        indexed.map_or(0, |indexed| indexed.uses.load(Ordering::Relaxed))
    }

    /// Whether they hold nothing at all.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.iter().all(|indexed| indexed.field.is_empty())
    }

    /// Declares what is indexed from now on. A new index is filled by [`Self::fill`] with these rows.
    pub(crate) fn declare(&mut self, paths: &[Path], rows: &RoaringBitmap) {
        for indexed in &mut self.fields {
            indexed.declared = paths.contains(indexed.field.path());
        }
        for path in paths {
            if !self.fields.iter().any(|indexed| indexed.field.path() == path) {
                self.fields.push(Indexed::new(path.clone(), true, rows.clone()));
            }
        }
    }

    /// Notes that rows were asked because these paths have no index.
    pub(crate) fn miss(&self, paths: impl Iterator<Item = Path>, rows: u64) {
        let mut wanted = self.wanted.lock();
        let known = |path: &Path| self.fields.iter().any(|indexed| indexed.field.path() == path);
        for path in paths.filter(|path| !known(path)) {
            if wanted.len() < MAX_WANTED || wanted.contains_key(&path) {
                *wanted.entry(path).or_default() += rows;
            }
        }
    }

    /// Gives up indexes that are not declared and have not been used for long. Called once in a while; what was wanted
    /// long ago counts less and less.
    pub(crate) fn age(&mut self) {
        self.fields.retain_mut(|indexed| {
            let used = std::mem::take(indexed.uses.get_mut()) > 0;
            indexed.idle = if used { 0 } else { indexed.idle + 1 };
            indexed.declared || indexed.idle < MAX_IDLE
        });
        self.wanted.get_mut().retain(|_, asked| {
            *asked /= 2;
            *asked > 0
        });
    }

    /// Begins an index on the field that was looked for most, if among so many rows that was often.
    pub(crate) fn begin_wanted(&mut self, count: u64, rows: impl FnOnce() -> RoaringBitmap) {
        let adaptive = self.fields.iter().filter(|indexed| !indexed.declared).count();
        let wanted = self.wanted.get_mut();
        let most = wanted.iter().max_by_key(|(_, asked)| **asked);
        let most = most.filter(|(_, asked)| **asked >= WORTH_SCANS * count.max(1));
        if let Some(path) = most
            .map(|(path, _)| path.clone())
            .filter(|_| adaptive < MAX_ADAPTIVE)
        {
            wanted.remove(&path);
            self.fields.push(Indexed::new(path, false, rows()));
        }
    }

    /// Adds up to so many rows to an index that is not complete. Returns whether more are left.
    pub(crate) fn fill<'a>(&mut self, count: usize, document: impl Fn(RowId) -> &'a Document) -> bool {
        let Some(indexed) = self.fields.iter_mut().find(|indexed| !indexed.missing.is_empty()) else {
            return false;
        };
        let part: Vec<RowId> = indexed.missing.iter().take(count).collect();
        for id in part {
            indexed.missing.remove(id);
            indexed.field.insert(id, document(id));
        }
        self.fields.iter().any(|indexed| !indexed.missing.is_empty())
    }
}
