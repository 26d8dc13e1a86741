//! What the process's exit code says.

use std::process::ExitCode;

use prism_client::{Code, Error};

/// What the process's exit code says. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The call failed for a reason without a number of its own.
    Error = 1,
    /// The command line, or a value on it, is wrong. Nothing was sent.
    Usage = 2,
    /// The identity, the namespace or the multicast is not there.
    NotFound = 3,
    /// Some target of a multicast did not get it, or that is not known.
    Partial = 4,
    /// The service, or what it needs, is not there or does not answer in time.
    Unavailable = 5,
    /// The caller may not.
    Denied = 6,
    /// Interrupted before it was done.
    Interrupted = 130,
}

impl Exit {
    /// Of a call that failed.
    pub(crate) fn of(error: &Error) -> Self {
        if matches!(error, Error::Invalid { .. }) {
            return Self::Usage;
        }
        Self::of_code(error.code())
    }

    /// Of a gRPC status code.
    pub(crate) fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::NotFound => Self::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Self::Unavailable,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            _ => Self::Error,
        }
    }

    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.number().into()
    }
}

#[cfg(test)]
mod tests {
    use prism_client::{Applied, Reason};
    use prism_core::failure::Failure;

    use super::*;

    #[test]
    fn every_reason_has_its_number() {
        for &reason in Reason::ALL {
            let expected = match reason {
                Reason::UnknownNamespace | Reason::NotRegistered | Reason::UnknownMulticast => 3,
                Reason::BackendUnavailable
                | Reason::NoRunner
                | Reason::RunnerLost
                | Reason::Draining
                | Reason::NotReady
                | Reason::DeadlineExceeded => 5,
                _ => 1,
            };
            let error = Error::from(Failure::new(reason, "x"));
            assert_eq!(Exit::of(&error).number(), expected, "{reason:?}");
        }
    }

    #[test]
    fn what_never_reached_the_service_has_its_number_too() {
        let invalid = Error::Invalid {
            field: "ttl".to_owned(),
            message: "x".to_owned(),
        };
        let unreachable = Error::Unreachable {
            endpoint: "x".to_owned(),
            message: "x".to_owned(),
            retry_after: None,
            applied: Applied::No,
        };
        let malformed = Error::Malformed {
            field: "x".to_owned(),
            problem: "x".to_owned(),
        };
        assert_eq!(
            [&invalid, &unreachable, &malformed].map(|error| Exit::of(error).number()),
            [2, 5, 1]
        );
        assert_eq!(Exit::of_code(Code::PermissionDenied).number(), 6);
        assert_eq!(Exit::of_code(Code::Unauthenticated).number(), 6);
    }
}
