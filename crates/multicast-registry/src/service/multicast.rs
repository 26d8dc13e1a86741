//! Multicasts between the wire and this crate's types.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use prism_core::failure::{Failure, Reason};
use prism_proto::pattern as proto;
use prism_slot::{MulticastId, Priority};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Status as GrpcStatus;

use super::wire::{
    ANSWER_BYTES, ITEM_OVERHEAD, Result, consistency, content_type, filter, invalid, to_position,
    to_timestamp,
};
use crate::{
    coordinator::{Coordinator, Following, MAX_RECEIPTS_PAGE, Multicast, MulticastEvent, Pages, Replies},
    delivery::{Delivery, Pace, Phase, ReceiptsScope, Reply, Report, Stage, Status, Target},
};

/// How many headers a message has at most, and how many bytes of them.
const MAX_HEADERS: (usize, usize) = (64, 8 << 10);
/// The longest text of where to send answers.
const MAX_REPLY_TO: usize = 256;
/// How many targets are sent to at a time at most.
const MAX_BATCH: i32 = 1_024;
/// How many targets a page of receipts has, unless the request says.
const DEFAULT_PAGE: usize = 100;

pub(super) fn read(limits: &prism_filter::Limits, request: proto::MulticastRequest) -> Result<Multicast> {
    Ok(Multicast {
        filter: filter(limits, request.filter)?,
        payload: request.payload,
        content_type: request
            .content_type
            .map(content_type)
            .transpose()?
            .filter(|text| !text.is_empty()),
        delivery: delivery(request.delivery.unwrap_or_default())?,
        require: require(request.require)?,
        timeout: positive("timeout_ms", request.timeout_ms)?.map(Duration::from_millis),
        consistency: consistency(request.consistency)?,
        headers: headers("headers", request.headers)?,
        idempotency_key: (!request.idempotency_key.is_empty()).then_some(request.idempotency_key),
        expires_in: positive("expires_in_ms", request.expires_in_ms)?.map(Duration::from_millis),
        priority: priority(request.priority)?,
        reply_to: reply_to(request.reply_to)?,
        pace: Pace {
            per_second: positive("max_per_second", request.max_per_second)?,
            batch: batch(request.batch_size)?,
        },
        replies: replies(request.collect_replies, request.min_replies)?,
        caller: None,
    })
}

fn positive(field: &str, value: Option<i64>) -> Result<Option<u64>> {
    let positive = |value| match u64::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err(invalid(
            Reason::InvalidRequest,
            field,
            format!("`{value}` is out of range, at least `1` is possible"),
        )),
    };
    value.map(positive).transpose()
}

fn delivery(number: i32) -> Result<Option<Delivery>> {
    use proto::DeliverySemantics as Semantics;
    match Semantics::try_from(number) {
        Ok(Semantics::Unspecified) => Ok(None),
        Ok(Semantics::AtMostOnce) => Ok(Some(Delivery::AtMostOnce)),
        Ok(Semantics::AtLeastOnce) => Ok(Some(Delivery::AtLeastOnce)),
        Ok(Semantics::ExactlyOnce) => Ok(Some(Delivery::ExactlyOnce)),
        Err(_) => Err(unknown("delivery", "semantics", number)),
    }
}

fn unknown(field: &str, what: &str, number: i32) -> Failure {
    invalid(
        Reason::InvalidRequest,
        field,
        format!("there is no {what} {number}"),
    )
}

fn require(number: i32) -> Result<Option<Stage>> {
    match proto::Stage::try_from(number) {
        Ok(proto::Stage::Unspecified) => Ok(None),
        Ok(proto::Stage::Resolved) => Ok(Some(Stage::Resolved)),
        Ok(proto::Stage::Accepted) => Ok(Some(Stage::Accepted)),
        Ok(proto::Stage::Stored) => Ok(Some(Stage::Stored)),
        Ok(proto::Stage::Handed) => Ok(Some(Stage::Handed)),
        Ok(proto::Stage::Acked) => Ok(Some(Stage::Acked)),
        Err(_) => Err(unknown("require", "stage", number)),
    }
}

