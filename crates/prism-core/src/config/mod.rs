//! Configuration as it is written by people: YAML with positions, decoded strictly.
//!
//! A file becomes a [`Source`]: a JSON tree that remembers where each key and value stands. Types are
//! decoded from the tree with serde; whatever goes wrong is an [`Error`] that names the path, the line
//! and column when the tree came from a file, and the nearest valid key for a misspelt one. The same
//! types decode from a tree that came over the control stream, where every number is a double, with
//! [`decode_value`].
//!
//! Configuration types refuse what they do not know: each derives `serde::Deserialize` with
//! `#[serde(deny_unknown_fields)]`. They avoid `flatten` and `untagged`, under which serde loses track
//! of where it is.

mod decode;
mod error;
mod path;
mod source;
mod units;

#[cfg(test)]
mod tests;

pub use decode::{decode_value, nearest};
pub use error::Error;
pub use path::{Path, Segment};
pub use source::{MAX_SOURCE_BYTES, Mark, Source};
pub use units::{
    Secret, duration_ms, duration_seconds, duration_text, format_duration, one_or_many, optional_duration_ms,
    optional_duration_seconds, optional_size, parse_duration, parse_size, size,
};
