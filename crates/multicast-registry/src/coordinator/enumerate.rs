//! Enumerate: pages of the registrations that match.

use std::{sync::Arc, time::Duration};

use prism_filter::{Compiled, Filter, SystemField};
use prism_slot::{Call, Identity, Position, Timestamp};
use tokio::time::Instant;

use super::{Config, Coordinator, Error};
use crate::{
    config::{ReadConsistency, StoreLoss},
    directory::{Cursor, Leases, Query, Selection, SortKey, Unavailable, bookmark, digest, leases_of},
};

/// How many identities a page holds unless the call says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// How many identities a page holds at most.
const MAX_LIMIT: usize = 1_000;
/// How many matches an offset skips at most.
const MAX_OFFSET: usize = 10_000;
/// How many keys a sort has at most.
const MAX_SORT_KEYS: usize = 8;

/// A request to enumerate.
#[derive(Debug, Clone, Default)]
pub struct Enumerate {
    /// What must match; everything if absent.
    pub filter: Option<Filter>,
    /// The order; ties, and no sort at all, go by identity.
    pub sort: Vec<SortKey>,
    /// How many identities to return; 0 for the default.
    pub limit: usize,
    /// How many matches to skip.
    pub offset: usize,
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// How fresh the answer must be; the namespace's default if absent.
    pub consistency: Option<ReadConsistency>,
    /// Answer from here or later.
    pub min_position: Option<Position>,
}

/// A page of registrations.
#[derive(Debug)]
pub struct Page {
    /// The registrations in the order asked for.
    pub rows: Selection,
    /// When their leases end, where the slot was asked; otherwise rows tell what was last written.
    leases: Option<Leases>,
    /// How many match in all.
    pub total: u64,
    /// Where to go on; absent on the last page.
    pub next: Option<String>,
    /// The set is the one as of here.
    pub position: Position,
    /// How long ago the view was known to be current, where the answer may be stale.
    pub age: Option<Duration>,
}

impl Page {
    /// When the lease of one of the page's registrations ends.
    pub fn expires_at(&self, row: &crate::directory::Row) -> Option<Timestamp> {
        match &self.leases {
            Some(leases) => leases.get(&row.identity).copied().flatten(),
            None => row.expires_at,
        }
    }
}

impl Coordinator {
    /// Lists the registrations that match, one page of them.
    ///
    /// # Errors
    /// Bad arguments; a cursor past the horizon; unavailability, unless a stale answer will do.
    pub async fn enumerate(&self, request: Enumerate, deadline: Instant) -> Result<Page, Error> {
        let started = Instant::now();
        self.open_for_calls()?;
        let config = self.config();
        let limit = check(&request)?;
        let filter = compile(&config, request.filter.as_ref())?;
        self.shared.directory.ready(deadline).await?;
        let digest = query_digest(request.filter.as_ref(), &request.sort);
        let cursor = self.open_cursor(request.cursor.as_deref(), digest)?;

        let consistency = request.consistency.unwrap_or(config.behavior.consistency);
        let stale = self
            .freshen(
                &config,
                consistency,
                request.min_position,
                cursor.as_ref(),
                deadline,
            )
            .await?;
        let age = stale.then(|| self.shared.directory.age());
        let call = self.call(deadline).await?;
        let leases = self.filter_leases(filter.as_deref(), call).await?;
        let query = Query {
            filter: filter.as_deref(),
            sort: &request.sort,
            after: cursor.as_ref().map(|cursor| &cursor.after),
            offset: if cursor.is_some() { 0 } else { request.offset },
            limit,
            total: cursor.as_ref().map(|cursor| cursor.total),
            leases: leases.as_ref(),
        };
        let (position, found, leased) = self.shared.directory.read(|view| {
            let head = view.head();
            let at = cursor.as_ref().map_or(head, Cursor::position);
            check_position(at, head, view.floor()).map(|()| {
                // At earlier revisions there may have been leases where there are none now.
                let leased = view.leased() > 0 || at != head;
                (at, view.select(at.revision, &query), leased)
            })
        })?;
        let last = found.rows.iter().last().filter(|_| found.more);
        let next = last.map(|row| {
            let after = bookmark(row, &request.sort);
            Cursor::new(position, digest, found.total, after).seal(&self.shared.directory.secret())
        });
        let leases = if stale || !leased {
            None
        } else {
            self.page_leases(&found.rows, call).await?
        };
        self.shared.metrics.enumerated(started.elapsed());
        Ok(Page {
            rows: found.rows,
            leases,
            total: found.total,
            next,
            position,
            age,
        })
    }

