//! Answers questions to a view at one revision.

use std::{cmp::Ordering, collections::HashMap};

use prism_filter::{Compiled, Path, SystemField, ValueRef};
use prism_slot::{Identity, Revision, Timestamp};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::{
    index::plan::{self, Plan, Space},
    rows::{Row, RowId, Selection},
    view::{SpaceAt, View},
};

/// When leases end, for filters that ask: known for every identity with a lease.
pub(crate) type Leases = HashMap<Identity, Option<Timestamp>>;

/// From how many rows on an index that leads to more than match is worth another one.
const MANY: u64 = 128;

/// One key to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// Where the value is.
    pub path: Path,
    /// Whether larger values come first.
    pub descending: bool,
}

/// Where a page ended: the sort values and the identity of its last row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) values: Vec<SortValue>,
    pub(crate) identity: String,
}

/// A value that rows are sorted by. Kinds sort in this order; within arrays and objects there is none,
/// so identities decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum SortValue {
    Missing,
    Null,
    Boolean(bool),
    Number(f64),
    String(String),
    Other,
}

/// What to look for.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    /// All rows if absent.
    pub(crate) filter: Option<&'a Compiled>,
    pub(crate) sort: &'a [SortKey],
    /// Only rows after this one.
    pub(crate) after: Option<&'a Bookmark>,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
    /// Known from the first page.
    pub(crate) total: Option<u64>,
    /// For filters that use them.
    pub(crate) leases: Option<&'a Leases>,
    /// The fields whose values are counted.
    pub(crate) facets: &'a [Path],
}

/// A page.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) rows: Selection,
    pub(crate) total: u64,
    /// Whether rows follow.
    pub(crate) more: bool,
}

impl View {
    /// One page at a revision, which must be between the floor and the head.
    #[cfg(test)]
    pub(crate) fn select(&self, at: Revision, query: &Query<'_>) -> Found {
        self.select_in(at, query, self.indexed(at, query))
    }

    /// The same among the rows that indexes led to, if they did.
    pub(super) fn select_in(
        &self,
        at: Revision,
        query: &Query<'_>,
        found: Option<(RoaringBitmap, bool)>,
    ) -> Found {
        let found = found.map(|(mut found, sure)| {
            if !sure {
                let matches = |&id: &RowId| query.matches(self.rows().get(id));
                found = found.into_iter().filter(matches).collect();
            }
            found
        });
        let (ids, total, more) = match (found, query.sort) {
            (Some(found), _) if query.limit == 0 => (Vec::new(), found.len(), false),
            (None, []) if query.filter.is_none() && at == self.head().revision => self.select_all(query),
            (None, []) => self.select_by_identity(at, query),
            (Some(found), []) => self.select_found(at, &found, query),
            (None, sort) => {
                let rows = self.visible(at, None);
                self.select_sorted(rows.filter(|&id| query.matches(self.rows().get(id))), query, sort)
            }
            (Some(found), sort) => self.select_sorted(found.into_iter(), query, sort),
        };
        Found {
            rows: Selection::new(self.rows(), ids),
            total,
            more,
        }
    }

    /// Everything that matches among the rows that indexes led to, if they did, in no particular order.
    pub(super) fn matching_in(
        &self,
        at: Revision,
        query: &Query<'_>,
        found: Option<(RoaringBitmap, bool)>,
    ) -> Vec<&Row> {
        if let Some((found, sure)) = found {
            let rows = found.into_iter().map(|id| self.rows().get(id));
            return rows.filter(|row| sure || query.matches(row)).collect();
        }
        if query.filter.is_none() && at == self.head().revision {
            return self.open().iter().map(|id| self.rows().get(id)).collect();
        }
        self.visible(at, None)
            .map(|id| self.rows().get(id))
            .filter(|row| query.matches(row))
            .collect()
    }

