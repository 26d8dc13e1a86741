//! What consumers ask and are told.

use bytes::{BufMut, Bytes};
use prism_slot::{
    DeadReason, Delivery, Fetch, Fetched, Identity, MulticastId, Settled, Swept, Ticket, Verdict,
};

use super::{
    body,
    calls::{Refused, millis},
};
use crate::{
    answer::{Answer, nonsense},
    codec::{LARGEST, Malformed, Reader},
};

/// How much to fetch, as the function takes it.
pub(super) fn wanted(fetch: &Fetch) -> Bytes {
    let mut bytes = Vec::with_capacity(32);
    bytes.put_u64((fetch.max_messages as u64).min(LARGEST));
    bytes.put_u64((fetch.max_bytes as u64).min(LARGEST));
    bytes.put_u64(millis(fetch.ack_timeout));
    bytes.put_u64(fetch.max_deliver.into());
    bytes.into()
}

pub(super) fn fetched(mut answer: Answer) -> Result<Fetched, Refused> {
    let mut counts = Reader(answer.text()?);
    let (deliveries, dead, expired) = (counts.word()?, counts.word()?, counts.word()?);
    let more = counts.byte()? == 1;
    let next_due = counts
        .long()?
        .checked_sub(1)
        .map(std::time::Duration::from_millis);
    let mut fetched = Fetched {
        more,
        next_due,
        ..Fetched::default()
    };
    for _ in 0..deliveries {
        let (known, bytes) = (answer.text()?, answer.text()?);
        fetched.deliveries.push(delivery(known, bytes)?);
    }
    for _ in 0..dead {
        fetched
            .dead
            .push((ticket(answer.text()?)?, DeadReason::MaxDeliver));
    }
    for _ in 0..expired {
        fetched.expired.push(ticket(answer.text()?)?);
    }
    Ok(fetched)
}

fn delivery(known: Bytes, bytes: Bytes) -> Result<Delivery, Refused> {
    let mut known = Reader(known);
    let (stored_at, attempt) = (known.timestamp()?, known.word()?);
    Ok(Delivery {
        message: body::message(body::multicast(&known.0)?, bytes)?,
        attempt,
        stored_at,
    })
}

/// A multicast, and the ticket of a body of it.
fn ticket(mut bytes: Bytes) -> Result<Ticket, Malformed> {
    let multicast = body::multicast(&bytes)?;
    body::ticket(multicast, bytes.split_off(body::MULTICAST))
}

/// A verdict, as the function takes it.
pub(super) fn verdict((multicast, verdict): &(MulticastId, Verdict)) -> Bytes {
    let (kind, delay, reason) = match verdict {
        Verdict::Ack => (b'A', 0, ""),
        Verdict::Nack { delay } => (b'N', millis(*delay), ""),
        Verdict::Term { reason } => (b'T', 0, reason.as_str()),
        Verdict::Release => (b'R', 0, ""),
    };
    let mut bytes = Vec::with_capacity(41 + reason.len());
    bytes.put_u8(kind);
    bytes.put_slice(multicast.to_string().as_bytes());
    bytes.put_u64(delay);
    bytes.put_slice(reason.as_bytes());
    bytes.into()
}

pub(super) fn settled(mut answer: Answer, count: usize) -> Result<Vec<Settled>, Refused> {
    let letters = answer.letters(count)?;
    let settled = letters.iter().map(|letter| match letter {
        b'D' => Ok(Settled::Done),
        b'G' => Ok(Settled::Gone),
        _ => Err(nonsense().into()),
    });
    settled.collect()
}

/// What was dropped, and where to go on.
pub(super) fn discarded(mut answer: Answer) -> Result<(Vec<Ticket>, Bytes), Refused> {
    let next = answer.text()?;
    let mut dropped = Vec::new();
    while let Some(bytes) = answer.optional_text()? {
        dropped.push(ticket(bytes)?);
    }
    Ok((dropped, next))
}

/// And from where on to look at sessions the next time.
pub(super) fn swept(mut answer: Answer) -> Result<(Swept, Bytes), Refused> {
    let mut swept = Swept {
        more: answer.number()? == 1,
        expired: Vec::new(),
    };
    let cursor = answer.text()?;
    while let Some(bytes) = answer.optional_text()? {
        let mut told = Reader(bytes);
        let size = told.short()?;
        let identity = identity(&told.bytes(size.into())?)?;
        swept.expired.push((identity, ticket(told.0)?));
    }
    Ok((swept, cursor))
}

pub(super) fn identity(bytes: &[u8]) -> Result<Identity, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed("its identity is not UTF-8"))?;
    Identity::new(text).map_err(|_| Malformed("its identity is not a valid one"))
}
