//! The rows of a view by the value at one path.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use prism_filter::{Document, Operator, Path, ValueRef};
use roaring::RoaringBitmap;

use super::{
    key::Key,
    postings::Postings,
    reading::{Reading, Readings},
};
use crate::directory::rows::RowId;

/// How many elements of one list are indexed.
const MAX_ELEMENTS: usize = 256;
/// How many different values a lookup walks through. Beyond, asking every row is as good.
const MAX_WALK: usize = 1 << 16;

/// An index on one path. It holds every row that the view holds, whatever the revision.
#[derive(Debug)]
pub(crate) struct Field {
    path: Path,
    values: BTreeMap<Key, Postings>,
    /// The rows whose value is a list, by its scalar elements.
    elements: BTreeMap<Key, Postings>,
    /// The rows whose value says something beyond its type.
    readings: BTreeMap<Reading, Postings>,
    /// The rows that have any value here.
    present: RoaringBitmap,
    /// The rows whose value is text.
    texts: RoaringBitmap,
    /// The rows whose value is larger than what is indexed: always to be asked themselves.
    oversized: RoaringBitmap,
}

/// What a lookup may find: rows, and whether exactly those match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) rows: u64,
    pub(crate) exact: bool,
}

/// A question that an index answers.
#[derive(Debug, Clone)]
pub(crate) enum Lookup {
    Exists,
    /// One of these.
    AnyOf(Vec<Value>),
    Range(Range),
    Prefix(Box<str>),
    /// A list with this element, or a text with this inside.
    Contains(Value),
    Reads(Readings),
    /// A point in time, as a number of milliseconds or as text.
    Time(Range, Readings),
    /// Text, of which only its rows can tell more.
    SomeText,
}

impl Lookup {
    /// Whether it leads to few rows of many, so that an index is worth having for it.
    pub(super) fn is_selective(&self) -> bool {
        !matches!(self, Self::Exists | Self::SomeText)
    }

    /// Whether a text or a list that is too large for the index may be what is looked for.
    fn may_be_oversized(&self) -> bool {
        match self {
            Self::Exists | Self::SomeText => false,
            Self::AnyOf(values) => values.iter().any(Value::is_text),
            Self::Range(range) => range.is_of_text(),
            Self::Prefix(_) | Self::Contains(_) | Self::Time(..) => true,
            Self::Reads(readings) => readings.is_of_text(),
        }
    }
}

/// A scalar to look for.
#[derive(Debug, Clone)]
pub(crate) struct Value(Key);

impl Value {
    /// `None` for what is not indexed.
    pub(crate) fn of(value: ValueRef<'_>) -> Option<Self> {
        Key::of(value).map(Self)
    }

    fn is_text(&self) -> bool {
        matches!(self.0, Key::Text(_))
    }
}

/// Values of one type between bounds.
#[derive(Debug, Clone)]
pub(crate) struct Range(Bound<Key>, Bound<Key>);

impl Range {
    fn below(value: Value, inclusive: bool) -> Self {
        let least = match value.0 {
            Key::Text(_) => Key::Text("".into()),
            _ => Key::Number(f64::NEG_INFINITY),
        };
        Self(Bound::Included(least), bound(value, inclusive))
    }

    /// What a comparison with a value means.
    pub(crate) fn ordered(operator: Operator, value: Value) -> Option<Self> {
        match operator {
            Operator::Lt => Some(Self::below(value, false)),
            Operator::Lte => Some(Self::below(value, true)),
            Operator::Gt => Some(Self::above(value, false)),
            Operator::Gte => Some(Self::above(value, true)),
            _ => None,
        }
    }

    fn above(value: Value, inclusive: bool) -> Self {
        // Nothing comes after the texts.
        let end = match value.0 {
            Key::Text(_) => Bound::Unbounded,
            _ => Bound::Included(Key::Number(f64::INFINITY)),
        };
        Self(bound(value, inclusive), end)
    }

    fn is_of_text(&self) -> bool {
        matches!(
            &self.0,
            Bound::Included(Key::Text(_)) | Bound::Excluded(Key::Text(_))
        )
    }
}

impl RangeBounds<Key> for Range {
    fn start_bound(&self) -> Bound<&Key> {
        self.0.as_ref()
    }

    fn end_bound(&self) -> Bound<&Key> {
        self.1.as_ref()
    }
}

fn bound(value: Value, inclusive: bool) -> Bound<Key> {
    if inclusive {
        Bound::Included(value.0)
    } else {
        Bound::Excluded(value.0)
    }
}

