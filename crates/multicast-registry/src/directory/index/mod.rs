//! Finds the rows that may match without asking every row.
//!
//! A [`Field`] holds, for one path, which rows have which value. A filter's clauses become lookups in
//! fields, and its tree an algebra of row sets ([`plan`]). What the sets cannot tell apart is left to the
//! compiled filter, which is asked about every row of a set that is not exact: a lookup may find
//! too much, never too little.

mod field;
mod key;
pub(crate) mod plan;
mod postings;

#[cfg(test)]
mod tests;

pub(crate) use field::{Estimate, Field, Lookup};

use prism_filter::{Document, Path};

use super::rows::RowId;

/// The indexed fields of a view.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    fields: Vec<Field>,
}

impl Indexes {
    /// Empty indexes on these paths.
    pub(crate) fn on(paths: &[Path]) -> Self {
        let fields = paths.iter().cloned().map(Field::new).collect();
        Self { fields }
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Field> {
        self.fields.iter().find(|field| field.path() == path)
    }

    pub(crate) fn insert(&mut self, id: RowId, document: &Document) {
        for field in &mut self.fields {
            field.insert(id, document);
        }
    }

    pub(crate) fn remove(&mut self, id: RowId, document: &Document) {
        for field in &mut self.fields {
            field.remove(id, document);
        }
    }

    /// What they take, in bytes, roughly.
    pub(crate) fn size(&self) -> usize {
        self.fields.iter().map(Field::size).sum()
    }
}
