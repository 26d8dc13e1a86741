//! One page of rows that come in any order and are kept by nobody else.

use super::{
    Facet,
    large::{Counts, TooManyValues},
    query::{Found, Query, compare, compare_to_bookmark},
    rows::{Row, Rows, Selection},
};

/// How many rows more than the page needs are held before they are cut back.
const SLACK: usize = 1_024;

/// The page so far, of rows that match.
pub(crate) struct Gathered {
    kept: Vec<Row>,
    total: u64,
    counts: Vec<Counts>,
}

impl Gathered {
    pub(crate) fn new(query: &Query<'_>) -> Self {
        Self {
            kept: Vec::new(),
            total: 0,
            counts: query.facets.iter().map(Counts::of).collect(),
        }
    }

    /// Takes a row that matches, once.
    pub(crate) fn offer(&mut self, row: Row, query: &Query<'_>) -> Result<(), TooManyValues> {
        self.total += 1;
        self.counts.iter_mut().try_for_each(|counts| counts.add(&row))?;
        let is_after = |bookmark| compare_to_bookmark(&row, bookmark, query.sort).is_gt();
        if query.limit == 0 || !query.after.is_none_or(is_after) {
            return Ok(());
        }
        self.kept.push(row);
        // Memory goes with the page and not with what matches.
        if self.kept.len() >= most(query).saturating_mul(2) + SLACK {
            self.cut(query);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, query: &Query<'_>) -> (Found, Vec<Facet>) {
        self.cut(query);
        self.kept
            .sort_unstable_by(|one, other| compare(one, other, query.sort));
        let more = query.limit > 0 && self.kept.len() == most(query);
        self.kept.truncate(most(query) - 1);
        self.kept.drain(..query.offset.min(self.kept.len()));
        let mut rows = Rows::default();
        let ids = self.kept.into_iter().map(|row| rows.push(row)).collect();
        let found = Found {
            rows: Selection::new(&rows, ids),
            total: query.total.unwrap_or(self.total),
            more,
        };
        (found, self.counts.into_iter().map(Counts::into_facet).collect())
    }

    fn cut(&mut self, query: &Query<'_>) {
        let most = most(query);
        if self.kept.len() > most {
            self.kept
                .select_nth_unstable_by(most - 1, |one, other| compare(one, other, query.sort));
            self.kept.truncate(most);
        }
    }
}

/// How many rows are wanted, one more than the page has included.
fn most(query: &Query<'_>) -> usize {
    query.offset.saturating_add(query.limit).saturating_add(1)
}
