//! Between the messages of the wire and this crate's types. Fails closed, naming the field.

use std::{collections::HashMap, time::Duration};

use prism_core::failure::{Failure, Reason};
use prism_filter::{Document, Filter, Path};
use prism_proto::pattern as proto;
use prism_slot::{
    Epoch, Identity, Position, Record, Registered, Renew, Revision, SessionId, Timestamp, Ttl, Written,
};
#[cfg(test)]
use prost::Message as _;

use super::page::{self, Shown};
use crate::{
    config::ReadConsistency,
    coordinator::{Enumerate, Error, Extended, Held, Register, Update, Updated},
    directory::{Row, SortKey},
};

/// How many leases one renewal carries at most.
const MAX_RENEWALS: usize = 10_000;
/// How many bytes the list in an answer takes at most: clients of most languages decode no more than
/// 4 MiB unless they are told to.
pub(super) const ANSWER_BYTES: usize = 3 << 20;
/// What a list adds to each of its messages: the tag and the length.
pub(super) const ITEM_OVERHEAD: usize = 5;

pub(super) type Result<T> = std::result::Result<T, Failure>;

pub(super) fn invalid(reason: Reason, field: &str, message: impl Into<String>) -> Failure {
    Failure::new(reason, message).field(field).not_applied()
}

pub(super) fn identity(text: &str) -> Result<Identity> {
    Identity::new(text).map_err(|error| Error::from(error).into())
}

/// A message of zeros says nothing, as one that is absent does: many clients cannot leave it out.
pub(super) fn position(field: &str, position: Option<proto::Position>) -> Result<Option<Position>> {
    match position {
        None
        | Some(proto::Position {
            epoch: 0,
            revision: 0,
        }) => Ok(None),
        // A fence that is half there must not be taken for none.
        Some(proto::Position { epoch: 0, .. }) => {
            let message = "a position has the epoch that it was given out with";
            Err(invalid(
                Reason::InvalidRequest,
                &format!("{field}.epoch"),
                message,
            ))
        }
        Some(proto::Position { epoch, revision }) => Ok(Some(Position {
            epoch: Epoch(epoch),
            revision: Revision(revision),
        })),
    }
}

pub(super) fn to_position(position: Position) -> proto::Position {
    proto::Position {
        epoch: position.epoch.0,
        revision: position.revision.0,
    }
}

pub(super) fn to_timestamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = (at.0.rem_euclid(1_000) * 1_000_000) as i32;
    prost_types::Timestamp {
        seconds: at.0.div_euclid(1_000),
        nanos,
    }
}

/// `field` is where the request carries it.
pub(super) fn document(field: &str, fields: &HashMap<String, prost_types::Value>) -> Result<Document> {
    Document::from_proto(fields).map_err(|error| {
        let at = error.path().filter(|path| !path.is_empty());
        let at = at.map_or(field.to_owned(), |path| format!("{field}.{path}"));
        Failure::from(Error::from(error)).field(at)
    })
}

pub(super) fn filter(config: &prism_filter::Limits, filter: Option<proto::Filter>) -> Result<Option<Filter>> {
    let Some(filter) = filter else { return Ok(None) };
    let read = Filter::from_proto(&filter, config).map_err(Error::from)?;
    Ok((!read.is_empty()).then_some(read))
}

/// The lease that was asked for: `None` for the default, zero for none.
fn ttl(seconds: Option<i64>, millis: Option<i64>) -> Result<Option<Duration>> {
    let (field, value, unit) = match (seconds, millis) {
        (_, Some(millis)) => ("ttl_ms", millis, 1),
        (Some(seconds), None) => ("ttl_seconds", seconds, 1_000),
        (None, None) => return Ok(None),
    };
    let value = u64::try_from(value).map_err(|_| {
        invalid(
            Reason::InvalidTtl,
            field,
            format!("a lease of {value} is negative, 0 means none"),
        )
    })?;
    Ok(Some(Duration::from_millis(value.saturating_mul(unit))))
}

fn session(bytes: &[u8]) -> Result<Option<SessionId>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let session = <[u8; 16]>::try_from(bytes).map_err(|_| {
        let message = format!("a session has 16 bytes, this one has {}", bytes.len());
        invalid(Reason::InvalidRequest, "session", message)
    })?;
    Ok(Some(SessionId(session)))
}

