//! Reads of many registrations where no view is kept: the slot is asked, page by page.
//!
//! The pages are no snapshot. What a search promises: every registration that is live, matches, and is not written
//! while the search lasts is found, exactly once, with whatever was acknowledged before the search began. One
//! that is written meanwhile is judged in some state that it had meanwhile, and is found once or not at all.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use prism_core::backoff::{Backoff, Policy};
use prism_filter::Compiled;
use prism_slot::{Applied, Call, Error as SlotError, Identity, Position, Query, QueryPage, Record, Scan};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{Coordinator, Error};
use crate::directory::{Row, stored_document};

/// How many searches one runner has under way in a namespace. The slot does its other work in between.
pub(super) const SEARCHES: usize = 2;
/// How many registrations may match in one search: their names are held until its end.
const MAX_MATCHES: usize = 1_000_000;
/// How many records a page is asked to look at.
const PAGE: usize = 512;
/// How many a slot is asked for that sends everything: at first, while it is not known how large they are; and
/// about how many bytes of them from then on.
const FIRST_SCAN: usize = 64;
const SCAN_BYTES: usize = 256 << 10;
/// How often a search starts over because history began anew, and a page is asked for again.
const ATTEMPTS: u32 = 4;
const RETRY: Policy = Policy {
    base: Duration::from_millis(20),
    cap: Duration::from_millis(500),
};

/// What a search took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Searched {
    /// The head when it began: whatever was written up to here is reflected.
    pub(super) position: Position,
    /// The slot selected by the filter; otherwise it sent everything.
    pub(super) by_query: bool,
    /// How many records the slot looked at.
    pub(super) examined: u64,
    /// How many of them it sent, to be asked about the filter here.
    pub(super) sent: u64,
}

impl Coordinator {
    /// Hands over every registration that matches, once, to what `begin` makes, in no particular order. Begins
    /// anew where history does.
    pub(super) async fn search<T>(
        &self,
        filter: Option<Arc<Compiled>>,
        min_position: Option<Position>,
        deadline: Instant,
        begin: impl Fn() -> T,
        offer: impl Fn(&mut T, Row) -> Result<(), Error>,
    ) -> Result<(Searched, T), Error> {
        self.open_for_calls()?;
        let turn = timeout_at(deadline, self.shared.searches.acquire());
        let _turn = turn.await.map_err(|_| Error::DeadlineExceeded)?;
        let mut attempt = 1;
        loop {
            let call = self.call(deadline).await?;
            let mut found = begin();
            let searched = self
                .search_in(call, filter.clone(), min_position, |row| offer(&mut found, row))
                .await;
            match searched {
                Err(Error::Slot(SlotError::EpochChanged { current })) if attempt < ATTEMPTS => {
                    self.shared.directory.epoch_changed(current);
                    attempt += 1;
                }
                searched => return Ok((searched?, found)),
            }
        }
    }

    /// Searches within one epoch.
    async fn search_in(
        &self,
        call: Call,
        filter: Option<Arc<Compiled>>,
        min_position: Option<Position>,
        mut offer: impl FnMut(Row) -> Result<(), Error>,
    ) -> Result<Searched, Error> {
        let capability = self.registry().capability().clone();
        if !capability.query {
            // A scan also sends what is due, and only the slot may judge that: it is expired first.
            self.shared.directory.make_current(call.deadline).await?;
        }
        let mut names: HashSet<Identity> = HashSet::new();
        let mut searched: Option<Searched> = None;
        let mut next = Next {
            by_query: capability.query,
            cursor: None,
            limit: if capability.query { PAGE } else { FIRST_SCAN },
        };
        loop {
            let page = self.page(call, &filter, &next).await?;
            if searched.is_none() {
                check_reached(page.head, min_position)?;
            }
            let so_far = searched.get_or_insert(Searched {
                position: page.head,
                by_query: capability.query,
                examined: 0,
                sent: 0,
            });
            so_far.examined += page.examined;
            so_far.sent += page.records.len() as u64;
            for (at, record) in page.records.iter().enumerate() {
                if at % PAGE == PAGE - 1 {
                    pause(call).await?;
                }
                let row = Row::new(record, stored_document(record, capability.backend)?);
                let matches = filter.as_ref().is_none_or(|filter| filter.matches(&row));
                if matches && names.insert(record.identity.clone()) {
                    offer(row)?;
                }
            }
            if names.len() > MAX_MATCHES {
                return Err(too_many());
            }
            if !next.advance(page) {
                return Ok(*so_far);
            }
            pause(call).await?;
        }
    }

