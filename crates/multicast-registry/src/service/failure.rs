//! The one table from what can go wrong to what clients are told.

use std::time::Duration;

use prism_core::failure::{Failure, Reason};
use prism_filter::DocumentError;
use prism_slot::{Applied, Error as Slot, Identity, Position};

use crate::coordinator::{Closed, Error};

/// When to try again after something that passes by itself.
const SOON: Duration = Duration::from_millis(200);

/// When to try again what others have to make room for.
const LATER: Duration = Duration::from_secs(5);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let failure = |reason| Failure::new(reason, message.clone());
        let failure = match &error {
            Error::InvalidIdentity(_) => failure(Reason::InvalidIdentity)
                .field("identity")
                .with("limit", Identity::MAX_BYTES),
            Error::InvalidMetadata(error) => with_limit(
                failure(Reason::InvalidMetadata).field(metadata_field(error.path())),
                match error {
                    DocumentError::TooDeep { limit, .. } | DocumentError::TooLarge { limit } => Some(*limit),
                    _ => None,
                },
            ),
            Error::SchemaViolation(violation) => {
                failure(Reason::InvalidMetadata).field(metadata_field(Some(&violation.field)))
            }
            Error::MetadataTooLarge { size, limit } => failure(Reason::InvalidMetadata)
                .field("metadata")
                .with("size", size)
                .with("limit", limit),
            Error::InvalidFilter(error) => with_limit(
                failure(Reason::InvalidFilter)
                    .field("filter")
                    .with("clause", error.clause()),
                filter_limit(error),
            ),
            Error::InvalidTtl { max, .. } => failure(Reason::InvalidTtl)
                .field("ttl_seconds")
                .with("limit", max.as_secs_f64()),
            Error::InvalidCursor(_) => failure(Reason::InvalidCursor).field("pagination.cursor"),
            Error::InvalidArgument { field, limit, .. } => {
                with_limit(failure(Reason::InvalidRequest).field(field), *limit)
            }
            Error::PayloadTooLarge { size, limit } => failure(Reason::PayloadTooLarge)
                .field("payload")
                .with("size", size)
                .with("limit", limit),
            Error::RateLimited(exceeded) => {
                let failure = failure(Reason::RateLimited)
                    .with("key", exceeded.key)
                    .with("limit", exceeded.rate)
                    .with("burst", exceeded.burst);
                match exceeded.retry_after {
                    Some(pause) => failure.retry_after(pause),
                    None => failure,
                }
            }
            Error::Unsupported(_) => failure(Reason::Unsupported),
            Error::OtherEpoch { current } => {
                failure(Reason::EpochChanged).with("epoch", format!("{:016x}", current.0))
            }
            Error::Compacted { asked, floor } => failure(Reason::Compacted)
                .with("revision", asked.0)
                .with("floor", floor.0),
            Error::NotReady(Some(Slot::Unavailable { backend, .. } | Slot::Timeout { backend, .. })) => {
                failure(Reason::BackendUnavailable)
                    .with("backend", backend)
                    .retry_after(SOON)
            }
            Error::NotReady(_) => failure(Reason::NotReady).retry_after(SOON),
            Error::Overloaded { limit, .. } => failure(Reason::Overloaded)
                .with("limit", limit)
                .retry_after(LATER),
            Error::Crowded { limit, clear_in, .. } => failure(Reason::Overloaded)
                .with("limit", limit)
                .retry_after((*clear_in).max(SOON)),
            Error::UnknownMulticast(multicast) => {
                failure(Reason::UnknownMulticast).with("multicast_id", multicast)
            }
            Error::IdempotencyMismatch { multicast } => failure(Reason::IdempotencyMismatch)
                .field("idempotency_key")
                .with("multicast_id", multicast),
            Error::TooSlow { at } => position(failure(Reason::SlowConsumer), *at),
            Error::Slot(error) => return slot_failure(error),
            Error::DeadlineExceeded => failure(Reason::DeadlineExceeded),
            Error::Draining => failure(Reason::Draining).retry_after(SOON),
        };
        failure.not_applied()
    }
}

fn with_limit(failure: Failure, limit: Option<usize>) -> Failure {
    match limit {
        Some(limit) => failure.with("limit", limit),
        None => failure,
    }
}

fn filter_limit(error: &prism_filter::Error) -> Option<usize> {
    use prism_filter::Error as Filter;
    match error {
        Filter::TooDeep { limit, .. }
        | Filter::TooManyClauses { limit, .. }
        | Filter::TooManyValues { limit, .. }
        | Filter::TooLarge { limit, .. } => Some(*limit),
        _ => None,
    }
}

fn metadata_field(path: Option<&str>) -> String {
    match path.filter(|path| !path.is_empty()) {
        Some(path) => format!("metadata.{path}"),
        None => "metadata".to_owned(),
    }
}

