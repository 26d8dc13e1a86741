//! Where the rows of a view lie.
//!
//! A row is one version of one record. Rows are immutable but for the revision that closes them and
//! lie in chunks that only ever fill up, so an answer keeps what it selected alive by holding the
//! chunks, copying nothing. A chunk whose rows are all dead is dropped, and its number used again.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use prism_filter::Document;
use prism_slot::{Identity, Position, Record, Revision, Timestamp, Ttl};

/// Addresses a row within a view, as long as the view has it.
pub(crate) type RowId = u32;

const CHUNK_BITS: u32 = 9;
const CHUNK_ROWS: usize = 1 << CHUNK_BITS;
/// `Row::to` of a row that is not closed.
const OPEN: u64 = u64::MAX;

/// One version of one record: what was registered from one revision until another one.
#[derive(Debug)]
pub struct Row {
    pub(crate) identity: Identity,
    pub(crate) document: Document,
    pub(crate) registered_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) ttl: Option<Ttl>,
    /// As of `from`; renewals have moved it since.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) generation: Position,
    /// Who registered it.
    pub(crate) principal: Arc<str>,
    /// The revision that wrote it.
    pub(crate) from: Revision,
    /// The revision that closed it, or [`OPEN`].
    to: AtomicU64,
}

impl Row {
    pub(crate) fn new(record: &Record, document: Document) -> Self {
        Self {
            identity: record.identity.clone(),
            document,
            registered_at: record.registered_at,
            updated_at: record.updated_at,
            ttl: record.ttl,
            expires_at: record.expires_at,
            generation: record.generation,
            principal: record.owner.principal.clone(),
            from: record.revision,
            to: AtomicU64::new(OPEN),
        }
    }

    /// The registration's name.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its metadata.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// When this registration was made.
    pub fn registered_at(&self) -> Timestamp {
        self.registered_at
    }

    /// When its metadata was last written.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// The position of the registering write.
    pub fn generation(&self) -> Position {
        self.generation
    }

    /// The revision of the last write.
    pub fn revision(&self) -> Revision {
        self.from
    }

    pub(crate) fn is_open(&self) -> bool {
        self.to.load(Ordering::Relaxed) == OPEN
    }

    /// The revision that closed it.
    pub(crate) fn to(&self) -> Revision {
        Revision(self.to.load(Ordering::Relaxed))
    }

    pub(crate) fn close(&self, at: Revision) {
        self.to.store(at.0, Ordering::Relaxed);
    }

    /// Whether it was the record at a revision.
    pub(crate) fn is_visible_at(&self, revision: Revision) -> bool {
        self.from <= revision && revision < self.to()
    }

    /// Roughly what it occupies, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.identity.as_str().len() + self.document.byte_len()
    }

    /// The same as an open row that lies elsewhere.
    pub(crate) fn copy(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            document: self.document.clone(),
            principal: self.principal.clone(),
            to: AtomicU64::new(OPEN),
            ..*self
        }
    }
}

/// A run of rows that fills up once.
#[derive(Debug)]
pub(crate) struct Chunk(Box<[OnceLock<Row>]>);

impl Chunk {
    fn new() -> Arc<Self> {
        Arc::new(Self(
            std::iter::repeat_with(OnceLock::new).take(CHUNK_ROWS).collect(),
        ))
    }

    fn row(&self, id: RowId) -> &Row {
        match self.0[id as usize % CHUNK_ROWS].get() {
            Some(row) => row,
            None => unreachable!("a row id is handed out only once its row is there"),
        }
    }
}

/// The number of the chunk that holds a row.
pub(crate) fn chunk_number(id: RowId) -> usize {
    (id >> CHUNK_BITS) as usize
}

/// All rows of a view.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    chunks: Vec<Slot>,
    /// Numbers of chunks that may be used again.
    free: Vec<usize>,
    /// The chunk that is being filled, and how far.
    tail: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Slot {
    chunk: Arc<Chunk>,
    /// How many of its rows are not dead.
    live: usize,
}

impl Rows {
    /// Adds a row.
    pub(crate) fn push(&mut self, row: Row) -> RowId {
        let (number, index) = match self.tail {
            Some((number, index)) if index < CHUNK_ROWS => (number, index),
            _ => (self.open_chunk(), 0),
        };
        self.tail = Some((number, index + 1));
        let slot = &mut self.chunks[number];
        slot.live += 1;
        if slot.chunk.0[index].set(row).is_err() {
            unreachable!("a chunk fills up in order and never again");
        }
        ((number << CHUNK_BITS) | index) as RowId
    }

