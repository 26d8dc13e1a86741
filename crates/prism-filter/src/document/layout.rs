//! How values lie in memory.
//!
//! ```text
//! value    = tag payload
//! payload  = nothing                                              null, false, true
//!          | 8 bytes, a little-endian double, never -0 or NaN     number
//!          | UTF-8                                                string
//!          | count, ends of elements, elements                    array
//!          | count, ends of keys, ends of values, keys, values    object, keys in order of bytes
//! ```
//!
//! Counts and ends take 2 bytes, or 4 in the wide form of a container, which is used only where 2 are
//! not enough. An end counts from the beginning of the keys, values or elements, so a value may be
//! copied to another place as it is. Every value has exactly one form: values are equal if and only if
//! their bytes are.
//!
//! The layout never leaves the process and so has no version; what is stored and sent is JSON text.

use super::value::Kind;

pub(crate) const NULL: u8 = 0;
pub(crate) const FALSE: u8 = 1;
pub(crate) const TRUE: u8 = 2;
pub(crate) const NUMBER: u8 = 3;
pub(crate) const STRING: u8 = 4;
pub(crate) const ARRAY: u8 = 5;
pub(crate) const WIDE_ARRAY: u8 = 6;
pub(crate) const OBJECT: u8 = 7;
pub(crate) const WIDE_OBJECT: u8 = 8;

/// Up to this many fields a scan, which skips a key of another length without reading it, beats a
/// binary search.
const SCAN: usize = 24;

/// How many bytes a count or an end takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Narrow,
    Wide,
}

impl Width {
    /// The narrower one that can express `largest`.
    pub(crate) fn for_offsets_up_to(largest: usize) -> Self {
        if largest <= usize::from(u16::MAX) {
            Self::Narrow
        } else {
            Self::Wide
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Narrow => 2,
            Self::Wide => 4,
        }
    }

    /// Entry `index` of a table.
    #[inline]
    fn read(self, table: &[u8], index: usize) -> usize {
        match self {
            Self::Narrow => {
                let at = 2 * index;
                usize::from(u16::from_le_bytes([table[at], table[at + 1]]))
            }
            Self::Wide => {
                let at = 4 * index;
                u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]]) as usize
            }
        }
    }

    /// Sets the entry at the front of `table`. The value fits: see [`Width::for_offsets_up_to`].
    pub(crate) fn write(self, table: &mut [u8], value: usize) {
        let bytes = (value as u32).to_le_bytes();
        table[..self.bytes()].copy_from_slice(&bytes[..self.bytes()]);
    }
}

/// A value where it lies: its tag and payload. Two registers wide, which is what makes passing it on
/// cheap.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl<'a> Raw<'a> {
    #[inline]
    pub(crate) fn tag(self) -> u8 {
        self.0.first().copied().unwrap_or(NULL)
    }

    #[inline]
    fn payload(self) -> &'a [u8] {
        self.0.get(1..).unwrap_or_default()
    }

    pub(crate) fn kind(self) -> Kind {
        match self.tag() {
            NULL => Kind::Null,
            FALSE | TRUE => Kind::Boolean,
            NUMBER => Kind::Number,
            STRING => Kind::String,
            ARRAY | WIDE_ARRAY => Kind::Array,
            _ => Kind::Object,
        }
    }

    /// The number, if it is one.
    #[inline]
    pub(crate) fn number(self) -> Option<f64> {
        let bytes = self.payload().first_chunk()?;
        (self.tag() == NUMBER).then_some(f64::from_le_bytes(*bytes))
    }

    /// The bytes of the string, if it is one.
    #[inline]
    pub(crate) fn text(self) -> Option<&'a [u8]> {
        (self.tag() == STRING).then_some(self.payload())
    }

    /// Whether both are the same value.
    #[inline]
    pub(crate) fn is(self, other: Raw<'_>) -> bool {
        same(self.0, other.0)
    }

    /// The elements, if it is an array.
    pub(crate) fn elements(self) -> Option<Parts<'a>> {
        let width = match self.tag() {
            ARRAY => Width::Narrow,
            WIDE_ARRAY => Width::Wide,
            _ => return None,
        };
        let payload = self.payload();
        let count = width.read(payload, 0);
        let (ends, bodies) = payload[width.bytes()..].split_at(width.bytes() * count);
        Some(Parts {
            width,
            count,
            ends,
            bodies,
        })
    }

    /// The value of the field named `key`, if it is an object that has one.
    #[inline]
    pub(crate) fn field(self, key: &[u8]) -> Option<Raw<'a>> {
        let (count, tables) = self.payload().split_first_chunk()?;
        let count = usize::from(u16::from_le_bytes(*count));
        if self.tag() == OBJECT && count <= SCAN {
            field_of_few(tables, count, key)
        } else {
            self.field_by_search(key)
        }
    }

    /// As [`Raw::field`], for objects that are large and for what is no object.
    #[inline(never)]
    fn field_by_search(self, key: &[u8]) -> Option<Raw<'a>> {
        let fields = self.fields()?;
        Some(Raw(fields.values.part(fields.search(key)?)))
    }

    /// The fields, if it is an object.
    pub(crate) fn fields(self) -> Option<Fields<'a>> {
        let width = match self.tag() {
            OBJECT => Width::Narrow,
            WIDE_OBJECT => Width::Wide,
            _ => return None,
        };
        let payload = self.payload();
        let count = width.read(payload, 0);
        let size = width.bytes() * count;
        let (key_ends, rest) = payload[width.bytes()..].split_at(size);
        let (value_ends, rest) = rest.split_at(size);
        let key_bytes = if count == 0 {
            0
        } else {
            width.read(key_ends, count - 1)
        };
        let (keys, values) = rest.split_at(key_bytes);
        Some(Fields {
            keys: Parts {
                width,
                count,
                ends: key_ends,
                bodies: keys,
            },
            values: Parts {
                width,
                count,
                ends: value_ends,
                bodies: values,
            },
        })
    }
}

