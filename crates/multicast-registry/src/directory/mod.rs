//! The directory: reads without scanning the backend (DESIGN §4).
//!
//! A view is fed by the registry slot's history. It is built by a scan (hydration), then follows
//! change by change; when history began anew or no longer reaches back, it is built again. One task
//! per namespace does that and ticks the slot once a second at least, which also expires what is due.

mod cursor;
mod explain;
mod follow;
mod gather;
mod hydrate;
mod index;
mod large;
mod log;
mod order;
mod past;
mod query;
mod rows;
mod slice;
mod turn;
mod view;

#[cfg(test)]
mod tests;

pub use follow::{Directory, Observer, Standing, Unavailable};
pub use large::Facet;
pub use query::SortKey;
pub use rows::{Row, Selection};
pub use view::{Horizon, Settings};

pub(crate) use cursor::{Cursor, InvalidCursor, Seal, digest};
pub(crate) use explain::{Explained, clauses};
pub(crate) use follow::{leases_of, stored_document};
pub(crate) use gather::Gathered;
pub(crate) use index::Key;
pub(crate) use large::{Begun, TooManyValues};
pub(crate) use log::Step;
pub(crate) use query::{Leases, Query, bookmark, value_at};
pub(crate) use slice::Resume;
