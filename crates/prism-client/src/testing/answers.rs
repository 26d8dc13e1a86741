//! Plausible answers, to be changed where a test cares. Times count from the Unix epoch, so that what is
//! shown of them is the same every time.

use std::collections::HashMap;

use prism_core::failure::Reason;
use prism_proto::pattern::{
    DeliveryStatus, EnumerateResponse, ExplainResponse, GetResponse, Identity, MulticastResponse,
    MulticastStreamResponse, Position, ReceiptsScope, RegisterResponse, Reply, Stage, SubscribeResponse,
    UnregisterResponse, UpdateResponse, delivery_status::Status, explain_response,
    list_dead_letters_response::DeadLetter, multicast_response, multicast_stream_response,
    register_response::Outcome, renew_response, subscribe_response,
};
use prost_types::{Timestamp, Value, value::Kind};

/// The epoch of every answer.
pub const EPOCH: u64 = 0x5eed;

/// A position in it.
pub fn position(revision: u64) -> Position {
    Position {
        epoch: EPOCH,
        revision,
    }
}

/// A number of seconds after the Unix epoch.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// A new registration with a lease of 30 s.
pub fn registered(revision: u64) -> RegisterResponse {
    RegisterResponse {
        success: true,
        error: None,
        registered_at: Some(at(60)),
        expires_at: Some(at(90)),
        outcome: Outcome::Registered.into(),
        generation: Some(position(revision)),
        position: Some(position(revision)),
        renew_after_ms: Some(10_000),
        ttl_ms: Some(30_000),
        ..Default::default()
    }
}

/// A lease of 30 s that was renewed.
pub fn renewed(identity: &str) -> renew_response::Result {
    renew_response::Result {
        identity: identity.to_owned(),
        success: true,
        error: None,
        expires_at: Some(at(90)),
        renew_after_ms: Some(10_000),
    }
}

/// A lease that was not.
pub fn not_renewed(identity: &str, reason: Reason) -> renew_response::Result {
    renew_response::Result {
        identity: identity.to_owned(),
        success: false,
        error: Some(reason.as_str().to_owned()),
        ..Default::default()
    }
}

/// An identity with `{"status": "online"}` as metadata.
pub fn identity(identity: &str) -> Identity {
    let online = Value {
        kind: Some(Kind::StringValue("online".to_owned())),
    };
    Identity {
        identity: identity.to_owned(),
        metadata: HashMap::from([("status".to_owned(), online)]),
        registered_at: Some(at(60)),
        expires_at: Some(at(90)),
        updated_at: Some(at(60)),
        generation: Some(position(1)),
        revision: 1,
        ttl_ms: Some(30_000),
    }
}

/// An identity that was read.
pub fn found(name: &str) -> GetResponse {
    GetResponse {
        identity: Some(identity(name)),
        position: Some(position(1)),
    }
}

/// An identity that was updated.
pub fn updated(name: &str) -> UpdateResponse {
    UpdateResponse {
        identity: Some(Identity {
            revision: 2,
            ..identity(name)
        }),
        position: Some(position(2)),
    }
}

/// The last page, with these on it.
pub fn page(names: &[&str]) -> EnumerateResponse {
    EnumerateResponse {
        identities: names.iter().copied().map(identity).collect(),
        total_count: names.len() as i64,
        next_cursor: None,
        position: Some(position(1)),
        view_age_ms: None,
        facets: Vec::new(),
    }
}

/// A multicast that all of these got.
pub fn delivered(names: &[&str]) -> MulticastResponse {
    MulticastResponse {
        target_count: names.len() as i64,
        delivered_count: names.len() as i64,
        statuses: names.iter().map(|name| delivery(name)).collect(),
        multicast_id: "m-1".to_owned(),
        position: Some(position(1)),
        state: multicast_response::State::Sent.into(),
        receipts_scope: ReceiptsScope::Runner.into(),
        receipts_until: Some(at(3_660)),
        ..Default::default()
    }
}

/// The same, of which the last one had no subscriber.
pub fn delivered_but_one(names: &[&str]) -> MulticastResponse {
    let mut answer = delivered(names);
    if let Some(last) = answer.statuses.last_mut() {
        last.status = Status::Failed.into();
        last.stage = Stage::Resolved.into();
        last.reason = "NO_SUBSCRIBER".to_owned();
        last.error = Some("nobody listens".to_owned());
        answer.delivered_count -= 1;
        answer.failed_count += 1;
    }
    answer
}

/// A multicast that is stored for all of these, and acknowledged by none.
pub fn stored(names: &[&str]) -> MulticastResponse {
    let mut answer = delivered(names);
    for status in &mut answer.statuses {
        status.status = Status::Pending.into();
        status.stage = Stage::Stored.into();
    }
    answer.pending_count = std::mem::take(&mut answer.delivered_count);
    answer.receipts_scope = ReceiptsScope::Ledger.into();
    answer
}

