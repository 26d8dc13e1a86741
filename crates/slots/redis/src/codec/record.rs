//! Records and changes, as they are stored.

use std::sync::Arc;

use bytes::Bytes;
use prism_slot::{Cause, Change, Error, Identity, Owner, Record, SessionId, Timestamp, Ttl};

use super::{FORMAT, Malformed, Reader};
use crate::error::unreadable;

/// The terms of a lease as of now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    ttl: Option<Ttl>,
    expires_at: Option<Timestamp>,
}

impl Terms {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            ttl: reader.ttl()?,
            expires_at: reader.end()?,
        })
    }
}

/// Reads what `get` and `scan` answer with: the terms of the lease, then the record.
pub(crate) fn read_record(identity: Identity, bytes: Bytes) -> Result<Arc<Record>, Error> {
    let mut reader = Reader(bytes);
    Terms::read(&mut reader)
        .and_then(|terms| stored(identity.clone(), terms, reader, None))
        .map_err(|malformed| damaged(&format!("the record of `{identity}`"), malformed))
}

/// Reads an entry of the feed.
pub(crate) fn read_change(bytes: Bytes) -> Result<Change, Error> {
    change(Reader(bytes)).map_err(|malformed| damaged("a change in the feed", malformed))
}

fn damaged(what: &str, malformed: Malformed) -> Error {
    unreadable(format!("{what} cannot be used, {malformed}"))
}

fn change(mut reader: Reader) -> Result<Change, Malformed> {
    version(&mut reader)?;
    let cause = match reader.byte()? {
        1 => Cause::Registered,
        2 => Cause::Replaced,
        3 => Cause::Updated,
        4 => Cause::Unregistered,
        5 => Cause::Expired,
        6 => Cause::Evicted,
        _ => return Err(Malformed("it has an unknown cause")),
    };
    let revision = reader.revision()?;
    let terms = Terms::read(&mut reader)?;
    let (size, before) = (reader.short()?, reader.word()?);
    let identity = identity(&reader.bytes(size.into())?)?;
    let before = Reader(reader.bytes(before as usize)?);
    let before = (!before.0.is_empty()).then(|| replaced(identity.clone(), before));
    let record = stored(identity, terms, reader, None)?;
    Ok(Change {
        revision,
        cause,
        record,
        before: before.transpose()?,
    })
}

/// A record that another one took the place of. How long its lease would have lasted is not kept.
fn replaced(identity: Identity, mut reader: Reader) -> Result<Arc<Record>, Malformed> {
    let terms = Terms {
        ttl: reader.ttl()?,
        expires_at: None,
    };
    stored(identity, terms, reader, None)
}

pub(super) fn identity(bytes: &[u8]) -> Result<Identity, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed("its identity is not UTF-8"))?;
    Identity::new(text).map_err(|_| Malformed("its identity is not a valid one"))
}

/// Reads a record. `metadata` stands for what follows the header, when that was not sent.
pub(super) fn stored(
    identity: Identity,
    terms: Terms,
    mut reader: Reader,
    metadata: Option<Bytes>,
) -> Result<Arc<Record>, Malformed> {
    version(&mut reader)?;
    let generation = reader.position()?;
    let revision = reader.revision()?;
    let (registered_at, updated_at) = (reader.timestamp()?, reader.timestamp()?);
    let (_request, _written) = (reader.array::<16>()?, reader.byte()?);
    let owner = owner(&mut reader)?;
    Ok(Arc::new(Record {
        identity,
        metadata: metadata.unwrap_or(reader.0),
        registered_at,
        updated_at,
        ttl: terms.ttl,
        expires_at: terms.expires_at,
        generation,
        revision,
        owner,
    }))
}

fn owner(reader: &mut Reader) -> Result<Owner, Malformed> {
    let has_session = reader.byte()? == 1;
    let session = SessionId(reader.array()?);
    let size = reader.word()?;
    let principal = reader.bytes(size as usize)?;
    let principal = std::str::from_utf8(&principal).map_err(|_| Malformed("its owner is not UTF-8"))?;
    Ok(Owner {
        principal: principal.into(),
        session: has_session.then_some(session),
    })
}

fn version(reader: &mut Reader) -> Result<(), Malformed> {
    match reader.byte()? {
        FORMAT => Ok(()),
        later if later > FORMAT => Err(Malformed("a later version wrote it; upgrade this runner")),
        _ => Err(Malformed("it has an unknown version")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use prism_slot::{Epoch, Position, Revision};

    use super::*;
    use crate::codec::item::put_owner;

    fn record() -> Record {
        Record {
            identity: Identity::new("ключ").unwrap(),
            metadata: Bytes::from_static(b"{\"a\":[]}\0\xff"),
            registered_at: Timestamp(1_700_000_000_000),
            updated_at: Timestamp(1_700_000_000_001),
            ttl: Ttl::from_millis(u64::MAX),
            expires_at: Some(Timestamp(1_700_000_060_000)),
            generation: Position {
                epoch: Epoch(u64::MAX),
                revision: Revision(7),
            },
            revision: Revision(9),
            owner: Owner {
                principal: "someone".into(),
                session: Some(SessionId([255; 16])),
            },
        }
    }

    fn bytes(record: &Record, format: u8) -> Bytes {
        let mut out = Vec::new();
        out.put_u64(record.ttl.map_or(0, Ttl::as_millis));
        out.put_u64(record.expires_at.map_or(0, |end| end.0.unsigned_abs()));
        out.put_u8(format);
        out.put_u64(record.generation.epoch.0);
        out.put_u64(record.generation.revision.0);
        out.put_u64(record.revision.0);
        out.put_i64(record.registered_at.0);
        out.put_i64(record.updated_at.0);
        out.put_slice(&[9; 17]);
        put_owner(&mut out, &record.owner);
        out.put_slice(&record.metadata);
        out.into()
    }

    #[test]
    fn a_record_is_read_back_as_it_was() {
        let record = record();
        let read = read_record(record.identity.clone(), bytes(&record, FORMAT)).unwrap();
        assert_eq!(*read, record);
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let record = record();
        let refused = read_record(record.identity.clone(), bytes(&record, FORMAT + 1)).unwrap_err();
        assert!(refused.to_string().contains("upgrade this runner"), "{refused}");
    }

    #[test]
    fn no_prefix_of_a_record_is_a_record() {
        let record = record();
        let whole = bytes(&record, FORMAT);
        let header = whole.len() - record.metadata.len();
        for end in 0..header {
            assert!(
                read_record(record.identity.clone(), whole.slice(..end)).is_err(),
                "{end}"
            );
        }
    }
}
