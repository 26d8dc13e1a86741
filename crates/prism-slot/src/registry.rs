//! The registry slot: where the records of a namespace live, and their history.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::{
    Applied, Change, Epoch, Error, Identity, Owner, Position, Query, QueryPage, Record, RegistryCapability,
    RequestId, Result, Revision, Scope, Timestamp, Ttl,
};

/// How long after its deadline a wait for changes may still end, which is told by the backend if it can be.
const GRACE: Duration = Duration::from_millis(50);

/// What every call carries.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The epoch that the caller works in. The slot refuses with [`Error::EpochChanged`], changing
    /// nothing, when it is in another one. `None` on first contact.
    pub epoch: Option<Epoch>,
    /// When the answer is of no more use. A write that has not been sent by then is never sent.
    pub deadline: Instant,
}

/// What a registration does when the identity is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse, unless the same session holds it.
    Create,
    /// Take it over, unless the same session holds it.
    Replace,
}

/// A request to register.
#[derive(Debug, Clone)]
pub struct Register {
    /// The identity.
    pub identity: Identity,
    /// Its metadata, opaque here.
    pub metadata: Bytes,
    /// The lease.
    pub ttl: Option<Ttl>,
    /// What to do when it is taken.
    pub mode: Mode,
    /// Who asks.
    pub owner: Owner,
    /// How many live identities the namespace may hold.
    pub max_identities: u64,
    /// Names this attempt; see [`RequestId`].
    pub request: RequestId,
}

/// What a registration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was none.
    Registered,
    /// There was another one; this is a new generation.
    Replaced,
    /// The same session with other metadata; the generation stays.
    Updated,
    /// The same session with the same metadata: only the lease moved, and no revision was used.
    Renewed,
}

/// A successful registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// What it did.
    pub written: Written,
    /// When this generation was registered.
    pub registered_at: Timestamp,
    /// When the lease ends.
    pub expires_at: Option<Timestamp>,
    /// The position of the registering write.
    pub generation: Position,
    /// The position of this write; of a renewal, that of the record's last write.
    pub position: Position,
}

/// A request to replace the metadata of a registration.
#[derive(Debug, Clone)]
pub struct Put {
    /// The identity.
    pub identity: Identity,
    /// Its new metadata.
    pub metadata: Bytes,
    /// Refuse with [`Error::Conflict`] unless the record's last write has this revision.
    pub if_revision: Revision,
    /// Refuse with [`Error::StaleGeneration`] unless this is the registration.
    pub generation: Option<Position>,
    /// Names this attempt; see [`RequestId`].
    pub request: RequestId,
}

/// A request to extend one lease.
#[derive(Debug, Clone)]
pub struct Renew {
    /// The identity.
    pub identity: Identity,
    /// Refuse with [`Error::StaleGeneration`] unless this is the registration.
    pub generation: Option<Position>,
}

/// An extended lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// Its length; `None` for a registration without a lease, for which renewal does nothing.
    pub ttl: Option<Ttl>,
    /// When it ends now.
    pub expires_at: Option<Timestamp>,
}

/// A request to remove a registration.
#[derive(Debug, Clone)]
pub struct Unregister {
    /// The identity.
    pub identity: Identity,
    /// Refuse with [`Error::StaleGeneration`] unless this is the registration.
    pub generation: Option<Position>,
}

/// The effect of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unregistered {
    /// Whether there was a live registration.
    pub existed: bool,
    /// The position of the removal, or the head when there was nothing to remove.
    pub position: Position,
}

/// The answer to a point read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The live record, if there is one, with its lease as it is now.
    pub record: Option<Arc<Record>>,
    /// The head at the time of the read.
    pub head: Position,
}

/// A run of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// The last revision at the time of the call.
    pub head: Position,
    /// The changes after the asked revision, dense and in order.
    pub changes: Vec<Change>,
    /// Whether anything remained: changes past the limit, or leases that are due and not yet expired.
    /// Call again until it is false to be exact as of the call.
    pub more: bool,
}

/// A request for a page of all records.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Where to continue: [`ScanPage::next`] of the page before, `None` to begin.
    pub cursor: Option<Bytes>,
    /// How many records to return, roughly.
    pub limit: usize,
    /// For how long from now the feed should keep the changes after the scan's beginning. The slot
    /// may cap it.
    pub hold: Duration,
}

