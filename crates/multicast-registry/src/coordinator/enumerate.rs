//! Enumerate: pages of the registrations that match.

use std::{sync::Arc, time::Duration};

use prism_filter::{Compiled, Filter, Path, SystemField};
use prism_slot::{Call, Epoch, Error as SlotError, Identity, Position, Timestamp};
use tokio::time::Instant;

use super::{Config, Coordinator, Error};
use crate::{
    config::{ReadConsistency, StoreLoss},
    directory::{
        Begun, Cursor, Facet, Gathered, InvalidCursor, Leases, Query, Row, Seal, Selection, SortKey,
        Unavailable, bookmark, digest, leases_of,
    },
};

/// How many identities a page holds unless the call says otherwise.
const DEFAULT_LIMIT: usize = 100;
/// How many identities a page holds at most.
const MAX_LIMIT: usize = 1_000;
/// How many matches an offset skips at most.
const MAX_OFFSET: usize = 10_000;
/// How many fields' values are counted at most.
const MAX_FACETS: usize = 8;
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
    /// Return the total and no identities.
    pub count_only: bool,
    /// Count how often each value of these fields occurs among all that match.
    pub facets: Vec<Path>,
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
    /// The counts that were asked for, in that order.
    pub facets: Vec<Facet>,
    /// Where to go on; absent on the last page.
    pub next: Option<String>,
    /// The set is the one as of here.
    pub position: Position,
    /// How long ago the view was known to be current, where the answer may be stale.
    pub age: Option<Duration>,
    resume: Resume,
}

/// What it takes to go on after any row of a page.
#[derive(Debug)]
struct Resume {
    config: Arc<Config>,
    secret: (Epoch, [u8; 16]),
    sort: Vec<SortKey>,
    digest: [u8; 16],
    /// The moment of the first page, where the filter compares with it.
    now: Option<i64>,
}

impl Page {
    /// When the lease of one of the page's registrations ends.
    pub fn expires_at(&self, row: &Row) -> Option<Timestamp> {
        match &self.leases {
            Some(leases) => leases.get(&row.identity).copied().flatten(),
            None => row.expires_at,
        }
    }

    /// Keeps only the first `count` registrations; [`Self::next`] then goes on after them.
    pub fn truncate(&mut self, count: usize) {
        if count < self.rows.len() {
            self.rows.truncate(count);
            self.go_on();
        }
    }

    /// Sets `next` to go on after the last row.
    fn go_on(&mut self) {
        let Resume {
            config,
            secret: (epoch, secret),
            sort,
            digest,
            now,
        } = &self.resume;
        let seal = Seal {
            namespace: &config.namespace,
            epoch: *epoch,
            secret: *secret,
        };
        let after =
            |row| Cursor::new(self.position, *digest, self.total, bookmark(row, sort)).at_moment(*now);
        self.next = self.rows.iter().last().map(|row| after(row).seal(&seal));
    }
}

/// An enumeration that has been checked.
struct Asked {
    config: Arc<Config>,
    request: Enumerate,
    limit: usize,
    filter: Option<Arc<Compiled>>,
    cursor: Option<Cursor>,
    digest: [u8; 16],
}

