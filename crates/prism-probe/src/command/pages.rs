//! All registrations, page by page, for as long as it takes.

use std::time::Duration;

use prism_client::{Consistency, EnumerateRequest, Error, Filter, Identity, Position, Reason, Registry};
use tokio::time::sleep;

/// All registrations that match, in the order of identities.
///
/// Cursors lead from page to page. One that has become too old, or is of a history that ended, is no
/// obstacle: identities have an order, and the next page is the one after the last identity that is done.
pub(super) struct Pages {
    filter: Option<Filter>,
    /// How many registrations are asked for at a time.
    size: u32,
    /// Everything up to here is done.
    through: Option<String>,
    cursor: Option<String>,
    /// The last identity of the page that was given out.
    current: Option<String>,
    /// How many were given out, and how many there are in all.
    given: u64,
    total: u64,
    /// What the first page is of, and the one that was given out last.
    positions: Option<(Position, Position)>,
    is_last: bool,
}

impl Pages {
    pub(super) fn new(filter: Option<Filter>, after: Option<String>, size: u32) -> Self {
        Self {
            filter,
            size,
            through: after,
            cursor: None,
            current: None,
            given: 0,
            total: 0,
            positions: None,
            is_last: false,
        }
    }

    /// The next page; `None` after the last. [`Self::done`] comes before the next call.
    pub(super) async fn next(&mut self, registry: &Registry) -> Result<Option<Vec<Identity>>, Error> {
        if self.is_last {
            return Ok(None);
        }
        let page = loop {
            match registry.enumerate(self.request()).await {
                Ok(page) => break page,
                Err(error) if self.cursor.is_some() && is_of_the_cursor(&error) => self.cursor = None,
                // Longer than one call is given.
                Err(error) if let Some(pause) = limited(&error) => sleep(pause).await,
                Err(error) => return Err(error),
            }
        };
        if self.cursor.is_none() {
            self.total = self.given + page.total_count;
        }
        let first = self.positions.map_or(page.position, |(first, _)| first);
        self.positions = Some((first, page.position));
        self.is_last = page.next_cursor.is_none();
        self.cursor = page.next_cursor;
        self.given += page.identities.len() as u64;
        self.current = page.identities.last().map(|last| last.identity.clone());
        Ok(Some(page.identities))
    }

    /// Everything of the page has been done.
    pub(super) fn done(&mut self) {
        if let Some(last) = self.current.take() {
            self.through = Some(last);
        }
    }

    /// The last identity up to which everything is done.
    pub(super) fn through(&self) -> Option<&str> {
        self.through.as_deref()
    }

    /// What the first page and the last one so far are of. Where they are one, everything is of that moment.
    pub(super) fn positions(&self) -> Option<(Position, Position)> {
        self.positions
    }

    /// How many there are, as far as is known.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn request(&self) -> EnumerateRequest {
        EnumerateRequest {
            filter: self.selection(),
            limit: Some(self.size),
            cursor: self.cursor.clone(),
            consistency: Consistency::Consistent,
            ..Default::default()
        }
    }

    /// What a cursor goes on with has to be what it began with, which is why it is not narrowed then.
    fn selection(&self) -> Option<Filter> {
        let rest = |last: &String| Filter::new().gt("$identity", last.as_str());
        let rest = self.through.as_ref().map(rest).filter(|_| self.cursor.is_none());
        match (self.filter.clone(), rest) {
            (Some(filter), Some(rest)) => Some(Filter::and([filter, rest])),
            (filter, rest) => filter.or(rest),
        }
    }
}

/// How long to wait where we ask too often, and are told when to come again.
fn limited(error: &Error) -> Option<Duration> {
    let limited = error.reason() == Some(Reason::RateLimited);
    error.retry_after().filter(|_| limited)
}

fn is_of_the_cursor(error: &Error) -> bool {
    matches!(
        error.reason(),
        Some(Reason::Compacted | Reason::EpochChanged | Reason::InvalidCursor)
    )
}
