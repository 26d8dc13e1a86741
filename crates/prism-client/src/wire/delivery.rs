//! Multicasts: what is asked, and what is known of them.

use std::{fmt::Display, time::Duration};

use prism_proto::pattern::{self, delivery_status::Status as WireStatus, multicast_stream_response};

use super::{
    answer::{count, missing, optional_time, position, unknown},
    ask::{consistency, filter, page, whole},
};
use crate::{
    DeliverySemantics, DeliveryStatus, DryRun, Error, GetMulticastRequest, Multicast, MulticastEvent,
    MulticastRequest, MulticastState, Priority, ReceiptsScope, Reply, Result, Stage, Status,
};

pub(crate) fn multicast_request(request: MulticastRequest) -> Result<pattern::MulticastRequest> {
    let batch_size = request.batch_size.map(|size| {
        let problem = || format!("`batch_size` is {size}, at most 1024 are sent to at a time");
        i32::try_from(size).map_err(|_| Error::invalid("batch_size", problem()))
    });
    let rate = request.max_per_second.map(|rate| whole("max_per_second", rate));
    let replies = request.min_replies.map(|count| whole("min_replies", count));
    Ok(pattern::MulticastRequest {
        filter: request.filter.as_ref().map(filter).transpose()?,
        payload: request.payload.into(),
        content_type: request.content_type,
        delivery: request.delivery.map(|delivery| semantics(delivery).into()),
        timeout_ms: request.timeout.map(|time| millis("timeout", time)).transpose()?,
        consistency: consistency(request.consistency).into(),
        require: request.require.map_or(0, |stage| to_stage(stage).into()),
        idempotency_key: match (request.idempotency_key, request.delivery) {
            (Some(key), _) => named(key)?,
            (None, Some(DeliverySemantics::ExactlyOnce)) => random_key(),
            (None, _) => String::new(),
        },
        expires_in_ms: request
            .expires_in
            .map(|time| millis("expires_in", time))
            .transpose()?,
        priority: to_priority(request.priority).into(),
        headers: request.headers.into_iter().collect(),
        reply_to: request.reply_to.unwrap_or_default(),
        max_per_second: rate.transpose()?,
        batch_size: batch_size.transpose()?,
        collect_replies: request.collect_replies,
        min_replies: replies.transpose()?,
        dry_run: false,
    })
}

/// No key at all is another thing than one of nothing.
fn named(key: String) -> Result<String> {
    if key.is_empty() {
        return Err(Error::invalid(
            "idempotency_key",
            "`idempotency_key` is empty, it has 1 to 256 bytes",
        ));
    }
    Ok(key)
}

fn random_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn millis(field: &str, time: Duration) -> Result<i64> {
    let millis = i64::try_from(time.as_millis());
    millis.map_err(|_| Error::invalid(field, format!("`{field}` is {time:?}, which is too long")))
}

fn semantics(delivery: DeliverySemantics) -> pattern::DeliverySemantics {
    match delivery {
        DeliverySemantics::AtMostOnce => pattern::DeliverySemantics::AtMostOnce,
        DeliverySemantics::AtLeastOnce => pattern::DeliverySemantics::AtLeastOnce,
        DeliverySemantics::ExactlyOnce => pattern::DeliverySemantics::ExactlyOnce,
    }
}

fn to_priority(priority: Priority) -> pattern::Priority {
    match priority {
        Priority::Low => pattern::Priority::Low,
        Priority::Normal => pattern::Priority::Unspecified,
        Priority::High => pattern::Priority::High,
    }
}

fn to_stage(stage: Stage) -> pattern::Stage {
    match stage {
        Stage::Resolved => pattern::Stage::Resolved,
        Stage::Accepted => pattern::Stage::Accepted,
        Stage::Stored => pattern::Stage::Stored,
        Stage::Handed => pattern::Stage::Handed,
        Stage::Acked => pattern::Stage::Acked,
    }
}

