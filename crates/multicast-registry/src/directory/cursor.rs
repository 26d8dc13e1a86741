//! Cursors: where an enumeration goes on, in a form that clients hold and cannot make.
//!
//! A cursor is authenticated with a secret that is drawn with the epoch, so one of an ended epoch
//! cannot be told from a forged one by the secret alone. Its epoch therefore stands beside what is
//! authenticated, and a checksum over everything, bound to the namespace, tells damage from age. Who
//! forges both learns that the epoch ended; nobody learns more without the secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use prism_slot::{Epoch, Position, Revision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::query::Bookmark;

const VERSION: u8 = 1;
const EPOCH_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;

/// What a cursor carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    #[serde(skip)]
    epoch: u64,
    revision: u64,
    /// Of the filter, the sort keys and whatever else must stay the same from page to page.
    digest: [u8; 16],
    pub(crate) total: u64,
    pub(crate) after: Bookmark,
    /// The moment that the first page was asked for, in milliseconds since 1970, where the filter compares
    /// with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) now: Option<i64>,
}

/// What seals cursors: one namespace in one epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seal<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) epoch: Epoch,
    pub(crate) secret: [u8; 16],
}

/// A text that is not a cursor of this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidCursor {
    #[error("the cursor was not issued by this namespace, or is damaged")]
    Forged,
    #[error("the cursor was issued by a newer version")]
    Newer,
    #[error("the cursor is of an epoch that ended, start again without it")]
    OtherEpoch,
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
            now: None,
        }
    }

    /// The same for an enumeration that takes place at a moment.
    pub(crate) fn at_moment(self, now: Option<i64>) -> Self {
        Self { now, ..self }
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            epoch: Epoch(self.epoch),
            revision: Revision(self.revision),
        }
    }

    /// The text that a client holds.
    pub(crate) fn seal(&self, seal: &Seal<'_>) -> String {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let epoch = self.epoch.to_be_bytes();
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&epoch);
        sealed.extend_from_slice(&tag(&seal.secret, epoch, &body));
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(&check(seal.namespace, &sealed));
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// Reads a text back.
    pub(crate) fn open(text: &str, seal: &Seal<'_>, digest: [u8; 16]) -> Result<Self, InvalidCursor> {
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Forged)?;
        let checked = undamaged(&sealed, seal.namespace).ok_or(InvalidCursor::Forged)?;
        // Only of what is a cursor: any text begins with something.
        if checked.first().is_some_and(|version| *version > VERSION) {
            return Err(InvalidCursor::Newer);
        }
        let (epoch, given, body) = parts(checked).ok_or(InvalidCursor::Forged)?;
        if u64::from_be_bytes(epoch) != seal.epoch.0 {
            return Err(InvalidCursor::OtherEpoch);
        }
        keyed(&seal.secret, epoch, body)
            .verify_truncated_left(given)
            .map_err(|_| InvalidCursor::Forged)?;
        let mut cursor: Self = serde_json::from_slice(body).map_err(|_| InvalidCursor::Forged)?;
        cursor.epoch = seal.epoch.0;
        if cursor.digest != digest {
            return Err(InvalidCursor::OtherQuery);
        }
        Ok(cursor)
    }
}

/// A cursor of the namespace without its checksum.
fn undamaged<'a>(sealed: &'a [u8], namespace: &str) -> Option<&'a [u8]> {
    let (checked, given) = sealed.split_at_checked(sealed.len().checked_sub(CHECK_BYTES)?)?;
    (check(namespace, checked) == given).then_some(checked)
}

