//! Sets of rows, small ones in little memory: most values of most fields are had by few rows.

use roaring::RoaringBitmap;

use crate::directory::rows::RowId;

/// From here on a bitmap takes less memory and time than a list.
const FEW: usize = 32;

/// The rows that have a value.
#[derive(Debug, Clone)]
pub(super) enum Postings {
    One(RowId),
    /// Sorted.
    Few(Vec<RowId>),
    Many(RoaringBitmap),
}

impl Postings {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Few(ids) => ids.len() as u64,
            Self::Many(ids) => ids.len(),
        }
    }

    pub(super) fn insert(&mut self, id: RowId) {
        match self {
            Self::One(one) if *one == id => {}
            Self::One(one) => *self = Self::Few(vec![id.min(*one), id.max(*one)]),
            Self::Few(ids) => {
                let Err(at) = ids.binary_search(&id) else { return };
                ids.insert(at, id);
                if ids.len() > FEW {
                    *self = Self::Many(ids.iter().copied().collect());
                }
            }
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    /// Whether nothing is left.
    pub(super) fn remove(&mut self, id: RowId) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Few(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
                ids.is_empty()
            }
            Self::Many(ids) => {
                ids.remove(id);
                ids.is_empty()
            }
        }
    }

    pub(super) fn add_to(&self, rows: &mut RoaringBitmap) {
        match self {
            Self::One(id) => {
                rows.insert(*id);
            }
            Self::Few(ids) => rows.extend(ids.iter().copied()),
            Self::Many(ids) => *rows |= ids,
        }
    }
}