/// What is told of a multicast as it is sent: of each status once, and then that it is over.
pub fn told(answer: MulticastResponse) -> Vec<MulticastStreamResponse> {
    use multicast_stream_response::Message;
    let summary = MulticastResponse {
        statuses: Vec::new(),
        replies: Vec::new(),
        ..answer.clone()
    };
    let started = MulticastResponse {
        delivered_count: 0,
        failed_count: 0,
        timeout_count: 0,
        pending_count: answer.target_count,
        state: multicast_response::State::Running.into(),
        ..summary.clone()
    };
    let statuses = answer.statuses.into_iter().map(Message::Status);
    let replies = answer.replies.into_iter().map(Message::Reply);
    let messages = std::iter::once(Message::Started(started))
        .chain(statuses)
        .chain(replies)
        .chain([Message::Summary(summary)]);
    messages
        .map(|message| MulticastStreamResponse {
            message: Some(message),
        })
        .collect()
}

/// What a target answered.
pub fn reply(name: &str, text: &str) -> Reply {
    Reply {
        identity: name.to_owned(),
        payload: text.to_owned().into(),
        content_type: "text/plain".to_owned(),
        headers: HashMap::new(),
    }
}

/// A dead letter that was refused.
pub fn dead_letter(letter_id: &str, identity: &str) -> DeadLetter {
    DeadLetter {
        identity: identity.to_owned(),
        delivery_id: format!("m-1/{identity}"),
        reason: "TERMINATED".to_owned(),
        died_at: Some(at(120)),
        letter_id: letter_id.to_owned(),
        detail: "no such room".to_owned(),
        attempts: 2,
        payload: "hello".into(),
        payload_size: 5,
        content_type: "text/plain".to_owned(),
        headers: HashMap::new(),
        published_at: Some(at(61)),
    }
}

fn delivery(name: &str) -> DeliveryStatus {
    DeliveryStatus {
        identity: name.to_owned(),
        status: Status::Delivered.into(),
        error: None,
        stage: Stage::Accepted.into(),
        reason: String::new(),
    }
}

/// How a filter on `status` and `battery` is answered, of which only the first has an index.
pub fn explained() -> ExplainResponse {
    ExplainResponse {
        explanation: "plan: index(status eq)".to_owned(),
        plan: Some(explain_response::Plan {
            steps: Some("index(status eq)".to_owned()),
            indexes: vec!["status".to_owned()],
            unindexed: vec!["battery".to_owned()],
            residual: vec!["battery lt 0.2".to_owned()],
            exact: false,
            estimated_count: 120,
            candidate_count: 118,
            asked_count: 118,
            match_count: 7,
            registered_count: 10_000,
            elapsed_us: 85,
            access: explain_response::plan::Access::View.into(),
        }),
        why: None,
        position: Some(position(1)),
        view_age_ms: None,
    }
}

/// Why an identity that is online and charged does not match the same filter.
pub fn explained_why() -> ExplainResponse {
    let verdict = |depth, part: &str, holds, value: Option<&str>| explain_response::Verdict {
        depth,
        part: part.to_owned(),
        holds,
        value: value.map(str::to_owned),
    };
    ExplainResponse {
        explanation: "no  $and".to_owned(),
        plan: None,
        why: Some(explain_response::Why {
            matches: false,
            verdicts: vec![
                verdict(0, "$and", false, None),
                verdict(1, "status eq \"online\"", true, Some("\"online\"")),
                verdict(1, "battery lt 0.2", false, Some("0.7")),
                verdict(1, "zone eq \"a\"", false, None),
            ],
        }),
        position: Some(position(1)),
        view_age_ms: None,
    }
}

/// A removal.
pub fn unregistered(existed: bool) -> UnregisterResponse {
    UnregisterResponse {
        success: true,
        error: None,
        existed,
        position: Some(position(2)),
    }
}

/// A session that is open.
pub fn opened(session_seq: u64) -> SubscribeResponse {
    event(subscribe_response::Message::Opened(subscribe_response::Opened {
        generation: Some(position(1)),
        session_seq,
    }))
}

/// A message with this text.
pub fn message(text: &str) -> SubscribeResponse {
    event(subscribe_response::Message::Delivery(
        subscribe_response::Delivery {
            multicast_id: "m-1".to_owned(),
            delivery_id: format!("m-1/{text}"),
            payload: text.to_owned().into(),
            content_type: "text/plain".to_owned(),
            published_at: Some(at(61)),
            headers: HashMap::new(),
            attempt: 1,
            ..Default::default()
        },
    ))
}

/// The same, stored, as it is handed out for the so many-th time.
pub fn stored_message(text: &str, attempt: u32) -> SubscribeResponse {
    let mut stored = message(text);
    if let Some(subscribe_response::Message::Delivery(delivery)) = &mut stored.message {
        (delivery.attempt, delivery.stored) = (attempt, true);
    }
    stored
}

/// Words about these messages hold.
pub fn settled(delivery_ids: &[&str]) -> SubscribeResponse {
    event(subscribe_response::Message::Settled(
        subscribe_response::Settled {
            delivery_ids: delivery_ids.iter().map(ToString::to_string).collect(),
            gone_ids: Vec::new(),
        },
    ))
}

/// Messages that are missing.
pub fn gap(dropped: u64, reason: &str) -> SubscribeResponse {
    event(subscribe_response::Message::Gap(subscribe_response::Gap {
        dropped,
        reason: reason.to_owned(),
    }))
}

fn event(message: subscribe_response::Message) -> SubscribeResponse {
    SubscribeResponse {
        message: Some(message),
    }
}