impl Field {
    pub(crate) fn new(path: Path) -> Self {
        Self {
            path,
            values: BTreeMap::new(),
            elements: BTreeMap::new(),
            readings: BTreeMap::new(),
            present: RoaringBitmap::new(),
            texts: RoaringBitmap::new(),
            oversized: RoaringBitmap::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn insert(&mut self, id: RowId, document: &Document) {
        let Some(value) = document.get(&self.path) else {
            return;
        };
        self.present.insert(id);
        if matches!(value, ValueRef::String(_)) {
            self.texts.insert(id);
        }
        if let Some(reading) = Reading::of(value) {
            add(&mut self.readings, reading, id);
        }
        match value {
            ValueRef::Array(list) => {
                if list.len() > MAX_ELEMENTS {
                    self.oversized.insert(id);
                    return;
                }
                for element in list.iter() {
                    match (Key::of(element), element) {
                        (Some(key), _) => add(&mut self.elements, key, id),
                        (None, ValueRef::String(_)) => {
                            self.oversized.insert(id);
                        }
                        // Never looked for here.
                        (None, _) => {}
                    }
                }
            }
            ValueRef::Object(_) => {}
            scalar => match Key::of(scalar) {
                Some(key) => add(&mut self.values, key, id),
                None => {
                    self.oversized.insert(id);
                }
            },
        }
    }

    pub(crate) fn remove(&mut self, id: RowId, document: &Document) {
        let Some(value) = document.get(&self.path) else {
            return;
        };
        for rows in [&mut self.present, &mut self.texts, &mut self.oversized] {
            rows.remove(id);
        }
        if let Some(reading) = Reading::of(value) {
            remove(&mut self.readings, &reading, id);
        }
        match value {
            ValueRef::Array(list) if list.len() <= MAX_ELEMENTS => {
                for key in list.iter().filter_map(Key::of) {
                    remove(&mut self.elements, &key, id);
                }
            }
            scalar => {
                if let Some(key) = Key::of(scalar) {
                    remove(&mut self.values, &key, id);
                }
            }
        }
    }

    /// How many rows a lookup would find; `None` where that takes too long to find out.
    pub(crate) fn estimate(&self, lookup: &Lookup) -> Option<Estimate> {
        let rows = match lookup {
            Lookup::Exists => self.present.len(),
            Lookup::SomeText => self.texts.len(),
            Lookup::AnyOf(values) => {
                let found = values.iter().map(|value| self.values.get(&value.0));
                found.map(|rows| rows.map_or(0, Postings::len)).sum()
            }
            Lookup::Contains(value) => {
                let texts = if value.is_text() { self.texts.len() } else { 0 };
                self.elements.get(&value.0).map_or(0, Postings::len) + texts
            }
            Lookup::Range(range) => count(self.values.range(range.clone()))?,
            Lookup::Prefix(prefix) => count(self.prefixed(prefix))?,
            Lookup::Reads(readings) => count(self.readings.range(readings.clone()))?,
            Lookup::Time(numbers, texts) => {
                count(self.values.range(numbers.clone()))? + count(self.readings.range(texts.clone()))?
            }
        };
        let doubtful = if lookup.may_be_oversized() {
            self.oversized.len()
        } else {
            0
        };
        let too_many = match lookup {
            Lookup::Contains(value) => value.is_text() && !self.texts.is_empty(),
            Lookup::Reads(readings) => !readings.exact,
            other => matches!(other, Lookup::SomeText),
        };
        Some(Estimate {
            rows: rows + doubtful,
            exact: doubtful == 0 && !too_many,
        })
    }

    /// The rows that a lookup finds: all that match, and where the estimate says so, no others.
    pub(crate) fn find(&self, lookup: &Lookup) -> RoaringBitmap {
        let mut rows = RoaringBitmap::new();
        match lookup {
            Lookup::Exists => return self.present.clone(),
            Lookup::SomeText => return self.texts.clone(),
            Lookup::AnyOf(values) => {
                let found = values.iter().filter_map(|value| self.values.get(&value.0));
                found.for_each(|found| found.add_to(&mut rows));
            }
            Lookup::Contains(value) => {
                if let Some(found) = self.elements.get(&value.0) {
                    found.add_to(&mut rows);
                }
                if value.is_text() {
                    rows |= &self.texts;
                }
            }
            Lookup::Range(range) => union(self.values.range(range.clone()), &mut rows),
            Lookup::Prefix(prefix) => union(self.prefixed(prefix), &mut rows),
            Lookup::Reads(readings) => union(self.readings.range(readings.clone()), &mut rows),
            Lookup::Time(numbers, texts) => {
                union(self.values.range(numbers.clone()), &mut rows);
                union(self.readings.range(texts.clone()), &mut rows);
            }
        }
        if lookup.may_be_oversized() {
            rows |= &self.oversized;
        }
        rows
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let sets = [&self.present, &self.texts, &self.oversized];
        let nothing = self.values.is_empty() && self.elements.is_empty() && self.readings.is_empty();
        nothing && sets.iter().all(|rows| rows.is_empty())
    }

    fn prefixed(&self, prefix: &str) -> impl Iterator<Item = (&Key, &Postings)> {
        let start = Bound::Included(Key::Text(prefix.into()));
        self.values
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| matches!(key, Key::Text(text) if text.starts_with(prefix)))
    }
}

fn add<K: Ord>(map: &mut BTreeMap<K, Postings>, key: K, id: RowId) {
    map.entry(key)
        .and_modify(|rows| rows.insert(id))
        .or_insert(Postings::One(id));
}

fn remove<K: Ord>(map: &mut BTreeMap<K, Postings>, key: &K, id: RowId) {
    if map.get_mut(key).is_some_and(|rows| rows.remove(id)) {
        map.remove(key);
    }
}

fn count<'a, K: 'a>(entries: impl Iterator<Item = (&'a K, &'a Postings)>) -> Option<u64> {
    let (mut rows, mut walked) = (0, 0);
    for (_, found) in entries {
        walked += 1;
        if walked > MAX_WALK {
            return None;
        }
        rows += found.len();
    }
    Some(rows)
}

fn union<'a, K: 'a>(entries: impl Iterator<Item = (&'a K, &'a Postings)>, rows: &mut RoaringBitmap) {
    let mut few = Vec::new();
    for (_, found) in entries {
        match found {
            Postings::One(id) => few.push(*id),
            Postings::Few(ids) => few.extend_from_slice(ids),
            Postings::Many(ids) => *rows |= ids,
        }
    }
    few.sort_unstable();
    rows.extend(few);
}
