//! Values read where they lie.

use std::{cmp::Ordering, fmt};

use serde::{Serialize, Serializer};

use super::{
    Document,
    layout::{self, Raw},
    text,
};

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A double.
    Number,
    /// UTF-8 text.
    String,
    /// A list of values.
    Array,
    /// Values by key.
    Object,
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::Null,
        Self::Boolean,
        Self::Number,
        Self::String,
        Self::Array,
        Self::Object,
    ];

    /// As in the operand of [`Operator::Type`](crate::Operator::Type).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    /// The type of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value inside a [`Document`](crate::Document) or an [`Operand`](crate::Operand).
///
/// Ordered by type, as [`Kind`] lists them, and then by value: numbers as numbers, strings by bytes,
/// arrays element by element, objects field by field in the order of their keys.
#[derive(Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A double; never -0 and always finite.
    Number(f64),
    /// Text.
    String(&'a str),
    /// A list of values.
    Array(ArrayRef<'a>),
    /// Values by key.
    Object(ObjectRef<'a>),
}

impl<'a> ValueRef<'a> {
    pub(crate) fn new(raw: Raw<'a>) -> Self {
        match raw.tag() {
            layout::NULL => Self::Null,
            layout::FALSE => Self::Bool(false),
            layout::TRUE => Self::Bool(true),
            layout::NUMBER => Self::Number(raw.number().unwrap_or_default()),
            layout::STRING => Self::String(utf8(raw.text().unwrap_or_default())),
            layout::ARRAY | layout::WIDE_ARRAY => Self::Array(ArrayRef(raw)),
            _ => Self::Object(ObjectRef(raw)),
        }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Boolean,
            Self::Number(_) => Kind::Number,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::Object(_) => Kind::Object,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same value on its own. Integers stay integers.
    pub fn to_value(&self) -> serde_json::Value {
        match *self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => value.into(),
            Self::Number(value) => match text::integer(value) {
                Some(integer) => integer.into(),
                None => value.into(),
            },
            Self::String(value) => value.into(),
            Self::Array(array) => array.iter().map(|value| value.to_value()).collect(),
            Self::Object(object) => object
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_value()))
                .collect(),
        }
    }
}

impl Eq for ValueRef<'_> {}

impl PartialOrd for ValueRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ValueRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::String(one), Self::String(other)) => one.cmp(other),
            (Self::Array(one), Self::Array(other)) => one.iter().cmp(other.iter()),
            (Self::Object(one), Self::Object(other)) => one.iter().cmp(other.iter()),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_value())
    }
}

impl Serialize for ValueRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::Number(value) => match text::integer(value) {
                Some(integer) => serializer.serialize_i64(integer),
                None => serializer.serialize_f64(value),
            },
            Self::String(value) => serializer.serialize_str(value),
            Self::Array(array) => serializer.collect_seq(array.iter()),
            Self::Object(object) => serializer.collect_map(object.iter()),
        }
    }
}

/// A list of values inside a document.
#[derive(Clone, Copy)]
pub struct ArrayRef<'a>(Raw<'a>);

impl PartialEq for ArrayRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(other.0)
    }
}

impl Eq for ArrayRef<'_> {}

impl<'a> ArrayRef<'a> {
    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.0.elements().map_or(0, |elements| elements.count())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<ValueRef<'a>> {
        let elements = self.0.elements().filter(|elements| index < elements.count())?;
        Some(ValueRef::new(Raw(elements.part(index))))
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let elements = self.0.elements().into_iter().flat_map(|elements| elements.iter());
        elements.map(ValueRef::new)
    }

    pub(crate) fn raw(&self) -> Raw<'a> {
        self.0
    }
}

impl fmt::Debug for ArrayRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ValueRef::Array(*self).fmt(f)
    }
}

/// Values by key inside a document, in the order of the keys' bytes.
#[derive(Clone, Copy)]
pub struct ObjectRef<'a>(Raw<'a>);

impl PartialEq for ObjectRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(other.0)
    }
}

impl Eq for ObjectRef<'_> {}

impl<'a> ObjectRef<'a> {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.0.fields().map_or(0, |fields| fields.keys.count())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of the field named `key`.
    pub fn get(&self, key: &str) -> Option<ValueRef<'a>> {
        self.0.field(key.as_bytes()).map(ValueRef::new)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, ValueRef<'a>)> + use<'a> {
        let fields = self.0.fields().into_iter().flat_map(|fields| fields.iter());
        fields.map(|(key, value)| (utf8(key), ValueRef::new(value)))
    }

    pub(crate) fn of(document: &'a Document) -> Self {
        Self(document.raw())
    }

    pub(crate) fn raw(&self) -> Raw<'a> {
        self.0
    }
}

impl fmt::Debug for ObjectRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ValueRef::Object(*self).fmt(f)
    }
}

/// Bytes that were copied from a `str`.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
