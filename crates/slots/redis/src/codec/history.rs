//! What a view is built from: the feed, and pages of all records.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prism_slot::{Epoch, Error, QueryPage, Record, Result, Revision, ScanPage, Sync};

use super::{
    FORMAT, Malformed, Reader, Reply, read_change,
    record::{identity, read_record},
};
use crate::{answer::meaningless, error::unreadable};

/// Reads a run of history after `from`.
pub(crate) fn sync(mut reply: Reply, from: Revision, limit: usize) -> Result<Sync> {
    let (compacted, more_due) = (Revision(reply.number()?), reply.number()? == 1);
    let head = reply.head;
    if from < compacted || from > head.revision {
        return Err(Error::Compacted { up_to: compacted });
    }
    let mut changes = Vec::with_capacity(reply.parts.len());
    let mut last = from;
    while let Some(bytes) = reply.optional_text()? {
        let change = read_change(bytes)?;
        if change.revision != last.next() {
            return Err(gap(change.revision));
        }
        last = change.revision;
        changes.push(change);
    }
    if changes.is_empty() && limit > 0 && from < head.revision {
        return Err(gap(head.revision.next()));
    }
    Ok(Sync {
        head,
        more: more_due || last < head.revision,
        changes,
    })
}

/// Reading a stream below what it still has is no error to Redis: it shows in the revisions alone.
fn gap(before: Revision) -> Error {
    Error::Compacted {
        up_to: Revision(before.0.saturating_sub(1)),
    }
}

/// Where a scan continues.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cursor {
    /// Which history the scan began in.
    pub(crate) epoch: Option<Epoch>,
    /// The head when it began.
    pub(crate) since: Revision,
    /// The cursor that Redis gave.
    pub(crate) position: Bytes,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            epoch: None,
            since: Revision::ZERO,
            position: Bytes::from_static(b"0"),
        }
    }
}

impl Cursor {
    pub(crate) fn read(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader(bytes);
        let mut read = || {
            if reader.byte()? != FORMAT {
                return Err(Malformed("another version made it"));
            }
            Ok(Self {
                epoch: Some(Epoch(reader.long()?)),
                since: reader.revision()?,
                position: reader.0.clone(),
            })
        };
        let cursor =
            read().map_err(|malformed| unreadable(format!("the cursor cannot be used, {malformed}")))?;
        if cursor.position.is_empty() || !cursor.position.iter().all(u8::is_ascii_digit) {
            return Err(unreadable("the cursor cannot be used, it is not of this slot"));
        }
        Ok(cursor)
    }

    fn write(epoch: Epoch, since: Revision, position: &[u8]) -> Bytes {
        let mut bytes = Vec::with_capacity(17 + position.len());
        bytes.put_u8(FORMAT);
        bytes.put_u64(epoch.0);
        bytes.put_u64(since.0);
        bytes.put_slice(position);
        bytes.into()
    }
}

/// Reads a page of all records.
pub(crate) fn scan_page(mut reply: Reply) -> Result<ScanPage> {
    let position = reply.text()?;
    let secret = Reader(reply.text()?).array().map_err(meaningless)?;
    let since = Revision(reply.number()?);
    Ok(ScanPage {
        records: records(&mut reply)?,
        next: (position != b"0"[..]).then(|| Cursor::write(reply.head.epoch, since, &position)),
        head: reply.head,
        secret,
    })
}

/// Reads a page of the records that may match a filter.
pub(crate) fn query_page(mut reply: Reply) -> Result<QueryPage> {
    let (position, examined) = (reply.text()?, reply.number()?);
    Ok(QueryPage {
        records: records(&mut reply)?,
        examined,
        next: (position != b"0"[..]).then(|| Cursor::write(reply.head.epoch, Revision::ZERO, &position)),
        head: reply.head,
    })
}

fn records(reply: &mut Reply) -> Result<Vec<Arc<Record>>> {
    let mut records = Vec::with_capacity(reply.parts.len() / 2);
    while let Some(name) = reply.optional_text()? {
        let identity = identity(&name).map_err(meaningless)?;
        records.push(read_record(identity, reply.text()?)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use fred::interfaces::Resp3Frame;

    use super::*;
    use crate::codec::item::put_owner;

    fn text(bytes: impl Into<Bytes>) -> Resp3Frame {
        Resp3Frame::BlobString {
            data: bytes.into(),
            attributes: None,
        }
    }

    fn number(data: i64) -> Resp3Frame {
        Resp3Frame::Number {
            data,
            attributes: None,
        }
    }

    fn change(revision: u64) -> Resp3Frame {
        let mut bytes = vec![FORMAT, 1];
        bytes.put_u64(revision);
        bytes.put_slice(&[0; 16]);
        bytes.put_u16(1);
        bytes.put_u32(0);
        bytes.put_slice(b"a");
        bytes.put_u8(FORMAT);
        bytes.put_slice(&[1; 57]);
        put_owner(&mut bytes, &prism_slot::Owner::default());
        text(bytes)
    }

    /// What `sync` makes of an answer with these changes, by a namespace at revision 9 that keeps those
    /// after 4.
    fn synced(from: u64, revisions: &[u64]) -> Result<Vec<u64>> {
        let head = [text("K"), text(7_u64.to_be_bytes().to_vec()), number(9)];
        let kept = [number(4), number(0)];
        let changes = revisions.iter().map(|&revision| change(revision));
        let frame = Resp3Frame::Array {
            data: head.into_iter().chain(kept).chain(changes).collect(),
            attributes: None,
        };
        let sync = sync(Reply::read(frame)?, Revision(from), 10)?;
        Ok(sync.changes.iter().map(|change| change.revision.0).collect())
    }

    /// Reading a stream below what it has, or over a hole in it, is no error to Redis.
    #[test]
    fn a_gap_is_never_passed_over() {
        assert_eq!(synced(6, &[7, 8, 9]), Ok(vec![7, 8, 9]));
        assert_eq!(synced(9, &[]), Ok(vec![]));
        let compacted = |up_to| {
            Err(Error::Compacted {
                up_to: Revision(up_to),
            })
        };
        assert_eq!(synced(6, &[8, 9]), compacted(7), "at the beginning");
        assert_eq!(synced(6, &[7, 9]), compacted(8), "in the middle");
        assert_eq!(synced(6, &[]), compacted(9), "all of it");
        assert_eq!(synced(3, &[5, 6]), compacted(4), "below what is kept");
        assert_eq!(synced(10, &[]), compacted(4), "of another history");
    }

    #[test]
    fn a_cursor_is_read_back() {
        let bytes = Cursor::write(Epoch(u64::MAX), Revision(12), b"18446744073709551615");
        let cursor = Cursor::read(bytes.clone()).unwrap();
        assert_eq!(
            (cursor.epoch, cursor.since),
            (Some(Epoch(u64::MAX)), Revision(12))
        );
        assert_eq!(cursor.position, b"18446744073709551615"[..]);
        assert!((0..18).all(|end| Cursor::read(bytes.slice(..end)).is_err()));
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        for foreign in [
            &b""[..],
            b"0",
            b"\x0100000000111111110; DEL x",
            b"\x020000000011111111 0",
        ] {
            assert!(Cursor::read(Bytes::from_static(foreign)).is_err(), "{foreign:?}");
        }
    }
}
