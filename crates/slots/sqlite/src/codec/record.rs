//! Records, as they are stored: without the identity, which is their key, and without when their lease ends.

use bytes::{BufMut, Bytes};
use prism_slot::{
    Epoch, Identity, Owner, Position, Record, RequestId, Revision, SessionId, Timestamp, Ttl, Written,
};

use super::{Malformed, Read, Reader, begin, put_long, put_optional};

/// A record as it is stored, and the request that wrote it last.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) last_write: (RequestId, Written),
}

pub(crate) fn write_record(stored: &Stored) -> Vec<u8> {
    let record = &stored.record;
    let mut bytes = begin(128 + record.metadata.len() + record.owner.principal.len());
    put_position(&mut bytes, record.generation);
    bytes.put_u64(record.revision.0);
    bytes.put_i64(record.registered_at.0);
    bytes.put_i64(record.updated_at.0);
    put_optional(&mut bytes, record.ttl, |bytes, ttl| {
        bytes.put_u64(ttl.as_millis())
    });
    bytes.put_slice(&stored.last_write.0.0);
    bytes.put_u8(written_as(stored.last_write.1));
    put_optional(&mut bytes, record.owner.session, |bytes, session| {
        bytes.put_slice(&session.0)
    });
    put_long(&mut bytes, record.owner.principal.as_bytes());
    bytes.extend_from_slice(&record.metadata);
    bytes
}

/// Reads a record; when its lease ends is for the caller to say.
pub(crate) fn read_record(identity: Identity, bytes: Bytes) -> Read<Stored> {
    let mut reader = Reader::begin(bytes)?;
    let generation = position(&mut reader)?;
    let revision = Revision(reader.long()?);
    let (registered_at, updated_at) = (Timestamp(reader.signed()?), Timestamp(reader.signed()?));
    let ttl = reader.optional(Reader::long)?.and_then(Ttl::from_millis);
    let last_write = (RequestId(reader.array()?), written(reader.byte()?)?);
    let session = reader.optional(Reader::array)?.map(SessionId);
    let owner = Owner {
        session,
        principal: reader.text()?.into(),
    };
    let record = Record {
        identity,
        metadata: reader.0,
        registered_at,
        updated_at,
        ttl,
        expires_at: None,
        generation,
        revision,
        owner,
    };
    Ok(Stored { record, last_write })
}

fn put_position(bytes: &mut Vec<u8>, position: Position) {
    bytes.put_u64(position.epoch.0);
    bytes.put_u64(position.revision.0);
}

fn position(reader: &mut Reader) -> Read<Position> {
    Ok(Position {
        epoch: Epoch(reader.long()?),
        revision: Revision(reader.long()?),
    })
}

fn written_as(written: Written) -> u8 {
    match written {
        Written::Registered => 1,
        Written::Replaced => 2,
        Written::Updated => 3,
        Written::Renewed => 4,
    }
}

fn written(byte: u8) -> Read<Written> {
    Ok(match byte {
        1 => Written::Registered,
        2 => Written::Replaced,
        3 => Written::Updated,
        4 => Written::Renewed,
        _ => return Err(Malformed::new("it was written in an unknown way")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FORMAT;

    fn stored() -> Stored {
        Stored {
            record: Record {
                identity: Identity::new("a").unwrap(),
                metadata: Bytes::from_static(b"{}\0\xff"),
                registered_at: Timestamp(-5),
                updated_at: Timestamp(i64::MAX),
                ttl: Ttl::from_millis(u64::MAX),
                expires_at: None,
                generation: Position {
                    epoch: Epoch(u64::MAX),
                    revision: Revision(1),
                },
                revision: Revision(9),
                owner: Owner {
                    principal: "someone".into(),
                    session: Some(SessionId([255; 16])),
                },
            },
            last_write: (RequestId([3; 16]), Written::Updated),
        }
    }

    #[test]
    fn a_record_is_read_as_written() {
        let mut plain = stored();
        (plain.record.ttl, plain.record.owner) = (None, Owner::default());
        for stored in [stored(), plain] {
            let read = read_record(stored.record.identity.clone(), write_record(&stored).into()).unwrap();
            assert_eq!((read.record, read.last_write), (stored.record, stored.last_write));
        }
    }

    #[test]
    fn damage_and_later_formats_are_refused() {
        let bytes = write_record(&stored());
        let identity = || Identity::new("a").unwrap();
        for length in 0..bytes.len() - 4 {
            assert!(
                read_record(identity(), Bytes::copy_from_slice(&bytes[..length])).is_err(),
                "{length}"
            );
        }
        let mut later = bytes;
        later[0] = FORMAT + 1;
        let refused = read_record(identity(), later.into()).unwrap_err();
        assert!(refused.0.contains("later version"), "{refused:?}");
    }
}