pub(crate) fn get_multicast(request: GetMulticastRequest) -> Result<pattern::GetMulticastRequest> {
    let wire = |status: Status| match status {
        Status::Pending => WireStatus::Pending,
        Status::Failed => WireStatus::Failed,
        Status::Timeout => WireStatus::Timeout,
        Status::Delivered => WireStatus::Delivered,
    };
    Ok(pattern::GetMulticastRequest {
        multicast_id: request.multicast_id,
        pagination: Some(page(request.limit, request.cursor)?),
        only: request
            .only
            .into_iter()
            .map(|status| wire(status).into())
            .collect(),
    })
}

pub(crate) fn multicast(answer: pattern::MulticastResponse) -> Result<Multicast> {
    use pattern::multicast_response::State;
    let state = match State::try_from(answer.state) {
        Ok(State::Running) => MulticastState::Running,
        Ok(State::Sent) => MulticastState::Sent,
        Ok(State::Cancelled) => MulticastState::Cancelled,
        Ok(State::Unspecified) | Err(_) => return Err(unknown("state", answer.state)),
    };
    let statuses = answer.statuses.into_iter().enumerate();
    let result = Multicast {
        target_count: count("target_count", answer.target_count)?,
        delivered_count: count("delivered_count", answer.delivered_count)?,
        failed_count: count("failed_count", answer.failed_count)?,
        pending_count: count("pending_count", answer.pending_count)?,
        timeout_count: count("timeout_count", answer.timeout_count)?,
        statuses: statuses
            .map(|(index, status)| delivery_status(format_args!("statuses[{index}]"), status))
            .collect::<Result<_>>()?,
        multicast_id: answer.multicast_id,
        position: position("position", answer.position)?,
        state,
        replayed: answer.replayed,
        receipts_scope: scope(answer.receipts_scope)?,
        receipts_until: optional_time("receipts_until", answer.receipts_until)?,
        replies: answer.replies.into_iter().map(reply).collect(),
        reply_count: count("reply_count", answer.reply_count)?,
        next_cursor: answer.next_cursor.filter(|cursor| !cursor.is_empty()),
    };
    adds_up(&result)?;
    Ok(result)
}

fn adds_up(result: &Multicast) -> Result<()> {
    let verdicts = [
        result.delivered_count,
        result.failed_count,
        result.pending_count,
        result.timeout_count,
    ];
    // Saturating: a sum that overflows is wrong anyway.
    let total = verdicts.into_iter().fold(0, u64::saturating_add);
    if total == result.target_count {
        return Ok(());
    }
    let problem = format!("is {} while the verdicts add up to {total}", result.target_count);
    Err(Error::malformed("target_count", problem))
}

fn scope(number: i32) -> Result<Option<ReceiptsScope>> {
    match pattern::ReceiptsScope::try_from(number) {
        Ok(pattern::ReceiptsScope::Unspecified) => Ok(None),
        Ok(pattern::ReceiptsScope::Runner) => Ok(Some(ReceiptsScope::Runner)),
        Ok(pattern::ReceiptsScope::Ledger) => Ok(Some(ReceiptsScope::Ledger)),
        Err(_) => Err(unknown("receipts_scope", number)),
    }
}

fn delivery_status(field: impl Display, status: pattern::DeliveryStatus) -> Result<DeliveryStatus> {
    let verdict = match WireStatus::try_from(status.status) {
        Ok(WireStatus::Pending) => Status::Pending,
        Ok(WireStatus::Failed) => Status::Failed,
        Ok(WireStatus::Timeout) => Status::Timeout,
        Ok(WireStatus::Delivered) => Status::Delivered,
        Ok(WireStatus::Unspecified) | Err(_) => {
            return Err(unknown(format_args!("{field}.status"), status.status));
        }
    };
    Ok(DeliveryStatus {
        identity: status.identity,
        status: verdict,
        stage: stage(field, status.stage)?,
        reason: Some(status.reason).filter(|reason| !reason.is_empty()),
        error: status.error,
    })
}

fn stage(field: impl Display, number: i32) -> Result<Stage> {
    match pattern::Stage::try_from(number) {
        Ok(pattern::Stage::Resolved) => Ok(Stage::Resolved),
        Ok(pattern::Stage::Accepted) => Ok(Stage::Accepted),
        Ok(pattern::Stage::Stored) => Ok(Stage::Stored),
        Ok(pattern::Stage::Handed) => Ok(Stage::Handed),
        Ok(pattern::Stage::Acked) => Ok(Stage::Acked),
        Ok(pattern::Stage::Unspecified) | Err(_) => Err(unknown(format_args!("{field}.stage"), number)),
    }
}