/// Byte strings one after the other, with a table of where each ends.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    width: Width,
    count: usize,
    ends: &'a [u8],
    bodies: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// Part `index`, which must be below the count.
    #[inline]
    pub(crate) fn part(self, index: usize) -> &'a [u8] {
        let start = if index == 0 {
            0
        } else {
            self.width.read(self.ends, index - 1)
        };
        &self.bodies[start..self.width.read(self.ends, index)]
    }

    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = Raw<'a>> {
        (0..self.count).map(move |index| Raw(self.part(index)))
    }
}

/// The fields of an object, in the order of their keys' bytes.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) keys: Parts<'a>,
    pub(crate) values: Parts<'a>,
}

impl<'a> Fields<'a> {
    /// Which field is named `key`.
    fn search(self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.keys.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.keys.part(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = (&'a [u8], Raw<'a>)> {
        (0..self.keys.count).map(move |index| (self.keys.part(index), Raw(self.values.part(index))))
    }
}

/// The value of the field named `key` in a narrow object of `count` fields, given what follows its
/// count. Written out, because most of the time of most filters is spent here.
#[inline]
fn field_of_few<'a>(tables: &'a [u8], count: usize, key: &[u8]) -> Option<Raw<'a>> {
    let (key_ends, rest) = tables.split_at_checked(2 * count)?;
    let (value_ends, bodies) = rest.split_at_checked(2 * count)?;
    let index = position(key_ends, bodies, key)?;
    let values = bodies.get(Width::Narrow.read(key_ends, count - 1)..)?;
    let start = index
        .checked_sub(1)
        .map_or(0, |before| Width::Narrow.read(value_ends, before));
    Some(Raw(values.get(start..Width::Narrow.read(value_ends, index))?))
}

#[inline]
fn position(key_ends: &[u8], keys: &[u8], key: &[u8]) -> Option<usize> {
    let mut start = 0;
    key_ends.chunks_exact(2).position(|end| {
        let end = usize::from(u16::from_le_bytes([end[0], end[1]]));
        let found = end - start == key.len() && same(&keys[start..end], key);
        start = end;
        found
    })
}

/// Whether two byte strings are equal. Most keys and values are short, and for those a call to the
/// library's comparison costs more than the comparison.
#[inline(always)]
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && match one.len() {
            0..4 => one.iter().zip(other).all(|(one, other)| one == other),
            4..8 => same_ends::<4>(one, other),
            8..=16 => same_ends::<8>(one, other),
            _ => one == other,
        }
}

/// Whether the first and the last `N` bytes are equal, which may overlap.
#[inline(always)]
fn same_ends<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<N>() == other.first_chunk::<N>() && one.last_chunk::<N>() == other.last_chunk::<N>()
}