    /// One page, asked for again where nothing was lost by that.
    async fn page(
        &self,
        call: Call,
        filter: &Option<Arc<Compiled>>,
        next: &Next,
    ) -> Result<QueryPage, Error> {
        let mut backoff = None;
        for _ in 1..ATTEMPTS {
            match self.page_once(call, filter.clone(), next).await {
                Err(SlotError::Unavailable {
                    applied: Applied::No, ..
                }) => {}
                page => return Ok(page?),
            }
            let pause = backoff.get_or_insert_with(|| Backoff::new(RETRY)).pause();
            if timeout_at(call.deadline, sleep(pause)).await.is_err() {
                break;
            }
        }
        Ok(self.page_once(call, filter.clone(), next).await?)
    }

    async fn page_once(
        &self,
        call: Call,
        filter: Option<Arc<Compiled>>,
        next: &Next,
    ) -> Result<QueryPage, SlotError> {
        let (registry, cursor, limit) = (self.registry(), next.cursor.clone(), next.limit);
        if next.by_query {
            let query = Query {
                filter,
                cursor,
                limit,
            };
            return registry.query(call, query).await;
        }
        let hold = Duration::ZERO;
        let page = registry.scan(call, Scan { cursor, limit, hold }).await?;
        Ok(QueryPage {
            examined: page.records.len() as u64,
            records: page.records,
            next: page.next,
            head: page.head,
        })
    }
}

/// What page a search asks for next.
struct Next {
    /// Of those that the slot selects; otherwise of everything.
    by_query: bool,
    cursor: Option<Bytes>,
    limit: usize,
}

impl Next {
    /// Goes on after a page; whether there is anything. A slot that selects bounds its work by itself. Of one that
    /// sends everything it is the answers that take its time, so of large records fewer are asked for.
    fn advance(&mut self, page: QueryPage) -> bool {
        if !self.by_query && !page.records.is_empty() {
            let size = |record: &Arc<Record>| record.metadata.len() + size_of::<Record>();
            let bytes: usize = page.records.iter().map(size).sum();
            self.limit = (SCAN_BYTES * page.records.len() / bytes).clamp(1, PAGE);
        }
        self.cursor = page.next;
        self.cursor.is_some()
    }
}

/// However much there is to read, others get their turn, and it ends with the caller's patience.
async fn pause(call: Call) -> Result<(), Error> {
    if Instant::now() >= call.deadline {
        return Err(Error::DeadlineExceeded);
    }
    tokio::task::yield_now().await;
    Ok(())
}

fn check_reached(head: Position, wanted: Option<Position>) -> Result<(), Error> {
    match wanted {
        Some(wanted) if wanted.epoch != head.epoch => Err(Error::OtherEpoch { current: head.epoch }),
        Some(wanted) if wanted.revision > head.revision => {
            let message = format!(
                "revision {} has not been written yet, the head is {head}",
                wanted.revision.0
            );
            Err(Error::argument("min_position", message))
        }
        _ => Ok(()),
    }
}

fn too_many() -> Error {
    let message = format!(
        "more than {MAX_MATCHES} registrations match, too many for a namespace with `view: none`; narrow the filter"
    );
    Error::over_limit("filter", message, MAX_MATCHES)
}
