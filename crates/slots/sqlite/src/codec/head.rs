//! The head of a namespace's registry.

use bytes::{BufMut, Bytes};
use prism_slot::{Epoch, Revision, Timestamp, lease::LeaseClock};

use super::{Read, Reader, begin};
use crate::registry::Head;

pub(crate) fn write_head(head: &Head) -> Vec<u8> {
    let mut bytes = begin(128);
    bytes.put_u64(head.epoch.0);
    bytes.put_slice(&head.secret);
    bytes.put_u64(head.revision.0);
    bytes.put_u64(head.clock.now);
    bytes.put_i64(head.clock.last_seen.0);
    bytes.put_u64(head.clock.resumed_at);
    bytes.put_u64(head.records);
    bytes.put_u64(head.claims);
    bytes.put_u64(head.compacted_to.0);
    bytes.put_u64(head.feed_bytes);
    bytes.put_u64(head.oldest_at);
    bytes.put_u64(head.held_from.0);
    bytes.put_u64(head.held_until);
    bytes
}

pub(crate) fn read_head(bytes: Bytes) -> Read<Head> {
    let mut reader = Reader::begin(bytes)?;
    Ok(Head {
        epoch: Epoch(reader.long()?),
        secret: reader.array()?,
        revision: Revision(reader.long()?),
        clock: LeaseClock {
            now: reader.long()?,
            last_seen: Timestamp(reader.signed()?),
            resumed_at: reader.long()?,
        },
        records: reader.long()?,
        claims: reader.long()?,
        compacted_to: Revision(reader.long()?),
        feed_bytes: reader.long()?,
        oldest_at: reader.long()?,
        held_from: Revision(reader.long()?),
        held_until: reader.long()?,
    })
}
