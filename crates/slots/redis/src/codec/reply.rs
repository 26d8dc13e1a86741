//! What the functions answer.

use std::sync::Arc;

use bytes::Bytes;
use fred::interfaces::Resp3Frame;
use prism_slot::{
    Applied, Claim, Epoch, Error, Identity, Position, Put, Record, Registered, Renewed, Result, Revision,
    Timestamp, Unregistered, Written,
};

use super::{
    Malformed, Reader,
    record::{Terms, stored},
};
use crate::{
    answer::{later_version, meaningless, nonsense},
    error::{misconfigured, unavailable},
};

/// The answer to a call: where history stands, and what was found.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Position,
    pub(crate) parts: std::vec::IntoIter<Resp3Frame>,
}

impl Reply {
    pub(crate) fn read(frame: Resp3Frame) -> Result<Self> {
        let Resp3Frame::Array { data, .. } = frame else {
            return Err(nonsense());
        };
        let mut parts = data.into_iter();
        let kind = text(parts.next())?;
        match kind.first() {
            Some(b'K') => Ok(Self {
                head: Position {
                    epoch: epoch(parts.next())?,
                    revision: Revision(number(parts.next())?),
                },
                parts,
            }),
            Some(b'E') => Err(Error::EpochChanged {
                current: epoch(parts.next())?,
            }),
            Some(b'V') => Err(later_version("the namespace")),
            Some(b'O') => {
                let other = String::from_utf8_lossy(&text(parts.next())?).into_owned();
                Err(misconfigured(format!(
                    "its keys belong to the namespace `{other}`; choose another `prefix`"
                )))
            }
            Some(b'F') => Err(failure(&text(parts.next())?)),
            _ => Err(nonsense()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<Bytes> {
        text(self.parts.next())
    }

    /// The next part; `None` after the last one.
    pub(crate) fn optional_text(&mut self) -> Result<Option<Bytes>> {
        self.parts.next().map(|part| text(Some(part))).transpose()
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        number(self.parts.next())
    }
}

/// The answer to one item of a batch of writes.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The epoch of the call.
    pub(crate) epoch: Epoch,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// Whether nothing was decided, because too many due leases were in the way: a part of them is
    /// gone now.
    pub(crate) fn is_undecided(&self) -> bool {
        self.bytes.first() == Some(&b'A')
    }

    /// What follows the letter that says that it was done.
    fn done(self, identity: &Identity, max_identities: u64) -> Result<Reader> {
        let mut reader = Reader(self.bytes.clone());
        match reader.byte().map_err(meaningless)? {
            b'K' => Ok(reader),
            b'X' => Err(Error::AlreadyExists(identity.clone())),
            b'N' => Err(Error::NotFound(identity.clone())),
            b'Q' => Err(Error::QuotaExceeded {
                limit: max_identities,
            }),
            b'G' => Err(Error::StaleGeneration {
                identity: identity.clone(),
                current: reader.position().map_err(meaningless)?,
            }),
            b'C' => Err(Error::Conflict {
                identity: identity.clone(),
                current: reader.revision().map_err(meaningless)?,
            }),
            _ => Err(failure(&self.bytes)),
        }
    }
}

pub(crate) fn registered(answer: Answer, identity: &Identity, max_identities: u64) -> Result<Registered> {
    let epoch = answer.epoch;
    let reader = answer.done(identity, max_identities)?;
    read_registered(epoch, reader).map_err(meaningless)
}

fn read_registered(epoch: Epoch, mut reader: Reader) -> Result<Registered, Malformed> {
    let written = match reader.byte()? {
        1 => Written::Registered,
        2 => Written::Replaced,
        3 => Written::Updated,
        4 => Written::Renewed,
        _ => return Err(Malformed("it tells of an unknown kind of write")),
    };
    let (generation, revision) = (reader.position()?, reader.revision()?);
    Ok(Registered {
        written,
        registered_at: reader.timestamp()?,
        expires_at: reader.end()?,
        generation,
        position: Position { epoch, revision },
    })
}

/// The metadata is sent back for a replay only: otherwise it is that of the request.
pub(crate) fn put(answer: Answer, request: Put) -> Result<Arc<Record>> {
    let mut reader = answer.done(&request.identity, 0)?;
    let mut read = || Ok::<_, Malformed>((reader.byte()? == 0, Terms::read(&mut reader)?));
    let (is_first, terms) = read().map_err(meaningless)?;
    let metadata = is_first.then_some(request.metadata);
    stored(request.identity, terms, reader, metadata).map_err(meaningless)
}

pub(crate) fn renewed(answer: Answer, identity: &Identity) -> Result<Renewed> {
    let mut reader = answer.done(identity, 0)?;
    let mut read = || {
        Ok(Renewed {
            ttl: reader.ttl()?,
            expires_at: reader.end()?,
        })
    };
    read().map_err(meaningless)
}

pub(crate) fn unregistered(answer: Answer, identity: &Identity) -> Result<Unregistered> {
    let epoch = answer.epoch;
    let mut reader = answer.done(identity, 0)?;
    let mut read = || {
        Ok(Unregistered {
            existed: reader.byte()? == 1,
            position: Position {
                epoch,
                revision: reader.revision()?,
            },
        })
    };
    read().map_err(meaningless)
}

pub(crate) fn claim(answer: Answer, identity: &Identity) -> Result<Claim> {
    let mut reader = answer.done(identity, 0)?;
    let mut read = || {
        Ok(Claim {
            session_seq: reader.long()?,
            generation: reader.position()?,
        })
    };
    read().map_err(meaningless)
}

/// Reads when leases end: of the first at least, of `most` at most.
pub(crate) fn leases(bytes: Bytes, most: usize) -> Result<Vec<Option<Timestamp>>> {
    let count = bytes.len() / size_of::<u64>();
    if count == 0 || count > most {
        return Err(nonsense());
    }
    let mut reader = Reader(bytes);
    (0..count).map(|_| reader.end().map_err(meaningless)).collect()
}

/// Reads what a function says of a part of it that went wrong.
fn failure(bytes: &Bytes) -> Error {
    let said = || String::from_utf8_lossy(&bytes[1..]).into_owned();
    match bytes.first() {
        Some(b'V') => later_version("a record"),
        Some(b'D') => misconfigured(format!(
            "the user may not use `{}`; see `username` in the configuration for all that is needed",
            said()
        )),
        Some(b'F') => unavailable(format!("a function failed: {}", said()), Applied::Unknown),
        _ => nonsense(),
    }
}

fn epoch(part: Option<Resp3Frame>) -> Result<Epoch> {
    Reader(text(part)?).long().map(Epoch).map_err(meaningless)
}

fn text(part: Option<Resp3Frame>) -> Result<Bytes> {
    match part {
        Some(Resp3Frame::BlobString { data, .. }) => Ok(data),
        _ => Err(nonsense()),
    }
}

fn number(part: Option<Resp3Frame>) -> Result<u64> {
    match part {
        Some(Resp3Frame::Number { data, .. }) => u64::try_from(data).map_err(|_| nonsense()),
        _ => Err(nonsense()),
    }
}
