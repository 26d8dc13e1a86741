//! What a namespace's metadata must look like (RFC-017, "Schema Definition").
//!
//! A schema is optional. Where there is one, metadata is checked when it is written, and never when
//! it is read: defaults and automatic values are written into the record, so that filters see only
//! what is stored.

mod check;
mod fill;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;

use prism_filter::{Document, Path};
use serde_json::Value;

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
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
    /// A list, of items of one shape if that is given.
    Array(Option<Box<Shape>>),
    /// An object, with these fields if they are given.
    Object(Option<Box<Fields>>),
}

/// A type with its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    kind: Type,
    /// Texts longer than this, in characters, and lists with more items are refused.
    max_length: Option<usize>,
}

/// What is said about the inside of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields {
    /// Sorted by their keys.
    fields: Vec<Field>,
    /// Whether other fields may be there.
    additional: bool,
    /// Whether anything is written in where it is missing.
    fills: bool,
}

/// The keys of a path, outermost first.
type Keys = Box<[Box<str>]>;

/// What is said about one field.
#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// As it is written in the schema.
    name: String,
    /// The keys that lead to it from the object that it is in.
    keys: Keys,
    shape: Shape,
    required: bool,
    default: Option<Value>,
    /// Written with the time of registration.
    auto_now: bool,
    /// Declared as one that filters select by: where it is in the metadata.
    index: Option<Path>,
}

/// What a namespace's metadata must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The metadata field that repeats the identity.
    primary_key: Option<Path>,
    inside: Fields,
}

/// Metadata that a schema refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field `{field}` {problem}")]
pub struct Violation {
    /// The field, as a path; an item of a list as `path[index]`.
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
        write::schema(self)
    }

    /// Where the fields are that are declared to be indexed.
    pub fn indexed(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.inside.indexed(&mut paths);
        paths
    }

    /// What is declared to be at a path.
    pub fn type_at(&self, path: &Path) -> Option<&Type> {
        self.inside.type_at(path.keys())
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
        let document = fill::complete(self, identity, document, now, occasion)?;
        match self.violations(identity, &document, 1).pop() {
            Some(violation) => Err(violation),
            None => Ok(document),
        }
    }

    /// What is wrong with a document that is stored for `identity`, as much as is asked for.
    pub fn violations(&self, identity: &str, document: &Document, most: usize) -> Vec<Violation> {
        check::all(self, identity, document, most)
    }
}

impl Fields {
    fn indexed(&self, paths: &mut Vec<Path>) {
        for field in &self.fields {
            paths.extend(field.index.clone());
            if let Some(inside) = field.inside() {
                inside.indexed(paths);
            }
        }
    }

    fn type_at(&self, keys: &[Box<str>]) -> Option<&Type> {
        self.fields.iter().find_map(|field| {
            let rest = keys.strip_prefix(&*field.keys)?;
            match field.inside() {
                _ if rest.is_empty() => Some(&field.shape.kind),
                Some(inside) => inside.type_at(rest),
                None => None,
            }
        })
    }
}

impl Field {
    /// What is said about the fields in it.
    fn inside(&self) -> Option<&Fields> {
        match &self.shape.kind {
            Type::Object(inside) => inside.as_deref(),
            _ => None,
        }
    }

    /// Whether it, or something in it, is written in where it is missing.
    fn fills(&self) -> bool {
        self.auto_now || self.default.is_some() || self.inside().is_some_and(|inside| inside.fills)
    }
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
            Self::Array(Some(items)) => write!(f, "array[{}]", items.kind),
            Self::Object(_) => f.write_str("object"),
        }
    }
}
