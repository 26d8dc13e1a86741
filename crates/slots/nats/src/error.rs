//! This backend's failures in the words of every slot.

use prism_slot::{Applied, Error};

use crate::address::InvalidPrefix;

/// The backend's name in configurations and errors.
pub(crate) const BACKEND: &str = "nats";

/// The broker cannot be reached now. Nothing in this slot changes anything that a failed call would leave
/// behind.
pub(crate) fn unavailable(message: impl Into<String>) -> Error {
    Error::Unavailable {
        backend: BACKEND,
        message: message.into(),
        applied: Applied::No,
    }
}

/// The same, when the call may have changed something.
pub(crate) fn unavailable_after(message: impl Into<String>, applied: Applied) -> Error {
    Error::Unavailable {
        backend: BACKEND,
        message: message.into(),
        applied,
    }
}

/// The broker did not answer in time.
pub(crate) fn timeout() -> Error {
    Error::Timeout {
        backend: BACKEND,
        applied: Applied::No,
    }
}

/// The operator has to change something.
pub(crate) fn misconfigured(message: impl Into<String>) -> Error {
    Error::Misconfigured {
        backend: BACKEND,
        message: message.into(),
    }
}

impl From<InvalidPrefix> for Error {
    fn from(error: InvalidPrefix) -> Self {
        misconfigured(error.to_string())
    }
}
