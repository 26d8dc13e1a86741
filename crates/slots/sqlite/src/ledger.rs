//! The ledger: entries in a table, the last write of each.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{
    Entry, Expect, Ledger, LedgerCapability, Listed, Result, Scope, Timestamp, Write, Wrote,
    capability::Survives,
    memory::{Clock, WallClock},
};
use rusqlite::OptionalExtension;
use tokio::time::Instant;

use crate::{
    call::Load,
    config::InboxConfig,
    error::{BACKEND, Fault},
    opening::Opening,
    step::{Step, count},
};

/// How many entries that are over go with one write, so that they go faster than they come.
const TIDY: i64 = 4;
/// How many bytes a write brings beside its body, about.
const OVERHEAD: usize = 192;

/// The ledger of one namespace in a file.
pub struct SqliteLedger {
    opening: Opening,
    clock: Arc<dyn Clock>,
}

impl SqliteLedger {
    /// What every one of them can do.
    pub const CAPABILITY: LedgerCapability = LedgerCapability {
        backend: BACKEND,
        scope: Scope::Host,
        survives: Survives::BackendRestart,
        max_body: 64 << 20,
    };

    /// Opens the file, which is made where there is none, and makes the namespace ready.
    ///
    /// # Errors
    /// As [`SqliteRegistry::open`](crate::SqliteRegistry::open).
    pub async fn open(namespace: &str, config: InboxConfig) -> Result<Self> {
        Self::open_with_clock(namespace, config, WallClock).await
    }

    /// As [`SqliteLedger::open`], on a clock of the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with_clock(namespace: &str, config: InboxConfig, clock: impl Clock) -> Result<Self> {
        Ok(Self {
            opening: Opening::new(namespace, &config).await?,
            clock: Arc::new(clock),
        })
    }
}

impl Ledger for SqliteLedger {
    fn capability(&self) -> &LedgerCapability {
        &Self::CAPABILITY
    }

    async fn read(&self, keys: Vec<String>, deadline: Instant) -> Result<Vec<Option<Entry>>> {
        let (clock, size) = (self.clock.clone(), keys.len() * OVERHEAD);
        let work = move |step: &mut Step<'_>, ns| {
            let book = Book::new(step, ns, clock.now());
            keys.iter().map(|key| book.find(key)).collect()
        };
        self.opening.call(deadline, Load::of(size), work).await
    }

    async fn write(&self, writes: Vec<Write>, deadline: Instant) -> Vec<Result<Wrote>> {
        let (clock, count) = (self.clock.clone(), writes.len());
        let grows = writes.iter().any(|write| write.body.is_some());
        let bytes: usize = writes
            .iter()
            .filter_map(|write| write.body.as_ref())
            .map(Bytes::len)
            .sum();
        let work = move |step: &mut Step<'_>, ns| {
            let mut book = Book::new(step, ns, clock.now());
            writes
                .iter()
                .map(|write| book.write(write))
                .collect::<Result<Vec<_>, Fault>>()
        };
        let size = bytes + count * OVERHEAD;
        let load = Load { size, grows };
        match self.opening.call(deadline, load, work).await {
            Ok(wrote) => wrote.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    async fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Listed> {
        let clock = self.clock.clone();
        let work = move |step: &mut Step<'_>, ns| {
            Book::new(step, ns, clock.now()).list(&prefix, after.as_deref(), limit)
        };
        self.opening.call(deadline, Load::of(OVERHEAD), work).await
    }

    async fn close(&self) {
        self.opening.close().await;
    }
}

/// A step on the ledger of one namespace, at one moment.
struct Book<'s, 'a> {
    step: &'s mut Step<'a>,
    ns: i64,
    now: Timestamp,
}

impl<'s, 'a> Book<'s, 'a> {
    fn new(step: &'s mut Step<'a>, ns: i64, now: Timestamp) -> Self {
        Self { step, ns, now }
    }

    /// The entry of a key, if its time is not over.
    fn find(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let find = "SELECT version, body FROM ledgers WHERE ns = ?1 AND key = ?2 AND ends_at > ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Entry {
                version: row.get::<_, i64>(0)?.cast_unsigned(),
                body: row.get::<_, Vec<u8>>(1)?.into(),
            })
        };
        Ok(find.query_row((self.ns, key, self.now.0), read).optional()?)
    }

    fn version(&self, key: &str) -> Result<Option<u64>, Fault> {
        let find = "SELECT version FROM ledgers WHERE ns = ?1 AND key = ?2 AND ends_at > ?3";
        let mut find = self.step.conn.prepare_cached(find)?;
        let found: Option<i64> = find
            .query_row((self.ns, key, self.now.0), |row| row.get(0))
            .optional()?;
        Ok(found.map(i64::cast_unsigned))
    }

    fn write(&mut self, write: &Write) -> Result<Wrote, Fault> {
        self.tidy()?;
        let holds = match write.expect {
            Expect::Anything => true,
            Expect::Absent => self.version(&write.key)?.is_none(),
            Expect::Version(version) => self.version(&write.key)? == Some(version),
        };
        if !holds {
            return Ok(Wrote::Conflict(self.find(&write.key)?));
        }
        let conn = self.step.conn;
        let Some(body) = &write.body else {
            let remove = "DELETE FROM ledgers WHERE ns = ?1 AND key = ?2";
            conn.prepare_cached(remove)?.execute((self.ns, &write.key))?;
            return Ok(Wrote::Done(0));
        };
        let version = self.step.next()?;
        let ttl = i64::try_from(write.ttl.as_millis()).unwrap_or(i64::MAX);
        let ends_at = self.now.0.saturating_add(ttl);
        let put = "INSERT INTO ledgers (ns, key, version, ends_at, body) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT (ns, key) DO UPDATE
            SET version = excluded.version, ends_at = excluded.ends_at, body = excluded.body";
        let row = (self.ns, &write.key, version, ends_at, &body[..]);
        conn.prepare_cached(put)?.execute(row)?;
        Ok(Wrote::Done(version.cast_unsigned()))
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Listed, Fault> {
        let find = "SELECT key FROM ledgers
            WHERE ns = ?1 AND key >= ?2 AND key > ?3 AND substr(key, 1, length(?2)) = ?2 AND ends_at > ?4
            ORDER BY key LIMIT ?5";
        let mut find = self.step.conn.prepare_cached(find)?;
        let most = count(limit.saturating_add(1));
        let rows = find.query_map((self.ns, prefix, after.unwrap_or(""), self.now.0, most), |row| {
            row.get(0)
        })?;
        let mut keys = rows.collect::<rusqlite::Result<Vec<String>>>()?;
        let more = keys.len() > limit;
        keys.truncate(limit);
        Ok(Listed { keys, more })
    }

    fn tidy(&self) -> Result<(), Fault> {
        let tidy = "DELETE FROM ledgers WHERE ns = ?1 AND key IN
            (SELECT key FROM ledgers WHERE ns = ?1 AND ends_at <= ?2 ORDER BY ends_at LIMIT ?3)";
        self.step
            .conn
            .prepare_cached(tidy)?
            .execute((self.ns, self.now.0, TIDY))?;
        Ok(())
    }
}
