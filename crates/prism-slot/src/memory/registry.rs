//! The registry slot in memory.
//!
//! One lock around one state; every call is one step under it and never waits. What this file does
//! is the meaning of [`RegistryStore`]; other slots are compared with it.

mod feed;

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use hashbrown::{HashMap, hash_map::EntryRef};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use self::feed::Feed;
use super::{Clock, RegistryConfig, WallClock, leases::LeaseQueue};
use crate::{
    Applied, Call, Cause, Change, Claim, Epoch, Error, Identity, Mode, Position, Put, Read, Record, Register,
    Registered, RegistryCapability, RegistryStore, Renew, Renewed, RequestId, Result, Revision, Scan,
    ScanPage, Scope, Sync, Timestamp, Ttl, Unregister, Unregistered, Written, capability::Survives,
    lease::LeaseClock,
};

const BACKEND: &str = "memory";
/// How many due leases one `sync` expires before it says that there are more.
const EXPIRE_LIMIT: usize = 4_096;

/// A registry slot that lives and dies with this value.
pub struct MemoryRegistry<C = WallClock> {
    clock: C,
    state: Mutex<State>,
    /// Told of every write.
    written: Notify,
}

impl MemoryRegistry {
    /// The capability of every memory registry.
    pub const CAPABILITY: RegistryCapability = RegistryCapability {
        backend: BACKEND,
        interfaces: &[
            "KeyValueBasicInterface",
            "KeyValueScanInterface",
            "KeyValueTTLInterface",
        ],
        scope: Scope::Process,
        survives: Survives::Nothing,
        max_batch: 4_096,
        query: false,
    };

    /// An empty one on the process's clock.
    pub fn new(config: RegistryConfig) -> Self {
        Self::with_clock(config, WallClock)
    }
}

impl<C: Clock> MemoryRegistry<C> {
    /// An empty one on a clock of the caller's.
    pub fn with_clock(config: RegistryConfig, clock: C) -> Self {
        let state = State::new(&config, clock.now());
        Self {
            clock,
            state: Mutex::new(state),
            written: Notify::new(),
        }
    }

    /// Applies other settings.
    pub fn configure(&self, config: &RegistryConfig) {
        let mut state = self.state.lock();
        state.feed.max_changes = config.feed_max_changes;
        state.feed.max_bytes = config.feed_max_bytes;
        state.feed.trim();
    }

    /// One step: checks the epoch, advances the lease clock, does `work`.
    fn step<T>(&self, epoch: Option<Epoch>, work: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        // Read by whoever is next: times that are used in another order than they were read in are counted twice.
        let now = self.clock.now();
        state.check_open()?;
        if epoch.is_some_and(|expected| expected != state.epoch) {
            return Err(Error::EpochChanged { current: state.epoch });
        }
        state.clock.tick(now);
        let before = state.revision;
        let outcome = work(&mut state);
        let wrote = state.revision != before;
        drop(state);
        if wrote {
            self.written.notify_waiters();
        }
        outcome
    }
}

impl<C: Clock> RegistryStore for MemoryRegistry<C> {
    fn capability(&self) -> &RegistryCapability {
        &MemoryRegistry::CAPABILITY
    }

    async fn register(&self, call: Call, batch: Vec<Register>) -> Vec<Result<Registered>> {
        batch
            .into_iter()
            .map(|request| self.step(call.epoch, |state| state.register(request)))
            .collect()
    }

    async fn put(&self, call: Call, put: Put) -> Result<Arc<Record>> {
        self.step(call.epoch, |state| state.put(put))
    }

    async fn renew(&self, call: Call, batch: Vec<Renew>) -> Vec<Result<Renewed>> {
        batch
            .into_iter()
            .map(|request| self.step(call.epoch, |state| state.renew(&request)))
            .collect()
    }

    async fn unregister(&self, call: Call, request: Unregister) -> Result<Unregistered> {
        self.step(call.epoch, |state| state.unregister(&request))
    }

    async fn get(&self, call: Call, identity: Identity) -> Result<Read> {
        self.step(call.epoch, |state| {
            state.expire_if_due(&identity);
            let record = state.entries.get(&identity).map(|entry| state.as_read(entry));
            Ok(Read {
                record,
                head: state.head(),
            })
        })
    }

    async fn leases(&self, call: Call, identities: Vec<Identity>) -> Result<Vec<Option<Timestamp>>> {
        self.step(call.epoch, |state| {
            let ends = |identity| {
                state.expire_if_due(identity);
                state
                    .entries
                    .get(identity)
                    .and_then(|entry| state.expires_at(entry))
            };
            Ok(identities.iter().map(ends).collect())
        })
    }

