//! Dead letters.

use prism_proto::pattern::{self, list_dead_letters_response::DeadLetter as WireLetter};

use super::{
    answer::{count, time},
    ask::page,
};
use crate::{DeadLetter, DeadLetters, ListDeadLettersRequest, RedriveRequest, Redriven, Result};

pub(crate) fn list_dead_letters(request: ListDeadLettersRequest) -> Result<pattern::ListDeadLettersRequest> {
    Ok(pattern::ListDeadLettersRequest {
        identity: request.identity,
        pagination: Some(page(request.limit, request.cursor)?),
    })
}

pub(crate) fn dead_letters(answer: pattern::ListDeadLettersResponse) -> Result<DeadLetters> {
    let letters = answer.letters.into_iter().enumerate();
    Ok(DeadLetters {
        letters: letters
            .map(|(index, found)| letter(index, found))
            .collect::<Result<_>>()?,
        next_cursor: answer.next_cursor.filter(|cursor| !cursor.is_empty()),
    })
}

fn letter(index: usize, letter: WireLetter) -> Result<DeadLetter> {
    Ok(DeadLetter {
        letter_id: letter.letter_id,
        identity: letter.identity,
        delivery_id: letter.delivery_id,
        reason: letter.reason,
        detail: Some(letter.detail).filter(|detail| !detail.is_empty()),
        attempts: letter.attempts,
        died_at: time(format_args!("letters[{index}].died_at"), letter.died_at)?,
        published_at: time(format_args!("letters[{index}].published_at"), letter.published_at)?,
        payload: letter.payload,
        payload_size: count(format_args!("letters[{index}].payload_size"), letter.payload_size)?,
        content_type: letter.content_type,
        headers: letter.headers.into_iter().collect(),
    })
}

pub(crate) fn redrive(request: RedriveRequest) -> pattern::RedriveDeadLettersRequest {
    let mut redrive = pattern::RedriveDeadLettersRequest::default();
    match request {
        RedriveRequest::Letters(letter_ids) => redrive.letter_ids = letter_ids,
        RedriveRequest::Deliveries(delivery_ids) => redrive.delivery_ids = delivery_ids,
        RedriveRequest::OfIdentity(identity) => redrive.identity = Some(identity),
        RedriveRequest::All => redrive.all = true,
    }
    redrive
}

pub(crate) fn redriven(answer: pattern::RedriveDeadLettersResponse) -> Result<Redriven> {
    Ok(Redriven {
        redriven_count: count("redriven_count", answer.redriven_count)?,
        full_count: count("full_count", answer.full_count)?,
        gone_count: count("gone_count", answer.gone_count)?,
    })
}
