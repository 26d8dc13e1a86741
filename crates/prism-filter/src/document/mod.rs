//! Metadata in memory.

mod encode;
mod error;
mod layout;
mod parse;
mod patch;
mod text;
mod value;

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use serde::{Serialize, Serializer};

pub use error::DocumentError;
pub use patch::merge_patch;
pub use value::{ArrayRef, Kind, ObjectRef, ValueRef};

pub(crate) use encode::{Bounds, Encoder};
pub(crate) use layout::Raw;
pub(crate) use parse::{array, object, text as encode_text, value as encode_value};

use crate::path::Path;

/// An immutable JSON object in one shared allocation; a clone is a reference count.
///
/// Numbers are doubles: an integer that a double cannot hold exactly is refused, -0 is 0. An object has
/// each key once. Two documents are equal if and only if their [texts](Document::to_json) are.
///
/// ```
/// # use prism_filter::{Document, Path, ValueRef};
/// let document = Document::from_json(br#"{"status": "online", "place": {"floor": 2.0}}"#)?;
/// assert_eq!(document.get(&Path::parse("place.floor")?), Some(ValueRef::Number(2.0)));
/// assert_eq!(document.to_json(), br#"{"place":{"floor":2},"status":"online"}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Document(Arc<[u8]>);

impl Document {
    /// How deep objects and arrays may be nested, the document itself included. Protobuf decoders
    /// accept 100 nested messages, of which a level of JSON takes three, so that a deeper document
    /// could be stored and never be sent.
    pub const MAX_DEPTH: usize = 24;

    /// The largest document, in [encoded bytes](Document::byte_len). A bound on what memory can be
    /// asked of us; what a namespace accepts is far less.
    pub const MAX_BYTES: usize = 256 << 20;

    const BOUNDS: Bounds = Bounds {
        depth: Self::MAX_DEPTH,
        bytes: Self::MAX_BYTES,
    };

    /// The document without fields.
    pub fn empty() -> Self {
        static EMPTY: LazyLock<Document> = LazyLock::new(|| Document(Arc::new([layout::OBJECT, 0, 0])));
        EMPTY.clone()
    }

    /// Reads JSON text.
    pub fn from_json(json: &[u8]) -> Result<Self, DocumentError> {
        Self::encode(json.len(), |encoder| encode_text(encoder, json))
    }

    /// Takes over a value in memory.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, DocumentError> {
        Self::encode(256, |encoder| encode_value(encoder, value))
    }

    /// Canonical JSON text: compact, keys in the order of their bytes, integers without a point.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.byte_len());
        self.write_json(&mut json);
        json
    }

    /// Appends [`Document::to_json`] to `out`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        text::write(out, self.raw());
    }

    /// The same object as a value of its own.
    pub fn to_value(&self) -> serde_json::Value {
        ValueRef::Object(self.root()).to_value()
    }

    /// The object itself.
    pub fn root(&self) -> ObjectRef<'_> {
        ObjectRef::of(self)
    }

    /// The value at a path, `None` where there is none or the path is a system field's.
    pub fn get(&self, path: &Path) -> Option<ValueRef<'_>> {
        if path.system().is_some() {
            return None;
        }
        self.find(path.keys()).map(ValueRef::new)
    }

    /// How many bytes it takes in memory, without the 16 of its reference counts.
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn raw(&self) -> Raw<'_> {
        Raw(&self.0)
    }

    /// The value that `keys` lead to.
    #[inline]
    pub(crate) fn find(&self, keys: &[Box<str>]) -> Option<Raw<'_>> {
        let mut value = self.raw();
        for key in keys {
            value = value.field(key.as_bytes())?;
        }
        Some(value)
    }

    /// A document of what `write` writes, which is expected to take `expected` bytes.
    pub(crate) fn encode(
        expected: usize,
        write: impl FnOnce(&mut Encoder) -> Result<(), DocumentError>,
    ) -> Result<Self, DocumentError> {
        Self::encode_within(Self::BOUNDS, expected, write)
    }

    /// As [`Document::encode`], with bounds of one's own.
    pub(crate) fn encode_within(
        bounds: Bounds,
        expected: usize,
        write: impl FnOnce(&mut Encoder) -> Result<(), DocumentError>,
    ) -> Result<Self, DocumentError> {
        let mut encoder = Encoder::new(bounds, expected.min(bounds.bytes));
        write(&mut encoder)?;
        match Raw(encoder.finish()).kind() {
            Kind::Object => Ok(Self(encoder.finish().into())),
            found => Err(DocumentError::NotAnObject { found }),
        }
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_json()))
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ValueRef::Object(self.root()).serialize(serializer)
    }
}
