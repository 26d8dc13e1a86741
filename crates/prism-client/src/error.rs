//! What a call can fail with, and what is known about its effect.

use std::{collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

use prism_core::failure::{self, Failure, Reason};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::transport::DialError;

/// A service that asks for a longer pause is not believed: it would be forgotten rather than called.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a failed call may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Certainly nothing.
    No,
    /// That cannot be told: the request may have been carried out.
    Unknown,
}

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service answered, and the answer is no.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// No connection could be made. The request was never sent.
    #[error("`{endpoint}` cannot be reached: {message}")]
    Unreachable {
        /// The endpoint that was tried last.
        endpoint: String,
        /// What the attempt to connect said.
        message: String,
        /// When the next attempt will be made.
        retry_after: Option<Duration>,
        /// `Unknown` only when an earlier attempt of the same call was sent.
        applied: Applied,
    },
    /// The connection went away before the answer came.
    #[error("the connection was lost before the answer came: {message}")]
    ConnectionLost {
        /// What the transport said.
        message: String,
        /// `No` when the transport knows that the request was never sent or never looked at.
        applied: Applied,
    },
    /// The call's deadline passed.
    #[error("no answer within {} ms{}", .timeout.as_millis(), attempt_before(.before.as_deref()))]
    DeadlineExceeded {
        /// How long the call was given.
        timeout: Duration,
        /// Whether it may be carried out nevertheless.
        applied: Applied,
        /// What the attempt before failed with, if this was not the first one: most likely the cause.
        before: Option<Box<Error>>,
    },
    /// The request cannot be sent as it is. Nothing was.
    #[error("{message}")]
    Invalid {
        /// The field at fault.
        field: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// The service answered something that it must not.
    #[error("the answer cannot be understood: `{field}` {problem}")]
    Malformed {
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A failed call as the service describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// `ErrorInfo.reason`, as text, so that one which this version does not know can still be matched.
    /// Empty when the status came from something that is not Prism.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `ErrorInfo.metadata`: the field at fault, the limit, and the like.
    pub details: BTreeMap<String, String>,
    /// When trying again makes sense.
    pub retry_after: Option<Duration>,
    /// Whether the call may have changed something.
    pub applied: Applied,
}

impl Error {
    /// Why the service refused; `None` when it did not, or for a reason that this version does not
    /// know (see [`Refusal::reason`]).
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Reason::parse(&refusal.reason),
            Self::DeadlineExceeded { .. } => Some(Reason::DeadlineExceeded),
            _ => None,
        }
    }

    /// The reason as text: the service's, or one of `UNREACHABLE CONNECTION_LOST DEADLINE_EXCEEDED
    /// INVALID_REQUEST MALFORMED_ANSWER`. Empty for a status that came from something that is not Prism.
    pub fn reason_text(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::ConnectionLost { .. } => "CONNECTION_LOST",
            Self::DeadlineExceeded { .. } => Reason::DeadlineExceeded.as_str(),
            Self::Invalid { .. } => Reason::InvalidRequest.as_str(),
            Self::Malformed { .. } => "MALFORMED_ANSWER",
        }
    }

    /// The gRPC status code, or the one that says the same.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => Code::Unavailable,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Malformed { .. } => Code::Internal,
        }
    }

    /// The field at fault, where one is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.details.get("field").map(String::as_str),
            Self::Invalid { field, .. } | Self::Malformed { field, .. } => Some(field),
            _ => None,
        }
    }

    /// When trying again makes sense, as far as somebody said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Unreachable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a mutation that failed so may have been carried out.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Refused(refusal) => refusal.applied,
            Self::Unreachable { applied, .. }
            | Self::ConnectionLost { applied, .. }
            | Self::DeadlineExceeded { applied, .. } => *applied,
            Self::Invalid { .. } => Applied::No,
            Self::Malformed { .. } => Applied::Unknown,
        }
    }

    /// Whether the failure says nothing about the request itself: the service was away, busy ending or
    /// not there yet. The same call may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.code == Code::Unavailable,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } => true,
            _ => false,
        }
    }

    /// The same failure of a call of which an earlier attempt may have been carried out.
    pub(crate) fn maybe_applied(mut self) -> Self {
        match &mut self {
            Self::Refused(refusal) => refusal.applied = Applied::Unknown,
            Self::Unreachable { applied, .. }
            | Self::ConnectionLost { applied, .. }
            | Self::DeadlineExceeded { applied, .. } => *applied = Applied::Unknown,
            Self::Invalid { .. } | Self::Malformed { .. } => {}
        }
        self
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn malformed(field: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self::Malformed {
            field: field.to_string(),
            problem: problem.into(),
        }
    }

    /// Of words about messages whose subscription has been dropped.
    pub(crate) fn unsubscribed() -> Self {
        Self::ConnectionLost {
            message: "the subscription has been dropped".to_owned(),
            applied: Applied::Unknown,
        }
    }

    /// A deadline that passed while it is not known what the request has done.
    pub(crate) fn timed_out(timeout: Duration) -> Self {
        Self::DeadlineExceeded {
            timeout,
            applied: Applied::Unknown,
            before: None,
        }
    }

    /// The same deadline, in an attempt after one that failed with `before`.
    pub(crate) fn after(mut self, failed: Option<Error>) -> Self {
        if let Self::DeadlineExceeded { before, .. } = &mut self {
            *before = failed.map(Box::new);
        }
        self
    }

    /// Reads a status that a call under `timeout` ended with.
    pub(crate) fn from_status(status: &Status, timeout: Duration) -> Self {
        match status.source() {
            // Only what the transport made up itself has a source.
            Some(cause) => Self::from_transport(status, cause, timeout),
            None => Self::Refused(Box::new(Refusal::from_status(status))),
        }
    }

    fn from_transport(status: &Status, cause: &(dyn StdError + 'static), timeout: Duration) -> Self {
        if let Some(dial) = find::<DialError>(cause) {
            return Self::Unreachable {
                endpoint: dial.endpoint.clone(),
                message: dial.message.clone(),
                retry_after: Some(dial.retry_after),
                applied: Applied::No,
            };
        }
        if find::<tonic::TimeoutExpired>(cause).is_some() {
            return Self::timed_out(timeout);
        }
        Self::ConnectionLost {
            message: innermost(cause).map_or_else(|| status.message().to_owned(), ToString::to_string),
            applied: if was_never_handled(cause) {
                Applied::No
            } else {
                Applied::Unknown
            },
        }
    }
}

impl Refusal {
    fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == failure::DOMAIN);
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: describe(status),
            details: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
            retry_after: details
                .retry_info()
                .and_then(|info| info.retry_delay)
                .map(|pause| pause.min(LONGEST_PAUSE)),
            applied: match status.metadata().get(failure::APPLIED) {
                Some(value) if value.as_bytes() == b"no" => Applied::No,
                _ => Applied::Unknown,
            },
        }
    }

    /// A refusal of one item in a call that succeeded as a whole.
    pub(crate) fn of_item(reason: &str, message: String) -> Self {
        Self {
            code: Reason::parse(reason).map_or(Code::Unknown, Reason::code),
            reason: reason.to_owned(),
            message,
            details: BTreeMap::new(),
            retry_after: None,
            applied: Applied::No,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(Refusal {
            code: failure.reason.code(),
            reason: failure.reason.as_str().to_owned(),
            message: failure.message,
            details: failure.details,
            retry_after: failure.retry_after.map(|pause| pause.min(LONGEST_PAUSE)),
            applied: match failure.applied {
                Some(false) => Applied::No,
                _ => Applied::Unknown,
            },
        }))
    }
}