/// A page of all records.
///
/// A record that is present during the whole scan is returned at least once; one that is written
/// meanwhile may be returned in any of its states, or twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The records, live or due.
    pub records: Vec<Arc<Record>>,
    /// Where to continue; `None` at the end.
    pub next: Option<Bytes>,
    /// The head at the time of this page.
    pub head: Position,
    /// Drawn at random with the epoch and the same for every opening of the namespace. It
    /// authenticates cursors across runners and is never shown to a client.
    pub secret: [u8; 16],
}

/// A session's claim to be the live one of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Larger than that of every claim before in this epoch.
    pub session_seq: u64,
    /// The registration that it belongs to.
    pub generation: Position,
}

/// A registry slot opened for one namespace.
///
/// Every method is one atomic step as seen by every other one, for each item of a batch
/// (`concurrent_puts_are_steps`). In each step the slot first advances the namespace's lease clock
/// ([`crate::lease`]), which gives leases another length after an interruption
/// (`leases_survive_an_interruption`), and treats a record whose lease is due as absent, giving it an
/// `Expired` change at a revision of its own.
///
/// A call that comes after its deadline changes nothing, unless the slot is within this process and never
/// waits (`late_calls_change_nothing`).
///
/// Where the capability's scope is more than this process, every opening within it sees one history
/// (`openings_share_one_history`), and those of other namespaces another one
/// (`namespaces_have_their_own_history`); where it says that writes outlive the runner, they do
/// (`records_outlive_the_runner`).
///
/// While the backend does not answer, calls end by their deadline with [`Error::Timeout`] or [`Error::Unavailable`]
/// (`calls_end_in_the_dark`) (`calls_end_while_the_backend_stands_still`), and where [`Error::applied`] says
/// [`Applied::No`] nothing was done. Of the rest a repetition finds out: under the same [`RequestId`] a write is done
/// once and gets its first answer (`lost_answers_are_given_again`), each of a batch for itself
/// (`a_batch_that_is_cut_is_told_one_by_one`). The slot goes on by itself when the backend does, and so does the feed,
/// or it says that it cannot (`a_feed_goes_on_or_says_that_it_cannot`). What was acknowledged is there as far as the
/// capability says, however the backend ended (`acknowledged_records_outlive_a_restart`)
/// (`acknowledged_records_outlive_kills`); where it is not, another epoch begins (`a_lost_history_is_another_epoch`).
/// Without room what needs it is refused and nothing else (`a_full_disk_refuses_and_loses_nothing`).
///
/// A name in parentheses is the conformance case that proves the sentence before it.
///
/// Dropping a returned future abandons the answer. A write may still be applied.
pub trait RegistryStore: Send + std::marker::Sync + 'static {
    /// What this slot can do. Constant over its life.
    fn capability(&self) -> &RegistryCapability;

    /// Registers a batch; results in the order of the requests (`register_answers_in_order`).
    ///
    /// - A new registration has the revision after the last one, and its generation is its position
    ///   (`register_assigns_dense_revisions`).
    /// - `Mode::Create` is refused with [`Error::AlreadyExists`] while another session, or none,
    ///   holds the identity (`register_create_refuses_existing`).
    /// - `Mode::Replace` makes a new generation (`register_replace_makes_a_new_generation`).
    /// - The session that holds the identity renews with the same metadata and updates with other
    ///   metadata, in either mode, keeping the generation
    ///   (`register_same_session_renews_or_updates`).
    /// - A registration with a due record in its way succeeds, after the record's expiry
    ///   (`register_over_a_due_record_expires_it_first`).
    /// - No more than `max_identities` are ever live, and due ones do not count
    ///   (`register_quota_is_exact`) (`register_quota_ignores_the_due`).
    /// - A replay of the last write's [`RequestId`] returns the first result and changes nothing
    ///   (`register_replay_returns_the_first_result`).
    fn register(
        &self,
        call: Call,
        batch: Vec<Register>,
    ) -> impl Future<Output = Vec<Result<Registered>>> + Send;

    /// Replaces the metadata of a registration; its lease, generation and `registered_at` stay.
    ///
    /// - Refused unless `if_revision` and `generation` hold (`put_checks_revision_and_generation`).
    /// - Refused with [`Error::NotFound`] when absent or due (`put_never_creates`).
    /// - A replay of the last write's [`RequestId`] returns the first result
    ///   (`put_replay_returns_the_first_result`).
    fn put(&self, call: Call, put: Put) -> impl Future<Output = Result<Arc<Record>>> + Send;

    /// Extends leases by their own length from now; results in the order of the requests
    /// (`renew_answers_in_order`).
    ///
    /// - Never creates: an absent or due identity is [`Error::NotFound`] (`renew_never_creates`).
    /// - Uses no revision and changes nothing but the lease (`renew_moves_only_the_lease`).
    /// - Nobody who waits for a change is told (`renew_wakes_nobody`).
    /// - Refused under another generation (`renew_is_fenced`).
    fn renew(&self, call: Call, batch: Vec<Renew>) -> impl Future<Output = Vec<Result<Renewed>>> + Send;

    /// Removes a registration.
    ///
    /// - Succeeds with `existed: false` when absent or due (`unregister_is_idempotent`).
    /// - Refused under another generation (`unregister_is_fenced`).
    fn unregister(
        &self,
        call: Call,
        request: Unregister,
    ) -> impl Future<Output = Result<Unregistered>> + Send;

    /// Reads one record, exactly as of the call (`get_reads_the_last_write`) (`get_never_serves_the_due`).
    fn get(&self, call: Call, identity: Identity) -> impl Future<Output = Result<Read>> + Send;

    /// When the leases of these identities end, as of the call; `None` for one that is absent or has
    /// no lease (`leases_follow_renewals`).
    fn leases(
        &self,
        call: Call,
        identities: Vec<Identity>,
    ) -> impl Future<Output = Result<Vec<Option<Timestamp>>>> + Send;

    /// The changes after `from`, at most `limit`, after expiring what is due.
    ///
    /// - Dense, in order, each with its cause and after-image (`sync_returns_dense_history`).
    /// - No more than `limit`, and [`Sync::more`] says whether anything was left (`sync_is_bounded`).
    /// - Includes the expiry of every lease that is due (`sync_expires_what_is_due`).
    /// - [`Error::Compacted`] when the feed does not reach back to `from` (`sync_says_compacted`).
    /// - [`Error::EpochChanged`] under another epoch (`calls_refuse_another_epoch`).
    fn sync(&self, call: Call, from: Revision, limit: usize) -> impl Future<Output = Result<Sync>> + Send;

    /// Waits until something was written after `from`, or until the call's deadline; may also return
    /// early. Nothing relies on it but how soon a view learns of changes: a slot that cannot tell waits.
    ///
    /// - Ends soon after the write (`changes_are_told`).
    fn changed(&self, call: Call, from: Revision) -> impl Future<Output = Result<()>> + Send;

    /// Whether this is where the slot stands, with nothing written after it and no lease due, as far as that is known
    /// without asking anybody: a slot of one process knows, and of any other `false` says nothing.
    ///
    /// - Never of a position after which something was acknowledged or is due (`is_head_is_known_and_never_wrong`).
    fn is_head(&self, position: Position) -> bool {
        let _ = position;
        false
    }

    /// Pages through all records, for a view that starts from nothing (`scan_finds_everything`).
    fn scan(&self, call: Call, scan: Scan) -> impl Future<Output = Result<ScanPage>> + Send;

    /// Pages through the live records that may match a filter. Optional: a capability that does not declare it
    /// has it refused before the slot is asked (`query_needs_the_capability`).
    ///
    /// - Returns every live record that matches, as of its page (`query_finds_every_match`)
    ///   (`query_reads_the_last_write`). It may return others, which is decided by the caller; where it
    ///   returned everything it would be of no use (`query_passes_others_over`).
    /// - Never a record whose lease is due (`query_never_serves_the_due`).
    /// - Looks at no more records than asked for, roughly, and pages go on to the end
    ///   (`query_is_bounded`).
    /// - [`Error::EpochChanged`] under another epoch, also in the middle (`query_stays_in_its_epoch`).
    fn query(&self, call: Call, query: Query) -> impl Future<Output = Result<QueryPage>> + Send {
        let _ = (call, query);
        let backend = self.capability().backend;
        std::future::ready(Err(unable_to_query(backend)))
    }

    /// Makes a session the live one of its identity.
    ///
    /// - Later claims have larger numbers (`claims_are_ordered`).
    /// - [`Error::NotFound`] when absent or due, [`Error::StaleGeneration`] under another generation
    ///   (`claims_need_the_registration`).
    fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> impl Future<Output = Result<Claim>> + Send;

    /// Whether the backend answers, by the cheapest round trip that proves it
    /// (`a_slot_answers_until_it_is_closed`).
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<()>> + Send;

    /// Releases connections. Calls after it fail with [`Error::Unavailable`]
    /// (`a_slot_answers_until_it_is_closed`).
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The object-safe twin of [`RegistryStore`], implemented for every one of them.
///
/// It is also where a capability is enforced: batches are split to the slot's size and every call to
/// something outside this process ends at its deadline.
pub trait DynRegistryStore: Send + std::marker::Sync + 'static {
    /// See [`RegistryStore::capability`].
    fn capability(&self) -> &RegistryCapability;
    /// See [`RegistryStore::register`].
    fn register(&self, call: Call, batch: Vec<Register>) -> BoxFuture<'_, Vec<Result<Registered>>>;
    /// See [`RegistryStore::put`].
    fn put(&self, call: Call, put: Put) -> BoxFuture<'_, Result<Arc<Record>>>;
    /// See [`RegistryStore::renew`].
    fn renew(&self, call: Call, batch: Vec<Renew>) -> BoxFuture<'_, Vec<Result<Renewed>>>;
    /// See [`RegistryStore::unregister`].
    fn unregister(&self, call: Call, request: Unregister) -> BoxFuture<'_, Result<Unregistered>>;
    /// See [`RegistryStore::get`].
    fn get(&self, call: Call, identity: Identity) -> BoxFuture<'_, Result<Read>>;
    /// See [`RegistryStore::leases`].
    fn leases(&self, call: Call, identities: Vec<Identity>) -> BoxFuture<'_, Result<Vec<Option<Timestamp>>>>;
    /// See [`RegistryStore::sync`].
    fn sync(&self, call: Call, from: Revision, limit: usize) -> BoxFuture<'_, Result<Sync>>;
    /// See [`RegistryStore::changed`].
    fn changed(&self, call: Call, from: Revision) -> BoxFuture<'_, Result<()>>;
    /// See [`RegistryStore::is_head`].
    fn is_head(&self, position: Position) -> bool;
    /// See [`RegistryStore::scan`].
    fn scan(&self, call: Call, scan: Scan) -> BoxFuture<'_, Result<ScanPage>>;
    /// See [`RegistryStore::query`].
    fn query(&self, call: Call, query: Query) -> BoxFuture<'_, Result<QueryPage>>;
    /// See [`RegistryStore::claim_session`].
    fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> BoxFuture<'_, Result<Claim>>;
    /// See [`RegistryStore::probe`].
    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>>;
    /// See [`RegistryStore::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<S: RegistryStore> DynRegistryStore for S {
    fn capability(&self) -> &RegistryCapability {
        RegistryStore::capability(self)
    }

    fn register(&self, call: Call, batch: Vec<Register>) -> BoxFuture<'_, Vec<Result<Registered>>> {
        split(self, call, batch, RegistryStore::register)
    }

    fn put(&self, call: Call, put: Put) -> BoxFuture<'_, Result<Arc<Record>>> {
        bounded(
            self,
            call.deadline,
            Applied::Unknown,
            RegistryStore::put(self, call, put),
        )
    }

    fn renew(&self, call: Call, batch: Vec<Renew>) -> BoxFuture<'_, Vec<Result<Renewed>>> {
        split(self, call, batch, RegistryStore::renew)
    }

    fn unregister(&self, call: Call, request: Unregister) -> BoxFuture<'_, Result<Unregistered>> {
        let unregister = RegistryStore::unregister(self, call, request);
        bounded(self, call.deadline, Applied::Unknown, unregister)
    }

    fn get(&self, call: Call, identity: Identity) -> BoxFuture<'_, Result<Read>> {
        bounded(
            self,
            call.deadline,
            Applied::No,
            RegistryStore::get(self, call, identity),
        )
    }

    fn leases(&self, call: Call, identities: Vec<Identity>) -> BoxFuture<'_, Result<Vec<Option<Timestamp>>>> {
        bounded(
            self,
            call.deadline,
            Applied::No,
            RegistryStore::leases(self, call, identities),
        )
    }

    fn sync(&self, call: Call, from: Revision, limit: usize) -> BoxFuture<'_, Result<Sync>> {
        bounded(
            self,
            call.deadline,
            Applied::No,
            RegistryStore::sync(self, call, from, limit),
        )
    }

    fn changed(&self, call: Call, from: Revision) -> BoxFuture<'_, Result<()>> {
        let changed = RegistryStore::changed(self, call, from);
        if self.capability().scope == Scope::Process {
            return Box::pin(changed);
        }
        // Its deadline is how it usually ends.
        Box::pin(async move { timeout_at(call.deadline + GRACE, changed).await.unwrap_or(Ok(())) })
    }

    fn is_head(&self, position: Position) -> bool {
        RegistryStore::is_head(self, position)
    }

    fn scan(&self, call: Call, scan: Scan) -> BoxFuture<'_, Result<ScanPage>> {
        bounded(
            self,
            call.deadline,
            Applied::No,
            RegistryStore::scan(self, call, scan),
        )
    }

    fn query(&self, call: Call, query: Query) -> BoxFuture<'_, Result<QueryPage>> {
        let &RegistryCapability {
            query: able, backend, ..
        } = self.capability();
        if !able {
            return Box::pin(std::future::ready(Err(unable_to_query(backend))));
        }
        let page = RegistryStore::query(self, call, query);
        bounded(self, call.deadline, Applied::No, page)
    }

    fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> BoxFuture<'_, Result<Claim>> {
        let claim = RegistryStore::claim_session(self, call, identity, generation);
        bounded(self, call.deadline, Applied::Unknown, claim)
    }

    fn probe(&self, deadline: Instant) -> BoxFuture<'_, Result<()>> {
        bounded(self, deadline, Applied::No, RegistryStore::probe(self, deadline))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(RegistryStore::close(self))
    }
}