fn priority(number: i32) -> Result<Priority> {
    match proto::Priority::try_from(number) {
        Ok(proto::Priority::Unspecified | proto::Priority::Normal) => Ok(Priority::Normal),
        Ok(proto::Priority::Low) => Ok(Priority::Low),
        Ok(proto::Priority::High) => Ok(Priority::High),
        Err(_) => Err(unknown("priority", "priority", number)),
    }
}

fn batch(size: Option<i32>) -> Result<Option<usize>> {
    let Some(size) = size else { return Ok(None) };
    if !(1..=MAX_BATCH).contains(&size) {
        let message = format!("`{size}` is out of range, from `1` to `{MAX_BATCH}` is possible");
        return Err(invalid(Reason::InvalidRequest, "batch_size", message).with("limit", MAX_BATCH));
    }
    Ok(usize::try_from(size).ok())
}

fn replies(collect: bool, min: Option<i64>) -> Result<Option<Replies>> {
    let min = positive("min_replies", min)?.map(|min| usize::try_from(min).unwrap_or(usize::MAX));
    match (collect, min) {
        (true, min) => Ok(Some(Replies { min })),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            let message = "`min_replies` means nothing without `collect_replies`";
            Err(invalid(Reason::InvalidRequest, "min_replies", message))
        }
    }
}

/// Headers travel in brokers' own, so that each must be one line, and none may be one of ours or of the brokers'.
pub(super) fn headers(
    field: &str,
    headers: std::collections::HashMap<String, String>,
) -> Result<Vec<(String, String)>> {
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > MAX_HEADERS.0 || size > MAX_HEADERS.1 {
        let message = format!(
            "a message has at most {} headers of {} bytes together",
            MAX_HEADERS.0, MAX_HEADERS.1
        );
        return Err(invalid(Reason::InvalidRequest, field, message).with("limit", MAX_HEADERS.1));
    }
    for (name, value) in &headers {
        check_header(name, value)
            .map_err(|message| invalid(Reason::InvalidRequest, &format!("{field}.{name}"), message))?;
    }
    let mut headers: Vec<(String, String)> = headers.into_iter().collect();
    headers.sort_unstable();
    Ok(headers)
}

fn check_header(name: &str, value: &str) -> std::result::Result<(), &'static str> {
    let lower = name.to_ascii_lowercase();
    let is_ours = lower.starts_with("prism-") || lower.starts_with("nats-") || lower == "content-type";
    if is_ours || lower == "traceparent" {
        return Err("this header's name is taken, use another one");
    }
    let is_letter = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',');
    if name.is_empty() || !name.bytes().all(is_letter) {
        return Err("a header's name has visible ASCII characters without `:` and `,`");
    }
    if value.contains(['\r', '\n', '\0']) || value.trim() != value {
        return Err("a header's value has no line breaks, and no spaces around it");
    }
    Ok(())
}

fn reply_to(text: String) -> Result<Option<String>> {
    if text.len() > MAX_REPLY_TO || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("where to reply to has at most {MAX_REPLY_TO} visible ASCII characters");
        return Err(invalid(Reason::InvalidRequest, "reply_to", message).with("limit", MAX_REPLY_TO));
    }
    Ok((!text.is_empty()).then_some(text))
}

pub(super) fn id(text: &str) -> Result<MulticastId> {
    let id = (text.len() == 32).then(|| text.parse().ok()).flatten();
    id.ok_or_else(|| {
        let message = "a multicast's identifier has 32 hexadecimal digits, as it was given out";
        invalid(Reason::InvalidRequest, "multicast_id", message)
    })
}

