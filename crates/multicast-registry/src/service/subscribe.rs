//! `Subscribe`: a session as a stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern::{self as proto, subscribe_request, subscribe_response};
use prism_slot::{
    Claim, DEFAULT_CONTENT_TYPE, GapReason, Identity, Message, MulticastId, Position, Settled, Verdict,
};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{
    multicast::headers,
    wire::{self, content_type, identity, invalid, position, to_position, to_timestamp},
};
use crate::{
    coordinator::{Coordinator, Session, SessionEvent},
    delivery::Reply,
};

/// The longest time after which a message is to come again.
const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);
/// The longest reason of a refusal, in bytes.
const MAX_REASON: usize = 256;

/// The responses of one session. The session ends when this is dropped.
pub struct Subscription(BoxStream<'static, Result<proto::SubscribeResponse, Status>>);

impl Stream for Subscription {
    type Item = Result<proto::SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

pub(super) async fn open(
    coordinator: Coordinator,
    mut requests: Streaming<proto::SubscribeRequest>,
    deadline: Instant,
) -> Result<Subscription, Failure> {
    let first = requests.message().await.ok().flatten();
    let open = read_open(first)?;
    let mut session = coordinator
        .subscribe(open.identity.clone(), open.generation, deadline)
        .await?;
    if let Some(credits) = open.credits {
        session.limit();
        session.grant(credits.into());
    }
    let opened = futures::stream::once(std::future::ready(Ok(to_opened(session.claim()))));
    // Boxed, as it is handed on with each event.
    let state = Box::new(Live {
        session,
        requests: Some(requests),
        identity: open.identity,
        confirm: open.confirm,
        max_reply: max_reply(coordinator.messaging().capability().max_payload),
    });
    let events = futures::stream::unfold(Some(state), |live| async move {
        let mut live = live?;
        let event = live.next().await?;
        let live = event.is_ok().then_some(live);
        Some((event, live))
    });
    Ok(Subscription(opened.chain(events).boxed()))
}

/// The largest answer to a message: it travels between runners in one note.
const MAX_REPLY: usize = 128 << 10;
/// What a note needs beside the payload of an answer: its headers, its names, and the note itself.
const BESIDE_REPLY: usize = 16 << 10;

/// The largest answer where the broker takes so much at a time.
fn max_reply(max_payload: usize) -> usize {
    max_payload.saturating_sub(BESIDE_REPLY).min(MAX_REPLY)
}

/// A session and the stream of its client's requests.
struct Live {
    session: Session,
    /// `None` once the client has said that it will send no more.
    requests: Option<Streaming<proto::SubscribeRequest>>,
    identity: Identity,
    confirm: bool,
    max_reply: usize,
}

impl Live {
    async fn next(&mut self) -> Option<Result<proto::SubscribeResponse, Status>> {
        loop {
            let listens = !self.session.is_behind();
            tokio::select! {
                event = self.session.next() => {
                    match event? {
                        Ok(SessionEvent::Settled(settled)) if self.confirm => {
                            return Some(Ok(to_settled(&self.identity, settled)));
                        }
                        Ok(SessionEvent::Settled(_)) => {}
                        Ok(event) => return Some(Ok(to_response(&self.identity, event))),
                        Err(closed) => return Some(Err(Failure::from(closed).into())),
                    }
                }
                // Read also so that the client's end is noticed.
                request = next_request(&mut self.requests), if listens => match request {
                    Ok(Some(request)) => {
                        if let Err(failure) = self.take(request) {
                            return Some(Err(failure.into()));
                        }
                    }
                    Ok(None) => self.requests = None,
                    Err(_) => return None,
                },
            }
        }
    }

    /// What the client says.
    fn take(&mut self, request: proto::SubscribeRequest) -> Result<(), Failure> {
        use subscribe_request::Message as Said;
        match request.message {
            Some(Said::Ack(ack)) => self.say("ack.delivery_ids", &ack.delivery_ids, Verdict::Ack),
            Some(Said::Nack(nack)) => {
                let delay = u64::try_from(nack.delay_ms).map(Duration::from_millis);
                let delay = delay.ok().filter(|delay| *delay <= MAX_DELAY).ok_or_else(|| {
                    let message = format!("`{}` is no time to wait", nack.delay_ms);
                    invalid(Reason::InvalidRequest, "nack.delay_ms", message)
                })?;
                self.say("nack.delivery_ids", &nack.delivery_ids, Verdict::Nack { delay })
            }
            Some(Said::Term(term)) => {
                let reason = term.reason;
                if reason.len() > MAX_REASON {
                    let message = format!("a reason has at most {MAX_REASON} bytes");
                    return Err(invalid(Reason::InvalidRequest, "term.reason", message));
                }
                self.say("term.delivery_ids", &term.delivery_ids, Verdict::Term { reason })
            }
            Some(Said::Credit(credit)) => {
                self.session.limit();
                self.session.grant(credit.deliveries.into());
                Ok(())
            }
            Some(Said::Answer(answer)) => self.answer(answer),
            Some(Said::Open(_)) => Err(unexpected_request()),
            // A newer client's.
            None => Ok(()),
        }
    }

    fn say(&mut self, field: &str, delivery_ids: &[String], verdict: Verdict) -> Result<(), Failure> {
        for id in delivery_ids {
            let multicast = self.multicast(field, id)?;
            self.session.say(multicast, verdict.clone(), None);
        }
        Ok(())
    }

    fn answer(&mut self, answer: subscribe_request::Answer) -> Result<(), Failure> {
        let multicast = self.multicast("answer.delivery_id", &answer.delivery_id)?;
        if answer.payload.len() > self.max_reply {
            let (size, limit) = (answer.payload.len(), self.max_reply);
            let message = format!("the answer has {size} bytes, at most {limit} are possible");
            return Err(invalid(Reason::PayloadTooLarge, "answer.payload", message).with("limit", limit));
        }
        let given = answer.content_type.filter(|text| !text.is_empty());
        let content_type = given.map(content_type).transpose()?;
        let reply = Reply {
            identity: self.identity.clone(),
            payload: answer.payload,
            content_type: content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_string()),
            headers: headers("answer.headers", answer.headers)?,
        };
        self.session.say(multicast, Verdict::Ack, Some(reply));
        Ok(())
    }

    /// The multicast of a delivery to this identity.
    fn multicast(&self, field: &str, delivery_id: &str) -> Result<MulticastId, Failure> {
        let of_identity = delivery_id
            .split_once('/')
            .filter(|(id, identity)| id.len() == 32 && *identity == self.identity.as_str());
        let multicast = of_identity.and_then(|(id, _)| id.parse().ok());
        multicast.ok_or_else(|| {
            let message = "that is no delivery to this identity";
            invalid(Reason::InvalidRequest, field, message).with("delivery_id", delivery_id)
        })
    }
}

async fn next_request(
    requests: &mut Option<Streaming<proto::SubscribeRequest>>,
) -> Result<Option<proto::SubscribeRequest>, Status> {
    match requests {
        Some(requests) => requests.message().await,
        None => std::future::pending().await,
    }
}

/// The first request of a subscription.
struct Open {
    identity: Identity,
    generation: Option<Position>,
    credits: Option<u32>,
    confirm: bool,
}

fn read_open(request: Option<proto::SubscribeRequest>) -> wire::Result<Open> {
    use subscribe_request::Message as Said;
    let Some(Said::Open(open)) = request.and_then(|request| request.message) else {
        let message = "the first message of a subscription opens it";
        return Err(invalid(Reason::InvalidRequest, "open", message));
    };
    Ok(Open {
        identity: identity(&open.identity).map_err(|failure| failure.field("open.identity"))?,
        generation: position("open.generation", open.generation)?,
        credits: open.credits,
        confirm: open.confirm,
    })
}

fn unexpected_request() -> Failure {
    invalid(
        Reason::InvalidRequest,
        "open",
        "a subscription is opened once, by its first message",
    )
}

fn response(message: subscribe_response::Message) -> proto::SubscribeResponse {
    proto::SubscribeResponse {
        message: Some(message),
    }
}

fn to_opened(claim: Claim) -> proto::SubscribeResponse {
    response(subscribe_response::Message::Opened(subscribe_response::Opened {
        generation: Some(to_position(claim.generation)),
        session_seq: claim.session_seq,
    }))
}

fn to_response(identity: &Identity, event: SessionEvent) -> proto::SubscribeResponse {
    match event {
        SessionEvent::Message(message) => to_delivery(identity, &message, 1, false),
        SessionEvent::Stored(delivery) => to_delivery(identity, &delivery.message, delivery.attempt, true),
        SessionEvent::Gap { dropped, reason } => to_gap(dropped, reason),
        SessionEvent::Settled(settled) => to_settled(identity, settled),
    }
}

pub(super) fn delivery_id(multicast: MulticastId, identity: &Identity) -> String {
    [&multicast.to_string(), "/", identity.as_str()].concat()
}

fn to_delivery(
    identity: &Identity,
    message: &Message,
    attempt: u32,
    stored: bool,
) -> proto::SubscribeResponse {
    response(subscribe_response::Message::Delivery(
        subscribe_response::Delivery {
            multicast_id: message.multicast.to_string(),
            delivery_id: delivery_id(message.multicast, identity),
            payload: message.payload.clone(),
            content_type: message.content_type.to_string(),
            published_at: Some(to_timestamp(message.published_at)),
            headers: message.headers.iter().cloned().collect(),
            attempt,
            stored,
            expires_at: message.expires_at.map(to_timestamp),
            reply_to: message.reply_to.as_deref().unwrap_or_default().to_owned(),
            expects_reply: message.expects_reply,
        },
    ))
}

fn to_gap(dropped: u64, reason: GapReason) -> proto::SubscribeResponse {
    response(subscribe_response::Message::Gap(subscribe_response::Gap {
        dropped,
        reason: reason.as_str().to_owned(),
    }))
}

fn to_settled(identity: &Identity, settled: Vec<(MulticastId, Settled)>) -> proto::SubscribeResponse {
    let (done, gone): (Vec<_>, Vec<_>) = settled
        .into_iter()
        .partition(|(_, settled)| *settled == Settled::Done);
    let ids = |settled: Vec<(MulticastId, Settled)>| {
        let ids = settled
            .into_iter()
            .map(|(multicast, _)| delivery_id(multicast, identity));
        ids.collect()
    };
    response(subscribe_response::Message::Settled(
        subscribe_response::Settled {
            delivery_ids: ids(done),
            gone_ids: ids(gone),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever else there is in an answer, the broker takes the note with it.
    #[test]
    fn the_largest_answer_fits_into_a_note() {
        for max_payload in [32 << 10, 64 << 10, 1 << 20] {
            let headers = (0..64).map(|number| (format!("{number:02}"), "v".repeat(126)));
            let reply = Reply {
                identity: Identity::new("i".repeat(256)).unwrap(),
                payload: vec![0; max_reply(max_payload)].into(),
                content_type: "x".repeat(256),
                headers: headers.collect(),
            };
            assert!(reply.size() + 256 <= max_payload, "{max_payload}");
        }
        assert_eq!(max_reply(1 << 20), MAX_REPLY);
    }
}
