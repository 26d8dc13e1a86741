//! What a namespace's metadata must look like (RFC-017, "Schema Definition").
//!
//! A schema is optional. Where there is one, metadata is checked when it is written, and never when
//! it is read: defaults and automatic values are written into the record, so that filters see only
//! what is stored.

mod check;
mod read;

#[cfg(test)]
mod tests;

use std::fmt;

use prism_filter::{Document, Path};
use serde_json::{Value, json};

/// What a field may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// One of these texts.
    Enum(Vec<String>),
    /// An RFC 3339 text or a number of Unix milliseconds.
    Timestamp,
    /// An object with the numbers `lat` (-90 to 90) and `lon` (-180 to 180), and whatever else.
    GeoPoint,
    /// A list, of items of one type if that is given.
    Array(Option<Box<Type>>),
    /// An object.
    Object,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Boolean => f.write_str("boolean"),
            Self::Enum(values) => write!(f, "enum[{}]", values.join(", ")),
            Self::Timestamp => f.write_str("timestamp"),
            Self::GeoPoint => f.write_str("geo_point"),
            Self::Array(None) => f.write_str("array"),
            Self::Array(Some(items)) => write!(f, "array[{items}]"),
            Self::Object => f.write_str("object"),
        }
    }
}

/// What is said about one field.
#[derive(Debug, Clone)]
pub struct Field {
    path: Path,
    kind: Type,
    required: bool,
    default: Option<Value>,
    /// Texts longer than this, in characters, and lists with more items are refused.
    max_length: Option<usize>,
    /// Written with the time of registration.
    auto_now: bool,
    /// Declared as one that filters select by.
    index: bool,
}

/// What a namespace's metadata must look like.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The metadata field that repeats the identity.
    primary_key: Option<Path>,
    /// Sorted by path.
    fields: Vec<Field>,
    /// Whether other fields may be there.
    additional: bool,
}

/// Metadata that a schema refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` {problem}")]
pub struct Violation {
    /// The field, as a path.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// When a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It is registered: automatic fields are written.
    Registered,
    /// It is changed: automatic fields stay as they were.
    Updated,
}

impl Schema {
    /// The canonical tree.
    pub fn to_value(&self) -> Value {
        let field = |field: &Field| {
            let mut tree = json!({ "type": field.kind.to_string(), "required": field.required });
            let optional = [
                ("default", field.default.clone()),
                ("max_length", field.max_length.map(|length| json!(length))),
                ("auto", field.auto_now.then(|| json!("now"))),
                ("index", field.index.then_some(json!(true))),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    tree[key] = value;
                }
            }
            (field.path.to_string(), tree)
        };
        let fields: serde_json::Map<_, _> = self.fields.iter().map(field).collect();
        let mut tree = json!({ "fields": fields, "additional": self.additional });
        if let Some(key) = &self.primary_key {
            tree["primary_key"] = json!(key.to_string());
        }
        tree
    }

    /// The fields that are declared to be indexed.
    pub fn indexed(&self) -> impl Iterator<Item = &Path> {
        self.fields
            .iter()
            .filter(|field| field.index)
            .map(|field| &field.path)
    }

    /// The document to store for `identity`, at `now` in Unix milliseconds: with defaults and automatic
    /// values written in, and everything checked.
    ///
    /// # Errors
    /// The first violation.
    pub fn complete(
        &self,
        identity: &str,
        document: Document,
        now: i64,
        occasion: Occasion,
    ) -> Result<Document, Violation> {
        let document = check::fill(self, identity, document, now, occasion)?;
        check::all(self, &document)?;
        Ok(document)
    }
}
