//! What the values of a field are indexed by.

use std::cmp::Ordering;

use prism_filter::ValueRef;

/// The longest text that is indexed as a whole, in bytes.
const MAX_TEXT: usize = 256;

/// A scalar. Ordered by type and then by value, as filters compare them.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Box<str>),
}

impl Key {
    /// `None` for lists, objects, and texts that are too long.
    pub(crate) fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Null => Some(Self::Null),
            ValueRef::Bool(value) => Some(Self::Boolean(value)),
            // Filters know one zero.
            ValueRef::Number(value) => Some(Self::Number(value + 0.0)),
            ValueRef::String(text) if is_short(text) => Some(Self::Text(text.into())),
            _ => None,
        }
    }

    pub(crate) fn to_value(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Boolean(value) => (*value).into(),
            Self::Number(value) => ValueRef::Number(*value).to_value(),
            Self::Text(text) => (**text).into(),
        }
    }

    pub(super) fn begins_with(&self, prefix: &str) -> bool {
        matches!(self, Self::Text(text) if text.starts_with(prefix))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Boolean(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        }
    }
}

/// Whether a text is indexed.
pub(super) fn is_short(text: &str) -> bool {
    text.len() <= MAX_TEXT
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Boolean(one), Self::Boolean(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}