    /// The rows at a revision that indexes lead to, and whether all of them match.
    pub(super) fn indexed(&self, at: Revision, query: &Query<'_>) -> Option<(RoaringBitmap, bool)> {
        let filter = query.filter?;
        let space = SpaceAt { view: self, at };
        let wanted = || plan::wanted(filter.filter().node()).into_iter();
        let Some(plan) = Plan::of(filter.filter().node(), filter.now(), &space) else {
            self.indexes().miss(wanted(), space.count());
            return None;
        };
        let (found, sure) = self.led_to(at, &plan);
        if !sure && found.len() >= MANY {
            // An index on something else leads to too many.
            self.indexes().miss(wanted(), found.len());
        }
        Some((found, sure))
    }

    /// The rows at a revision that a plan leads to, and whether all of them match.
    pub(super) fn led_to(&self, at: Revision, plan: &Plan) -> (RoaringBitmap, bool) {
        let mut found = plan.find(&SpaceAt { view: self, at });
        if at == self.head().revision {
            found &= self.open_rows();
        } else {
            let visible = |&id: &RowId| self.rows().get(id).is_visible_at(at);
            found = found.into_iter().filter(visible).collect();
        }
        (found, plan.estimate.exact)
    }

    /// One page of rows that are known to match, in the order of identities.
    fn select_found(
        &self,
        at: Revision,
        found: &RoaringBitmap,
        query: &Query<'_>,
    ) -> (Vec<RowId>, u64, bool) {
        let total = query.total.unwrap_or(found.len());
        let (wanted, all) = (query.offset + query.limit + 1, self.open().len() as u64);
        // Walking through all rows in order meets the page's last one after so many.
        let walk = (wanted as u64).saturating_mul(all / found.len().max(1));
        let after = query.after.map(|after| after.identity.as_str());
        let name = |&id: &RowId| self.rows().get(id).identity.as_str();
        let mut ids: Vec<RowId> = if walk < found.len() {
            self.visible(at, after)
                .filter(|&id| found.contains(id))
                .take(wanted)
                .collect()
        } else {
            found
                .iter()
                .filter(|id| after.is_none_or(|after| name(id) > after))
                .collect()
        };
        if ids.len() > wanted {
            ids.select_nth_unstable_by(wanted - 1, |one, other| name(one).cmp(name(other)));
            ids.truncate(wanted);
        }
        ids.sort_unstable_by(|one, other| name(one).cmp(name(other)));
        let more = ids.len() == wanted;
        ids.truncate(wanted - 1);
        ids.drain(..query.offset.min(ids.len()));
        (ids, total, more)
    }

    /// Registrations at the head, of which nothing is asked but their order.
    fn select_all(&self, query: &Query<'_>) -> (Vec<RowId>, u64, bool) {
        let total = self.open().len() as u64;
        let wanted = query.limit.saturating_add(1);
        let mut ids = match query.after {
            None if query.offset == 0 => self.open().first(wanted),
            None => self.open().iter().skip(query.offset).take(wanted).collect(),
            Some(after) => self
                .open()
                .iter_after(self.rows(), &after.identity)
                .take(wanted)
                .collect(),
        };
        let more = ids.len() > query.limit;
        ids.truncate(query.limit);
        (ids, total, more)
    }

    fn select_by_identity(&self, at: Revision, query: &Query<'_>) -> (Vec<RowId>, u64, bool) {
        let after = query.after.map(|after| after.identity.as_str());
        let matching = self
            .visible(at, after)
            .filter(|&id| query.matches(self.rows().get(id)));
        let (mut ids, mut count) = (Vec::new(), 0_usize);
        let end = query.offset.saturating_add(query.limit);
        for id in matching {
            if (query.offset..end).contains(&count) {
                ids.push(id);
            }
            count += 1;
            // Later pages know the total, and need only learn whether they are the last.
            if query.total.is_some() && count > end {
                break;
            }
        }
        (ids, query.total.unwrap_or(count as u64), count > end)
    }

