//! What targets answer.

use bytes::Bytes;
use prism_slot::Identity;

/// What an answer takes beside what it says, and one of its headers.
const REPLY_BYTES: usize = 96;
const HEADER_BYTES: usize = 64;

/// What one target answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Who.
    pub identity: Identity,
    /// What.
    pub payload: Bytes,
    /// The media type of that.
    pub content_type: String,
    /// Headers that came along.
    pub headers: Vec<(String, String)>,
}

impl Reply {
    /// About how many bytes it takes in memory; never less than in a note.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| HEADER_BYTES + name.len() + value.len());
        let text = self.identity.as_str().len() + self.content_type.len() + self.payload.len();
        REPLY_BYTES + text + headers.sum::<usize>()
    }
}