/// Epoch, tag and body.
fn parts(checked: &[u8]) -> Option<([u8; EPOCH_BYTES], &[u8], &[u8])> {
    let (epoch, rest) = checked.get(1..)?.split_first_chunk()?;
    let (tag, body) = rest.split_at_checked(TAG_BYTES)?;
    Some((*epoch, tag, body))
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

/// Tells damage, and another namespace's cursors; no protection against anybody.
fn check(namespace: &str, sealed: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update((namespace.len() as u64).to_le_bytes());
    hash.update(namespace);
    hash.update(sealed);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
    check
}

fn keyed(secret: &[u8; 16], epoch: [u8; EPOCH_BYTES], body: &[u8]) -> Hmac<Sha256> {
    // A key of any length is a valid one.
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    mac.update(&[VERSION]);
    mac.update(&epoch);
    mac.update(body);
    mac
}

fn tag(secret: &[u8; 16], epoch: [u8; EPOCH_BYTES], body: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&keyed(secret, epoch, body).finalize().into_bytes()[..TAG_BYTES]);
    tag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::query::SortValue, *};

    const SEAL: Seal<'_> = Seal {
        namespace: "one",
        epoch: Epoch(u64::MAX),
        secret: [1; 16],
    };

    fn cursor(values: Vec<SortValue>) -> Cursor {
        let at = Position {
            epoch: SEAL.epoch,
            revision: Revision(7),
        };
        let after = Bookmark {
            values,
            identity: "a".into(),
        };
        Cursor::new(at, digest(&["filter"]), 12, after)
    }

    fn open(text: &str, seal: &Seal<'_>) -> Result<Cursor, InvalidCursor> {
        Cursor::open(text, seal, digest(&["filter"]))
    }

    proptest! {
        /// A number that came back a bit different would make the next page skip rows, or repeat them.
        #[test]
        fn a_cursor_reads_back(
            number in any::<f64>().prop_filter("finite", |number| number.is_finite()), text in ".*", now in any::<Option<i64>>(),
        ) {
            let values = vec![SortValue::Number(number), SortValue::String(text), SortValue::Missing];
            let cursor = cursor(values).at_moment(now);
            prop_assert_eq!(open(&cursor.seal(&SEAL), &SEAL), Ok(cursor));
        }
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = cursor(Vec::new()).seal(&SEAL);
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let opened = open(std::str::from_utf8(&forged).unwrap(), &SEAL);
            assert!(
                matches!(opened, Err(InvalidCursor::Forged)),
                "at {at}: {opened:?}"
            );
        }
        for nonsense in ["", "x", "AQ", "AQAAAAAA", "ü", "foo", "zzzz"] {
            assert_eq!(open(nonsense, &SEAL), Err(InvalidCursor::Forged), "{nonsense}");
        }
    }

    #[test]
    fn a_cursor_of_a_newer_version_is_told_from_a_damaged_one() {
        let mut newer = vec![VERSION + 1, 1, 2, 3];
        newer.extend_from_slice(&check(SEAL.namespace, &newer));
        let opened = open(&URL_SAFE_NO_PAD.encode(newer), &SEAL);
        assert_eq!(opened, Err(InvalidCursor::Newer));
    }

    /// The checksum is no secret, so whoever changes a cursor can set it right.
    #[test]
    fn a_forged_cursor_is_noticed_although_its_checksum_is_right() {
        let genuine = URL_SAFE_NO_PAD.decode(cursor(Vec::new()).seal(&SEAL)).unwrap();
        let end = genuine.len() - CHECK_BYTES;
        for at in 1 + EPOCH_BYTES..end {
            let mut forged = genuine[..end].to_vec();
            forged[at] ^= 1;
            let check = check(SEAL.namespace, &forged);
            forged.extend_from_slice(&check);
            let opened = open(&URL_SAFE_NO_PAD.encode(forged), &SEAL);
            assert_eq!(opened, Err(InvalidCursor::Forged), "at {at}");
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_namespace_its_epoch_and_its_query() {
        let text = cursor(Vec::new()).seal(&SEAL);
        let elsewhere = Seal {
            namespace: "two",
            ..SEAL
        };
        assert_eq!(open(&text, &elsewhere), Err(InvalidCursor::Forged));
        let other_secret = Seal {
            secret: [2; 16],
            ..SEAL
        };
        assert_eq!(open(&text, &other_secret), Err(InvalidCursor::Forged));
        let later = Seal {
            epoch: Epoch(1),
            secret: [2; 16],
            ..SEAL
        };
        assert_eq!(open(&text, &later), Err(InvalidCursor::OtherEpoch));
        assert_eq!(
            Cursor::open(&text, &SEAL, digest(&["other"])),
            Err(InvalidCursor::OtherQuery)
        );
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