fn unable_to_query(backend: &'static str) -> Error {
    let what = "select records by a filter";
    Error::Unsupported { backend, what }
}

/// Ends a call at its deadline. A slot inside this process never waits, so it is not timed.
fn bounded<'a, T>(
    slot: &impl RegistryStore,
    deadline: Instant,
    applied: Applied,
    call: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    let &RegistryCapability { scope, backend, .. } = slot.capability();
    if scope == Scope::Process {
        return Box::pin(call);
    }
    Box::pin(async move {
        let timeout = Error::Timeout { backend, applied };
        timeout_at(deadline, call).await.unwrap_or(Err(timeout))
    })
}

/// Sends a batch, in parts that the slot takes, one after the other.
fn split<'a, S, I, O, F>(
    slot: &'a S,
    call: Call,
    mut batch: Vec<I>,
    send: impl Fn(&'a S, Call, Vec<I>) -> F + Send + 'a,
) -> BoxFuture<'a, Vec<Result<O>>>
where
    S: RegistryStore,
    I: Send + 'a,
    O: Send + 'a,
    F: Future<Output = Vec<Result<O>>> + Send + 'a,
{
    let &RegistryCapability {
        scope,
        backend,
        max_batch,
        ..
    } = slot.capability();
    if scope == Scope::Process && batch.len() <= max_batch {
        return Box::pin(send(slot, call, batch));
    }
    Box::pin(async move {
        let mut results = Vec::with_capacity(batch.len());
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(max_batch));
            let count = batch.len();
            match timeout_at(call.deadline, send(slot, call, batch)).await {
                Ok(part) => results.extend(part),
                Err(_) => results.extend((0..count).map(|_| {
                    let applied = Applied::Unknown;
                    Err(Error::Timeout { backend, applied })
                })),
            }
            batch = rest;
        }
        results
    })
}

#[cfg(test)]
mod tests;
