//! Builds a view from nothing: a scan, the changes since it began, and those before.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use prism_slot::{Call, Change, DynRegistryStore, Epoch, Error, Identity, Position, Record, Revision, Scan};
use tokio::time::Instant;

use super::{
    follow::{BACKGROUND_TIMEOUT, SYNC_LIMIT, check_dense, stored_document},
    past::Past,
    rows::Row,
    view::{Settings, View},
};

/// How many records one page of a scan brings.
pub(super) const SCAN_LIMIT: usize = 1_000;
/// For how long a scan asks the slot to keep the changes that it will need afterwards.
const SCAN_HOLD: Duration = Duration::from_secs(30);
/// Of how many changes before its beginning a view learns.
const PAST: u64 = 10_000;

/// How many point reads are under way at a time.
const READS: usize = 64;

/// Where a history stands, for those who keep nothing of it.
pub(super) struct Start {
    pub(super) head: Position,
    pub(super) secret: [u8; 16],
    /// The registrations of some identities as of the head, or later.
    pub(super) registered: HashMap<Identity, Option<Position>>,
}

impl Start {
    /// Reads it; `of_interest` is asked once the head is known.
    pub(super) async fn read(
        store: &dyn DynRegistryStore,
        of_interest: impl FnOnce() -> Vec<Identity>,
    ) -> Result<Self, Error> {
        let scan = Scan {
            cursor: None,
            limit: 1,
            hold: Duration::ZERO,
        };
        let page = store.scan(background(None), scan).await?;
        let call = || background(Some(page.head.epoch));
        let reads = of_interest().into_iter().map(|identity| async move {
            let read = store.get(call(), identity.clone()).await?;
            Ok::<_, Error>((identity, read.record.map(|record| record.generation)))
        });
        Ok(Self {
            head: page.head,
            secret: page.secret,
            registered: stream::iter(reads).buffer_unordered(READS).try_collect().await?,
        })
    }
}

/// A store's records, read page by page while it is being written to.
pub(super) struct Scanned {
    pub(super) head: Position,
    pub(super) secret: [u8; 16],
    /// Made while the pages come in: the records themselves would take as much again.
    rows: HashMap<Identity, Row>,
    backend: &'static str,
}

fn background(epoch: Option<Epoch>) -> Call {
    Call {
        epoch,
        deadline: Instant::now() + BACKGROUND_TIMEOUT,
    }
}

impl Scanned {
    pub(super) async fn begin(store: &dyn DynRegistryStore) -> Result<Self, Error> {
        let page = |epoch, cursor| {
            let scan = Scan {
                cursor,
                limit: SCAN_LIMIT,
                hold: SCAN_HOLD,
            };
            store.scan(background(epoch), scan)
        };
        let first = page(None, None).await?;
        let mut scanned = Self {
            head: first.head,
            secret: first.secret,
            rows: HashMap::new(),
            backend: store.capability().backend,
        };
        let (mut records, mut next) = (first.records, first.next);
        loop {
            for record in records {
                scanned.insert(&record)?;
            }
            let Some(cursor) = next else { return Ok(scanned) };
            let page = page(Some(scanned.head.epoch), Some(cursor)).await?;
            (records, next) = (page.records, page.next);
        }
    }

    /// Applies what was written since the scan began, where a page did not already show it.
    pub(super) async fn catch_up(&mut self, store: &dyn DynRegistryStore) -> Result<(), Error> {
        loop {
            let call = background(Some(self.head.epoch));
            let sync = store.sync(call, self.head.revision, SYNC_LIMIT).await?;
            check_dense(self.head.revision, &sync.changes)?;
            for change in sync.changes {
                self.head.revision = change.revision;
                self.apply(&change)?;
            }
            if !sync.more {
                return Ok(());
            }
        }
    }

    /// The changes up to the head, as far as they are kept and are of use.
    pub(super) async fn past(
        &self,
        store: &dyn DynRegistryStore,
        most_bytes: usize,
    ) -> Result<Vec<Change>, Error> {
        let head = self.head.revision;
        let (mut from, mut past) = (Revision(head.0.saturating_sub(PAST)), Vec::new());
        while from < head {
            let call = background(Some(self.head.epoch));
            let sync = match store.sync(call, from, SYNC_LIMIT).await {
                Err(Error::Compacted { up_to }) if up_to > from => {
                    (from, past) = (up_to, Vec::new());
                    continue;
                }
                other => other?,
            };
            check_dense(from, &sync.changes)?;
            let Some(last) = sync.changes.last() else { break };
            from = last.revision;
            past.extend(sync.changes.into_iter().filter(|change| change.revision <= head));
        }
        let mut left = most_bytes;
        let size = |record: &Record| record.metadata.len() + size_of::<Record>();
        let fits = past.iter().rev().take_while(|change| {
            let before = change.before.as_deref().map_or(0, size);
            let fits = size(&change.record) + before <= left;
            left = left.saturating_sub(size(&change.record) + before);
            fits
        });
        let fits = fits.count();
        Ok(past.split_off(past.len() - fits))
    }

    fn apply(&mut self, change: &Change) -> Result<(), Error> {
        let known = self.rows.get(&change.record.identity);
        if known.is_some_and(|row| change.revision < row.revision()) {
            return Ok(());
        }
        if change.cause.removes() {
            self.rows.remove(&change.record.identity);
            return Ok(());
        }
        self.insert(&change.record)
    }

    fn insert(&mut self, record: &Record) -> Result<(), Error> {
        let row = Row::new(record, stored_document(record, self.backend)?);
        self.rows.insert(record.identity.clone(), row);
        Ok(())
    }

    /// Seconds of work for a million records.
    pub(super) fn into_view(self, settings: &Settings, past: Vec<Change>) -> Result<View, Error> {
        let document = |record: &Record| stored_document(record, self.backend);
        let past = past.into_iter().map(|change| {
            Ok(Past {
                document: document(&change.record)?,
                before: change.before.as_deref().map(document).transpose()?,
                change,
            })
        });
        let past = past.collect::<Result<Vec<_>, Error>>()?;
        let mut view = View::new(self.head, settings, self.rows.into_values().collect());
        view.remember(past, std::time::Instant::now());
        Ok(view)
    }
}
