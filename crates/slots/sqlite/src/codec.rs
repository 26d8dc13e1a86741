//! How values are stored as bytes: big-endian, each beginning with the [format](crate::schema::FORMAT).

mod change;
mod head;
mod message;
mod record;

pub(crate) use change::{read_change, write_change};
pub(crate) use head::{read_head, write_head};
pub(crate) use message::{read_message, write_message};
pub(crate) use record::{Stored, read_record, write_record};

use bytes::{Buf, BufMut, Bytes};

use crate::{error::Fault, schema::FORMAT};

/// Why bytes cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }

    /// The end of a call that came upon `what`.
    pub(crate) fn fault(self, what: impl std::fmt::Display) -> Fault {
        Fault::Damaged(format!("{what} cannot be used, {}", self.0))
    }
}

pub(crate) type Read<T> = Result<T, Malformed>;

/// Bytes that begin with the format.
pub(crate) fn begin(capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity + 1);
    bytes.put_u8(FORMAT);
    bytes
}

/// A text or bytes with their length before them.
pub(crate) fn put_long(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(value);
}

/// Reads what was written, as far as there is anything left.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    /// Begins with the format, which must be one that is known.
    pub(crate) fn begin(bytes: Bytes) -> Read<Self> {
        let mut reader = Self(bytes);
        match reader.byte()? {
            FORMAT => Ok(reader),
            later if later > FORMAT => Err(Malformed(format!(
                "its format {later} is of a later version; run that version or a later one"
            ))),
            other => Err(Malformed(format!("its format is {other}"))),
        }
    }

    fn need(&self, count: usize) -> Read<()> {
        if self.0.remaining() < count {
            return Err(Malformed::new("it ends too soon"));
        }
        Ok(())
    }

    pub(crate) fn byte(&mut self) -> Read<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn flag(&mut self) -> Read<bool> {
        Ok(self.byte()? != 0)
    }

    pub(crate) fn word(&mut self) -> Read<u32> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    pub(crate) fn long(&mut self) -> Read<u64> {
        self.need(8)?;
        Ok(self.0.get_u64())
    }

    pub(crate) fn signed(&mut self) -> Read<i64> {
        self.need(8)?;
        Ok(self.0.get_i64())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.need(N)?;
        let mut array = [0; N];
        self.0.copy_to_slice(&mut array);
        Ok(array)
    }

    pub(crate) fn bytes(&mut self) -> Read<Bytes> {
        let size = self.word()? as usize;
        self.need(size)?;
        Ok(self.0.split_to(size))
    }

    pub(crate) fn text(&mut self) -> Read<String> {
        let text = String::from_utf8(self.bytes()?.into());
        text.map_err(|_| Malformed::new("a text in it is not UTF-8"))
    }

    /// What comes after a byte that says whether it does.
    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        self.flag()?.then(|| read(self)).transpose()
    }
}

/// The counterpart of [`Reader::optional`].
pub(crate) fn put_optional<T>(bytes: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    bytes.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(bytes, value);
    }
}
