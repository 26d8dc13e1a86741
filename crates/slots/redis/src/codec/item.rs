//! One write, as the functions `write` and `relieve` take it.

use bytes::{BufMut, Bytes};
use prism_slot::{Identity, Mode, Owner, Position, Put, Register, Renew, Ttl, Unregister};

use super::LARGEST;

/// One item of a batch of writes.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// What to do with which identity.
    pub(crate) head: Bytes,
    /// The metadata, for what has some.
    pub(crate) metadata: Option<Bytes>,
}

impl Item {
    pub(crate) fn register(request: &Register) -> Self {
        let principal = request.owner.principal.len();
        let mut head = start(b'R', 64 + principal, &request.identity);
        head.put_u8(u8::from(request.mode == Mode::Replace));
        head.put_u64(request.ttl.map_or(0, Ttl::as_millis));
        head.put_u64(request.max_identities.min(LARGEST));
        head.put_slice(&request.request.0);
        put_identity(&mut head, &request.identity);
        put_owner(&mut head, &request.owner);
        Self {
            head: head.into(),
            metadata: Some(request.metadata.clone()),
        }
    }

    pub(crate) fn put(request: &Put) -> Self {
        let mut head = start(b'P', 48, &request.identity);
        put_generation(&mut head, request.generation);
        head.put_u64(request.if_revision.0.min(LARGEST));
        head.put_slice(&request.request.0);
        put_identity(&mut head, &request.identity);
        Self {
            head: head.into(),
            metadata: Some(request.metadata.clone()),
        }
    }

    pub(crate) fn renew(request: &Renew) -> Self {
        Self::fenced(b'W', &request.identity, request.generation)
    }

    pub(crate) fn unregister(request: &Unregister) -> Self {
        Self::fenced(b'U', &request.identity, request.generation)
    }

    pub(crate) fn claim(identity: &Identity, generation: Option<Position>) -> Self {
        Self::fenced(b'S', identity, generation)
    }

    fn fenced(kind: u8, identity: &Identity, generation: Option<Position>) -> Self {
        let mut head = start(kind, 24, identity);
        put_generation(&mut head, generation);
        put_identity(&mut head, identity);
        Self {
            head: head.into(),
            metadata: None,
        }
    }

    /// Whether it stores no more than was there.
    pub(crate) fn relieves(&self) -> bool {
        self.metadata.is_none()
    }

    /// How many bytes it sends.
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.metadata.as_ref().map_or(0, Bytes::len)
    }
}

fn start(kind: u8, fixed: usize, identity: &Identity) -> Vec<u8> {
    let mut head = Vec::with_capacity(fixed + identity.as_str().len());
    head.push(kind);
    head
}

#[allow(clippy::cast_possible_truncation)] // an identity has at most 256 bytes
fn put_identity(head: &mut Vec<u8>, identity: &Identity) {
    head.put_u16(identity.as_str().len() as u16);
    head.put_slice(identity.as_str().as_bytes());
}

/// No generation is all zeros: an epoch is never 0.
fn put_generation(head: &mut Vec<u8>, generation: Option<Position>) {
    head.put_u64(generation.map_or(0, |position| position.epoch.0));
    head.put_u64(generation.map_or(0, |position| position.revision.0));
}

/// As it stands in a record: the first byte says whether there is a session, and the size of the
/// principal lets one owner never be the beginning of another one.
#[allow(clippy::cast_possible_truncation)] // a principal of 4 GiB does not arrive here
pub(super) fn put_owner(head: &mut Vec<u8>, owner: &Owner) {
    head.put_u8(u8::from(owner.session.is_some()));
    head.put_slice(&owner.session.map_or([0; 16], |session| session.0));
    head.put_u32(owner.principal.len() as u32);
    head.put_slice(owner.principal.as_bytes());
}
