//! The one shape in which this project reports a failed call: a gRPC status with a
//! `google.rpc.ErrorInfo`, and the one table from reason to status code.

use std::{collections::BTreeMap, fmt, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every failure that this project raises.
pub const DOMAIN: &str = "prism";

/// The trailer that says whether a failed call changed anything: `no` or `unknown`.
pub const APPLIED: &str = "prism-applied";

/// Stands beside the refusal of a process that has too much to do, whoever calls: fewer calls should be sent to it.
pub const OVERLOADED: &str = "prism-overloaded";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $text:literal $code:ident,)*) => {
        /// Why a call failed. The text is `ErrorInfo.reason`, which clients may match on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As in `ErrorInfo.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC status code of a call that failed for this reason.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// An identity that is empty, too long or has control characters.
    InvalidIdentity "INVALID_IDENTITY" InvalidArgument,
    /// Metadata that is no object, too large, inexact or against the schema.
    InvalidMetadata "INVALID_METADATA" InvalidArgument,
    /// A filter that does not parse or exceeds a limit.
    InvalidFilter "INVALID_FILTER" InvalidArgument,
    /// A lease length out of range.
    InvalidTtl "INVALID_TTL" InvalidArgument,
    /// A cursor that was not issued for this call.
    InvalidCursor "INVALID_CURSOR" InvalidArgument,
    /// Any other argument out of range.
    InvalidRequest "INVALID_REQUEST" InvalidArgument,
    /// A payload larger than the namespace or its slot takes, or a request larger than a process on its way.
    PayloadTooLarge "PAYLOAD_TOO_LARGE" InvalidArgument,
    /// The namespace is not configured here.
    UnknownNamespace "UNKNOWN_NAMESPACE" NotFound,
    /// The identity is not registered.
    NotRegistered "NOT_FOUND" NotFound,
    /// The identity is registered by somebody else.
    AlreadyRegistered "ALREADY_EXISTS" AlreadyExists,
    /// The namespace is full.
    QuotaExceeded "QUOTA_EXCEEDED" ResourceExhausted,
    /// More work is under way than is allowed.
    Overloaded "OVERLOADED" ResourceExhausted,
    /// The caller asks more often, or for more at once, than it may.
    RateLimited "RATE_LIMITED" ResourceExhausted,
    /// A session's registration has been replaced since.
    StaleGeneration "STALE_GENERATION" FailedPrecondition,
    /// The record has been written since it was read.
    Conflict "CONFLICT" Aborted,
    /// No multicast is known by this identifier, or its receipts are not kept any longer.
    UnknownMulticast "UNKNOWN_MULTICAST" NotFound,
    /// An idempotency key was used for another request.
    IdempotencyMismatch "IDEMPOTENCY_MISMATCH" FailedPrecondition,
    /// A position of another epoch.
    EpochChanged "EPOCH_CHANGED" FailedPrecondition,
    /// A position that is no longer kept.
    Compacted "COMPACTED" FailedPrecondition,
    /// The namespace's slots cannot do what is asked.
    Unsupported "UNSUPPORTED" FailedPrecondition,
    /// A newer session of the same identity took over.
    Superseded "SUPERSEDED" Aborted,
    /// The registration that a session belongs to is gone.
    Unregistered "UNREGISTERED" Aborted,
    /// A store or broker does not answer or refuses to work.
    BackendUnavailable "BACKEND_UNAVAILABLE" Unavailable,
    /// A store or broker holds data that cannot be read.
    BackendUnreadable "BACKEND_UNREADABLE" DataLoss,
    /// No runner serves the namespace now.
    NoRunner "NO_RUNNER" Unavailable,
    /// The runner was lost while it handled the call.
    RunnerLost "RUNNER_LOST" Unavailable,
    /// A stream was not read in time.
    SlowConsumer "SLOW_CONSUMER" Aborted,
    /// The process is about to end.
    Draining "DRAINING" Unavailable,
    /// The view is being built.
    NotReady "NOT_READY" Unavailable,
    /// The deadline passed.
    DeadlineExceeded "DEADLINE_EXCEEDED" DeadlineExceeded,
    /// Declared, and not built yet.
    NotImplemented "NOT_IMPLEMENTED" Unimplemented,
    /// A defect of ours.
    Internal "INTERNAL" Internal,
}

