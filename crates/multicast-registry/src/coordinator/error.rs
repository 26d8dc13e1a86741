//! What can go wrong in a call, before it becomes a status.

use std::time::Duration;

use prism_filter::DocumentError;
use prism_slot::{Applied, Epoch, InvalidIdentity, MulticastId, Position, Revision};

use crate::{
    directory::{TooManyValues, Unavailable},
    limits::Exceeded,
    schema::Violation,
};

/// A failed call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The identity cannot be one.
    #[error(transparent)]
    InvalidIdentity(#[from] InvalidIdentity),
    /// The metadata is no object that can be stored.
    #[error("the metadata cannot be stored: {0}")]
    InvalidMetadata(#[from] DocumentError),
    /// The metadata is against the schema.
    #[error(transparent)]
    SchemaViolation(#[from] Violation),
    /// The metadata is too large.
    #[error("the metadata has {size} bytes of JSON, the namespace allows {limit}")]
    MetadataTooLarge {
        /// In bytes.
        size: usize,
        /// In bytes.
        limit: usize,
    },
    /// The filter cannot be used.
    #[error(transparent)]
    InvalidFilter(#[from] prism_filter::Error),
    /// The lease is out of range.
    #[error("{message}")]
    InvalidTtl {
        /// What is wrong and what is possible.
        message: String,
        /// The longest lease that is possible.
        max: Duration,
    },
    /// The cursor was not issued for this call.
    #[error("{0}")]
    InvalidCursor(String),
    /// Another argument is out of range.
    #[error("{message}")]
    InvalidArgument {
        /// The request field.
        field: &'static str,
        /// What is wrong and what is possible.
        message: String,
        /// The most that is possible, where that is a number.
        limit: Option<usize>,
    },
    /// The payload is too large.
    #[error("the payload has {size} bytes, the namespace takes {limit}")]
    PayloadTooLarge {
        /// In bytes.
        size: usize,
        /// In bytes.
        limit: usize,
    },
    /// The caller asks too often, or for too much at once.
    #[error(transparent)]
    RateLimited(#[from] Exceeded),
    /// The namespace's slots cannot do what is asked.
    #[error("{0}")]
    Unsupported(String),
    /// A position of another epoch.
    #[error("the position is of an epoch that ended, start again without it")]
    OtherEpoch {
        /// The epoch now.
        current: Epoch,
    },
    /// A position that is no longer kept.
    #[error("revision {asked:?} is no longer kept, start again without the cursor")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The earliest one that is kept.
        floor: Revision,
    },
    /// More is under way than is allowed.
    #[error("{message}")]
    Overloaded {
        /// What there is too much of.
        message: String,
        /// How much is allowed.
        limit: usize,
    },
    /// More targets wait to be sent to than can be.
    #[error("{message}")]
    Crowded {
        /// How many.
        message: String,
        /// How many are allowed.
        limit: usize,
        /// When they will have been sent to.
        clear_in: Duration,
    },
    /// No multicast is known by this name, or no longer.
    #[error("no multicast `{0}` is known, its receipts may not be kept any longer")]
    UnknownMulticast(MulticastId),
    /// An idempotency key that another request has.
    #[error(
        "the idempotency key was used for another request, the multicast `{multicast}`; use a key for one request only"
    )]
    IdempotencyMismatch {
        /// The multicast that has it.
        multicast: MulticastId,
    },
    /// A watcher did not read in time what it was to be told.
    #[error("the watch was read too slowly and is over, it can be resumed from {at}")]
    TooSlow {
        /// Everything up to here has been given.
        at: Position,
    },
    /// The registry or messaging slot refused, or failed.
    #[error(transparent)]
    Slot(#[from] prism_slot::Error),
    /// The view is not built yet; with what went wrong last, if something did.
    #[error("{}", Unavailable::NotReady(.0.clone()))]
    NotReady(Option<prism_slot::Error>),
    /// The deadline passed.
    #[error("the deadline passed before the call was done")]
    DeadlineExceeded,
    /// The namespace is being taken down.
    #[error("the namespace is being drained here, try again: another runner may serve it")]
    Draining,
}

impl Error {
    /// Whether the failed call may have changed anything.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Slot(error) => error.applied(),
            // Noticed before anything was sent.
            _ => Applied::No,
        }
    }

    pub(crate) fn argument(field: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::InvalidArgument {
            field,
            message,
            limit: None,
        }
    }

    pub(crate) fn overloaded(message: String, limit: usize) -> Self {
        Self::Overloaded { message, limit }
    }

    pub(crate) fn over_limit(field: &'static str, message: String, limit: usize) -> Self {
        let limit = Some(limit);
        Self::InvalidArgument {
            field,
            message,
            limit,
        }
    }
}

impl From<Unavailable> for Error {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NotReady(last) => Self::NotReady(last),
            Unavailable::Store(error) => Self::Slot(error),
        }
    }
}

impl From<TooManyValues> for Error {
    fn from(TooManyValues { path, limit }: TooManyValues) -> Self {
        let message = format!("`{path}` has more than {limit} different values, too many to be counted");
        Self::over_limit("facets", message, limit)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
