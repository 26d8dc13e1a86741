//! The materialized state of a namespace: pure data, no input or output.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    time::{Duration, Instant},
};

use hashbrown::{DefaultHashBuilder, HashTable};
use prism_filter::{Document, Path};
use prism_slot::{Cause, Change, Epoch, Identity, Position, Revision};
use roaring::RoaringBitmap;

use super::{
    index::{Indexes, plan::Space},
    log::{Log, Step},
    order::Order,
    rows::{Row, RowId, Rows},
};

/// How many bytes of closed rows are kept beyond the horizon for whoever is to be told of them first.
const HELD_BYTES: usize = 64 << 20;

/// How long closed rows stay readable, for the pages of an enumeration to agree with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// At most this long.
    pub age: Duration,
    /// At most this many bytes of closed rows.
    pub bytes: usize,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(60),
            bytes: 64 << 20,
        }
    }
}

/// What a view keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How far back it can be read.
    pub horizon: Horizon,
    /// The fields by which registrations are found without asking each of them.
    pub indexed: Vec<Path>,
    /// It keeps nothing and only follows where history stands, telling the observer of it. Constant over the life
    /// of a directory.
    pub bare: bool,
}

/// A namespace as of its head, with the versions that its horizon keeps.
#[derive(Debug)]
pub(crate) struct View {
    head: Position,
    /// The earliest revision that can be read.
    floor: Revision,
    rows: Rows,
    /// Rows that are open, that is, the registrations at the head.
    open: Order,
    by_identity: HashTable<RowId>,
    /// How many open rows have a lease.
    leased: usize,
    hasher: DefaultHashBuilder,
    /// Rows that are closed and kept.
    closed: Order,
    open_rows: RoaringBitmap,
    closed_rows: RoaringBitmap,
    indexes: Indexes,
    log: Log,
    /// Closed rows, oldest first.
    retired: VecDeque<Retired>,
    retired_bytes: usize,
    horizon: Horizon,
}

#[derive(Debug)]
struct Retired {
    id: RowId,
    at: Instant,
    size: usize,
}

