//! The record as it is stored: a version, and then the fields one after the other, numbers with the largest byte first.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prism_slot::{DeadReason, Epoch, Error, Holder, MulticastId, Timestamp};

use super::{Entry, Session, State, Status};
use crate::error::BACKEND;

const VERSION: u8 = 1;

const OUT: u8 = 0;
const WAITING: u8 = 1;
const DONE: u8 = 2;
const MAX_DELIVER: u8 = 3;
const OTHER_HOLDER: u8 = 4;
const TERMINATED: u8 = 5;

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(64 + 40 * self.entries.len());
        bytes.put_u8(VERSION);
        bytes.put_u64(self.generation);
        bytes.put_u8(u8::from(self.session.is_some()));
        if let Some(session) = &self.session {
            bytes.put_slice(&session.holder.0);
            bytes.put_u64(session.epoch.0);
            bytes.put_u64(session.seq);
        }
        for seen in self.seen {
            bytes.put_u64(seen);
        }
        for (sequence, entry) in &self.entries {
            bytes.put_u64(*sequence);
            bytes.put_u8(entry.rank as u8);
            bytes.put_u128(entry.multicast.0);
            bytes.put_u32(entry.attempt);
            put_status(&entry.status, &mut bytes);
        }
        bytes.freeze()
    }

    /// # Errors
    /// A record of a newer version, or none at all.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        match bytes.first() {
            Some(&VERSION) => bytes.advance(1),
            Some(version) => {
                return Err(unreadable(format!(
                    "a session of version {version}, newer than {VERSION}; upgrade this runner"
                )));
            }
            None => return Err(unreadable("an empty session".to_owned())),
        }
        read(&mut bytes).ok_or_else(|| unreadable("a damaged session".to_owned()))
    }
}

fn unreadable(message: String) -> Error {
    Error::Unreadable {
        backend: BACKEND,
        message,
    }
}

fn put_status(status: &Status, bytes: &mut BytesMut) {
    match status {
        Status::Out(until) => {
            bytes.put_u8(OUT);
            bytes.put_i64(until.0);
        }
        Status::Waiting(until) => {
            bytes.put_u8(WAITING);
            bytes.put_i64(until.0);
        }
        Status::Done => bytes.put_u8(DONE),
        Status::Dying(DeadReason::MaxDeliver) => bytes.put_u8(MAX_DELIVER),
        Status::Dying(DeadReason::OtherHolder) => bytes.put_u8(OTHER_HOLDER),
        Status::Dying(DeadReason::Terminated(reason)) => {
            bytes.put_u8(TERMINATED);
            // It has been cut to less.
            bytes.put_u16(u16::try_from(reason.len()).unwrap_or(u16::MAX));
            bytes.put_slice(&reason.as_bytes()[..reason.len().min(usize::from(u16::MAX))]);
        }
    }
}

fn read(bytes: &mut Bytes) -> Option<State> {
    let generation = bytes.try_get_u64().ok()?;
    let session = match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(Session {
            holder: Holder(bytes.try_get_u128().ok()?.to_be_bytes()),
            epoch: Epoch(bytes.try_get_u64().ok()?),
            seq: bytes.try_get_u64().ok()?,
        }),
        _ => return None,
    };
    let mut seen = [0; 3];
    for seen in &mut seen {
        *seen = bytes.try_get_u64().ok()?;
    }
    let mut entries = BTreeMap::new();
    while bytes.has_remaining() {
        let (sequence, entry) = read_entry(bytes)?;
        entries.insert(sequence, entry);
    }
    Some(State {
        generation,
        session,
        seen,
        entries,
        until: Timestamp::default(),
    })
}

fn read_entry(bytes: &mut Bytes) -> Option<(u64, Entry)> {
    let sequence = bytes.try_get_u64().ok()?;
    let rank = usize::from(bytes.try_get_u8().ok()?);
    let entry = Entry {
        rank: (rank < 3).then_some(rank)?,
        multicast: MulticastId(bytes.try_get_u128().ok()?),
        attempt: bytes.try_get_u32().ok()?,
        status: read_status(bytes)?,
    };
    Some((sequence, entry))
}

fn read_status(bytes: &mut Bytes) -> Option<Status> {
    Some(match bytes.try_get_u8().ok()? {
        OUT => Status::Out(Timestamp(bytes.try_get_i64().ok()?)),
        WAITING => Status::Waiting(Timestamp(bytes.try_get_i64().ok()?)),
        DONE => Status::Done,
        MAX_DELIVER => Status::Dying(DeadReason::MaxDeliver),
        OTHER_HOLDER => Status::Dying(DeadReason::OtherHolder),
        TERMINATED => {
            let length = usize::from(bytes.try_get_u16().ok()?);
            let reason = (bytes.remaining() >= length).then(|| bytes.split_to(length))?;
            Status::Dying(DeadReason::Terminated(String::from_utf8(reason.to_vec()).ok()?))
        }
        _ => return None,
    })
}
