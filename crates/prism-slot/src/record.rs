//! Records and the points in history at which they were written (DESIGN §3).

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU64,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

/// The name of a registration, unique in its namespace: 1 to 256 bytes of UTF-8 without control
/// characters. Cheap to clone.
#[derive(Clone, Eq, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The longest identity, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Checks `text` and takes it as an identity.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentity> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(InvalidIdentity::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidIdentity::TooLong(text.len()));
        }
        // Only these bytes begin or are control characters, and most identities have none of them.
        let suspicious = |byte: u8| byte < 0x20 || byte == 0x7f || byte == 0xc2;
        if text.bytes().any(suspicious)
            && let Some(at) = text.find(char::is_control)
        {
            return Err(InvalidIdentity::Control(at));
        }
        Ok(Self(text.into()))
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Identity {
    type Error = InvalidIdentity;

    fn try_from(text: &str) -> Result<Self, InvalidIdentity> {
        Self::new(text)
    }
}

impl TryFrom<String> for Identity {
    type Error = InvalidIdentity;

    fn try_from(text: String) -> Result<Self, InvalidIdentity> {
        Self::new(text)
    }
}

/// Why a text is not an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// It has no bytes.
    #[error("an identity must not be empty")]
    Empty,
    /// It has more than [`Identity::MAX_BYTES`] bytes.
    #[error("an identity has at most {max} bytes, this one has {0}", max = Identity::MAX_BYTES)]
    TooLong(usize),
    /// It holds a control character.
    #[error("an identity must not contain control characters, this one has one at byte {0}")]
    Control(usize),
}

/// Clones of one are equal without a look at their text.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which history a revision belongs to. Drawn at random; a new one means that history may have been
/// lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// A fresh epoch. Never 0, which stands for "unset" on the wire.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX))
    }
}

/// The number of a write. Dense and strictly increasing within an epoch, from 1; below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A point in a namespace's history. Ordered only within one epoch, and so not `Ord`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The history.
    pub epoch: Epoch,
    /// The last write that is included.
    pub revision: Revision,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.epoch.0, self.revision.0)
    }
}

/// Milliseconds since the Unix epoch, by the slot's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This process's wall clock.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |elapsed| elapsed.as_millis() as i64))
    }
}

/// How long a lease lasts without renewal, in whole milliseconds; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(NonZeroU64);

impl Ttl {
    /// `None` for zero.
    pub fn from_millis(millis: u64) -> Option<Self> {
        NonZeroU64::new(millis).map(Self)
    }

    /// In milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0.get()
    }
}

/// 16 bytes that a client makes and presents again when it repeats a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

/// 16 bytes that name one attempt to write, so that a replay after a lost reply returns the first
/// result instead of applying the write twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    /// A fresh one: drawn at random once a process, and counted on from there.
    pub fn next() -> Self {
        static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self((u128::from(*PROCESS) << 64 | u128::from(count)).to_be_bytes())
    }
}

/// Who holds a registration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The authenticated caller; empty when calls are not authenticated.
    pub principal: Arc<str>,
    /// The client's session, if it gave one.
    pub session: Option<SessionId>,
}

impl Default for Owner {
    fn default() -> Self {
        Self {
            principal: "".into(),
            session: None,
        }
    }
}

/// One registered identity as a slot stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub identity: Identity,
    /// Opaque to slots; the coordinator stores canonical JSON text of an object.
    pub metadata: Bytes,
    /// When this registration (this generation) was made.
    pub registered_at: Timestamp,
    /// When metadata was last written.
    pub updated_at: Timestamp,
    /// The lease's length; `None` for a registration that never expires.
    pub ttl: Option<Ttl>,
    /// When the lease ends as far as was known when this record was read. Renewals move it without
    /// writing the record, so a record that came through the change feed may show an older one.
    pub expires_at: Option<Timestamp>,
    /// The position of the registering write. Compared for equality only.
    pub generation: Position,
    /// The revision of the last write to this record.
    pub revision: Revision,
    /// Who holds it.
    pub owner: Owner,
}

/// Why a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A new registration.
    Registered,
    /// A registration in place of another one.
    Replaced,
    /// New metadata for the same registration.
    Updated,
    /// Removed by request.
    Unregistered,
    /// Its lease ended.
    Expired,
    /// Removed by the operator.
    Evicted,
}

impl Cause {
    /// Whether the record is gone after the change.
    pub fn removes(self) -> bool {
        matches!(self, Self::Unregistered | Self::Expired | Self::Evicted)
    }
}

/// One entry of a namespace's history: the only thing that happened at its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where in history.
    pub revision: Revision,
    /// Why.
    pub cause: Cause,
    /// The record after the change; for a removal, as it last was.
    pub record: Arc<Record>,
    /// The record that `record` took the place of; for a removal, and where there was none, absent.
    pub before: Option<Arc<Record>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_bounded_and_printable() {
        assert_eq!(Identity::new(""), Err(InvalidIdentity::Empty));
        assert_eq!(Identity::new("a".repeat(257)), Err(InvalidIdentity::TooLong(257)));
        assert_eq!(Identity::new("a\nb"), Err(InvalidIdentity::Control(1)));
        assert_eq!(Identity::new("a\u{85}b"), Err(InvalidIdentity::Control(1)));
        for fine in ["x", "user-alice session.1 *>", "ключ", &"é".repeat(128)] {
            assert_eq!(Identity::new(fine).unwrap().as_str(), fine);
        }
    }

    #[test]
    fn only_removals_remove() {
        let removing = [Cause::Unregistered, Cause::Expired, Cause::Evicted];
        let keeping = [Cause::Registered, Cause::Replaced, Cause::Updated];
        assert!(removing.iter().all(|cause| cause.removes()));
        assert!(!keeping.iter().any(|cause| cause.removes()));
    }
}
