//! What an error says about a registration.

use prism_core::failure::Reason;
use tonic::Code;

use crate::Error;

/// What an error says about a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Unknown,
    /// It is not there any more, and nobody else's is known to be.
    Gone,
    /// It will not be there again.
    Final,
}

impl Fate {
    /// Of a lease that was not renewed.
    pub(super) fn of_renewal(error: &Error) -> Self {
        match error.reason() {
            Some(Reason::NotRegistered | Reason::EpochChanged | Reason::Unregistered) => Self::Gone,
            // Somebody registered it anew, and is its owner now.
            Some(Reason::StaleGeneration) => Self::Final,
            _ => Self::of_refusal(error),
        }
    }

    /// Of a registration that was not made again.
    pub(super) fn of_registration(error: &Error) -> Self {
        match error.reason() {
            // The history changed under the call; the next attempt finds it settled.
            Some(Reason::EpochChanged | Reason::Conflict) => Self::Unknown,
            _ => Self::of_refusal(error),
        }
    }

    fn of_refusal(error: &Error) -> Self {
        match error.code() {
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition => Self::Final,
            // A full namespace may have room again, a defect may be mended, a namespace may be configured
            // again, credentials may be renewed.
            _ => Self::Unknown,
        }
    }
}