    fn open_chunk(&mut self) -> usize {
        let slot = Slot {
            chunk: Chunk::new(),
            live: 0,
        };
        if let Some(number) = self.free.pop() {
            self.chunks[number] = slot;
            return number;
        }
        self.chunks.push(slot);
        self.chunks.len() - 1
    }

    pub(crate) fn get(&self, id: RowId) -> &Row {
        self.chunks[chunk_number(id)].chunk.row(id)
    }

    pub(crate) fn chunk(&self, number: usize) -> &Arc<Chunk> {
        &self.chunks[number].chunk
    }

    /// How many chunks are held.
    #[cfg(test)]
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len() - self.free.len()
    }

    /// Gives up a row that nothing in the view refers to any more. Where that leaves a full chunk
    /// with few live rows, the open ones among them move, so that it can be dropped soon; `moved`
    /// is told from where to where.
    pub(crate) fn release(&mut self, id: RowId, mut moved: impl FnMut(&Self, RowId, RowId)) {
        let number = chunk_number(id);
        self.chunks[number].live -= 1;
        let filling = self
            .tail
            .is_some_and(|(tail, index)| tail == number && index < CHUNK_ROWS);
        if filling {
            return;
        }
        if (1..=CHUNK_ROWS / 4).contains(&self.chunks[number].live) {
            self.evacuate(number, &mut moved);
        }
        if self.chunks[number].live == 0 {
            self.chunks[number].chunk = Arc::new(Chunk(Box::default()));
            self.free.push(number);
        }
    }

    fn evacuate(&mut self, number: usize, moved: &mut impl FnMut(&Self, RowId, RowId)) {
        let chunk = self.chunks[number].chunk.clone();
        for (index, row) in chunk.0.iter().enumerate() {
            let Some(row) = row.get().filter(|row| row.is_open()) else {
                continue;
            };
            let (from, to) = (((number << CHUNK_BITS) | index) as RowId, self.push(row.copy()));
            moved(self, from, to);
            // Never open again: a row moves once.
            row.close(Revision::ZERO);
            self.chunks[number].live -= 1;
        }
    }
}

/// Rows that an answer selected, in its order; they stay readable however the view moves on.
#[derive(Debug, Default)]
pub struct Selection {
    /// Sorted by number.
    chunks: Vec<(usize, Arc<Chunk>)>,
    ids: Vec<RowId>,
}

impl Selection {
    pub(crate) fn new(rows: &Rows, ids: Vec<RowId>) -> Self {
        let mut touched = vec![0_u64; rows.chunks.len().div_ceil(64)];
        for &id in &ids {
            let number = chunk_number(id);
            touched[number / 64] |= 1 << (number % 64);
        }
        let mut chunks = Vec::new();
        for (word, mut bits) in touched.into_iter().enumerate() {
            while bits != 0 {
                let number = word * 64 + bits.trailing_zeros() as usize;
                chunks.push((number, rows.chunk(number).clone()));
                bits &= bits - 1;
            }
        }
        Self { chunks, ids }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The row at an index.
    pub(crate) fn get(&self, index: usize) -> &Row {
        let id = self.ids[index];
        let at = self
            .chunks
            .partition_point(|(number, _)| *number < chunk_number(id));
        self.chunks[at].1.row(id)
    }

    /// The rows at these indexes, in this order.
    pub(crate) fn subset(&self, indexes: &[usize]) -> Self {
        let ids: Vec<RowId> = indexes.iter().map(|&index| self.ids[index]).collect();
        let mut numbers: Vec<usize> = ids.iter().map(|&id| chunk_number(id)).collect();
        numbers.sort_unstable();
        let mut chunks = self.chunks.clone();
        chunks.retain(|(number, _)| numbers.binary_search(number).is_ok());
        Self { chunks, ids }
    }

    /// Gives up all rows but the first `count`.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.ids.truncate(count);
    }

    /// The rows in the order of the answer.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.ids.iter().map(|&id| {
            let at = self
                .chunks
                .partition_point(|(number, _)| *number < chunk_number(id));
            self.chunks[at].1.row(id)
        })
    }
}
