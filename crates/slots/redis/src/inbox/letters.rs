//! Dead letters, listed and put back.

use bytes::{BufMut, Bytes};
use prism_slot::{Address, DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, Redriven, Terms};
use tokio::time::Instant;

use super::{
    MAX_BATCH, body,
    calls::{Calls, Refused},
    deliver::identity,
    library::Function,
    name,
    store::{held, priority_and_ttl},
};
use crate::{
    answer::nonsense,
    codec::{LARGEST, Malformed, Reader},
    error::Effect,
};

/// How many dead letters a page has at most.
const PAGE: usize = 256;

/// Lists dead letters, in as many calls as it takes: those of one identity may be far apart.
pub(super) async fn list(calls: &Calls, query: DeadQuery, deadline: Instant) -> Result<DeadPage, Refused> {
    let limit = query.limit.clamp(1, PAGE);
    let whose = query.identity.as_ref().map_or_else(Bytes::new, name);
    let mut after = query.after.map_or(0, |DeadId(after)| after.min(LARGEST));
    let mut letters = Vec::new();
    loop {
        let mut bounds = Vec::with_capacity(16);
        bounds.put_u64(after);
        // One more, to know whether there is one.
        bounds.put_u64((limit + 1 - letters.len()) as u64);
        let arguments = [bounds.into(), whose.clone()];
        let mut answer = calls
            .call(Function::Letters, &arguments, deadline, Effect::Read)
            .await?;
        after = answer.number()?;
        let is_more = answer.number()? == 1;
        while let Some(known) = answer.optional_text()? {
            letters.push(letter(known, answer.text()?)?);
        }
        if letters.len() > limit || !is_more {
            let more = letters.len() > limit;
            letters.truncate(limit);
            return Ok(DeadPage { letters, more });
        }
    }
}

fn letter(known: Bytes, bytes: Bytes) -> Result<DeadLetter, Refused> {
    let mut known = Reader(known);
    let (id, reason, attempts) = (DeadId(known.long()?), known.byte()?, known.word()?);
    let (died_at, size) = (known.timestamp()?, known.short()?);
    let identity = identity(&known.bytes(size.into())?)?;
    let reference = known.bytes(body::REFERENCE)?;
    let reason = match reason {
        1 => DeadReason::MaxDeliver,
        2 => DeadReason::Terminated(String::from_utf8_lossy(&known.0).into_owned()),
        3 => DeadReason::OtherHolder,
        _ => return Err(Malformed("it tells of an unknown reason").into()),
    };
    Ok(DeadLetter {
        id,
        identity,
        reason,
        attempts,
        died_at,
        message: body::message(body::multicast(&reference)?, bytes)?,
    })
}

/// Puts dead letters back; outcomes in their order.
pub(super) async fn redrive(
    calls: &Calls,
    letters: &[(DeadId, Address)],
    terms: Terms,
    deadline: Instant,
) -> Result<Vec<Redriven>, Refused> {
    let terms = Bytes::from(priority_and_ttl(terms));
    let mut outcomes = Vec::with_capacity(letters.len());
    while let Some(rest) = letters.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
        let part = &rest[..rest.len().min(MAX_BATCH)];
        let mut arguments = vec![terms.clone()];
        arguments.extend(part.iter().map(argument));
        let mut answer = calls
            .call(Function::Redrive, &arguments, deadline, Effect::Write)
            .await?;
        // Fewer than asked for, where too much had to expire before the next could be decided.
        for letter in answer.text()?.into_iter().take(part.len()) {
            outcomes.push(match letter {
                b'B' => Redriven::Back,
                b'G' => Redriven::Gone,
                b'F' => Redriven::Full,
                _ => return Err(nonsense().into()),
            });
        }
    }
    Ok(outcomes)
}

fn argument((DeadId(id), address): &(DeadId, Address)) -> Bytes {
    let identity = address.identity.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(25 + identity.len());
    bytes.put_u64((*id).min(LARGEST));
    bytes.put_slice(&held(address));
    bytes.put_slice(identity);
    bytes.into()
}
