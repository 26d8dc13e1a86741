//! What can be done to a record.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{
    Cause, Claim, Error, Identity, Mode, Position, Put, Read, Record, Register, Registered, Renew, Renewed,
    RequestId, Timestamp, Ttl, Unregister, Unregistered, Written,
};

use super::{desk::Desk, records::Entry};
use crate::{codec::Stored, error::Fault};

impl Desk<'_, '_> {
    pub(super) fn register(&mut self, request: Register) -> Result<Registered, Fault> {
        if let Some(entry) = self.find_live(&request.identity)? {
            return self.register_again(entry, request);
        }
        self.make_room(request.max_identities)?;
        self.write_registration(request, None)
    }

    fn register_again(&mut self, entry: Entry, request: Register) -> Result<Registered, Fault> {
        let (last, written) = entry.stored.last_write;
        if last == request.request {
            return self.registered(&entry, written);
        }
        let same_session = request.owner.session.is_some() && entry.stored.record.owner == request.owner;
        match request.mode {
            _ if same_session => self.repeat_registration(entry, request),
            Mode::Create => Err(Error::AlreadyExists(request.identity).into()),
            Mode::Replace => self.write_registration(request, Some(entry)),
        }
    }

    /// Makes a new generation.
    fn write_registration(&mut self, request: Register, before: Option<Entry>) -> Result<Registered, Fault> {
        let generation = self.next_position()?;
        let clock = self.clock()?;
        let record = Record {
            identity: request.identity,
            metadata: request.metadata,
            registered_at: clock.last_seen,
            updated_at: clock.last_seen,
            ttl: request.ttl,
            expires_at: None,
            generation,
            revision: generation.revision,
            owner: request.owner,
        };
        let (written, cause) = match before {
            None => (Written::Registered, Cause::Registered),
            Some(_) => (Written::Replaced, Cause::Replaced),
        };
        let mut entry = Entry {
            stored: Stored {
                record,
                last_write: (request.request, written),
            },
            deadline: 0,
            queued_at: before.as_ref().and_then(|before| before.queued_at),
        };
        entry.extend(&clock);
        if before.is_none() {
            self.change_head()?.records += 1;
        }
        self.store(&entry, cause, before.as_ref())?;
        self.registered(&entry, written)
    }

    /// The session that holds the identity registers it again.
    fn repeat_registration(&mut self, before: Entry, request: Register) -> Result<Registered, Fault> {
        let record = &before.stored.record;
        let clock = self.clock()?;
        if record.metadata == request.metadata && record.ttl == request.ttl {
            let mut entry = before;
            entry.stored.last_write = (request.request, Written::Renewed);
            entry.extend(&clock);
            self.write(&entry)?;
            return self.registered(&entry, Written::Renewed);
        }
        let write = (request.request, Written::Updated);
        let mut entry = self.rewritten(&before, request.metadata, request.ttl, write)?;
        entry.extend(&clock);
        self.store(&entry, Cause::Updated, Some(&before))?;
        self.registered(&entry, Written::Updated)
    }

    pub(super) fn put(&mut self, put: Put) -> Result<Arc<Record>, Fault> {
        let before = self.live(&put.identity, put.generation)?;
        let clock = self.clock()?;
        if before.stored.last_write.0 == put.request {
            return Ok(before.as_read(&clock));
        }
        let current = before.stored.record.revision;
        if current != put.if_revision {
            let identity = put.identity;
            return Err(Error::Conflict { identity, current }.into());
        }
        let ttl = before.stored.record.ttl;
        let entry = self.rewritten(&before, put.metadata, ttl, (put.request, Written::Updated))?;
        self.store(&entry, Cause::Updated, Some(&before))?;
        Ok(entry.as_read(&clock))
    }

    pub(super) fn renew(&mut self, request: Renew) -> Result<Renewed, Fault> {
        let mut entry = self.live(&request.identity, request.generation)?;
        let (ttl, clock) = (entry.stored.record.ttl, self.clock()?);
        if ttl.is_some() {
            let queued_before = entry.queued_at;
            entry.extend(&clock);
            self.write_lease(&entry, queued_before)?;
        }
        Ok(Renewed {
            ttl,
            expires_at: entry.expires_at(&clock),
        })
    }

    pub(super) fn unregister(&mut self, request: &Unregister) -> Result<Unregistered, Fault> {
        let found = self.find_live(&request.identity)?;
        if let Some(entry) = &found {
            entry.check_generation(request.generation)?;
            self.remove(entry, Cause::Unregistered)?;
        }
        Ok(Unregistered {
            existed: found.is_some(),
            position: self.position()?,
        })
    }

    pub(super) fn get(&mut self, identity: &Identity) -> Result<Read, Fault> {
        let found = self.find_live(identity)?;
        let clock = self.clock()?;
        Ok(Read {
            record: found.map(|entry| entry.as_read(&clock)),
            head: self.position()?,
        })
    }

    pub(super) fn lease(&mut self, identity: &Identity) -> Result<Option<Timestamp>, Fault> {
        let found = self.find_live(identity)?;
        let clock = self.clock()?;
        Ok(found.and_then(|entry| entry.expires_at(&clock)))
    }

    pub(super) fn claim(
        &mut self,
        identity: &Identity,
        generation: Option<Position>,
    ) -> Result<Claim, Fault> {
        let generation = self.live(identity, generation)?.stored.record.generation;
        let head = self.change_head()?;
        head.claims += 1;
        Ok(Claim {
            session_seq: head.claims,
            generation,
        })
    }

    /// The same registration with other content, at the next revision.
    fn rewritten(
        &mut self,
        before: &Entry,
        metadata: Bytes,
        ttl: Option<Ttl>,
        last_write: (RequestId, Written),
    ) -> Result<Entry, Fault> {
        let record = Record {
            metadata,
            ttl,
            updated_at: self.clock()?.last_seen,
            revision: self.next_position()?.revision,
            ..before.stored.record.clone()
        };
        Ok(Entry {
            stored: Stored { record, last_write },
            ..before.clone()
        })
    }

    /// Writes an entry at the next revision.
    fn store(&mut self, entry: &Entry, cause: Cause, before: Option<&Entry>) -> Result<(), Fault> {
        self.write(entry)?;
        let clock = self.clock()?;
        let before = before.map(|before| before.as_read(&clock));
        self.append(cause, &entry.as_read(&clock), before.as_deref())
    }

    fn registered(&mut self, entry: &Entry, written: Written) -> Result<Registered, Fault> {
        let record = &entry.stored.record;
        let position = self.position()?;
        Ok(Registered {
            written,
            registered_at: record.registered_at,
            expires_at: entry.expires_at(&self.clock()?),
            generation: record.generation,
            position: Position {
                revision: record.revision,
                ..position
            },
        })
    }
}