fn reply(reply: pattern::Reply) -> Reply {
    Reply {
        identity: reply.identity,
        payload: reply.payload,
        content_type: reply.content_type,
        headers: reply.headers.into_iter().collect(),
    }
}

pub(crate) fn multicast_event(answer: pattern::MulticastStreamResponse) -> Result<MulticastEvent> {
    use multicast_stream_response::Message;
    Ok(match answer.message.ok_or_else(|| missing("message"))? {
        Message::Started(started) => MulticastEvent::Started(multicast(started)?),
        Message::Status(status) => MulticastEvent::Target(delivery_status("status", status)?),
        Message::Reply(answer) => MulticastEvent::Reply(reply(answer)),
        Message::Summary(summary) => MulticastEvent::Ended(multicast(summary)?),
    })
}

/// Nothing was sent, so no target has a status.
pub(crate) fn dry_run(answer: pattern::MulticastResponse) -> Result<DryRun> {
    Ok(DryRun {
        target_count: count("target_count", answer.target_count)?,
        identities: answer
            .statuses
            .into_iter()
            .map(|status| status.identity)
            .collect(),
        position: position("position", answer.position)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::answers;

    fn malformed<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result.unwrap_err() {
            Error::Malformed { field, .. } => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn totals_that_do_not_add_up_are_refused() {
        let answer = answers::delivered(&["a", "b"]);
        assert_eq!(multicast(answer.clone()).unwrap().delivered_count, 2);
        let short = pattern::MulticastResponse {
            target_count: 3,
            ..answer.clone()
        };
        assert_eq!(malformed(multicast(short)), "target_count");
        let mut odd = answer.clone();
        odd.statuses[1].stage = 77;
        assert_eq!(malformed(multicast(odd)), "statuses[1].stage");
        for state in [0, 77] {
            let odd = pattern::MulticastResponse {
                state,
                ..answer.clone()
            };
            assert_eq!(malformed(multicast(odd)), "state");
        }
        let odd = pattern::MulticastResponse {
            receipts_scope: 77,
            ..answer
        };
        assert_eq!(malformed(multicast(odd)), "receipts_scope");
    }

    #[test]
    fn defaults_stay_unset_on_the_wire() {
        let request = multicast_request(MulticastRequest::default()).unwrap();
        assert_eq!(request, pattern::MulticastRequest::default());
    }

    #[test]
    fn exactly_once_has_a_key_and_a_key_of_nothing_is_none() {
        let exactly = MulticastRequest {
            delivery: Some(DeliverySemantics::ExactlyOnce),
            ..Default::default()
        };
        let keys = [(); 2].map(|()| multicast_request(exactly.clone()).unwrap().idempotency_key);
        assert!(keys[0].len() == 32 && keys[0] != keys[1], "{keys:?}");
        let own = MulticastRequest {
            idempotency_key: Some("mine".to_owned()),
            ..exactly
        };
        assert_eq!(multicast_request(own.clone()).unwrap().idempotency_key, "mine");
        let nothing = MulticastRequest {
            idempotency_key: Some(String::new()),
            ..own
        };
        let error = multicast_request(nothing).unwrap_err();
        assert_eq!(error.field(), Some("idempotency_key"));
    }

    #[test]
    fn what_does_not_fit_the_wire_is_named() {
        type Change = fn(&mut MulticastRequest);
        let changes: [(&str, Change); 5] = [
            ("timeout", |request| request.timeout = Some(Duration::MAX)),
            ("expires_in", |request| request.expires_in = Some(Duration::MAX)),
            ("max_per_second", |request| {
                request.max_per_second = Some(u64::MAX)
            }),
            ("min_replies", |request| request.min_replies = Some(u64::MAX)),
            ("batch_size", |request| request.batch_size = Some(u32::MAX)),
        ];
        for (field, change) in changes {
            let mut request = MulticastRequest::default();
            change(&mut request);
            assert_eq!(multicast_request(request).unwrap_err().field(), Some(field));
        }
    }
}
