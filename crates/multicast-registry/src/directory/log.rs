//! The latest changes to a view, for those who follow it.

use std::collections::VecDeque;

use prism_slot::{Cause, Revision};

use super::rows::{Row, RowId, Rows};

/// How many changes are kept at most.
const MAX_CHANGES: usize = 1 << 18;

/// What one change did to the registration of one identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) revision: Revision,
    pub(crate) cause: Cause,
    pub(crate) before: Option<&'a Row>,
    pub(crate) after: Option<&'a Row>,
}

/// Changes without a gap, the last one at the view's head.
#[derive(Debug)]
pub(crate) struct Log {
    /// The revision before the first change that is kept.
    reach: Revision,
    changes: VecDeque<Logged>,
}

#[derive(Debug, Clone, Copy)]
struct Logged {
    cause: Cause,
    before: Option<RowId>,
    after: Option<RowId>,
}

impl Log {
    /// Nothing has happened since this revision.
    pub(crate) fn since(revision: Revision) -> Self {
        Self {
            reach: revision,
            changes: VecDeque::new(),
        }
    }

    /// Adds the change at the next revision.
    pub(crate) fn push(&mut self, cause: Cause, before: Option<RowId>, after: Option<RowId>) {
        if self.changes.len() == MAX_CHANGES {
            self.changes.pop_front();
            self.reach = self.reach.next();
        }
        self.changes.push_back(Logged { cause, before, after });
    }

    /// Gives up the changes up to a revision: rows that they name are about to go.
    pub(crate) fn trim(&mut self, up_to: Revision) {
        while self.reach < up_to && self.changes.pop_front().is_some() {
            self.reach = self.reach.next();
        }
    }

    /// The open row that a revision wrote lies elsewhere now.
    pub(crate) fn moved(&mut self, written_at: Revision, to: RowId) {
        if let Some(index) = self.index_of(written_at)
            && let Some(change) = self.changes.get_mut(index)
        {
            change.after = Some(to);
        }
    }

    /// The changes after a revision; `None` when not all of them are kept.
    pub(crate) fn after<'a>(
        &'a self,
        revision: Revision,
        rows: &'a Rows,
    ) -> Option<impl Iterator<Item = Step<'a>>> {
        let first = self.index_of(revision.next())?;
        let revisions = (revision.next().0..).map(Revision);
        let changes = self.changes.range(first.min(self.changes.len())..);
        Some(changes.zip(revisions).map(|(change, revision)| Step {
            revision,
            cause: change.cause,
            before: change.before.map(|id| rows.get(id)),
            after: change.after.map(|id| rows.get(id)),
        }))
    }

    /// Where the change at a revision is, or would be.
    fn index_of(&self, revision: Revision) -> Option<usize> {
        let index = revision.0.checked_sub(self.reach.0)?.checked_sub(1)?;
        usize::try_from(index).ok()
    }
}