pub(super) fn pages(request: &proto::GetMulticastRequest) -> Result<Pages> {
    let pagination = request.pagination.clone().unwrap_or_default();
    if pagination.offset != 0 {
        let message = "receipts are paged by cursor, without an offset";
        return Err(invalid(Reason::InvalidRequest, "pagination.offset", message));
    }
    let limit = usize::try_from(pagination.limit)
        .ok()
        .filter(|limit| *limit <= MAX_RECEIPTS_PAGE);
    let limit = limit.ok_or_else(|| {
        let message = format!("a page has at most {MAX_RECEIPTS_PAGE} targets");
        invalid(Reason::InvalidRequest, "pagination.limit", message).with("limit", MAX_RECEIPTS_PAGE)
    })?;
    let offset = match pagination.cursor.as_str() {
        "" => Ok(0),
        cursor => cursor.parse(),
    };
    let offset = offset.map_err(|_| {
        let message = "the cursor was not given out for this call";
        invalid(Reason::InvalidCursor, "pagination.cursor", message)
    })?;
    let status = |number: &i32| match proto::delivery_status::Status::try_from(*number) {
        Ok(proto::delivery_status::Status::Pending) => Ok(Status::Pending),
        Ok(proto::delivery_status::Status::Failed) => Ok(Status::Failed),
        Ok(proto::delivery_status::Status::Timeout) => Ok(Status::Timeout),
        Ok(proto::delivery_status::Status::Delivered) => Ok(Status::Delivered),
        _ => Err(unknown("only", "status", *number)),
    };
    Ok(Pages {
        limit: if limit == 0 { DEFAULT_PAGE } else { limit },
        offset,
        only: request.only.iter().map(status).collect::<Result<_>>()?,
    })
}

/// A report, its targets as far as they fit into one answer.
pub(super) fn to_response(report: Report) -> proto::MulticastResponse {
    let mut response = to_summary(&report);
    response.statuses = as_fits(report.targets.iter().map(|target| to_status(&target)).collect());
    let taken: usize = response.statuses.iter().map(size).sum();
    let mut left = ANSWER_BYTES.saturating_sub(taken);
    let fits = |reply: &proto::Reply| {
        let size = reply.encoded_len() + ITEM_OVERHEAD;
        left = left.saturating_sub(size);
        left > 0
    };
    response.replies = report
        .replies
        .into_iter()
        .map(to_reply)
        .take_while(fits)
        .collect();
    response
}

/// A page of receipts, which is cut where it would be too large for one answer; the rest follows by its cursor.
pub(super) fn to_page(mut report: Report, offset: usize) -> proto::MulticastResponse {
    let mut statuses = Vec::with_capacity(report.targets.len());
    let mut left = ANSWER_BYTES;
    for target in report.targets.iter() {
        let status = to_status(&target);
        let size = size(&status);
        if size > left {
            report.next = Some(offset + statuses.len());
            break;
        }
        left -= size;
        statuses.push(status);
    }
    proto::MulticastResponse {
        statuses,
        ..to_summary(&report)
    }
}

pub(super) fn to_summary(report: &Report) -> proto::MulticastResponse {
    use proto::multicast_response::State;
    let state = match report.phase {
        Phase::Running => State::Running,
        Phase::Sent => State::Sent,
        Phase::Cancelled => State::Cancelled,
    };
    let scope = report.kept.map(|(scope, _)| match scope {
        ReceiptsScope::Runner => proto::ReceiptsScope::Runner,
        ReceiptsScope::Ledger => proto::ReceiptsScope::Ledger,
    });
    let is_dry = report.kept.is_none();
    let count = if is_dry {
        report.targets.len()
    } else {
        report.tally.total()
    };
    proto::MulticastResponse {
        target_count: count as i64,
        delivered_count: report.tally.delivered as i64,
        failed_count: report.tally.failed as i64,
        pending_count: report.tally.pending as i64,
        timeout_count: report.tally.timeout as i64,
        multicast_id: if is_dry {
            String::new()
        } else {
            report.id.to_string()
        },
        position: Some(to_position(report.position)),
        statuses: Vec::new(),
        next_cursor: report.next.map(|next| next.to_string()),
        state: if is_dry { 0 } else { state.into() },
        replayed: report.replayed,
        receipts_scope: scope.map_or(0, Into::into),
        receipts_until: report.kept.map(|(_, until)| to_timestamp(until)),
        replies: Vec::new(),
        reply_count: report.reply_count as i64,
    }
}

/// What would be sent to whom.
pub(super) fn to_dry_response(report: Report) -> proto::MulticastResponse {
    proto::MulticastResponse {
        statuses: as_fits(report.targets.iter().map(|target| to_unsent(&target)).collect()),
        ..to_summary(&report)
    }
}

fn to_unsent(target: &Target) -> proto::DeliveryStatus {
    proto::DeliveryStatus {
        status: proto::delivery_status::Status::Unspecified.into(),
        ..to_status(target)
    }
}

