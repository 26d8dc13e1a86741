//! Reading fixed and counted fields, one after the other.

use bytes::{Buf, Bytes};
use prism_slot::{Epoch, Position, Revision, Timestamp, Ttl};

/// The bytes end too early, or do not mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What is left to read. Parts are taken out without copying.
#[derive(Debug, Clone)]
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed("it ends early"))
    }

    pub(crate) fn short(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16().map_err(|_| Malformed("it ends early"))
    }

    pub(crate) fn word(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed("it ends early"))
    }

    pub(crate) fn long(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed("it ends early"))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < count {
            return Err(Malformed("it ends early"));
        }
        Ok(self.0.split_to(count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        self.0
            .try_copy_to_slice(&mut array)
            .map_err(|_| Malformed("it ends early"))?;
        Ok(array)
    }

    pub(crate) fn revision(&mut self) -> Result<Revision, Malformed> {
        self.long().map(Revision)
    }

    pub(crate) fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position {
            epoch: Epoch(self.long()?),
            revision: self.revision()?,
        })
    }

    /// Of any moment that can be one.
    pub(crate) fn timestamp(&mut self) -> Result<Timestamp, Malformed> {
        let millis = i64::try_from(self.long()?).map_err(|_| Malformed("it has a time out of range"))?;
        Ok(Timestamp(millis))
    }

    /// Zero stands for none.
    pub(crate) fn end(&mut self) -> Result<Option<Timestamp>, Malformed> {
        Ok(Some(self.timestamp()?).filter(|end| end.0 != 0))
    }

    pub(crate) fn ttl(&mut self) -> Result<Option<Ttl>, Malformed> {
        self.long().map(Ttl::from_millis)
    }
}