fn attempt_before(before: Option<&Error>) -> impl fmt::Display {
    fmt::from_fn(move |f| match before {
        Some(before) => write!(f, "; the attempt before: {before}"),
        None => Ok(()),
    })
}

/// Other servers send statuses without a message; the code is better than nothing.
fn describe(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_lowercase(),
        message => message.to_owned(),
    }
}

/// Whether the transport knows that the server never looked at the request: it was still queued here
/// when the connection closed, the server refused the stream, or it lies beyond what the server's
/// GOAWAY said it would still answer (RFC 9113, section 6.8).
fn was_never_handled(cause: &(dyn StdError + 'static)) -> bool {
    let queued = find::<hyper::Error>(cause).is_some_and(hyper::Error::is_canceled);
    let refused = find::<h2::Error>(cause).is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
    });
    queued || refused
}

fn find<'a, T: StdError + 'static>(cause: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(cause).find_map(|cause| cause.downcast_ref::<T>())
}

fn innermost<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    causes(cause).last()
}

fn causes<'a>(cause: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(cause), |cause: &&'a (dyn StdError + 'static)| {
        (*cause).source()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn read(status: &Status) -> Error {
        Error::from_status(status, TIMEOUT)
    }

    #[test]
    fn a_refusal_keeps_everything_that_the_service_said() {
        let failure = Failure::new(Reason::InvalidIdentity, "too long")
            .field("identity")
            .retry_after(Duration::from_millis(250))
            .not_applied();
        let error = read(&failure.into());
        assert_eq!(error.reason(), Some(Reason::InvalidIdentity));
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.field(), Some("identity"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(error.to_string(), "too long");
    }

    #[test]
    fn silence_about_the_effect_means_unknown() {
        let error = read(&Failure::new(Reason::RunnerLost, "gone").into());
        assert_eq!(error.applied(), Applied::Unknown);
        assert!(error.is_transient());
    }

    #[test]
    fn a_status_of_another_origin_has_a_code_and_no_reason() {
        let error = read(&Status::permission_denied(""));
        assert_eq!((error.reason(), error.reason_text()), (None, ""));
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn a_reason_of_a_newer_service_is_kept_as_text() {
        let mut details = tonic_types::ErrorDetails::new();
        details.set_error_info(
            "FROM_THE_FUTURE",
            failure::DOMAIN,
            std::collections::HashMap::<String, String>::new(),
        );
        let error = read(&Status::with_error_details(Code::Aborted, "x", details));
        assert_eq!((error.reason(), error.reason_text()), (None, "FROM_THE_FUTURE"));
    }

    #[test]
    fn a_failed_dial_was_never_sent() {
        let dial = DialError {
            endpoint: "http://127.0.0.1:1".to_owned(),
            message: "connection refused".to_owned(),
            retry_after: Duration::from_millis(70),
        };
        let error = read(&Status::from_error(Box::new(tonic::ConnectError(Box::new(dial)))));
        assert!(matches!(&error, Error::Unreachable { .. }), "{error:?}");
        assert_eq!(error.applied(), Applied::No);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(70)));
    }

    #[test]
    fn a_refused_stream_was_never_handled_and_a_broken_one_may_have_been() {
        let refused = h2::Error::from(h2::Reason::REFUSED_STREAM);
        let error = read(&Status::from_error(Box::new(refused)));
        assert_eq!(error.applied(), Applied::No, "{error:?}");
        let broken = h2::Error::from(h2::Reason::INTERNAL_ERROR);
        let error = read(&Status::from_error(Box::new(broken)));
        assert_eq!(error.applied(), Applied::Unknown, "{error:?}");
    }

    #[test]
    fn an_earlier_attempt_of_unknown_effect_is_not_forgotten() {
        let error = read(&Failure::new(Reason::Draining, "bye").not_applied().into());
        assert_eq!(error.maybe_applied().applied(), Applied::Unknown);
    }
}