    fn select_sorted(
        &self,
        matching: impl Iterator<Item = RowId>,
        query: &Query<'_>,
        sort: &[SortKey],
    ) -> (Vec<RowId>, u64, bool) {
        let row = |id: RowId| self.rows().get(id);
        let mut ids: Vec<RowId> = matching.collect();
        let total = query.total.unwrap_or(ids.len() as u64);
        if let Some(after) = query.after {
            ids.retain(|&id| compare_to_bookmark(row(id), after, sort).is_gt());
        }
        let start = query.offset.min(ids.len());
        let end = start.saturating_add(query.limit).min(ids.len());
        let more = end < ids.len();
        let order = |&one: &RowId, &other: &RowId| compare(row(one), row(other), sort);
        if more && end > 0 {
            // Only what the page needs is sorted.
            ids.select_nth_unstable_by(end - 1, order);
            ids.truncate(end);
        }
        ids.sort_unstable_by(order);
        (ids.split_off(start), total, more)
    }

    /// The rows at a revision whose identity is greater than `after`, in the order of identities.
    pub(super) fn visible<'a>(
        &'a self,
        at: Revision,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = RowId> + 'a> {
        let rows = self.rows();
        let open: Box<dyn Iterator<Item = RowId> + 'a> = match after {
            Some(after) => Box::new(self.open().iter_after(rows, after)),
            None => Box::new(self.open().iter()),
        };
        if at == self.head().revision {
            return open;
        }
        // Closed rows are bounded by the horizon.
        let closed = match after {
            Some(after) => self.closed().iter_after(rows, after).collect::<Vec<_>>(),
            None => self.closed().iter().collect(),
        };
        let open = open.filter(move |&id| rows.get(id).is_visible_at(at));
        let closed = closed
            .into_iter()
            .filter(move |&id| rows.get(id).is_visible_at(at));
        Box::new(merge(open, closed, move |&one, &other| {
            rows.get(one).identity < rows.get(other).identity
        }))
    }
}

impl Query<'_> {
    /// Whether it looks at no more rows than it answers with.
    pub(super) fn is_short(&self) -> bool {
        self.sort.is_empty() && self.filter.is_none()
    }

    /// Where the rows of the page begin, where they are in the order of identities.
    pub(super) fn after_identity(&self) -> Option<&str> {
        let after = self.after.filter(|_| self.sort.is_empty());
        after.map(|after| after.identity.as_str())
    }

    pub(super) fn matches(&self, row: &Row) -> bool {
        let Some(filter) = self.filter else { return true };
        match self.leases.and_then(|leases| leases.get(&row.identity)) {
            Some(expires_at) => filter.matches(&Leased {
                row,
                expires_at: *expires_at,
            }),
            None => filter.matches(row),
        }
    }
}

/// Joins two sorted sequences without equal items.
fn merge<T>(
    one: impl Iterator<Item = T>,
    other: impl Iterator<Item = T>,
    is_before: impl Fn(&T, &T) -> bool,
) -> impl Iterator<Item = T> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if is_before(b, a) => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

impl prism_filter::Record for Row {
    fn identity(&self) -> &str {
        self.identity.as_str()
    }

    fn registered_at(&self) -> i64 {
        self.registered_at.0
    }

    fn updated_at(&self) -> i64 {
        self.updated_at.0
    }

    fn expires_at(&self) -> Option<i64> {
        self.expires_at.map(|at| at.0)
    }

    fn document(&self) -> &prism_filter::Document {
        &self.document
    }
}

/// A row with its lease as it is now.
pub(super) struct Leased<'a> {
    pub(super) row: &'a Row,
    pub(super) expires_at: Option<Timestamp>,
}

impl prism_filter::Record for Leased<'_> {
    fn identity(&self) -> &str {
        self.row.identity.as_str()
    }

    fn registered_at(&self) -> i64 {
        self.row.registered_at.0
    }

    fn updated_at(&self) -> i64 {
        self.row.updated_at.0
    }

    fn expires_at(&self) -> Option<i64> {
        self.expires_at.map(|at| at.0)
    }

    fn document(&self) -> &prism_filter::Document {
        &self.row.document
    }
}