impl Reason {
    /// The reason with this text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// A failed call, before it becomes a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// For people: lowercase, no full stop, values in backticks, says what to do next.
    pub message: String,
    /// `ErrorInfo.metadata`: the field, the limit, whatever a program needs to react.
    pub details: BTreeMap<String, String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Whether the call may have changed something; `None` where the question does not arise.
    pub applied: Option<bool>,
    /// Whether fewer calls should be sent, of any kind ([`OVERLOADED`]).
    pub hold_back: bool,
}

impl Failure {
    /// A failure with nothing but a reason and a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            details: BTreeMap::new(),
            retry_after: None,
            applied: None,
            hold_back: false,
        }
    }

    /// Adds an entry of `ErrorInfo.metadata`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the request field at fault.
    #[must_use]
    pub fn field(self, field: impl fmt::Display) -> Self {
        self.with("field", field)
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Says that the call certainly changed nothing.
    #[must_use]
    pub fn not_applied(mut self) -> Self {
        self.applied = Some(false);
        self
    }

    /// Says that the call may have changed something.
    #[must_use]
    pub fn maybe_applied(mut self) -> Self {
        self.applied = Some(true);
        self
    }

    /// Says that whoever answers has too much to do, whatever the call.
    #[must_use]
    pub fn hold_back(mut self) -> Self {
        self.hold_back = true;
        self
    }

    /// Reads back what [`From<Failure>`] put into a status; `None` for a status of other origin.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info()?;
        let reason = Reason::parse(&info.reason).filter(|_| info.domain == DOMAIN)?;
        let applied = match status.metadata().get(APPLIED).map(MetadataValue::as_bytes) {
            Some(b"no") => Some(false),
            Some(_) => Some(true),
            None => None,
        };
        Some(Self {
            reason,
            message: status.message().to_owned(),
            details: info.metadata.clone().into_iter().collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            applied,
            hold_back: status.metadata().contains_key(OVERLOADED),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Failure {}

/// A status travels in headers, of which peers take a few KiB, and messages repeat what callers sent.
const MAX_MESSAGE: usize = 1_024;
const MAX_DETAIL: usize = 512;

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

impl From<Failure> for Status {
    fn from(mut failure: Failure) -> Self {
        failure.message = cut(failure.message, MAX_MESSAGE);
        let metadata = failure.details.into_iter();
        let metadata = metadata.map(|(key, value)| (key, cut(value, MAX_DETAIL)));
        let mut details = ErrorDetails::new();
        details.set_error_info(
            failure.reason.as_str(),
            DOMAIN,
            metadata.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(pause) = failure.retry_after {
            details.set_retry_info(Some(pause));
        }
        let mut status = Status::with_error_details(failure.reason.code(), failure.message, details);
        if let Some(applied) = failure.applied {
            let value = MetadataValue::from_static(if applied { "unknown" } else { "no" });
            status.metadata_mut().insert(APPLIED, value);
        }
        if failure.hold_back {
            let value = MetadataValue::from_static("yes");
            status.metadata_mut().insert(OVERLOADED, value);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        for &reason in Reason::ALL {
            let sent = Failure::new(reason, "what happened")
                .field("identity")
                .with("limit", 256)
                .retry_after(Duration::from_millis(1_500))
                .maybe_applied()
                .hold_back();
            let status = Status::from(sent.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Failure::from_status(&status), Some(sent));
        }
    }

    #[test]
    fn a_status_stays_small_whatever_it_repeats() {
        let long = "é".repeat(100_000);
        let failure = Failure::new(Reason::InvalidRequest, long.clone()).field(long);
        let status = Status::from(failure);
        let read = Failure::from_status(&status).unwrap();
        assert!(read.message.len() < 1_100 && read.message.ends_with('…'));
        let headers = status.into_http::<()>();
        let size: usize = headers.headers().values().map(|value| value.len()).sum();
        assert!(size < 8 * 1_024, "{size} bytes of headers");
    }

    #[test]
    fn a_foreign_status_is_not_mistaken_for_ours() {
        assert_eq!(Failure::from_status(&Status::not_found("x")), None);
    }
}
