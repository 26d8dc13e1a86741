//! Cursors: where an enumeration goes on, in a form that clients hold and cannot make.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use prism_slot::{Epoch, Position, Revision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::query::Bookmark;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// What a cursor carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    epoch: u64,
    revision: u64,
    /// Of the filter, the sort keys and whatever else must stay the same from page to page.
    digest: [u8; 16],
    pub(crate) total: u64,
    pub(crate) after: Bookmark,
}

/// A text that is not a cursor of this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCursor {
    #[error("the cursor was not issued by this namespace, or is damaged")]
    Forged,
    #[error("the cursor was issued by a newer version")]
    Newer,
    #[error("the cursor belongs to another filter or sort order, start again without it")]
    OtherQuery,
}

impl Cursor {
    pub(crate) fn new(at: Position, digest: [u8; 16], total: u64, after: Bookmark) -> Self {
        Self {
            epoch: at.epoch.0,
            revision: at.revision.0,
            digest,
            total,
            after,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            epoch: Epoch(self.epoch),
            revision: Revision(self.revision),
        }
    }

    /// The text that a client holds.
    pub(crate) fn seal(&self, secret: &[u8; 16]) -> String {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&tag(secret, &body));
        sealed.extend_from_slice(&body);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Reads a text back.
    pub(crate) fn open(text: &str, secret: &[u8; 16], digest: [u8; 16]) -> Result<Self, InvalidCursor> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Forged)?;
        let (&version, rest) = sealed.split_first().ok_or(InvalidCursor::Forged)?;
        if version > VERSION {
            return Err(InvalidCursor::Newer);
        }
        let (given, body) = rest.split_at_checked(TAG_BYTES).ok_or(InvalidCursor::Forged)?;
        keyed(secret, body)
            .verify_truncated_left(given)
            .map_err(|_| InvalidCursor::Forged)?;
        let cursor: Self = serde_json::from_slice(body).map_err(|_| InvalidCursor::Forged)?;
        if cursor.digest != digest {
            return Err(InvalidCursor::OtherQuery);
        }
        Ok(cursor)
    }
}

/// Condenses what must stay the same from page to page.
pub(crate) fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

fn keyed(secret: &[u8; 16], body: &[u8]) -> Hmac<Sha256> {
    // A key of any length is a valid one.
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    mac.update(&[VERSION]);
    mac.update(body);
    mac
}

fn tag(secret: &[u8; 16], body: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&keyed(secret, body).finalize().into_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let at = Position {
            epoch: Epoch(u64::MAX),
            revision: Revision(7),
        };
        Cursor::new(
            at,
            digest(&["filter"]),
            12,
            Bookmark {
                values: Vec::new(),
                identity: "a".into(),
            },
        )
    }

    #[test]
    fn a_cursor_reads_back() {
        let text = cursor().seal(&[1; 16]);
        assert_eq!(Cursor::open(&text, &[1; 16], digest(&["filter"])), Ok(cursor()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = cursor().seal(&[1; 16]);
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            let opened = Cursor::open(&forged, &[1; 16], digest(&["filter"]));
            assert!(
                matches!(opened, Err(InvalidCursor::Forged | InvalidCursor::Newer)),
                "at {at}: {opened:?}"
            );
        }
        for nonsense in ["", "x", "AQ", "ü"] {
            assert_eq!(
                Cursor::open(nonsense, &[1; 16], [0; 16]),
                Err(InvalidCursor::Forged)
            );
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_namespace_and_its_query() {
        let text = cursor().seal(&[1; 16]);
        assert_eq!(
            Cursor::open(&text, &[2; 16], digest(&["filter"])),
            Err(InvalidCursor::Forged)
        );
        assert_eq!(
            Cursor::open(&text, &[1; 16], digest(&["other"])),
            Err(InvalidCursor::OtherQuery)
        );
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
