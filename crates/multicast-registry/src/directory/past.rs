//! What a view that has just been built knows of the time before.
//!
//! A slot's feed reaches back some way, and its changes say what was there before them. So a view can be
//! given the versions that one which was there all the time would have: pages and watches that began on
//! another runner, or before this one was restarted, go on here.

use std::{collections::HashMap, time::Instant};

use prism_filter::Document;
use prism_slot::{Cause, Change, Identity, Revision};

use super::{
    log::Log,
    rows::{Row, RowId},
    view::View,
};

/// A change before the view's head.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) change: Change,
    /// The metadata of its record, and of the one before.
    pub(crate) document: Document,
    pub(crate) before: Option<Document>,
}

impl Past {
    /// Whether it leaves open what was there before.
    fn is_blind(&self) -> bool {
        matches!(self.change.cause, Cause::Updated | Cause::Replaced) && self.before.is_none()
    }
}

impl View {
    /// Learns of changes without a gap, the last one at the view's head. A view that has followed changes
    /// must not be told.
    pub(crate) fn remember(&mut self, mut past: Vec<Past>, now: Instant) {
        if let Some(blind) = past.iter().rposition(Past::is_blind) {
            past.drain(..=blind);
        }
        let Some(first) = past.first() else { return };
        let from = Revision(first.change.revision.0.saturating_sub(1));
        debug_assert_eq!(
            past.last().map(|past| past.change.revision),
            Some(self.head().revision)
        );
        self.begin_history(Log::since(from), from);
        let mut current: HashMap<Identity, RowId> = HashMap::new();
        for past in past {
            let Past {
                change,
                document,
                before,
            } = past;
            let identity = change.record.identity.clone();
            let gone = change.cause.removes();
            let before = match (current.remove(&identity), before, gone) {
                (Some(id), ..) => Some(id),
                (None, Some(document), _) => change
                    .before
                    .as_ref()
                    .map(|record| self.keep(Row::new(record, document))),
                (None, None, true) => Some(self.keep(Row::new(&change.record, document.clone()))),
                (None, None, false) => None,
            };
            if let Some(id) = before {
                self.close_kept(id, change.revision, now);
            }
            let after = (!gone).then(|| match self.open_since(&identity, change.revision) {
                Some(id) => id,
                // A later change will close it.
                None => {
                    let id = self.keep(Row::new(&change.record, document));
                    current.insert(identity, id);
                    id
                }
            });
            self.log_change(change.cause, before, after);
        }
        debug_assert!(
            current.is_empty(),
            "every version that is not the last one was closed"
        );
    }
}
