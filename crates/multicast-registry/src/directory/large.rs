//! Reads that look at so many rows that others must get their turn in between.
//!
//! What is to be looked at is taken from the view in one go, as handles that stay readable; the looking is done
//! apart from the view, so that no change waits for it, and in slices, so that no call does.

use std::collections::BTreeMap;

use prism_filter::{Path, ValueRef};
use prism_slot::{Position, Revision};
use roaring::RoaringBitmap;

use super::{
    Directory,
    index::{Key, plan::Space},
    query::{Found, Query, compare, compare_to_bookmark, value_at},
    rows::{Row, Selection},
    view::{SpaceAt, View},
};

/// From so many rows on a page is a large read, though none of them is asked whether it matches.
const LARGE: u64 = 20_000;
/// From so many rows on it is one to take something of each.
const MANY: u64 = 4_096;
/// How many bytes of rows are looked at before others get their turn. A read that has to ask more than these whether
/// they match is large: a row may be as long as a thousand others.
const SLICE: usize = 1 << 20;
/// How many rows more than a page needs are held before they are cut back.
const SLACK: usize = 4_096;
/// How many values of one field are counted apart.
const MAX_VALUES: usize = 10_000;

/// How a read goes on.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It was small.
    Done(Found),
    Large(Candidates),
}

/// Everything that matches.
#[derive(Debug)]
pub(super) enum Matching<'a> {
    /// It was little.
    Few(Vec<&'a Row>),
    Many(Candidates),
}

/// What a large read looks at.
#[derive(Debug)]
pub(crate) struct Candidates {
    rows: Selection,
    /// They are in the order of identities.
    ordered: bool,
    /// All of them match.
    sure: bool,
}

/// How often each value of a field occurs among those that match.
#[derive(Debug, Clone, PartialEq)]
pub struct Facet {
    /// The field.
    pub path: Path,
    /// Scalars by how often they occur, the most frequent first; of a list, each element counts once.
    pub values: Vec<(serde_json::Value, u64)>,
    /// Registrations that have an object here, or a text that is too long to be told apart.
    pub others: u64,
    /// Registrations that have nothing here.
    pub missing: u64,
}

/// A field with more values than are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TooManyValues {
    pub(crate) path: Path,
    pub(crate) limit: usize,
}

impl View {
    /// Reads a page at a revision, or says what has to be looked at for it.
    pub(crate) fn begin(&self, at: Revision, query: &Query<'_>) -> Begun {
        self.begin_in(at, query, self.indexed(at, query))
    }

    /// The same among the rows that indexes led to, if they did.
    pub(super) fn begin_in(
        &self,
        at: Revision,
        query: &Query<'_>,
        found: Option<(RoaringBitmap, bool)>,
    ) -> Begun {
        let counted = query.limit == 0 && matches!(found, Some((_, true)));
        let short = found.is_none() && query.is_short();
        if query.facets.is_empty() && (counted || short || self.is_small(at, query, found.as_ref(), LARGE)) {
            return Begun::Done(self.select_in(at, query, found));
        }
        Begun::Large(self.candidates(at, query, found))
    }

    /// Finds everything that matches at a revision, in no particular order, or says what has to be looked at for it.
    pub(super) fn matching(&self, at: Revision, query: &Query<'_>) -> Matching<'_> {
        let found = self.indexed(at, query);
        if self.is_small(at, query, found.as_ref(), MANY) {
            return Matching::Few(self.matching_in(at, query, found));
        }
        Matching::Many(self.candidates(at, query, found))
    }

    /// Whether there are no more than `most` rows to look at, and no more than a slice of them to ask.
    fn is_small(
        &self,
        at: Revision,
        query: &Query<'_>,
        found: Option<&(RoaringBitmap, bool)>,
        most: u64,
    ) -> bool {
        let (rows, sure) = match found {
            Some((found, sure)) => (found.len(), *sure),
            None => (SpaceAt { view: self, at }.count(), query.filter.is_none()),
        };
        let size = |id| self.rows().get(id).size();
        rows <= most
            && (sure
                || match found {
                    Some((found, _)) => is_slice(found.iter().map(size)),
                    None => is_slice(self.visible(at, query.after_identity()).map(size)),
                })
    }

    /// What has to be looked at for a page.
    pub(super) fn candidates(
        &self,
        at: Revision,
        query: &Query<'_>,
        found: Option<(RoaringBitmap, bool)>,
    ) -> Candidates {
        match found {
            Some((found, sure)) => Candidates {
                rows: Selection::new(self.rows(), found.into_iter().collect()),
                ordered: false,
                sure,
            },
            None => Candidates {
                rows: Selection::new(self.rows(), self.visible(at, query.after_identity()).collect()),
                ordered: true,
                sure: query.filter.is_none(),
            },
        }
    }
}

impl Directory {
    /// Hands over everything that matches at the head, in no particular order: what is little at once, more of it in
    /// parts and without holding up readers or changes. Returns the head.
    pub(crate) async fn take_matching(&self, query: &Query<'_>, mut take: impl FnMut(&[&Row])) -> Position {
        let (head, many) = self.read(|view| {
            let head = view.head();
            match view.matching(head.revision, query) {
                Matching::Few(rows) => {
                    take(&rows);
                    (head, None)
                }
                Matching::Many(candidates) => (head, Some(candidates)),
            }
        });
        if let Some(candidates) = many {
            candidates.take(query, take).await;
        }
        head
    }
}

impl Candidates {
    /// Hands over those that match, in parts.
    async fn take(&self, query: &Query<'_>, mut take: impl FnMut(&[&Row])) {
        let (mut slice, mut part) = (Slice::default(), Vec::new());
        for row in self.rows.iter() {
            if self.sure || query.matches(row) {
                part.push(row);
            }
            if slice.is_over_with(row) {
                take(&part);
                part.clear();
                tokio::task::yield_now().await;
            }
        }
        take(&part);
    }

