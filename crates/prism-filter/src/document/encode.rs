//! Writes values in the form of [`super::layout`].

use super::{
    error::DocumentError,
    layout::{self, Raw, Width},
};

/// How large a value may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Objects and arrays inside each other.
    pub(crate) depth: usize,
    /// Encoded bytes.
    pub(crate) bytes: usize,
}

/// Takes a value in reading order and leaves its encoding.
///
/// A container is [opened](Encoder::open); then each member is [begun](Encoder::begin), written and
/// [ended](Encoder::end); then the container is closed. Members wait one after the other at the end of
/// `values`, their keys at the end of `keys`, until their container closes over them.
pub(crate) struct Encoder {
    bounds: Bounds,
    depth: usize,
    values: Vec<u8>,
    keys: Vec<u8>,
    members: Vec<Member>,
}

/// Where a member of a container that is still open lies.
#[derive(Clone, Copy)]
struct Member {
    key: (usize, usize),
    value: (usize, usize),
}

/// An open container: what there was before it.
pub(crate) struct Container {
    values: usize,
    keys: usize,
    members: usize,
}

/// A member whose value is being written.
#[derive(Clone, Copy)]
pub(crate) struct Begun {
    key: (usize, usize),
    value: usize,
}

impl Encoder {
    /// `expected` is a guess at the encoded size.
    pub(crate) fn new(bounds: Bounds, expected: usize) -> Self {
        Self {
            bounds,
            depth: 0,
            values: Vec::with_capacity(2 * expected),
            keys: Vec::with_capacity(expected / 2),
            members: Vec::with_capacity(16),
        }
    }

    /// What has been written.
    pub(crate) fn finish(&self) -> &[u8] {
        &self.values
    }

    pub(crate) fn null(&mut self) {
        self.values.push(layout::NULL);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.values.push(if value { layout::TRUE } else { layout::FALSE });
    }

    /// A number that a document can hold; -0 becomes 0.
    pub(crate) fn number(&mut self, value: f64) -> Result<(), DocumentError> {
        if !value.is_finite() {
            return Err(DocumentError::NotFinite {
                path: String::new(),
                number: value.to_string(),
            });
        }
        self.finite(value);
        Ok(())
    }

    /// A number that is known to be finite.
    pub(crate) fn finite(&mut self, value: f64) {
        self.values.push(layout::NUMBER);
        self.values.extend_from_slice(&(value + 0.0).to_le_bytes());
    }

    /// An integer that a double holds exactly.
    pub(crate) fn integer(&mut self, value: i128) -> Result<(), DocumentError> {
        let double = value as f64;
        if double as i128 != value {
            return Err(DocumentError::Inexact {
                path: String::new(),
                integer: value.to_string(),
            });
        }
        self.number(double)
    }

    pub(crate) fn string(&mut self, value: &str) {
        self.values.push(layout::STRING);
        self.values.extend_from_slice(value.as_bytes());
    }

    /// A value that has been encoded before.
    pub(crate) fn raw(&mut self, value: Raw<'_>) {
        self.values.extend_from_slice(value.0);
    }

    pub(crate) fn open(&mut self) -> Result<Container, DocumentError> {
        if self.depth == self.bounds.depth {
            return Err(DocumentError::TooDeep {
                path: String::new(),
                limit: self.bounds.depth,
            });
        }
        self.depth += 1;
        Ok(Container {
            values: self.values.len(),
            keys: self.keys.len(),
            members: self.members.len(),
        })
    }

    /// Begins a member; `key` is empty in an array.
    pub(crate) fn begin(&mut self, key: &[u8]) -> Begun {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        Begun {
            key: (start, self.keys.len()),
            value: self.values.len(),
        }
    }

    pub(crate) fn key(&self, member: Begun) -> &[u8] {
        &self.keys[member.key.0..member.key.1]
    }

    pub(crate) fn end(&mut self, member: Begun) -> Result<(), DocumentError> {
        if self.values.len() + self.keys.len() > self.bounds.bytes {
            return Err(DocumentError::TooLarge {
                limit: self.bounds.bytes,
            });
        }
        self.members.push(Member {
            key: member.key,
            value: (member.value, self.values.len()),
        });
        Ok(())
    }

    pub(crate) fn close_array(&mut self, container: Container) {
        self.close(&container, [layout::ARRAY, layout::WIDE_ARRAY], false);
    }

    /// Refuses a key that was given twice.
    pub(crate) fn close_object(&mut self, container: Container) -> Result<(), DocumentError> {
        let keys = &self.keys;
        let key = |member: &Member| &keys[member.key.0..member.key.1];
        let members = &mut self.members[container.members..];
        // Text that was written by a document arrives in order.
        if !members.is_sorted_by(|one, next| key(one) < key(next)) {
            members.sort_unstable_by(|one, other| key(one).cmp(key(other)));
            if let Some(twice) = members.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
                let path = super::error::step(key(&twice[0]));
                return Err(DocumentError::DuplicateField { path });
            }
            self.reorder(&container);
        }
        self.close(&container, [layout::OBJECT, layout::WIDE_OBJECT], true);
        Ok(())
    }

    /// Moves keys and values into the order of the members.
    fn reorder(&mut self, container: &Container) {
        let members = &mut self.members[container.members..];
        let (keys_end, values_end) = (self.keys.len(), self.values.len());
        for member in &mut *members {
            self.keys.extend_from_within(member.key.0..member.key.1);
            self.values.extend_from_within(member.value.0..member.value.1);
        }
        self.keys.drain(container.keys..keys_end);
        self.values.drain(container.values..values_end);
        let (mut key, mut value) = (container.keys, container.values);
        for member in members {
            member.key = (key, key + member.key.1 - member.key.0);
            member.value = (value, value + member.value.1 - member.value.0);
            (key, value) = (member.key.1, member.value.1);
        }
    }

    /// Puts tag, tables and keys before the values that are already in place.
    fn close(&mut self, container: &Container, tags: [u8; 2], keyed: bool) {
        let members = &self.members[container.members..];
        let keys = &self.keys[container.keys..];
        let values_end = self.values.len();
        let largest = (values_end - container.values).max(keys.len()).max(members.len());
        let width = Width::for_offsets_up_to(largest);
        let tables = if keyed { 2 } else { 1 };
        let head = 1 + width.bytes() * (1 + tables * members.len()) + keys.len();

        self.values.resize(values_end + head, 0);
        self.values
            .copy_within(container.values..values_end, container.values + head);
        let (tag, mut rest) = self.values[container.values..].split_at_mut(1);
        tag[0] = tags[usize::from(width == Width::Wide)];
        let mut put = |offset| {
            width.write(rest, offset);
            rest = &mut std::mem::take(&mut rest)[width.bytes()..];
        };
        put(members.len());
        if keyed {
            members
                .iter()
                .for_each(|member| put(member.key.1 - container.keys));
        }
        members
            .iter()
            .for_each(|member| put(member.value.1 - container.values));
        rest[..keys.len()].copy_from_slice(keys);

        self.keys.truncate(container.keys);
        self.members.truncate(container.members);
        self.depth -= 1;
    }
}
