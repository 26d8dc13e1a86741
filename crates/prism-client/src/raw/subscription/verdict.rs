//! What the end of a session calls for.

use prism_core::failure::Reason;
use tonic::Code;

use crate::Error;

/// What the end of a session, or a failure to open one, calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another attempt.
    ServiceLost,
    /// Another attempt once the identity is registered again.
    RegistrationLost,
    /// Nothing.
    Final,
}

impl Verdict {
    pub(super) fn on(error: &Error) -> Self {
        match error.reason() {
            Some(Reason::Superseded) => return Self::Final,
            Some(
                Reason::NotRegistered | Reason::StaleGeneration | Reason::EpochChanged | Reason::Unregistered,
            ) => {
                return Self::RegistrationLost;
            }
            _ => {}
        }
        match error.code() {
            // What proxies on the way, other than ours, say when they end a long stream.
            Code::Unknown | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => Self::ServiceLost,
            Code::ResourceExhausted | Code::Unavailable => Self::ServiceLost,
            _ => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use prism_core::failure::Failure;

    use super::*;

    #[test]
    fn only_what_another_attempt_can_heal_gets_one() {
        for (reason, verdict) in [
            (Reason::Draining, Verdict::ServiceLost),
            (Reason::RunnerLost, Verdict::ServiceLost),
            (Reason::BackendUnavailable, Verdict::ServiceLost),
            (Reason::Overloaded, Verdict::ServiceLost),
            (Reason::Unregistered, Verdict::RegistrationLost),
            (Reason::NotRegistered, Verdict::RegistrationLost),
            (Reason::StaleGeneration, Verdict::RegistrationLost),
            (Reason::EpochChanged, Verdict::RegistrationLost),
            (Reason::Superseded, Verdict::Final),
            (Reason::InvalidIdentity, Verdict::Final),
            (Reason::UnknownNamespace, Verdict::Final),
            (Reason::NotImplemented, Verdict::Final),
        ] {
            assert_eq!(
                Verdict::on(&Failure::new(reason, "x").into()),
                verdict,
                "{reason:?}"
            );
        }
    }
}