    async fn sync(&self, call: Call, from: Revision, limit: usize) -> Result<Sync> {
        self.step(call.epoch, |state| state.sync(from, limit))
    }

    async fn changed(&self, call: Call, from: Revision) -> Result<()> {
        let mut written = pin!(self.written.notified());
        // Before the look at the state, so that no write falls in between.
        written.as_mut().enable();
        if self.step(call.epoch, |state| Ok(state.revision == from))? {
            let _ = timeout_at(call.deadline, written).await;
        }
        Ok(())
    }

    fn is_head(&self, position: Position) -> bool {
        let is_head = |state: &mut State| Ok(state.revision == position.revision && !state.has_due());
        self.step(Some(position.epoch), is_head).unwrap_or(false)
    }

    async fn scan(&self, call: Call, _scan: Scan) -> Result<ScanPage> {
        // All in one page: a page is a vector of pointers, and one step needs no hold on the feed.
        self.step(call.epoch, |state| {
            let records = state.entries.values().map(|entry| state.as_read(entry)).collect();
            Ok(ScanPage {
                records,
                next: None,
                head: state.head(),
                secret: state.secret,
            })
        })
    }

    async fn claim_session(
        &self,
        call: Call,
        identity: Identity,
        generation: Option<Position>,
    ) -> Result<Claim> {
        self.step(call.epoch, |state| {
            let generation = state.live(&identity, generation)?.record.generation;
            state.claims += 1;
            Ok(Claim {
                session_seq: state.claims,
                generation,
            })
        })
    }

    async fn probe(&self, _deadline: Instant) -> Result<()> {
        self.state.lock().check_open()
    }

    async fn close(&self) {
        self.state.lock().closed = true;
    }
}

struct State {
    closed: bool,
    epoch: Epoch,
    secret: [u8; 16],
    revision: Revision,
    clock: LeaseClock,
    entries: HashMap<Identity, Entry>,
    leases: LeaseQueue,
    feed: Feed,
    claims: u64,
}

struct Entry {
    record: Arc<Record>,
    /// On the lease clock; meaningless without a ttl.
    deadline: u64,
    /// The deadline at which the lease queue has this identity, if it has.
    queued_at: Option<u64>,
    last_write: (RequestId, Written),
}

impl Entry {
    fn is_due(&self, clock: &LeaseClock) -> bool {
        self.record
            .ttl
            .is_some_and(|ttl| clock.is_due(self.deadline, ttl))
    }

    /// Sees to it that the queue comes back to the lease when it ends. Only a deadline before the
    /// queued one needs an entry of its own.
    fn queue(&mut self, leases: &mut LeaseQueue) {
        let leased = self.record.ttl.is_some();
        if leased && self.queued_at.is_none_or(|queued| queued > self.deadline) {
            self.queued_at = Some(self.deadline);
            leases.push(self.deadline, self.record.identity.clone());
        }
    }

    fn check_generation(&self, identity: &Identity, asked: Option<Position>) -> Result<()> {
        let current = self.record.generation;
        if asked.is_some_and(|asked| asked != current) {
            let identity = identity.clone();
            return Err(Error::StaleGeneration { identity, current });
        }
        Ok(())
    }
}

impl State {
    fn new(config: &RegistryConfig, now: Timestamp) -> Self {
        Self {
            feed: Feed::new(config),
            closed: false,
            epoch: Epoch::random(),
            secret: rand::random(),
            revision: Revision::ZERO,
            clock: LeaseClock::new(now),
            entries: HashMap::new(),
            leases: LeaseQueue::default(),
            claims: 0,
        }
    }

    fn check_open(&self) -> Result<()> {
        if !self.closed {
            return Ok(());
        }
        Err(Error::Unavailable {
            backend: BACKEND,
            message: "the slot is closed".to_owned(),
            applied: Applied::No,
        })
    }