fn slot_failure(error: &Slot) -> Failure {
    let failure = |reason| Failure::new(reason, error.to_string());
    let failure = match error {
        Slot::AlreadyExists(identity) => failure(Reason::AlreadyRegistered).with("identity", identity),
        Slot::NotFound(identity) => failure(Reason::NotRegistered).with("identity", identity),
        Slot::StaleGeneration { identity, current } => position(
            failure(Reason::StaleGeneration).with("identity", identity),
            *current,
        ),
        Slot::Conflict { identity, current } => failure(Reason::Conflict)
            .with("identity", identity)
            .with("revision", current.0),
        Slot::Fenced(identity) => failure(Reason::Superseded).with("identity", identity),
        Slot::QuotaExceeded { limit } => failure(Reason::QuotaExceeded).with("limit", limit),
        Slot::EpochChanged { current } => {
            failure(Reason::EpochChanged).with("epoch", format!("{:016x}", current.0))
        }
        Slot::Compacted { up_to } => failure(Reason::Compacted).with("revision", up_to.0),
        Slot::Unavailable { backend, .. } => failure(Reason::BackendUnavailable)
            .with("backend", backend)
            .retry_after(SOON),
        Slot::Timeout { backend, .. } => failure(Reason::DeadlineExceeded).with("backend", backend),
        Slot::Misconfigured { backend, .. } => failure(Reason::BackendUnavailable).with("backend", backend),
        Slot::Unsupported { backend, .. } => failure(Reason::Unsupported).with("backend", backend),
        Slot::Unreadable { backend, .. } => failure(Reason::BackendUnreadable).with("backend", backend),
    };
    match error.applied() {
        Applied::No => failure.not_applied(),
        Applied::Unknown => failure.maybe_applied(),
    }
}

fn position(failure: Failure, at: Position) -> Failure {
    failure
        .with("epoch", format!("{:016x}", at.epoch.0))
        .with("revision", at.revision.0)
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        let message = closed.to_string();
        match closed {
            Closed::Superseded => Self::new(Reason::Superseded, message),
            Closed::Unregistered => Self::new(Reason::Unregistered, message),
            Closed::Expired => Self::new(Reason::Unregistered, message).with("cause", "EXPIRED"),
            Closed::Replaced => Self::new(Reason::StaleGeneration, message),
            Closed::Draining | Closed::Reconfigured | Closed::SlotClosed => {
                Self::new(Reason::Draining, message).retry_after(SOON)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prism_slot::{Epoch, Revision};

    use super::*;
    use crate::testing::id;

    fn of_slot(error: Slot) -> Failure {
        Error::Slot(error).into()
    }

    fn positions() -> (Position, Epoch, Revision) {
        let (epoch, revision) = (Epoch(1), Revision(2));
        (Position { epoch, revision }, epoch, revision)
    }

    /// Every failure of a call says whether it may have changed something.
    #[test]
    fn what_a_slot_says_is_what_clients_are_told() {
        let (at, current, revision) = positions();
        let (backend, message, limit) = ("double", String::new(), 7);
        let unavailable = |applied| Slot::Unavailable {
            backend,
            message: String::new(),
            applied,
        };
        let cases = [
            (Slot::AlreadyExists(id("a")), "ALREADY_EXISTS", false),
            (Slot::NotFound(id("a")), "NOT_FOUND", false),
            (
                Slot::StaleGeneration {
                    identity: id("a"),
                    current: at,
                },
                "STALE_GENERATION",
                false,
            ),
            (
                Slot::Conflict {
                    identity: id("a"),
                    current: revision,
                },
                "CONFLICT",
                false,
            ),
            (Slot::Fenced(id("a")), "SUPERSEDED", false),
            (Slot::QuotaExceeded { limit }, "QUOTA_EXCEEDED", false),
            (Slot::EpochChanged { current }, "EPOCH_CHANGED", false),
            (Slot::Compacted { up_to: revision }, "COMPACTED", false),
            (unavailable(Applied::No), "BACKEND_UNAVAILABLE", false),
            (unavailable(Applied::Unknown), "BACKEND_UNAVAILABLE", true),
            (
                Slot::Timeout {
                    backend,
                    applied: Applied::No,
                },
                "DEADLINE_EXCEEDED",
                false,
            ),
            (
                Slot::Timeout {
                    backend,
                    applied: Applied::Unknown,
                },
                "DEADLINE_EXCEEDED",
                true,
            ),
            (
                Slot::Misconfigured {
                    backend,
                    message: message.clone(),
                },
                "BACKEND_UNAVAILABLE",
                false,
            ),
            (Slot::Unsupported { backend, what: "x" }, "UNSUPPORTED", false),
            (Slot::Unreadable { backend, message }, "BACKEND_UNREADABLE", true),
        ];
        for (error, reason, applied) in cases {
            let failure = of_slot(error);
            assert_eq!(
                (failure.reason.as_str(), failure.applied),
                (reason, Some(applied))
            );
        }
    }

    /// What passes by itself says when to try again.
    #[test]
    fn what_passes_by_itself_says_when() {
        let unavailable = Slot::Unavailable {
            backend: "double",
            message: String::new(),
            applied: Applied::No,
        };
        let building = |error| Failure::from(Error::NotReady(error));
        for failure in [
            of_slot(unavailable.clone()),
            building(None),
            building(Some(unavailable)),
            Error::Draining.into(),
            Closed::Draining.into(),
            Closed::Reconfigured.into(),
            Closed::SlotClosed.into(),
        ] {
            assert!(failure.retry_after.is_some(), "{failure}");
        }
    }

    /// Why a session ended decides whether its client comes back.
    #[test]
    fn a_session_says_why_it_ended() {
        let cases = [
            (Closed::Superseded, "SUPERSEDED"),
            (Closed::Unregistered, "UNREGISTERED"),
            (Closed::Expired, "UNREGISTERED"),
            (Closed::Replaced, "STALE_GENERATION"),
            (Closed::Draining, "DRAINING"),
            (Closed::Reconfigured, "DRAINING"),
            (Closed::SlotClosed, "DRAINING"),
        ];
        for (closed, reason) in cases {
            assert_eq!(Failure::from(closed).reason.as_str(), reason);
        }
    }
}
