//! Everything that is registered, a part at a time, without holding up readers or changes.

use prism_slot::Position;

use super::{Directory, Query, Row, Selection, bookmark, query::Bookmark};

/// Where a walk over all registrations goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resume(Option<Bookmark>);

impl Resume {
    /// After this one.
    pub(crate) fn after(row: &Row) -> Self {
        Self(Some(bookmark(row, &[])))
    }
}

impl Directory {
    /// The next registrations in the order of identities, as they are now, and where the view stands.
    pub(crate) fn slice(&self, from: &Resume, limit: usize) -> (Position, Selection) {
        let query = Query {
            after: from.0.as_ref(),
            limit,
            // Nobody asks how many there are.
            total: Some(0),
            ..Query::default()
        };
        self.read(|view| {
            (
                view.head(),
                view.select_in(view.head().revision, &query, None).rows,
            )
        })
    }
}