    fn head(&self) -> Position {
        Position {
            epoch: self.epoch,
            revision: self.revision,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.last_seen
    }

    // ------------------------------------------------------------------------------ operations

    fn register(&mut self, request: Register) -> Result<Registered> {
        let known = match self.entries.get(&request.identity) {
            Some(entry) if self.is_due(entry) => {
                self.remove(&request.identity, Cause::Expired);
                false
            }
            known => known.is_some(),
        };
        if known {
            return self.register_again(request);
        }
        if self.entries.len() as u64 >= request.max_identities {
            self.make_room(request.max_identities)?;
        }
        Ok(self.write_registration(request, Written::Registered))
    }

    fn register_again(&mut self, request: Register) -> Result<Registered> {
        let entry = &self.entries[&request.identity];
        if entry.last_write.0 == request.request {
            return Ok(self.registered(entry, entry.last_write.1));
        }
        let same_session = request.owner.session.is_some() && entry.record.owner == request.owner;
        match request.mode {
            _ if same_session => Ok(self.repeat_registration(request)),
            Mode::Create => Err(Error::AlreadyExists(request.identity)),
            Mode::Replace => Ok(self.write_registration(request, Written::Replaced)),
        }
    }

    /// Makes a new generation.
    fn write_registration(&mut self, request: Register, written: Written) -> Registered {
        let generation = self.next_position();
        let now = self.now();
        let deadline = request.ttl.map_or(0, |ttl| self.clock.deadline(ttl));
        let record = Arc::new(Record {
            identity: request.identity.clone(),
            metadata: request.metadata,
            registered_at: now,
            updated_at: now,
            ttl: request.ttl,
            expires_at: request.ttl.map(|ttl| self.clock.expires_at(deadline, ttl)),
            generation,
            revision: generation.revision,
            owner: request.owner,
        });
        let cause = if written == Written::Registered {
            Cause::Registered
        } else {
            Cause::Replaced
        };
        let before = (written == Written::Replaced).then(|| self.entries[&request.identity].record.clone());
        self.append(cause, record.clone(), before);
        let mut entry = Entry {
            record,
            deadline,
            queued_at: None,
            last_write: (request.request, written),
        };
        if written == Written::Replaced {
            entry.queued_at = self.entries[&request.identity].queued_at;
        }
        entry.queue(&mut self.leases);
        let registered = self.registered(&entry, written);
        self.entries.insert(request.identity, entry);
        registered
    }

    /// The session that holds the identity registers it again.
    fn repeat_registration(&mut self, request: Register) -> Registered {
        let entry = &self.entries[&request.identity];
        let record = &entry.record;
        if record.metadata == request.metadata && record.ttl == request.ttl {
            if let Some(entry) = self.entries.get_mut(&request.identity) {
                entry.last_write = (request.request, Written::Renewed);
            }
            return self.granted(&request.identity, Written::Renewed);
        }
        let record = self.rewritten(&record.clone(), request.metadata, request.ttl);
        self.store(record, Cause::Updated, (request.request, Written::Updated));
        self.granted(&request.identity, Written::Updated)
    }

    /// The answer to a repeated registration, after granting its lease.
    fn granted(&mut self, identity: &Identity, written: Written) -> Registered {
        self.extend_lease(identity);
        self.registered(&self.entries[identity], written)
    }

    fn put(&mut self, put: Put) -> Result<Arc<Record>> {
        let entry = self.live(&put.identity, put.generation)?;
        if entry.last_write.0 == put.request {
            return Ok(self.as_read(&self.entries[&put.identity]));
        }
        let current = entry.record.revision;
        if current != put.if_revision {
            return Err(Error::Conflict {
                identity: put.identity,
                current,
            });
        }
        let before = entry.record.clone();
        let record = self.rewritten(&before, put.metadata, before.ttl);
        self.store(record, Cause::Updated, (put.request, Written::Updated));
        Ok(self.as_read(&self.entries[&put.identity]))
    }

    fn renew(&mut self, request: &Renew) -> Result<Renewed> {
        let ttl = self.live(&request.identity, request.generation)?.record.ttl;
        self.extend_lease(&request.identity);
        Ok(Renewed {
            ttl,
            expires_at: self.expires_at(&self.entries[&request.identity]),
        })
    }

    fn unregister(&mut self, request: &Unregister) -> Result<Unregistered> {
        let (clock, mut existed) = (self.clock, false);
        if let EntryRef::Occupied(found) = self.entries.entry_ref(request.identity.as_str()) {
            let entry = found.get();
            existed = !entry.is_due(&clock);
            if existed {
                entry.check_generation(&request.identity, request.generation)?;
            }
            let (_, entry) = found.remove_entry();
            self.removed(
                entry,
                if existed {
                    Cause::Unregistered
                } else {
                    Cause::Expired
                },
            );
        }
        let position = self.head();
        Ok(Unregistered { existed, position })
    }

    fn sync(&mut self, from: Revision, limit: usize) -> Result<Sync> {
        let more_due = self.expire_due(EXPIRE_LIMIT);
        let changes = self.feed.after(from, limit)?;
        let last = changes.last().map_or(from, |change| change.revision);
        Ok(Sync {
            head: self.head(),
            changes,
            more: more_due || last < self.revision,
        })
    }

    // --------------------------------------------------------------------------------- records

    /// The live entry of an identity under the asked generation.
    fn live(&mut self, identity: &Identity, generation: Option<Position>) -> Result<&Entry> {
        self.expire_if_due(identity);
        let entry = self
            .entries
            .get(identity)
            .ok_or_else(|| Error::NotFound(identity.clone()))?;
        entry.check_generation(identity, generation)?;
        Ok(entry)
    }

    fn next_position(&self) -> Position {
        Position {
            epoch: self.epoch,
            revision: self.revision.next(),
        }
    }

    /// The same registration with other content, at the next revision.
    fn rewritten(&self, before: &Record, metadata: Bytes, ttl: Option<Ttl>) -> Arc<Record> {
        Arc::new(Record {
            metadata,
            ttl,
            updated_at: self.now(),
            revision: self.revision.next(),
            ..before.clone()
        })
    }

    /// Writes a record of a known identity at the next revision. Its lease stays as it was.
    fn store(&mut self, record: Arc<Record>, cause: Cause, last_write: (RequestId, Written)) {
        if let Some(entry) = self.entries.get_mut(&record.identity) {
            entry.last_write = last_write;
            let before = std::mem::replace(&mut entry.record, record.clone());
            self.append(cause, record, Some(before));
        }
    }

    fn remove(&mut self, identity: &Identity, cause: Cause) {
        if let Some(entry) = self.entries.remove(identity) {
            self.removed(entry, cause);
        }
    }

    fn removed(&mut self, entry: Entry, cause: Cause) {
        self.append(cause, entry.record, None);
        let entries = &self.entries;
        self.leases.sweep(entries.len(), |deadline, identity| {
            entries
                .get(identity)
                .is_some_and(|entry| entry.queued_at == Some(deadline))
        });
    }

    fn append(&mut self, cause: Cause, record: Arc<Record>, before: Option<Arc<Record>>) {
        self.revision = self.revision.next();
        self.feed.push(Change {
            revision: self.revision,
            cause,
            record,
            before,
        });
    }

    fn registered(&self, entry: &Entry, written: Written) -> Registered {
        let record = &entry.record;
        Registered {
            written,
            registered_at: record.registered_at,
            expires_at: self.expires_at(entry),
            generation: record.generation,
            position: Position {
                epoch: self.epoch,
                revision: record.revision,
            },
        }
    }

    /// The record with its lease as it is now.
    fn as_read(&self, entry: &Entry) -> Arc<Record> {
        let expires_at = self.expires_at(entry);
        if entry.record.expires_at == expires_at {
            return entry.record.clone();
        }
        Arc::new(Record {
            expires_at,
            ..(*entry.record).clone()
        })
    }

    // ---------------------------------------------------------------------------------- leases

    fn expires_at(&self, entry: &Entry) -> Option<Timestamp> {
        entry
            .record
            .ttl
            .map(|ttl| self.clock.expires_at(entry.deadline, ttl))
    }

    /// Gives a lease its full length from now.
    fn extend_lease(&mut self, identity: &Identity) {
        let Some(entry) = self.entries.get_mut(identity) else {
            return;
        };
        let Some(ttl) = entry.record.ttl else { return };
        entry.deadline = self.clock.deadline(ttl);
        entry.queue(&mut self.leases);
    }

    fn is_due(&self, entry: &Entry) -> bool {
        entry.is_due(&self.clock)
    }

    fn expire_if_due(&mut self, identity: &Identity) {
        if self.entries.get(identity).is_some_and(|entry| self.is_due(entry)) {
            self.remove(identity, Cause::Expired);
        }
    }

    /// Whether there are leases to be looked at, which are due unless they were renewed.
    fn has_due(&self) -> bool {
        self.leases.has_until(self.clock.now)
    }

    /// Expires due leases, looking at `limit` of them at most; says whether some were left.
    fn expire_due(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            let Some((deadline, identity)) = self.leases.pop_until(self.clock.now) else {
                return false;
            };
            let Some(entry) = self.entries.get_mut(&identity) else {
                continue;
            };
            if entry.queued_at != Some(deadline) {
                continue;
            }
            let Some(ttl) = entry.record.ttl else {
                entry.queued_at = None;
                continue;
            };
            let effective = self.clock.effective(entry.deadline, ttl);
            if effective > self.clock.now {
                entry.queued_at = Some(effective);
                self.leases.push(effective, identity);
            } else {
                self.remove(&identity, Cause::Expired);
            }
        }
        self.has_due()
    }

    /// Makes sure that one more identity may be registered.
    fn make_room(&mut self, limit: u64) -> Result<()> {
        while self.entries.len() as u64 >= limit {
            if !self.expire_due(1) && self.entries.len() as u64 >= limit {
                return Err(Error::QuotaExceeded { limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
