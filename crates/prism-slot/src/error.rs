//! What can go wrong in a slot, and what is known about its effect.

use crate::{Epoch, Identity, Position, Revision};

/// The result of a slot call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whether a failed mutation changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Certainly nothing.
    No,
    /// That cannot be told: the request may have reached the backend.
    Unknown,
}

/// A failed slot call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `Mode::Create` found a live registration of another session.
    #[error("`{0}` is already registered")]
    AlreadyExists(Identity),
    /// There is no live registration.
    #[error("`{0}` is not registered")]
    NotFound(Identity),
    /// The caller's generation is not the one that is registered.
    #[error("`{identity}` has since been registered anew, at {current}")]
    StaleGeneration {
        /// Of the call.
        identity: Identity,
        /// The generation that is registered now.
        current: Position,
    },
    /// `if_revision` does not hold any more.
    #[error("`{identity}` was last written at revision {current:?}, not at the one expected")]
    Conflict {
        /// Of the call.
        identity: Identity,
        /// The revision of the last write.
        current: Revision,
    },
    /// A later session works on the inbox.
    #[error("a later session of `{0}` has taken over its inbox")]
    Fenced(Identity),
    /// The namespace is full.
    #[error("the namespace holds its maximum of {limit} identities")]
    QuotaExceeded {
        /// The quota that the call carried.
        limit: u64,
    },
    /// The namespace is in another epoch than the call expected.
    #[error("the namespace's history began anew, its epoch is {current:?}")]
    EpochChanged {
        /// The epoch now.
        current: Epoch,
    },
    /// The feed no longer reaches back to the asked revision.
    #[error("changes up to revision {up_to:?} are no longer kept")]
    Compacted {
        /// The last revision that is gone.
        up_to: Revision,
    },
    /// The backend could not be reached or refused to work.
    #[error("{backend} is unavailable: {message}")]
    Unavailable {
        /// The backend's name.
        backend: &'static str,
        /// What it said.
        message: String,
        /// For mutations.
        applied: Applied,
    },
    /// The call's deadline passed first.
    #[error("{backend} did not answer before the deadline")]
    Timeout {
        /// The backend's name.
        backend: &'static str,
        /// For mutations.
        applied: Applied,
    },
    /// The backend is reachable but unusable as it is set up: wrong version, wrong policy, no
    /// permission.
    #[error("{backend} cannot be used: {message}")]
    Misconfigured {
        /// The backend's name.
        backend: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The call is an optional one that the slot does not declare.
    #[error("{backend} does not {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// What was asked for.
        what: &'static str,
    },
    /// What the backend holds cannot be read: written by a newer version, or damaged.
    #[error("{backend} holds data that cannot be read: {message}")]
    Unreadable {
        /// The backend's name.
        backend: &'static str,
        /// What was found.
        message: String,
    },
}

impl Error {
    /// Whether the failed call may have changed anything.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Unavailable { applied, .. } | Self::Timeout { applied, .. } => *applied,
            // Damage is noticed when a reply is decoded, which may be after the write.
            Self::Unreadable { .. } => Applied::Unknown,
            _ => Applied::No,
        }
    }
}
