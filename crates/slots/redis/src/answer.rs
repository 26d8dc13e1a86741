//! What functions answer: a letter, and further parts.

use bytes::Bytes;
use fred::interfaces::Resp3Frame;
use prism_slot::{Applied, Error, Result};

use crate::{
    codec::Malformed,
    error::{misconfigured, unavailable, unreadable},
};

/// The parts of an answer that were not taken yet.
#[derive(Debug)]
pub(crate) struct Answer(std::vec::IntoIter<Resp3Frame>);

impl Answer {
    /// The letter that says what it is, and the rest.
    pub(crate) fn read(frame: Resp3Frame) -> Result<(Bytes, Self)> {
        let Resp3Frame::Array { data, .. } = frame else {
            return Err(nonsense());
        };
        let mut answer = Self(data.into_iter());
        Ok((answer.text()?, answer))
    }

    pub(crate) fn text(&mut self) -> Result<Bytes> {
        self.optional_text()?.ok_or_else(nonsense)
    }

    /// The next part; `None` after the last one.
    pub(crate) fn optional_text(&mut self) -> Result<Option<Bytes>> {
        match self.0.next() {
            Some(Resp3Frame::BlobString { data, .. }) => Ok(Some(data)),
            None => Ok(None),
            _ => Err(nonsense()),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        match self.0.next() {
            Some(Resp3Frame::Number { data, .. }) => u64::try_from(data).map_err(|_| nonsense()),
            _ => Err(nonsense()),
        }
    }

    /// One letter for each of so many things that were asked about.
    pub(crate) fn letters(&mut self, count: usize) -> Result<Bytes> {
        let letters = self.text()?;
        if letters.len() == count {
            return Ok(letters);
        }
        Err(nonsense())
    }

    /// What an answer says that does not say that the call was done.
    pub(crate) fn refusal(mut self, letter: &[u8]) -> Error {
        let said = match self.text() {
            Ok(said) => String::from_utf8_lossy(&said).into_owned(),
            Err(error) => return error,
        };
        match letter {
            b"V" => later_version(&said),
            b"O" => misconfigured(format!(
                "its keys belong to the namespace `{said}`; choose another `prefix`"
            )),
            b"D" => misconfigured(format!(
                "the user may not use `{}`; see `username` in the configuration for all that is needed",
                said.to_lowercase()
            )),
            b"F" => unavailable(format!("a function failed: {said}"), Applied::Unknown),
            _ => nonsense(),
        }
    }
}

pub(crate) fn later_version(what: &str) -> Error {
    unreadable(format!("a later version wrote {what}; upgrade this runner"))
}

pub(crate) fn meaningless(malformed: Malformed) -> Error {
    unreadable(format!("an answer cannot be used, {malformed}"))
}

pub(crate) fn nonsense() -> Error {
    meaningless(Malformed("it is not of this program's functions"))
}
