//! The ledger: small entries that runners share about multicasts under way and done.
//!
//! It knows nothing of multicasts. Whoever keeps the books reads an entry, changes it and writes it back, and is
//! told when somebody else was first; so several runners keep one book without a lock.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::{Applied, Error, LedgerCapability, Result, Scope};

/// An entry as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Another one after every write. Greater than 0.
    pub version: u64,
    /// What was written.
    pub body: Bytes,
}

/// What must hold for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// There is no such entry, or its time is over.
    Absent,
    /// It has this version.
    Version(u64),
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which: 1 to 128 of the characters `a-z A-Z 0-9 - _ /`.
    pub key: String,
    /// What must hold.
    pub expect: Expect,
    /// What it is to be from now on; `None`: gone.
    pub body: Option<Bytes>,
    /// After how long it is gone by itself.
    pub ttl: Duration,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrote {
    /// It is done; the version of the entry now, 0 where it is gone.
    Done(u64),
    /// What was expected does not hold, nothing was changed; the entry that is there.
    Conflict(Option<Entry>),
}

/// A part of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// In the order of their bytes.
    pub keys: Vec<String>,
    /// Whether there are more after these.
    pub more: bool,
}

/// A ledger opened for one namespace. Those of different namespaces are apart (`namespaces_have_their_own_ledger`).
///
/// Where the capability's scope is shared, all openings of a namespace see one ledger, and where it says that
/// entries outlive the runner, they do (`entries_outlive_the_opening`).
///
/// While the backend does not answer, calls end by their deadline with an error (`calls_end_in_the_dark`)
/// (`calls_end_while_the_backend_stands_still`); whether a write was done is told by reading
/// (`what_lost_answers_said_is_read`), each of a batch for itself (`a_batch_that_is_cut_is_told_one_by_one`). The ledger
/// goes on by itself when the backend does. What was acknowledged is there as far as the capability says, however the
/// backend ended (`acknowledged_entries_outlive_a_restart`) (`acknowledged_entries_outlive_kills`). Not even a backend that
/// has lost everything gives a version again (`lost_versions_are_not_given_again`). Without room what needs it is refused
/// and nothing else (`a_full_disk_refuses_and_loses_nothing`).
///
/// A name in parentheses is the conformance case that proves the sentence before it.
pub trait Ledger: Send + std::marker::Sync + 'static {
    /// What this ledger can do. Constant over its life.
    fn capability(&self) -> &LedgerCapability;

    /// Reads entries, in the order of the keys; `None` for one that is not there, or whose time is over. Each is the
    /// last write that was acknowledged before the call, or a later one (`entries_are_read_as_last_written`).
    fn read(
        &self,
        keys: Vec<String>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Option<Entry>>>> + Send;

    /// Writes entries; outcomes in the order of the writes. Each is one atomic step, in no order among each other.
    ///
    /// - A write whose expectation does not hold changes nothing and says what is there
    ///   (`writes_keep_to_what_they_expect`). Of many that expect the same, one is done (`one_of_many_writes_is_done`).
    /// - An entry is gone after its ttl, counted from its last write (`entries_end_by_themselves`).
    /// - A call that comes too late writes nothing (`late_writes_write_nothing`).
    ///
    /// # Errors
    /// Of one write: not done where [`Error::applied`] says so, else unknown; reading the entry tells.
    fn write(&self, writes: Vec<Write>, deadline: Instant)
    -> impl Future<Output = Vec<Result<Wrote>>> + Send;

    /// Lists the keys that begin with `prefix`, after the key `after`, at most `limit` (`keys_are_listed_in_pages`).
    /// For rare use: it may cost as much as all entries of the ledger.
    fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> impl Future<Output = Result<Listed>> + Send;

    /// Says that these entries are no longer needed once `after` is over: a ledger with a bound of its own gives them up
    /// then where others need the room, the first first, also when they are written once more. It gives up no others, and
    /// refuses a write that finds no room. Until then they are as before (`entries_let_go_are_there_where_there_is_room`).
    fn let_go(&self, keys: Vec<String>, after: Duration) {
        let _ = (keys, after);
    }

    /// Releases connections and files. Other calls fail with [`Error::Unavailable`] afterwards
    /// (`a_closed_ledger_refuses`).
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The object-safe twin of [`Ledger`], implemented for every one of them, and the place where its capability is
/// enforced: a body over the ledger's size is not written (`bodies_over_the_limit_are_not_written`), and every call to
/// something outside this process ends at its deadline.
pub trait DynLedger: Send + std::marker::Sync + 'static {
    /// See [`Ledger::capability`].
    fn capability(&self) -> &LedgerCapability;
    /// See [`Ledger::read`].
    fn read(&self, keys: Vec<String>, deadline: Instant) -> BoxFuture<'_, Result<Vec<Option<Entry>>>>;
    /// See [`Ledger::write`].
    fn write(&self, writes: Vec<Write>, deadline: Instant) -> BoxFuture<'_, Vec<Result<Wrote>>>;
    /// See [`Ledger::list`].
    fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listed>>;
    /// See [`Ledger::let_go`].
    fn let_go(&self, keys: Vec<String>, after: Duration);
    /// See [`Ledger::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<L: Ledger> DynLedger for L {
    fn capability(&self) -> &LedgerCapability {
        Ledger::capability(self)
    }

    fn read(&self, keys: Vec<String>, deadline: Instant) -> BoxFuture<'_, Result<Vec<Option<Entry>>>> {
        Box::pin(bounded(self, deadline, Ledger::read(self, keys, deadline)))
    }

    fn write(&self, writes: Vec<Write>, deadline: Instant) -> BoxFuture<'_, Vec<Result<Wrote>>> {
        let &LedgerCapability {
            backend, max_body, ..
        } = Ledger::capability(self);
        let refused = |applied_too_late: bool| {
            if applied_too_late {
                return Error::Timeout {
                    backend,
                    applied: Applied::No,
                };
            }
            Error::Unsupported {
                backend,
                what: "take entries of that size",
            }
        };
        let late = Instant::now() >= deadline;
        let large = |write: &Write| write.body.as_ref().is_some_and(|body| body.len() > max_body);
        if late || writes.iter().any(large) {
            // All or none are sent, so that a caller who ignores one outcome is not surprised by another.
            let outcomes = vec![Err(refused(late)); writes.len()];
            return Box::pin(std::future::ready(outcomes));
        }
        let (scope, count) = (Ledger::capability(self).scope, writes.len());
        let write = Ledger::write(self, writes, deadline);
        if scope == Scope::Process {
            return Box::pin(write);
        }
        let late = Error::Timeout {
            backend,
            applied: Applied::Unknown,
        };
        Box::pin(async move {
            let written = timeout_at(deadline, write).await;
            written.unwrap_or_else(|_| vec![Err(late); count])
        })
    }

    fn list(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Listed>> {
        let list = Ledger::list(self, prefix, after, limit, deadline);
        Box::pin(bounded(self, deadline, list))
    }

    fn let_go(&self, keys: Vec<String>, after: Duration) {
        Ledger::let_go(self, keys, after);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Ledger::close(self))
    }
}

/// Ends a call at its deadline. A ledger inside this process never waits, so it is not timed.
async fn bounded<T>(
    ledger: &impl Ledger,
    deadline: Instant,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let capability = ledger.capability();
    if capability.scope == Scope::Process {
        return call.await;
    }
    let late = Error::Timeout {
        backend: capability.backend,
        applied: Applied::No,
    };
    timeout_at(deadline, call).await.unwrap_or(Err(late))
}
