//! Questions that a registry slot answers by itself, for those that keep no view of it.

use std::sync::Arc;

use bytes::Bytes;
use prism_filter::Compiled;

use crate::{Position, Record};

/// A request for a page of the records that may match.
#[derive(Debug, Clone)]
pub struct Query {
    /// What must match; everything if absent.
    pub filter: Option<Arc<Compiled>>,
    /// Where to continue: [`QueryPage::next`] of the page before, `None` to begin.
    pub cursor: Option<Bytes>,
    /// How many records to look at, roughly. The slot may look at fewer.
    pub limit: usize,
}

/// A page of the records that may match.
///
/// The pages of one query are no snapshot: each is as of its own moment. A record that is live and not written
/// from the first page to the last one is returned at least once where it matches; one that is written
/// meanwhile may be returned in any of its states, in several, or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPage {
    /// Records that were live at the time of this page, with their leases as of then. Every one that matches is
    /// among them; others may be.
    pub records: Vec<Arc<Record>>,
    /// How many records were looked at for it.
    pub examined: u64,
    /// Where to continue; `None` at the end.
    pub next: Option<Bytes>,
    /// The head at the time of this page.
    pub head: Position,
}