impl View {
    /// A view of exactly these rows.
    pub(crate) fn new(head: Position, settings: &Settings, mut rows: Vec<Row>) -> Self {
        let mut view = Self {
            head,
            floor: head.revision,
            rows: Rows::default(),
            open: Order::default(),
            by_identity: HashTable::with_capacity(rows.len()),
            leased: 0,
            hasher: DefaultHashBuilder::default(),
            closed: Order::default(),
            open_rows: RoaringBitmap::new(),
            closed_rows: RoaringBitmap::new(),
            indexes: Indexes::on(&settings.indexed),
            log: Log::since(head.revision),
            retired: VecDeque::new(),
            retired_bytes: 0,
            horizon: settings.horizon,
        };
        rows.sort_unstable_by(|one, other| one.identity.cmp(&other.identity));
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let id = view.rows.push(row);
            view.index(id);
            ids.push(id);
        }
        view.open = Order::from_sorted(&ids);
        view
    }

    /// A view that follows no history yet.
    pub(crate) fn unbuilt() -> Self {
        let (epoch, revision) = (Epoch(0), Revision::ZERO);
        Self::new(Position { epoch, revision }, &Settings::default(), Vec::new())
    }

    pub(crate) fn head(&self) -> Position {
        self.head
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(crate) fn open(&self) -> &Order {
        &self.open
    }

    /// How many registrations at the head have a lease.
    pub(crate) fn leased(&self) -> usize {
        self.leased
    }

    pub(crate) fn open_rows(&self) -> &RoaringBitmap {
        &self.open_rows
    }

    pub(crate) fn closed(&self) -> &Order {
        &self.closed
    }

    /// Keeps something else from now on. New indexes are filled by [`Self::fill_indexes`].
    pub(crate) fn configure(&mut self, settings: &Settings) {
        self.horizon = settings.horizon;
        self.indexes
            .declare(&settings.indexed, &(&self.open_rows | &self.closed_rows));
    }

    /// The registration of an identity at the head.
    pub(crate) fn get(&self, identity: &str) -> Option<&Row> {
        self.find(identity).map(|id| self.rows.get(id))
    }

    /// Follows one change. Changes arrive densely and in order.
    pub(crate) fn apply(&mut self, change: &Change, document: Document, now: Instant) {
        debug_assert_eq!(change.revision, self.head.revision.next());
        let before = self.retire(&change.record.identity, change.revision, now);
        self.head.revision = change.revision;
        let after = (!change.cause.removes()).then(|| {
            let id = self.rows.push(Row::new(&change.record, document));
            self.open.insert(&self.rows, id);
            self.index(id);
            id
        });
        self.log.push(change.cause, before, after);
    }

    /// Follows history without keeping what it tells of.
    pub(crate) fn pass(&mut self, to: Revision) {
        self.head.revision = to;
        self.floor = to;
        self.log = Log::since(to);
    }

    /// What happened after a revision; `None` when that is no longer kept.
    pub(crate) fn changes_after(&self, revision: Revision) -> Option<impl Iterator<Item = Step<'_>>> {
        self.log.after(revision, &self.rows)
    }

    /// What [`Self::remember`] does, step by step: history begins here,
    pub(super) fn begin_history(&mut self, log: Log, floor: Revision) {
        (self.log, self.floor) = (log, floor);
    }

    /// a version that is not the last one is kept,
    pub(super) fn keep(&mut self, row: Row) -> RowId {
        self.rows.push(row)
    }

    /// was closed at a revision,
    pub(super) fn close_kept(&mut self, id: RowId, at: Revision, now: Instant) {
        let row = self.rows.get(id);
        row.close(at);
        let size = row.size();
        self.indexes.insert(id, &row.document);
        self.closed.insert(&self.rows, id);
        self.closed_rows.insert(id);
        self.retired.push_back(Retired { id, at: now, size });
        self.retired_bytes += size;
    }

    /// is the last one after all,
    pub(super) fn open_since(&self, identity: &Identity, revision: Revision) -> Option<RowId> {
        self.find(identity.as_str())
            .filter(|&id| self.rows.get(id).from == revision)
    }

    /// and each change is logged.
    pub(super) fn log_change(&mut self, cause: Cause, before: Option<RowId>, after: Option<RowId>) {
        self.log.push(cause, before, after);
    }

    /// Whether a change carries a document that the view will keep.
    pub(crate) fn needs_document(cause: Cause) -> bool {
        !cause.removes()
    }

    /// Gives up to so many closed rows that are past the horizon; whether there are more. What was closed after `held` is
    /// kept all the same, up to a limit.
    pub(crate) fn collect(&mut self, now: Instant, held: Revision, count: usize) -> bool {
        for _ in 0..count {
            if !self.is_past(now, held) {
                return false;
            }
            let Some(Retired { id, size, .. }) = self.retired.pop_front() else {
                return false;
            };
            self.retired_bytes -= size;
            self.floor = self.floor.max(self.rows.get(id).to());
            self.log.trim(self.floor);
            self.closed.remove(&self.rows, id);
            self.closed_rows.remove(id);
            self.indexes.remove(id, &self.rows.get(id).document);
            self.release(id);
        }
        self.is_past(now, held)
    }

    /// Whether the oldest closed row is past the horizon.
    fn is_past(&self, now: Instant, held: Revision) -> bool {
        let Some(oldest) = self.retired.front() else {
            return false;
        };
        let past = now.saturating_duration_since(oldest.at) > self.horizon.age;
        let (kept, allowed) = (self.retired_bytes, self.horizon.bytes);
        let may_go = self.rows.get(oldest.id).to() <= held || kept > allowed.saturating_add(HELD_BYTES);
        (past || kept > allowed) && may_go
    }

    /// Gives up indexes that nobody asks for. To be called once a minute or so.
    pub(crate) fn age_indexes(&mut self) {
        self.indexes.age();
    }

    /// Begins an index that would have been of use lately, if there is such.
    pub(crate) fn begin_index(&mut self) {
        let (open, closed) = (&self.open_rows, &self.closed_rows);
        self.indexes
            .begin_wanted(open.len() + closed.len(), || open | closed);
    }

    /// Fills new indexes with up to so many rows; whether there are more.
    pub(crate) fn fill_indexes(&mut self, count: usize) -> bool {
        let Self { indexes, rows, .. } = self;
        indexes.fill(count, |id| &rows.get(id).document)
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// How many chunks of rows are held.
    #[cfg(test)]
    pub(crate) fn chunk_count(&self) -> usize {
        self.rows.chunk_count()
    }

    /// Closes the open row of an identity, if there is one.
    fn retire(&mut self, identity: &Identity, at: Revision, now: Instant) -> Option<RowId> {
        let id = self.unindex(identity.as_str())?;
        let row = self.rows.get(id);
        let size = row.size();
        self.leased -= usize::from(row.ttl.is_some());
        self.open.remove(&self.rows, id);
        self.open_rows.remove(id);
        row.close(at);
        self.closed.insert(&self.rows, id);
        self.closed_rows.insert(id);
        self.retired.push_back(Retired { id, at: now, size });
        self.retired_bytes += size;
        Some(id)
    }

    fn release(&mut self, id: RowId) {
        let Self {
            rows,
            open,
            by_identity,
            hasher,
            open_rows,
            indexes,
            log,
            ..
        } = self;
        rows.release(id, |rows, before, after| {
            let row = rows.get(after);
            let identity = row.identity.as_str();
            open.replace(rows, before, after);
            log.moved(row.from, after);
            open_rows.remove(before);
            open_rows.insert(after);
            indexes.remove(before, &row.document);
            indexes.insert(after, &row.document);
            if let Some(entry) = by_identity.find_mut(hasher.hash_one(identity), |&id| id == before) {
                *entry = after;
            }
        });
    }

    fn index(&mut self, id: RowId) {
        let Self {
            rows,
            by_identity,
            hasher,
            leased,
            open_rows,
            indexes,
            ..
        } = self;
        let row = rows.get(id);
        *leased += usize::from(row.ttl.is_some());
        open_rows.insert(id);
        indexes.insert(id, &row.document);
        let hash = |&id: &RowId| hasher.hash_one(rows.get(id).identity.as_str());
        by_identity.insert_unique(hash(&id), id, hash);
    }

    fn find(&self, identity: &str) -> Option<RowId> {
        let same = |&id: &RowId| self.rows.get(id).identity.as_str() == identity;
        self.by_identity
            .find(self.hasher.hash_one(identity), same)
            .copied()
    }

    fn unindex(&mut self, identity: &str) -> Option<RowId> {
        let Self {
            rows,
            by_identity,
            hasher,
            ..
        } = self;
        let same = |&id: &RowId| rows.get(id).identity.as_str() == identity;
        let entry = by_identity.find_entry(hasher.hash_one(identity), same).ok()?;
        Some(entry.remove().0)
    }
}

/// What a plan may find at one revision: at the head only what is open, before it everything that is kept.
pub(crate) struct SpaceAt<'a> {
    pub(crate) view: &'a View,
    pub(crate) at: Revision,
}

impl SpaceAt<'_> {
    fn is_head(&self) -> bool {
        self.at == self.view.head.revision
    }
}

impl Space for SpaceAt<'_> {
    fn indexes(&self) -> &Indexes {
        &self.view.indexes
    }

    fn all(&self) -> RoaringBitmap {
        if self.is_head() {
            self.view.open_rows.clone()
        } else {
            &self.view.open_rows | &self.view.closed_rows
        }
    }

    fn count(&self) -> u64 {
        let closed = if self.is_head() { 0 } else { self.view.closed.len() };
        (self.view.open.len() + closed) as u64
    }

    fn named(&self, identity: &str) -> RoaringBitmap {
        let closed = (!self.is_head()).then(|| self.view.closed.versions(&self.view.rows, identity));
        self.view
            .find(identity)
            .into_iter()
            .chain(closed.into_iter().flatten())
            .collect()
    }
}
