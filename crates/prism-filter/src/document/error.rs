//! Why something is not a document.

use super::Kind;
use crate::path::{abbreviate, escape};

/// Why something is not a document. Paths are as in filters, with `[3]` for an array's element.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text is not JSON.
    #[error("not valid JSON{}: {message}", at(path))]
    Syntax {
        /// How far it could be read; empty at the outermost level.
        path: String,
        /// What the parser found.
        message: String,
    },
    /// It is JSON, but no object.
    #[error("expected a JSON object, found {found}")]
    NotAnObject {
        /// What it is.
        found: Kind,
    },
    /// An object has a key twice.
    #[error("`{path}` is given twice, keep one of them")]
    DuplicateField {
        /// The field.
        path: String,
    },
    /// Objects and arrays inside each other.
    #[error("`{path}` is nested deeper than {limit} levels, make it flatter")]
    TooDeep {
        /// The first that is too deep.
        path: String,
        /// How deep is allowed.
        limit: usize,
    },
    /// An integer that would be rounded.
    #[error("`{path}` is the integer {integer}, which a double cannot hold exactly, send it as a string")]
    Inexact {
        /// The field.
        path: String,
        /// The integer.
        integer: String,
    },
    /// A number that JSON cannot express.
    #[error("`{path}` is {number}, numbers must be finite")]
    NotFinite {
        /// The field.
        path: String,
        /// The number.
        number: String,
    },
    /// A protobuf value that is not set.
    #[error("`{path}` has no value, set one or leave the field out")]
    Unset {
        /// The field.
        path: String,
    },
    /// It takes too much memory.
    #[error("larger than the limit of {limit} bytes, make it smaller")]
    TooLarge {
        /// In encoded bytes.
        limit: usize,
    },
}

impl DocumentError {
    /// The field at fault, where there is one.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Syntax { path, .. }
            | Self::DuplicateField { path }
            | Self::TooDeep { path, .. }
            | Self::Inexact { path, .. }
            | Self::NotFinite { path, .. }
            | Self::Unset { path } => Some(path),
            Self::NotAnObject { .. } | Self::TooLarge { .. } => None,
        }
    }

    /// The same, seen from the object that holds the value under `key`.
    pub(crate) fn in_field(self, key: &[u8]) -> Self {
        self.under(step(key))
    }

    /// The same, seen from the array that holds the value at `index`.
    pub(crate) fn in_element(self, index: usize) -> Self {
        self.under(format!("[{index}]"))
    }

    fn under(mut self, step: String) -> Self {
        if let Self::Syntax { path, .. }
        | Self::DuplicateField { path }
        | Self::TooDeep { path, .. }
        | Self::Inexact { path, .. }
        | Self::NotFinite { path, .. }
        | Self::Unset { path } = &mut self
        {
            let dot = if path.is_empty() || path.starts_with('[') {
                ""
            } else {
                "."
            };
            *path = format!("{step}{dot}{path}");
        }
        self
    }
}

impl From<std::convert::Infallible> for DocumentError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A key as a step of a path, cut to a readable length.
pub(crate) fn step(key: &[u8]) -> String {
    escape(&abbreviate(&String::from_utf8_lossy(key))).into_owned()
}

fn at(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!(" at `{path}`")
    }
}