/// How fresh the view was made for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As fresh as was asked for; the slot answers.
    Current,
    /// As it was: the call wants no more, or the slot does not answer and that may do.
    Stale,
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
        let mut filter = compile_at(&config, request.filter.as_ref(), Timestamp::now())?;
        self.shared.directory.ready(deadline).await?;
        let digest = self.digest(&request);
        let cursor = self.current_cursor(&config, &request, digest, deadline).await?;
        let moment = |filter: &Option<Arc<Compiled>>| filter.as_ref().and_then(|filter| filter.now());
        if let (Some(cursor), Some(_)) = (&cursor, moment(&filter)) {
            filter = compile_at(&config, request.filter.as_ref(), moment_of(cursor)?)?;
        }
        let now = moment(&filter);
        if self.shared.directory.is_bare() {
            let asked = Asked {
                config,
                request,
                limit,
                filter,
                cursor,
                digest,
            };
            let page = self.page_by_search(asked, deadline).await;
            self.shared.metrics.enumerated(started.elapsed());
            return page;
        }

        let consistency = request.consistency.unwrap_or(config.behavior.consistency);
        let mut freshness = self
            .freshen(
                &config,
                consistency,
                request.min_position,
                cursor.as_ref(),
                deadline,
            )
            .await?;
        let filter_leases = self.filter_leases(filter.as_deref(), freshness, deadline).await;
        let filter_leases = tolerate(&config, filter_leases, &mut freshness)?;
        let query = Query {
            filter: filter.as_deref(),
            sort: if request.count_only { &[] } else { &request.sort },
            after: cursor.as_ref().map(|cursor| &cursor.after),
            offset: if cursor.is_some() { 0 } else { request.offset },
            limit,
            total: cursor.as_ref().map(|cursor| cursor.total),
            leases: filter_leases.as_ref(),
            facets: &request.facets,
        };
        let (position, begun, leased) = self.shared.directory.read(|view| {
            let head = view.head();
            let at = cursor.as_ref().map_or(head, Cursor::position);
            check_position(at, head, view.floor()).map(|()| {
                // At earlier revisions there may have been leases where there are none now.
                let leased = view.leased() > 0 || at != head;
                (at, view.begin(at.revision, &query), leased)
            })
        })?;
        let (found, facets) = match begun {
            Begun::Done(found) => (found, Vec::new()),
            Begun::Large(candidates) => candidates.page(&query).await?,
        };
        let leases = if leased {
            self.page_leases(&found.rows, freshness, deadline).await
        } else {
            Ok(None)
        };
        let leases = tolerate(&config, leases, &mut freshness)?;
        let mut page = Page {
            rows: found.rows,
            leases,
            total: found.total,
            facets,
            next: None,
            position,
            age: (freshness == Freshness::Stale).then(|| self.shared.directory.age()),
            resume: Resume {
                config,
                secret: self.shared.directory.secret(),
                sort: request.sort,
                digest,
                now,
            },
        };
        if found.more && !request.count_only {
            page.go_on();
        }
        self.shared.metrics.enumerated(started.elapsed());
        Ok(page)
    }

    /// A cursor of a view means one revision, and one of a search does not: neither is taken for the other.
    fn digest(&self, request: &Enumerate) -> [u8; 16] {
        let query = query_digest(request.filter.as_ref(), &request.sort);
        match self.shared.directory.is_bare() {
            true => digest(&["search", &hex(&query)]),
            false => query,
        }
    }

    /// A page where no view is kept: every page is a search of its own, in the same order.
    async fn page_by_search(&self, asked: Asked, deadline: Instant) -> Result<Page, Error> {
        let Asked { request, cursor, .. } = &asked;
        let query = Query {
            // What is offered matches.
            filter: None,
            sort: if request.count_only { &[] } else { &request.sort },
            after: cursor.as_ref().map(|cursor| &cursor.after),
            offset: if cursor.is_some() { 0 } else { request.offset },
            limit: asked.limit,
            total: cursor.as_ref().map(|cursor| cursor.total),
            leases: None,
            facets: &request.facets,
        };
        let begin = || Gathered::new(&query);
        let offer = |page: &mut Gathered, row| Ok(page.offer(row, &query)?);
        let (filter, min_position) = (asked.filter.clone(), request.min_position);
        let (searched, page) = self.search(filter, min_position, deadline, begin, offer).await?;
        let (found, facets) = page.finish(&query);
        let mut page = Page {
            rows: found.rows,
            leases: None,
            total: found.total,
            facets,
            next: None,
            position: searched.position,
            age: None,
            resume: Resume {
                config: asked.config,
                secret: self.shared.directory.secret(),
                now: asked.filter.and_then(|filter| filter.now()),
                sort: asked.request.sort,
                digest: asked.digest,
            },
        };
        if found.more && !asked.request.count_only {
            page.go_on();
        }
        Ok(page)
    }

    /// Brings the view to where the call wants it.
    pub(super) async fn freshen(
        &self,
        config: &Config,
        consistency: ReadConsistency,
        min_position: Option<Position>,
        cursor: Option<&Cursor>,
        deadline: Instant,
    ) -> Result<Freshness, Error> {
        let directory = &self.shared.directory;
        directory.ready(deadline).await?;
        let wanted = cursor.map(Cursor::position).or(min_position);
        let reached = |head: Position| {
            wanted.is_none_or(|wanted| wanted.epoch == head.epoch && wanted.revision <= head.revision)
        };
        let stale = consistency == ReadConsistency::Stale;
        let mut lost = None;
        // A cursor names its revision, and nothing newer would change the answer.
        if !reached(directory.head()) || !(stale || cursor.is_some()) {
            lost = self.follow(config, deadline).await?;
        }
        let head = directory.head();
        match (wanted, lost) {
            (Some(wanted), _) if wanted.epoch != head.epoch => Err(Error::OtherEpoch { current: head.epoch }),
            // It may well have been written; the slot that would know does not answer.
            (Some(wanted), Some(error)) if wanted.revision > head.revision => Err(error.into()),
            // The slot itself has not come so far: it cannot by waiting a little.
            (Some(wanted), None) if wanted.revision > head.revision => Err(Error::argument(
                "min_position",
                format!(
                    "revision {} has not been written yet, the head is {head}",
                    wanted.revision.0
                ),
            )),
            (_, None) if !stale => Ok(Freshness::Current),
            _ => Ok(Freshness::Stale),
        }
    }

    /// Brings the view up to date; with the slot's failure where that may be stale.
    async fn follow(&self, config: &Config, deadline: Instant) -> Result<Option<SlotError>, Error> {
        let patience = patience(config, deadline);
        match self.shared.directory.make_current(patience).await {
            Ok(()) => Ok(None),
            Err(Unavailable::Store(error)) if may_be_stale(config, &error) => Ok(Some(error)),
            Err(unavailable) => Err(unavailable.into()),
        }
    }

    /// Opens the request's cursor. One of another epoch may be of one that the view has not noticed yet.
    async fn current_cursor(
        &self,
        config: &Config,
        request: &Enumerate,
        digest: [u8; 16],
        deadline: Instant,
    ) -> Result<Option<Cursor>, Error> {
        match self.open_cursor(config, request, digest) {
            Err(Error::OtherEpoch { .. }) => {
                self.follow(config, deadline).await?;
                self.open_cursor(config, request, digest)
            }
            opened => opened,
        }
    }

    fn open_cursor(
        &self,
        config: &Config,
        request: &Enumerate,
        digest: [u8; 16],
    ) -> Result<Option<Cursor>, Error> {
        let Some(text) = request.cursor.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let (epoch, secret) = self.shared.directory.secret();
        let seal = Seal {
            namespace: &config.namespace,
            epoch,
            secret,
        };
        let cursor = Cursor::open(text, &seal, digest).map_err(|error| match error {
            InvalidCursor::OtherEpoch => Error::OtherEpoch { current: epoch },
            error => Error::InvalidCursor(error.to_string()),
        })?;
        let at = cursor.position();
        match request.min_position {
            Some(wanted) if wanted.epoch != at.epoch => Err(Error::OtherEpoch { current: epoch }),
            Some(wanted) if wanted.revision > at.revision => {
                let message = format!("the cursor's pages are as of {at}, start again without it");
                Err(Error::argument("min_position", message))
            }
            _ => Ok(Some(cursor)),
        }
    }

    /// The leases that a filter on `$expires_at` compares with. Renewals do not pass through the
    /// change feed, so the slot is asked about every identity that has one; a stale answer compares
    /// with what was last written.
    pub(super) async fn filter_leases(
        &self,
        filter: Option<&Compiled>,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Option<Leases>, Error> {
        if freshness == Freshness::Stale || !filter.is_some_and(Compiled::uses_expires_at) {
            return Ok(None);
        }
        let directory = &self.shared.directory;
        if directory.read(|view| view.leased() == 0) {
            return Ok(None);
        }
        let mut leased: Vec<Identity> = Vec::new();
        let take = |rows: &[&Row]| {
            let rows = rows.iter().filter(|row| row.ttl.is_some());
            leased.extend(rows.map(|row| row.identity.clone()));
        };
        directory.take_matching(&Query::default(), take).await;
        self.leases(leased, deadline).await
    }

    /// The leases that a page shows.
    async fn page_leases(
        &self,
        rows: &Selection,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Option<Leases>, Error> {
        if freshness == Freshness::Stale {
            return Ok(None);
        }
        let leased = rows.iter().filter(|row| row.ttl.is_some());
        self.leases(leased.map(|row| row.identity.clone()).collect(), deadline)
            .await
    }

    pub(super) async fn leases(
        &self,
        leased: Vec<Identity>,
        deadline: Instant,
    ) -> Result<Option<Leases>, Error> {
        if leased.is_empty() {
            return Ok(None);
        }
        let call = Call {
            epoch: Some(self.epoch()),
            deadline: patience(&self.config(), deadline),
        };
        Ok(Some(leases_of(&*self.registry(), call, leased).await?))
    }
}

/// Whether a read may go on without the slot that failed like this.
fn may_be_stale(config: &Config, error: &SlotError) -> bool {
    let silent = matches!(error, SlotError::Unavailable { .. } | SlotError::Timeout { .. });
    silent && config.behavior.on_store_loss == StoreLoss::Stale
}

/// Goes on without what the slot did not tell, where that may be stale.
pub(super) fn tolerate<T>(
    config: &Config,
    told: Result<Option<T>, Error>,
    freshness: &mut Freshness,
) -> Result<Option<T>, Error> {
    match told {
        Err(Error::Slot(error)) if may_be_stale(config, &error) => {
            *freshness = Freshness::Stale;
            Ok(None)
        }
        told => told,
    }
}

/// How long to wait for the slot: whoever would take a stale answer needs time left to get it.
fn patience(config: &Config, deadline: Instant) -> Instant {
    match config.behavior.on_store_loss {
        StoreLoss::Fail => deadline,
        StoreLoss::Stale => {
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / 2
        }
    }
}

/// Compiles a filter within the namespace's limits for as long as it is used: what it says must not depend
/// on the moment of a call.
pub(super) fn compile(config: &Config, filter: Option<&Filter>) -> Result<Option<Arc<Compiled>>, Error> {
    let Some(filter) = filter else { return Ok(None) };
    Ok(Some(Arc::new(filter.compile(&config.limits())?)))
}

/// Compiles a filter within the namespace's limits, for a call at `now`.
pub(super) fn compile_at(
    config: &Config,
    filter: Option<&Filter>,
    now: Timestamp,
) -> Result<Option<Arc<Compiled>>, Error> {
    let Some(filter) = filter else { return Ok(None) };
    Ok(Some(Arc::new(filter.compile_at(now.0, &config.limits())?)))
}

/// The moment of the first page: what is relative to it must not move from page to page.
fn moment_of(cursor: &Cursor) -> Result<Timestamp, Error> {
    let unknown = "the cursor does not say which moment `now` is, start again without it";
    cursor
        .now
        .map(Timestamp)
        .ok_or_else(|| Error::InvalidCursor(unknown.to_owned()))
}

fn check(request: &Enumerate) -> Result<usize, Error> {
    let bounds = [
        (
            "pagination.limit",
            "a page holds at most",
            request.limit,
            MAX_LIMIT,
        ),
        (
            "pagination.offset",
            "the matches to skip, instead of which the cursor goes on, are at most",
            request.offset,
            MAX_OFFSET,
        ),
        (
            "facets",
            "the fields whose values are counted are at most",
            request.facets.len(),
            MAX_FACETS,
        ),
        (
            "sort_by",
            "the keys to sort by are at most",
            request.sort.len(),
            MAX_SORT_KEYS,
        ),
    ];
    for (field, most, asked, limit) in bounds {
        if asked > limit {
            return Err(Error::over_limit(
                field,
                format!("{most} {limit}, not {asked}"),
                limit,
            ));
        }
    }
    if request.cursor.as_deref().is_some_and(|cursor| !cursor.is_empty()) {
        for (field, asked) in [
            ("count_only", request.count_only),
            ("facets", !request.facets.is_empty()),
        ] {
            if asked {
                let message = "what is counted comes with the first page, leave the cursor out";
                return Err(Error::argument(field, message));
            }
        }
    }
    let moving = |key: &SortKey| key.path.system() == Some(SystemField::ExpiresAt);
    if request.sort.iter().any(moving) {
        let message = "`$expires_at` moves without a write and cannot be sorted by";
        return Err(Error::argument("sort_by", message));
    }
    Ok(match request.limit {
        _ if request.count_only => 0,
        0 => DEFAULT_LIMIT,
        limit => limit,
    })
}

pub(super) fn query_digest(filter: Option<&Filter>, sort: &[SortKey]) -> [u8; 16] {
    let mut parts = vec![filter.map(Filter::to_string).unwrap_or_default()];
    parts.extend(sort.iter().map(|key| format!("{} {}", key.path, key.descending)));
    digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