fn size(status: &proto::DeliveryStatus) -> usize {
    status.encoded_len() + ITEM_OVERHEAD
}

/// The statuses that fit into one answer, in their order. Where not all do, those that were delivered
/// are left out first: they are all alike, and the counts tell of them.
fn as_fits(statuses: Vec<proto::DeliveryStatus>) -> Vec<proto::DeliveryStatus> {
    if statuses.iter().map(size).sum::<usize>() <= ANSWER_BYTES {
        return statuses;
    }
    let is_delivered =
        |status: &proto::DeliveryStatus| status.status() == proto::delivery_status::Status::Delivered;
    let mut left = ANSWER_BYTES;
    let mut fits = vec![false; statuses.len()];
    for delivered in [false, true] {
        let of_kind = statuses.iter().zip(&mut fits);
        for (status, fits) in of_kind.filter(|(status, _)| is_delivered(status) == delivered) {
            *fits = size(status) <= left;
            left = if *fits { left - size(status) } else { 0 };
        }
    }
    let kept = statuses.into_iter().zip(fits).filter(|(_, fits)| *fits);
    kept.map(|(status, _)| status).collect()
}

fn to_status(target: &Target) -> proto::DeliveryStatus {
    let status = match target.status() {
        Status::Delivered => proto::delivery_status::Status::Delivered,
        Status::Failed => proto::delivery_status::Status::Failed,
        Status::Timeout => proto::delivery_status::Status::Timeout,
        Status::Pending => proto::delivery_status::Status::Pending,
    };
    let stage = match target.stage() {
        Stage::Resolved => proto::Stage::Resolved,
        Stage::Accepted => proto::Stage::Accepted,
        Stage::Stored => proto::Stage::Stored,
        Stage::Handed => proto::Stage::Handed,
        Stage::Acked => proto::Stage::Acked,
    };
    proto::DeliveryStatus {
        identity: target.identity.as_str().to_owned(),
        status: status.into(),
        error: target.error(),
        stage: stage.into(),
        reason: target.reason().to_owned(),
    }
}

fn to_reply(reply: Reply) -> proto::Reply {
    proto::Reply {
        identity: reply.identity.to_string(),
        payload: reply.payload,
        content_type: reply.content_type,
        headers: reply.headers.into_iter().collect(),
    }
}

/// What a multicast tells as it is sent. It goes on when this is dropped.
pub struct Sending(BoxStream<'static, std::result::Result<proto::MulticastStreamResponse, GrpcStatus>>);

impl Stream for Sending {
    type Item = std::result::Result<proto::MulticastStreamResponse, GrpcStatus>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

pub(super) async fn stream(
    coordinator: Coordinator,
    multicast: Multicast,
    deadline: Instant,
) -> Result<Sending> {
    let following = coordinator.multicast_stream(multicast, deadline).await?;
    let events = futures::stream::unfold(following, |mut following: Following| async move {
        let event = following.next().await?;
        Some((Ok(to_event(event)), following))
    });
    Ok(Sending(events.boxed()))
}

/// One that would send nothing is told at once.
pub(super) fn dry_stream(report: Report) -> Sending {
    use proto::multicast_stream_response::Message;
    let summary = to_summary(&report);
    let begin = Message::Started(summary.clone());
    let targets = report.targets;
    let statuses = (0..targets.len()).filter_map(move |index| targets.get(index));
    let statuses = statuses.map(|target| Message::Status(to_unsent(&target)));
    let events = std::iter::once(begin)
        .chain(statuses)
        .chain([Message::Summary(summary)]);
    let responses = events.map(|message| {
        Ok(proto::MulticastStreamResponse {
            message: Some(message),
        })
    });
    Sending(futures::stream::iter(responses).boxed())
}

fn to_event(event: MulticastEvent) -> proto::MulticastStreamResponse {
    use proto::multicast_stream_response::Message;
    let message = match event {
        MulticastEvent::Started(report) => Message::Started(to_summary(&report)),
        MulticastEvent::Target(target) => Message::Status(to_status(&target)),
        MulticastEvent::Reply(reply) => Message::Reply(to_reply(reply)),
        MulticastEvent::Ended(report) => Message::Summary(to_summary(&report)),
    };
    proto::MulticastStreamResponse {
        message: Some(message),
    }
}
