//! The one table from what can go wrong to what clients are told.

use std::time::Duration;

use prism_core::failure::{Failure, Reason};
use prism_slot::{Applied, Error as Slot, Position};

use crate::{
    coordinator::{Closed, Error},
    directory::Unavailable,
};

/// When to try again after something that passes by itself.
const SOON: Duration = Duration::from_millis(200);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let failure = |reason| Failure::new(reason, message.clone());
        let failure = match &error {
            Error::InvalidIdentity(_) => failure(Reason::InvalidIdentity).field("identity"),
            Error::InvalidMetadata(error) => {
                failure(Reason::InvalidMetadata).field(metadata_field(error.path()))
            }
            Error::SchemaViolation(violation) => {
                failure(Reason::InvalidMetadata).field(metadata_field(Some(&violation.field)))
            }
            Error::MetadataTooLarge { size, limit } => failure(Reason::InvalidMetadata)
                .field("metadata")
                .with("size", size)
                .with("limit", limit),
            Error::InvalidFilter(error) => failure(Reason::InvalidFilter)
                .field("filter")
                .with("clause", error.clause()),
            Error::InvalidTtl { max, .. } => {
                let failure = failure(Reason::InvalidTtl).field("ttl_seconds");
                max.map_or(failure.clone(), |max| failure.with("limit", max.as_secs_f64()))
            }
            Error::InvalidCursor(_) => failure(Reason::InvalidCursor).field("pagination.cursor"),
            Error::InvalidArgument { field, .. } => failure(Reason::InvalidRequest).field(field),
            Error::PayloadTooLarge { size, limit } => failure(Reason::PayloadTooLarge)
                .field("payload")
                .with("size", size)
                .with("limit", limit),
            Error::Unsupported(_) => failure(Reason::Unsupported),
            Error::OtherEpoch { current } => {
                failure(Reason::EpochChanged).with("epoch", format!("{:016x}", current.0))
            }
            Error::Compacted { asked, floor } => failure(Reason::Compacted)
                .with("revision", asked.0)
                .with("floor", floor.0),
            Error::Unavailable(Unavailable::NotReady(Some(
                Slot::Unavailable { backend, .. } | Slot::Timeout { backend, .. },
            ))) => failure(Reason::BackendUnavailable)
                .with("backend", backend)
                .retry_after(SOON),
            Error::Unavailable(Unavailable::NotReady(_)) => failure(Reason::NotReady).retry_after(SOON),
            Error::Unavailable(Unavailable::Store(error)) => return slot_failure(error),
            Error::DeadlineExceeded => failure(Reason::DeadlineExceeded),
            Error::Draining => failure(Reason::Draining).retry_after(SOON),
        };
        failure.not_applied()
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
            Closed::Draining | Closed::SlotClosed => Self::new(Reason::Draining, message).retry_after(SOON),
        }
    }
}
