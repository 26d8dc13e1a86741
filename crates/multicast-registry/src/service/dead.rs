//! Dead letters between the wire and this crate's types.

use prism_core::failure::Reason;
use prism_proto::pattern as proto;
use prism_slot::{DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, MulticastId};
use prost::Message as _;

use super::{
    subscribe::delivery_id,
    wire::{ANSWER_BYTES, ITEM_OVERHEAD, Result, identity, invalid, to_timestamp},
};
use crate::coordinator::{Redrive, RedriveReport};

/// How many letters a page has, unless the request says, and at most.
const PAGE: (usize, usize) = (100, 1_000);
/// How much of a payload is shown.
const SHOWN: usize = 4 << 10;
/// How many letters one call names at most.
const MAX_NAMED: usize = 10_000;

pub(super) fn query(request: proto::ListDeadLettersRequest) -> Result<DeadQuery> {
    let pagination = request.pagination.unwrap_or_default();
    if pagination.offset != 0 {
        let message = "dead letters are paged by cursor, without an offset";
        return Err(invalid(Reason::InvalidRequest, "pagination.offset", message));
    }
    let limit = usize::try_from(pagination.limit)
        .ok()
        .filter(|limit| *limit <= PAGE.1);
    let limit = limit.ok_or_else(|| {
        let message = format!("a page has at most {} letters", PAGE.1);
        invalid(Reason::InvalidRequest, "pagination.limit", message).with("limit", PAGE.1)
    })?;
    let after = match pagination.cursor.as_str() {
        "" => None,
        cursor => Some(letter_id(Reason::InvalidCursor, "pagination.cursor", cursor)?),
    };
    Ok(DeadQuery {
        after,
        identity: request.identity.as_deref().map(identity).transpose()?,
        limit: if limit == 0 { PAGE.0 } else { limit },
    })
}

fn letter_id(reason: Reason, field: &str, text: &str) -> Result<DeadId> {
    let id = text.parse().map(DeadId);
    id.map_err(|_| invalid(reason, field, format!("`{text}` names no dead letter")))
}

pub(super) fn redrive(request: proto::RedriveDeadLettersRequest) -> Result<Redrive> {
    let ways = [
        !request.letter_ids.is_empty(),
        !request.delivery_ids.is_empty(),
        request.identity.is_some(),
        request.all,
    ];
    if ways.iter().filter(|way| **way).count() != 1 {
        let message = "say which in one way: `letter_ids`, `delivery_ids`, `identity` or `all`";
        return Err(invalid(Reason::InvalidRequest, "letter_ids", message));
    }
    let named = request.letter_ids.len().max(request.delivery_ids.len());
    if named > MAX_NAMED {
        let message = format!("one call names at most {MAX_NAMED} letters");
        return Err(invalid(Reason::InvalidRequest, "letter_ids", message).with("limit", MAX_NAMED));
    }
    if let Some(name) = &request.identity {
        return Ok(Redrive::OfIdentity(identity(name)?));
    }
    if request.all {
        return Ok(Redrive::All);
    }
    let letters = request
        .letter_ids
        .iter()
        .map(|id| letter_id(Reason::InvalidRequest, "letter_ids", id));
    let letters: Vec<DeadId> = letters.collect::<Result<_>>()?;
    if !letters.is_empty() {
        return Ok(Redrive::Letters(letters));
    }
    let message = |id: &String| {
        let parts = id.split_once('/').filter(|(multicast, _)| multicast.len() == 32);
        let multicast: Option<MulticastId> = parts.and_then(|(multicast, _)| multicast.parse().ok());
        let named = multicast.zip(parts.map(|(_, name)| name));
        let (multicast, name) = named.ok_or_else(|| {
            invalid(
                Reason::InvalidRequest,
                "delivery_ids",
                format!("`{id}` names no delivery"),
            )
        })?;
        Ok((multicast, identity(name)?))
    };
    Ok(Redrive::Messages(
        request.delivery_ids.iter().map(message).collect::<Result<_>>()?,
    ))
}

pub(super) fn to_list_response(page: DeadPage) -> proto::ListDeadLettersResponse {
    let (count, mut left) = (page.letters.len(), ANSWER_BYTES);
    let fits = |letter: &proto::list_dead_letters_response::DeadLetter| {
        let room = left.checked_sub(letter.encoded_len() + ITEM_OVERHEAD);
        left = room.unwrap_or(0);
        room.is_some()
    };
    let letters: Vec<_> = page.letters.into_iter().map(to_letter).take_while(fits).collect();
    let last = letters.last().map(|letter| letter.letter_id.clone());
    proto::ListDeadLettersResponse {
        next_cursor: last.filter(|_| page.more || letters.len() < count),
        letters,
    }
}

fn to_letter(letter: DeadLetter) -> proto::list_dead_letters_response::DeadLetter {
    let (reason, detail) = match letter.reason {
        DeadReason::MaxDeliver => ("MAX_DELIVER", String::new()),
        DeadReason::Terminated(why) => ("TERMINATED", why),
        DeadReason::OtherHolder => ("OTHER_HOLDER", String::new()),
    };
    let message = &letter.message;
    proto::list_dead_letters_response::DeadLetter {
        delivery_id: delivery_id(message.multicast, &letter.identity),
        identity: letter.identity.to_string(),
        reason: reason.to_owned(),
        died_at: Some(to_timestamp(letter.died_at)),
        letter_id: letter.id.0.to_string(),
        detail,
        attempts: letter.attempts,
        payload: message.payload.slice(..message.payload.len().min(SHOWN)),
        payload_size: message.payload.len() as i64,
        content_type: message.content_type.to_string(),
        headers: message.headers.iter().cloned().collect(),
        published_at: Some(to_timestamp(message.published_at)),
    }
}

pub(super) fn to_redrive_response(report: RedriveReport) -> proto::RedriveDeadLettersResponse {
    proto::RedriveDeadLettersResponse {
        redriven_count: report.back as i64,
        full_count: report.full as i64,
        gone_count: report.gone as i64,
    }
}