    /// Looks at all of them.
    pub(crate) async fn page(self, query: &Query<'_>) -> Result<(Found, Vec<Facet>), TooManyValues> {
        let mut counts: Vec<Counts> = query.facets.iter().map(Counts::of).collect();
        let mut page = Best::new(&self, query);
        let (mut slice, mut total) = (Slice::default(), 0);
        for (index, row) in self.rows.iter().enumerate() {
            if slice.is_over_with(row) {
                tokio::task::yield_now().await;
            }
            if query.total.is_some() && page.is_full() {
                break;
            }
            if self.sure || query.matches(row) {
                total += 1;
                page.offer(index, row);
                counts.iter_mut().try_for_each(|counts| counts.add(row))?;
            }
        }
        let (kept, more) = page.finish();
        let found = Found {
            rows: self.rows.subset(&kept),
            total: query.total.unwrap_or(total),
            more,
        };
        Ok((found, counts.into_iter().map(Counts::into_facet).collect()))
    }
}

/// What was looked at since others had their turn, in bytes.
#[derive(Default)]
struct Slice(usize);

impl Slice {
    fn is_over_with(&mut self, row: &Row) -> bool {
        self.0 += row.size();
        let is_over = self.0 > SLICE;
        if is_over {
            self.0 = 0;
        }
        is_over
    }
}

/// Whether rows of these sizes are no more than a slice. Asks no further than that.
fn is_slice(mut sizes: impl Iterator<Item = usize>) -> bool {
    let add = |sum: usize, size| Some(sum + size).filter(|sum| *sum <= SLICE);
    sizes.try_fold(0, add).is_some()
}

/// The rows of a page, of all that were offered.
struct Best<'a> {
    candidates: &'a Candidates,
    query: &'a Query<'a>,
    /// How many are wanted, one more than the page has included.
    most: usize,
    kept: Vec<usize>,
    /// The candidates come in the order that is asked for.
    in_order: bool,
}

impl<'a> Best<'a> {
    fn new(candidates: &'a Candidates, query: &'a Query<'a>) -> Self {
        Self {
            candidates,
            query,
            most: query.offset.saturating_add(query.limit).saturating_add(1),
            kept: Vec::new(),
            in_order: candidates.ordered && query.sort.is_empty(),
        }
    }

    fn offer(&mut self, index: usize, row: &Row) {
        if self.query.limit == 0 || self.is_full() {
            return;
        }
        let sort = self.query.sort;
        let is_after = |bookmark| compare_to_bookmark(row, bookmark, sort).is_gt();
        if !self.query.after.is_none_or(is_after) {
            return;
        }
        self.kept.push(index);
        // Cut back now and then, so that memory goes with the page and time with what is looked at.
        if !self.in_order && self.kept.len() >= self.most.saturating_mul(2) + SLACK {
            self.cut();
        }
    }

    /// Whether nothing that comes later can be on the page.
    fn is_full(&self) -> bool {
        self.in_order && self.kept.len() == self.most
    }

    fn cut(&mut self) {
        let (rows, sort) = (&self.candidates.rows, self.query.sort);
        let order = |&one: &usize, &other: &usize| compare(rows.get(one), rows.get(other), sort);
        if self.kept.len() > self.most {
            self.kept.select_nth_unstable_by(self.most - 1, order);
            self.kept.truncate(self.most);
        }
    }

    /// The page, and whether there is more.
    fn finish(mut self) -> (Vec<usize>, bool) {
        if !self.in_order {
            self.cut();
            let (rows, sort) = (&self.candidates.rows, self.query.sort);
            self.kept
                .sort_unstable_by(|&one, &other| compare(rows.get(one), rows.get(other), sort));
        }
        let more = self.query.limit > 0 && self.kept.len() == self.most;
        self.kept.truncate(self.most - 1);
        self.kept.drain(..self.query.offset.min(self.kept.len()));
        (self.kept, more)
    }
}

/// How often each value of a field was seen.
pub(super) struct Counts {
    path: Path,
    values: BTreeMap<Key, u64>,
    others: u64,
    missing: u64,
}

impl Counts {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.clone(),
            values: BTreeMap::new(),
            others: 0,
            missing: 0,
        }
    }

    pub(super) fn add(&mut self, row: &Row) -> Result<(), TooManyValues> {
        match value_at(row, &self.path) {
            None => self.missing += 1,
            Some(ValueRef::Array(list)) => {
                let mut elements: Vec<Key> = list.iter().filter_map(Key::of).collect();
                elements.sort_unstable();
                elements.dedup();
                elements.into_iter().for_each(|key| self.count(key));
            }
            Some(value) => match Key::of(value) {
                Some(key) => self.count(key),
                None => self.others += 1,
            },
        }
        if self.values.len() > MAX_VALUES {
            return Err(TooManyValues {
                path: self.path.clone(),
                limit: MAX_VALUES,
            });
        }
        Ok(())
    }

    fn count(&mut self, key: Key) {
        *self.values.entry(key).or_default() += 1;
    }

    pub(super) fn into_facet(self) -> Facet {
        let mut values: Vec<(Key, u64)> = self.values.into_iter().collect();
        values.sort_by(|(one, many), (other, more)| more.cmp(many).then_with(|| one.cmp(other)));
        Facet {
            path: self.path,
            values: values
                .into_iter()
                .map(|(key, count)| (key.to_value(), count))
                .collect(),
            others: self.others,
            missing: self.missing,
        }
    }
}
