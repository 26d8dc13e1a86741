//! The rows of a view by the value at one path.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

use prism_filter::{Document, Operator, Path, ValueRef};
use roaring::RoaringBitmap;

use super::{
    key::Key,
    ordered::Ordered,
    postings::Postings,
    reading::{Reading, Readings},
};
use crate::directory::rows::RowId;

/// How many elements of one list are indexed.
const MAX_ELEMENTS: usize = 256;

/// An index on one path. It holds every row that the view holds, whatever the revision.
#[derive(Debug)]
pub(crate) struct Field {
    path: Path,
    values: Ordered<Key>,
    /// The rows whose value is a list, by its scalar elements.
    elements: BTreeMap<Key, Postings>,
    /// The rows whose value says something beyond its type.
    readings: Ordered<Reading>,
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

    /// Whether it asks for values between bounds.
    pub(super) fn has_bounds(&self) -> bool {
        matches!(self, Self::Range(_) | Self::Reads(_) | Self::Time(..))
    }

    /// Narrows this down to what another lookup on the same path finds as well. False, and nothing done, where one does
    /// not come between bounds.
    pub(super) fn narrow(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range(one), Self::Range(other)) => one.narrow(other),
            (Self::Reads(one), Self::Reads(other)) => one.narrow(other),
            (Self::Time(numbers, texts), Self::Time(other_numbers, other_texts)) => {
                numbers.narrow(other_numbers);
                texts.narrow(other_texts);
            }
            _ => return false,
        }
        true
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

    fn narrow(&mut self, other: &Self) {
        narrow((&mut self.0, &mut self.1), (&other.0, &other.1));
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

/// What lies between both pairs of bounds. That may be nothing, and then the start comes after the end.
pub(super) fn narrow<V: Ord + Clone>(
    (start, end): (&mut Bound<V>, &mut Bound<V>),
    (other_start, other_end): (&Bound<V>, &Bound<V>),
) {
    let parts = |bound: &Bound<V>| match bound {
        Bound::Included(value) => Some((value.clone(), true)),
        Bound::Excluded(value) => Some((value.clone(), false)),
        Bound::Unbounded => None,
    };
    // Of equal values, the one that is left out itself is the narrower bound.
    let later = |bound: &Bound<V>| parts(bound).map(|(value, included)| (value, !included));
    if later(other_start) > later(start) {
        start.clone_from(other_start);
    }
    let narrower = match (parts(other_end), parts(end)) {
        (Some(other), Some(end)) => other < end,
        (other, _) => other.is_some(),
    };
    if narrower {
        end.clone_from(other_end);
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
            values: Ordered::default(),
            elements: BTreeMap::new(),
            readings: Ordered::default(),
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
            self.readings.insert(reading, id);
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
                Some(key) => self.values.insert(key, id),
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
            self.readings.remove(&reading, id);
        }
        match value {
            ValueRef::Array(list) if list.len() <= MAX_ELEMENTS => {
                for key in list.iter().filter_map(Key::of) {
                    remove(&mut self.elements, &key, id);
                }
            }
            scalar => {
                if let Some(key) = Key::of(scalar) {
                    self.values.remove(&key, id);
                }
            }
        }
    }

    /// How many rows a lookup would find.
    pub(crate) fn estimate(&self, lookup: &Lookup) -> Estimate {
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
            Lookup::Range(range) => count(&self.values, range),
            Lookup::Prefix(prefix) => self
                .values
                .count(from(prefix).as_ref(), |key| key.begins_with(prefix)),
            Lookup::Reads(readings) => count(&self.readings, readings),
            Lookup::Time(numbers, texts) => count(&self.values, numbers) + count(&self.readings, texts),
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
        Estimate {
            rows: rows + doubtful,
            exact: doubtful == 0 && !too_many,
        }
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
            Lookup::Range(range) => add_all(&self.values, range, &mut rows),
            Lookup::Prefix(prefix) => {
                let within = |key: &Key| key.begins_with(prefix);
                self.values.add_to(from(prefix).as_ref(), within, &mut rows);
            }
            Lookup::Reads(readings) => add_all(&self.readings, readings, &mut rows),
            Lookup::Time(numbers, texts) => {
                add_all(&self.values, numbers, &mut rows);
                add_all(&self.readings, texts, &mut rows);
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
}

/// Where the texts with a prefix begin.
fn from(prefix: &str) -> Bound<Key> {
    Bound::Included(Key::Text(prefix.into()))
}

/// Whether a value is not past the end of a range.
fn until<V: Ord>(range: &impl RangeBounds<V>) -> impl Fn(&V) -> bool {
    move |value| match range.end_bound() {
        Bound::Included(end) => value <= end,
        Bound::Excluded(end) => value < end,
        Bound::Unbounded => true,
    }
}

fn count<V: Ord + Clone>(values: &Ordered<V>, range: &impl RangeBounds<V>) -> u64 {
    values.count(range.start_bound(), until(range))
}

fn add_all<V: Ord + Clone>(values: &Ordered<V>, range: &impl RangeBounds<V>, rows: &mut RoaringBitmap) {
    values.add_to(range.start_bound(), until(range), rows);
}

fn add(map: &mut BTreeMap<Key, Postings>, key: Key, id: RowId) {
    map.entry(key)
        .and_modify(|rows| rows.insert(id))
        .or_insert(Postings::One(id));
}

fn remove(map: &mut BTreeMap<Key, Postings>, key: &Key, id: RowId) {
    if map.get_mut(key).is_some_and(|rows| rows.remove(id)) {
        map.remove(key);
    }
}
