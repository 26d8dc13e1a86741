//! Entries and writes, as the functions take and give them.

use bytes::{Buf, BufMut, Bytes};
use prism_slot::{Applied, Entry, Expect, Result, Write, Wrote};

use crate::{
    answer::{Answer, later_version, meaningless, nonsense},
    codec::{FORMAT, LARGEST, Malformed, Reader},
    error::unavailable,
};

/// What is expected of an entry and what it is to be, but for the body.
pub(super) fn head(write: &Write) -> Bytes {
    let (kind, version) = match write.expect {
        Expect::Anything => (b'*', 0),
        Expect::Absent => (b'-', 0),
        Expect::Version(version) => (b'=', version.min(LARGEST)),
    };
    let ttl = u64::try_from(write.ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(LARGEST);
    let mut bytes = Vec::with_capacity(18 + write.key.len());
    bytes.put_u8(kind);
    bytes.put_u64(version);
    // Redis knows no time that is none.
    bytes.put_u64(ttl.clamp(1, LARGEST));
    bytes.put_u8(u8::from(write.body.is_some()));
    bytes.put_slice(write.key.as_bytes());
    bytes.into()
}

pub(super) fn wrote(mut answer: Answer, count: usize) -> Result<Vec<Result<Wrote>>> {
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        outcomes.push(outcome(answer.text()?));
    }
    Ok(outcomes)
}

fn outcome(mut bytes: Bytes) -> Result<Wrote> {
    match bytes.try_get_u8() {
        Ok(b'D') => Reader(bytes).long().map(Wrote::Done).map_err(meaningless),
        Ok(b'C') => Ok(Wrote::Conflict(entry(bytes)?)),
        Ok(b'V') => Err(later_version("an entry")),
        Ok(b'F') => {
            let said = String::from_utf8_lossy(&bytes);
            Err(unavailable(
                format!("a function failed: {said}"),
                Applied::Unknown,
            ))
        }
        _ => Err(nonsense()),
    }
}

/// Of the first at least, of `most` at most.
pub(super) fn entries(mut answer: Answer, most: usize) -> Result<Vec<Option<Entry>>> {
    let mut entries = Vec::with_capacity(most);
    while let Some(bytes) = answer.optional_text()? {
        entries.push(entry(bytes)?);
    }
    if entries.is_empty() || entries.len() > most {
        return Err(nonsense());
    }
    Ok(entries)
}

/// Reads what is stored; nothing is there where it is empty.
fn entry(bytes: Bytes) -> Result<Option<Entry>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader(bytes);
    match reader.byte().map_err(meaningless)? {
        FORMAT => {}
        later if later > FORMAT => return Err(later_version("an entry")),
        _ => return Err(meaningless(Malformed("an entry has an unknown version"))),
    }
    let version = reader.long().map_err(meaningless)?;
    Ok(Some(Entry {
        version,
        body: reader.0,
    }))
}

pub(super) fn list(namespace: &Bytes, prefix: &str, after: &str, most: usize) -> [Bytes; 4] {
    let mut count = Vec::with_capacity(8);
    count.put_u64((most as u64).min(LARGEST));
    [
        namespace.clone(),
        Bytes::copy_from_slice(prefix.as_bytes()),
        Bytes::copy_from_slice(after.as_bytes()),
        count.into(),
    ]
}

pub(super) fn text(bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into()).map_err(|_| meaningless(Malformed("a key is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_later_version_is_refused() {
        let mut bytes = vec![FORMAT];
        bytes.put_u64(7);
        bytes.put_slice(b"body");
        let read = entry(bytes.clone().into()).unwrap().unwrap();
        assert_eq!((read.version, &read.body[..]), (7, &b"body"[..]));
        bytes[0] = FORMAT + 1;
        let refused = entry(bytes.into()).unwrap_err();
        assert!(refused.to_string().contains("upgrade this runner"), "{refused}");
        assert_eq!(entry(Bytes::new()).unwrap(), None);
    }
}