    /// Brings the view to where the call wants it; whether the answer may be stale.
    pub(super) async fn freshen(
        &self,
        config: &Config,
        consistency: ReadConsistency,
        min_position: Option<Position>,
        cursor: Option<&Cursor>,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let directory = &self.shared.directory;
        directory.ready(deadline).await?;
        let wanted = cursor.map(Cursor::position).or(min_position);
        let reached = |head: Position| {
            wanted.is_none_or(|wanted| wanted.epoch == head.epoch && wanted.revision <= head.revision)
        };
        // A cursor names its revision, and nothing newer would change the answer.
        let satisfied =
            reached(directory.head()) && (consistency == ReadConsistency::Stale || cursor.is_some());
        let mut stale = consistency == ReadConsistency::Stale && cursor.is_none();
        if !satisfied {
            match directory.make_current(deadline).await {
                Ok(()) => {}
                Err(Unavailable::Store(_)) if config.behavior.on_store_loss == StoreLoss::Stale => {
                    stale = true
                }
                Err(unavailable) => return Err(unavailable.into()),
            }
        }
        let head = directory.head();
        match wanted {
            Some(wanted) if wanted.epoch != head.epoch => Err(Error::OtherEpoch { current: head.epoch }),
            // The slot itself has not come so far: it cannot by waiting a little.
            Some(wanted) if wanted.revision > head.revision => Err(Error::InvalidArgument {
                field: "min_position",
                message: format!(
                    "revision {} has not been written yet, the head is {head}",
                    wanted.revision.0
                ),
            }),
            _ => Ok(stale),
        }
    }

    fn open_cursor(&self, text: Option<&str>, digest: [u8; 16]) -> Result<Option<Cursor>, Error> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let secret = self.shared.directory.secret();
        let opened = Cursor::open(text, &secret, digest);
        opened
            .map(Some)
            .map_err(|error| Error::InvalidCursor(error.to_string()))
    }

    /// The leases that a filter on `$expires_at` compares with. Renewals do not pass through the
    /// change feed, so the slot is asked about every identity that has one.
    pub(super) async fn filter_leases(
        &self,
        filter: Option<&Compiled>,
        call: Call,
    ) -> Result<Option<Leases>, Error> {
        if !filter.is_some_and(Compiled::uses_expires_at) {
            return Ok(None);
        }
        let leased: Vec<Identity> = self.shared.directory.read(|view| {
            if view.leased() == 0 {
                return Vec::new();
            }
            let rows = view.matching(view.head().revision, None, None);
            rows.into_iter()
                .filter(|row| row.ttl.is_some())
                .map(|row| row.identity.clone())
                .collect()
        });
        Ok(Some(leases_of(&*self.registry(), call, leased).await?))
    }

    /// The leases that a page shows.
    async fn page_leases(&self, rows: &Selection, call: Call) -> Result<Option<Leases>, Error> {
        let leased = rows
            .iter()
            .filter(|row| row.ttl.is_some())
            .map(|row| row.identity.clone());
        let leased: Vec<Identity> = leased.collect();
        if leased.is_empty() {
            return Ok(None);
        }
        Ok(Some(leases_of(&*self.registry(), call, leased).await?))
    }
}

/// Compiles a filter within the namespace's limits.
pub(super) fn compile(config: &Config, filter: Option<&Filter>) -> Result<Option<Arc<Compiled>>, Error> {
    let Some(filter) = filter else { return Ok(None) };
    Ok(Some(Arc::new(filter.compile(&config.limits())?)))
}

fn check(request: &Enumerate) -> Result<usize, Error> {
    let invalid = |field, message: String| Err(Error::InvalidArgument { field, message });
    if request.limit > MAX_LIMIT {
        return invalid(
            "pagination.limit",
            format!("a page holds at most {MAX_LIMIT}, not {}", request.limit),
        );
    }
    if request.offset > MAX_OFFSET {
        let message = format!(
            "at most {MAX_OFFSET} matches are skipped, not {}; use the cursor",
            request.offset
        );
        return invalid("pagination.offset", message);
    }
    if request.sort.len() > MAX_SORT_KEYS {
        return invalid(
            "sort_by",
            format!("at most {MAX_SORT_KEYS} keys sort, not {}", request.sort.len()),
        );
    }
    if request
        .sort
        .iter()
        .any(|key| key.path.system() == Some(SystemField::ExpiresAt))
    {
        let message = "`$expires_at` moves without a write and cannot be sorted by".to_owned();
        return invalid("sort_by", message);
    }
    Ok(if request.limit == 0 {
        DEFAULT_LIMIT
    } else {
        request.limit
    })
}

fn query_digest(filter: Option<&Filter>, sort: &[SortKey]) -> [u8; 16] {
    let mut parts = vec![filter.map(Filter::to_string).unwrap_or_default()];
    parts.extend(sort.iter().map(|key| format!("{} {}", key.path, key.descending)));
    digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn check_position(at: Position, head: Position, floor: prism_slot::Revision) -> Result<(), Error> {
    if at.epoch != head.epoch {
        return Err(Error::OtherEpoch { current: head.epoch });
    }
    if at.revision < floor {
        return Err(Error::Compacted {
            asked: at.revision,
            floor,
        });
    }
    Ok(())
}