/// A row's value at a path.
pub(crate) fn value_at<'a>(row: &'a Row, path: &Path) -> Option<ValueRef<'a>> {
    match path.system() {
        None => row.document.get(path),
        Some(SystemField::Identity) => Some(ValueRef::String(row.identity.as_str())),
        Some(SystemField::RegisteredAt) => Some(ValueRef::Number(row.registered_at.0 as f64)),
        Some(SystemField::UpdatedAt) => Some(ValueRef::Number(row.updated_at.0 as f64)),
        Some(SystemField::ExpiresAt) => row.expires_at.map(|at| ValueRef::Number(at.0 as f64)),
    }
}

/// The bookmark of a page that ends with this row.
pub(crate) fn bookmark(row: &Row, sort: &[SortKey]) -> Bookmark {
    let value = |key: &SortKey| match value_at(row, &key.path) {
        None => SortValue::Missing,
        Some(ValueRef::Null) => SortValue::Null,
        Some(ValueRef::Bool(value)) => SortValue::Boolean(value),
        Some(ValueRef::Number(value)) => SortValue::Number(value),
        Some(ValueRef::String(value)) => SortValue::String(value.to_owned()),
        Some(_) => SortValue::Other,
    };
    Bookmark {
        values: sort.iter().map(value).collect(),
        identity: row.identity.as_str().to_owned(),
    }
}

pub(super) fn compare(one: &Row, other: &Row, sort: &[SortKey]) -> Ordering {
    let by_key = |key: &SortKey| {
        let order = compare_values(value_at(one, &key.path), value_at(other, &key.path));
        if key.descending { order.reverse() } else { order }
    };
    let first = sort.iter().map(by_key).find(|order| order.is_ne());
    first.unwrap_or_else(|| one.identity.cmp(&other.identity))
}

pub(super) fn compare_to_bookmark(row: &Row, bookmark: &Bookmark, sort: &[SortKey]) -> Ordering {
    let by_key = |(key, value): (&SortKey, &SortValue)| {
        let order = value.compare(value_at(row, &key.path)).reverse();
        if key.descending { order.reverse() } else { order }
    };
    let first = sort
        .iter()
        .zip(&bookmark.values)
        .map(by_key)
        .find(|order| order.is_ne());
    first.unwrap_or_else(|| row.identity.as_str().cmp(&bookmark.identity))
}

impl SortValue {
    fn compare(&self, value: Option<ValueRef<'_>>) -> Ordering {
        match (self, value) {
            (Self::Boolean(one), Some(ValueRef::Bool(other))) => one.cmp(&other),
            (Self::Number(one), Some(ValueRef::Number(other))) => one.total_cmp(&other),
            (Self::String(one), Some(ValueRef::String(other))) => one.as_str().cmp(other),
            (one, other) => one.rank().cmp(&rank(other)),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Null => 1,
            Self::Boolean(_) => 2,
            Self::Number(_) => 3,
            Self::String(_) => 4,
            Self::Other => 5,
        }
    }
}

fn compare_values(one: Option<ValueRef<'_>>, other: Option<ValueRef<'_>>) -> Ordering {
    match (one, other) {
        (Some(ValueRef::Bool(one)), Some(ValueRef::Bool(other))) => one.cmp(&other),
        (Some(ValueRef::Number(one)), Some(ValueRef::Number(other))) => one.total_cmp(&other),
        (Some(ValueRef::String(one)), Some(ValueRef::String(other))) => one.cmp(other),
        (one, other) => rank(one).cmp(&rank(other)),
    }
}

fn rank(value: Option<ValueRef<'_>>) -> u8 {
    match value {
        None => 0,
        Some(ValueRef::Null) => 1,
        Some(ValueRef::Bool(_)) => 2,
        Some(ValueRef::Number(_)) => 3,
        Some(ValueRef::String(_)) => 4,
        Some(ValueRef::Array(_) | ValueRef::Object(_)) => 5,
    }
}
