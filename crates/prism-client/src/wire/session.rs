//! What sessions yield and are told.

use prism_proto::pattern;

use super::{
    answer::{missing, optional_time, position, time},
    ask,
};
use crate::{
    Answer, Event, Gap, GapReason, Message, Opened, Result, SubscribeRequest,
    raw::{Acks, Listen},
};

pub(crate) fn listen(request: SubscribeRequest) -> Listen {
    Listen {
        open: pattern::subscribe_request::Open {
            identity: request.identity,
            generation: request.generation.map(ask::position),
            ..Default::default()
        },
        credits: request.credits,
        remember: request.remember,
    }
}

pub(crate) fn answer_to(delivery_id: &str, answer: Answer) -> pattern::subscribe_request::Answer {
    pattern::subscribe_request::Answer {
        delivery_id: delivery_id.to_owned(),
        payload: answer.payload,
        content_type: answer.content_type,
        headers: answer.headers.into_iter().collect(),
    }
}

/// `acks` are those of the subscription that yields it. `None` for what is none of its consumer's business.
pub(crate) fn event(
    answer: pattern::SubscribeResponse,
    acks: impl FnOnce() -> Acks,
) -> Result<Option<Event>> {
    use pattern::subscribe_response::Message as Wire;
    Ok(Some(match answer.message.ok_or_else(|| missing("message"))? {
        Wire::Opened(opened) => Event::Opened(Opened {
            generation: position("opened.generation", opened.generation)?,
            session_seq: opened.session_seq,
        }),
        Wire::Delivery(delivery) => Event::Message(Message {
            multicast_id: delivery.multicast_id,
            delivery_id: delivery.delivery_id,
            payload: delivery.payload,
            content_type: delivery.content_type,
            published_at: time("delivery.published_at", delivery.published_at)?,
            headers: delivery.headers.into_iter().collect(),
            attempt: delivery.attempt.max(1),
            stored: delivery.stored,
            expires_at: optional_time("delivery.expires_at", delivery.expires_at)?,
            reply_to: Some(delivery.reply_to).filter(|text| !text.is_empty()),
            expects_reply: delivery.expects_reply,
            acks: acks(),
        }),
        Wire::Gap(gap) => Event::Gap(Gap {
            dropped: gap.dropped,
            reason: gap_reason(gap.reason),
        }),
        Wire::Settled(_) => return Ok(None),
    }))
}

/// What a gap that this client noticed itself says.
pub(crate) const CONNECTION_LOST: &str = "CONNECTION_LOST";

fn gap_reason(reason: String) -> GapReason {
    match reason.as_str() {
        "SLOW_CONSUMER" => GapReason::SlowConsumer,
        "RECONNECTED" => GapReason::Reconnected,
        CONNECTION_LOST => GapReason::ConnectionLost,
        _ => GapReason::Other(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, testing::answers};

    fn read(answer: pattern::SubscribeResponse) -> Result<Option<Event>> {
        event(answer, || unreachable!("that is no message"))
    }

    #[test]
    fn an_event_of_a_kind_that_is_not_known_is_refused() {
        let nothing = read(pattern::SubscribeResponse::default());
        assert!(matches!(nothing, Err(Error::Malformed { field, .. }) if field == "message"));
        let gap = answers::gap(4, "SOMETHING_NEW");
        let expected = GapReason::Other("SOMETHING_NEW".to_owned());
        assert!(
            matches!(read(gap).unwrap(), Some(Event::Gap(gap)) if gap.reason == expected && gap.dropped == 4)
        );
    }
}
