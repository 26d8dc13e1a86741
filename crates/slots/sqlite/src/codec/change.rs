//! Entries of the feed.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prism_slot::{Cause, Change, Identity, Record, RequestId, Revision, Timestamp, Written};

use super::{Malformed, Read, Reader, Stored, begin, put_long, put_optional, read_record, write_record};

pub(crate) fn write_change(cause: Cause, record: &Record, before: Option<&Record>) -> Vec<u8> {
    let (after, before) = (image(record), before.map(image));
    let mut bytes =
        begin(32 + record.identity.as_str().len() + after.len() + before.as_ref().map_or(0, Vec::len));
    bytes.put_u8(caused_as(cause));
    put_long(&mut bytes, record.identity.as_str().as_bytes());
    put_long(&mut bytes, &after);
    put_optional(&mut bytes, before, |bytes, before| put_long(bytes, &before));
    bytes
}

pub(crate) fn read_change(revision: Revision, bytes: Bytes) -> Read<Change> {
    let mut reader = Reader::begin(bytes)?;
    let cause = cause(reader.byte()?)?;
    let identity =
        Identity::new(reader.text()?).map_err(|_| Malformed::new("its identity is not a valid one"))?;
    let record = read_image(&identity, reader.bytes()?)?;
    let before = reader.optional(Reader::bytes)?;
    let before = before.map(|bytes| read_image(&identity, bytes)).transpose()?;
    Ok(Change {
        revision,
        cause,
        record: Arc::new(record),
        before: before.map(Arc::new),
    })
}

/// A record with when its lease was to end. Who wrote it last is of no interest to those who read the feed.
fn image(record: &Record) -> Vec<u8> {
    let stored = write_record(&Stored {
        record: record.clone(),
        last_write: (RequestId([0; 16]), Written::Registered),
    });
    let mut bytes = Vec::with_capacity(stored.len() + 9);
    put_optional(&mut bytes, record.expires_at, |bytes, at| bytes.put_i64(at.0));
    bytes.extend(stored);
    bytes
}

fn read_image(identity: &Identity, bytes: Bytes) -> Read<Record> {
    let mut reader = Reader(bytes);
    let expires_at = reader.optional(Reader::signed)?.map(Timestamp);
    let record = read_record(identity.clone(), reader.0)?.record;
    Ok(Record { expires_at, ..record })
}

fn caused_as(cause: Cause) -> u8 {
    match cause {
        Cause::Registered => 1,
        Cause::Replaced => 2,
        Cause::Updated => 3,
        Cause::Unregistered => 4,
        Cause::Expired => 5,
        Cause::Evicted => 6,
    }
}

fn cause(byte: u8) -> Read<Cause> {
    Ok(match byte {
        1 => Cause::Registered,
        2 => Cause::Replaced,
        3 => Cause::Updated,
        4 => Cause::Unregistered,
        5 => Cause::Expired,
        6 => Cause::Evicted,
        _ => return Err(Malformed::new("it has an unknown cause")),
    })
}