pub(super) fn register(request: proto::RegisterRequest) -> Result<Register> {
    Ok(Register {
        identity: identity(&request.identity)?,
        metadata: document("metadata", &request.metadata)?,
        ttl: ttl(request.ttl_seconds, request.ttl_ms)?,
        replace: request.replace,
        session: session(&request.session)?,
    })
}

/// Names the field in which the request has its lease.
pub(super) fn register_failure(error: Error, in_millis: bool) -> Failure {
    let names_lease = matches!(error, Error::InvalidTtl { .. });
    let failure = Failure::from(error);
    if names_lease && in_millis {
        return failure.field("ttl_ms");
    }
    failure
}

pub(super) fn to_register_response(held: &Held) -> proto::RegisterResponse {
    let Registered {
        written,
        registered_at,
        expires_at,
        generation,
        position,
    } = held.registered;
    let outcome = match written {
        Written::Registered => proto::register_response::Outcome::Registered,
        Written::Replaced => proto::register_response::Outcome::Replaced,
        Written::Updated => proto::register_response::Outcome::Updated,
        Written::Renewed => proto::register_response::Outcome::Renewed,
    };
    proto::RegisterResponse {
        success: true,
        error: None,
        registered_at: Some(to_timestamp(registered_at)),
        expires_at: expires_at.map(to_timestamp),
        outcome: outcome.into(),
        generation: Some(to_position(generation)),
        position: Some(to_position(position)),
        renew_after_ms: held.renew_after.map(millis),
        reason: String::new(),
        maybe_applied: false,
        ttl_ms: to_ttl_ms(held.ttl),
        retry_after_ms: None,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn to_ttl_ms(ttl: Option<Ttl>) -> Option<i64> {
    ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn renew(request: proto::RenewRequest) -> Result<Vec<Renew>> {
    let count = request.leases.len();
    if count > MAX_RENEWALS {
        let message = format!("one call renews at most {MAX_RENEWALS} leases, not {count}");
        return Err(invalid(Reason::InvalidRequest, "leases", message).with("limit", MAX_RENEWALS));
    }
    let lease = |(index, lease): (usize, proto::renew_request::Lease)| {
        let at = |name: &str| format!("leases[{index}].{name}");
        Ok(Renew {
            identity: identity(&lease.identity).map_err(|failure| failure.field(at("identity")))?,
            generation: position(&at("generation"), lease.generation)?,
        })
    };
    request.leases.into_iter().enumerate().map(lease).collect()
}

pub(super) fn to_renew_result(
    identity: &Identity,
    outcome: std::result::Result<Extended, Error>,
) -> proto::renew_response::Result {
    let identity = identity.as_str().to_owned();
    match outcome {
        Ok(renewed) => proto::renew_response::Result {
            identity,
            success: true,
            error: None,
            expires_at: renewed.expires_at.map(to_timestamp),
            renew_after_ms: renewed.renew_after.map(millis),
        },
        Err(error) => proto::renew_response::Result {
            identity,
            success: false,
            error: Some(Failure::from(error).reason.as_str().to_owned()),
            expires_at: None,
            renew_after_ms: None,
        },
    }
}

pub(super) fn update(request: proto::UpdateRequest) -> Result<Update> {
    Ok(Update {
        identity: identity(&request.identity)?,
        patch: document("patch", &request.patch)?,
        generation: position("generation", request.generation)?,
        if_revision: (request.if_revision != 0).then_some(Revision(request.if_revision)),
    })
}

fn to_identity(record: &Record, metadata: &Document) -> proto::Identity {
    proto::Identity {
        identity: record.identity.as_str().to_owned(),
        metadata: metadata.to_proto(),
        registered_at: Some(to_timestamp(record.registered_at)),
        expires_at: record.expires_at.map(to_timestamp),
        updated_at: Some(to_timestamp(record.updated_at)),
        generation: Some(to_position(record.generation)),
        revision: record.revision.0,
        ttl_ms: to_ttl_ms(record.ttl),
    }
}

pub(super) fn to_update_response(updated: &Updated, metadata: &Document) -> proto::UpdateResponse {
    proto::UpdateResponse {
        identity: Some(to_identity(&updated.record, metadata)),
        position: Some(to_position(updated.position)),
    }
}

pub(super) fn to_get_response(record: &Record, metadata: &Document, head: Position) -> proto::GetResponse {
    proto::GetResponse {
        identity: Some(to_identity(record, metadata)),
        position: Some(to_position(head)),
    }
}

pub(super) fn to_unregister_response(removed: prism_slot::Unregistered) -> proto::UnregisterResponse {
    proto::UnregisterResponse {
        success: true,
        error: None,
        existed: removed.existed,
        position: Some(to_position(removed.position)),
    }
}

pub(super) fn enumerate(
    limits: &prism_filter::Limits,
    request: proto::EnumerateRequest,
) -> Result<Enumerate> {
    let pagination = request.pagination.unwrap_or_default();
    let natural = |field: &str, value: i64| {
        usize::try_from(value)
            .map_err(|_| invalid(Reason::InvalidRequest, field, format!("`{value}` is negative")))
    };
    Ok(Enumerate {
        filter: filter(limits, request.filter)?,
        sort: request
            .sort_by
            .iter()
            .map(|text| sort_key(text))
            .collect::<Result<_>>()?,
        limit: natural("pagination.limit", pagination.limit.into())?,
        offset: natural("pagination.offset", pagination.offset)?,
        cursor: Some(pagination.cursor),
        consistency: consistency(request.consistency)?,
        min_position: position("min_position", request.min_position)?,
        count_only: request.count_only,
        facets: page::paths("facets", &request.facets)?,
    })
}

/// `<path> [asc|desc]`.
fn sort_key(text: &str) -> Result<SortKey> {
    let refused = |message| invalid(Reason::InvalidRequest, "sort_by", message);
    let (path, direction) = match text.trim().rsplit_once(' ') {
        Some((path, direction)) if ["asc", "desc"].contains(&direction) => (path.trim_end(), direction),
        _ => (text.trim(), "asc"),
    };
    if path.contains(' ') {
        let message = format!("`{text}` is no sort key, write `<path>`, `<path> asc` or `<path> desc`");
        return Err(refused(message));
    }
    let path = Path::parse(path).map_err(|error| refused(error.to_string()))?;
    Ok(SortKey {
        path,
        descending: direction == "desc",
    })
}

pub(super) fn consistency(number: i32) -> Result<Option<ReadConsistency>> {
    match proto::Consistency::try_from(number) {
        Ok(proto::Consistency::Unspecified) => Ok(None),
        Ok(proto::Consistency::Consistent) => Ok(Some(ReadConsistency::Consistent)),
        Ok(proto::Consistency::Stale) => Ok(Some(ReadConsistency::Stale)),
        Err(_) => Err(invalid(
            Reason::InvalidRequest,
            "consistency",
            format!("there is no consistency {number}"),
        )),
    }
}

/// The page as far as it fits into one answer; the rest follows by its cursor.
pub(super) fn to_listed(row: &Row, expires_at: Option<Timestamp>, shown: &Shown) -> proto::Identity {
    proto::Identity {
        identity: row.identity().as_str().to_owned(),
        metadata: shown.of(row.document()),
        registered_at: Some(to_timestamp(row.registered_at())),
        expires_at: expires_at.map(to_timestamp),
        updated_at: Some(to_timestamp(row.updated_at())),
        generation: Some(to_position(row.generation())),
        revision: row.revision().0,
        ttl_ms: to_ttl_ms(row.ttl),
    }
}

/// How large the row is in an answer.
#[cfg(test)]
pub(super) fn encoded_len(row: &Row) -> usize {
    to_listed(row, row.expires_at, &Shown::All).encoded_len() + ITEM_OVERHEAD
}

/// No smaller than the row in an answer: protobuf takes at most four bytes for each of a document's,
/// and the rest is of bounded size.
pub(super) fn largest(row: &Row) -> usize {
    const REST: usize = 128;
    row.document().byte_len() * 4 + row.identity().as_str().len() + REST
}

/// A media type travels in broker headers, so it must be one line of visible text.
pub(super) fn content_type(text: String) -> Result<String> {
    if text.len() > 256 || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let message = "a content type has at most 256 visible ASCII characters";
        return Err(invalid(Reason::InvalidRequest, "content_type", message));
    }
    Ok(text)
}
