//! What a report says of targets.

use std::sync::Arc;

use prism_slot::{Identity, Timestamp};

use super::{
    cast::{Cast, Progress},
    state::{Stage, State, Status},
    states::States,
};

/// One target of a multicast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The identity.
    pub identity: Identity,
    status: Status,
    state: State,
}

impl Target {
    pub(crate) fn new(identity: Identity, status: Status, state: State) -> Self {
        Self {
            identity,
            status,
            state,
        }
    }

    /// What became of it.
    pub fn status(&self) -> Status {
        self.status
    }

    /// How far it is known to have come.
    pub fn stage(&self) -> Stage {
        self.state.stage
    }

    /// The machine-readable cause where it was not delivered.
    pub fn reason(&self) -> &'static str {
        self.state.reason(self.status)
    }

    /// The same for people.
    pub fn error(&self) -> Option<String> {
        self.state.error(self.status)
    }
}

/// Targets of a multicast, in no particular order. Their names are shared with whoever else has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    identities: Arc<[Identity]>,
    statuses: Vec<Status>,
    states: States,
}

impl Targets {
    /// From what is known of each, in the same order.
    pub(crate) fn new(identities: Arc<[Identity]>, statuses: Vec<Status>, states: States) -> Self {
        debug_assert!(identities.len() == statuses.len() && statuses.len() == states.len());
        Self {
            identities,
            statuses,
            states,
        }
    }

    /// Those that nothing is sent to.
    pub(crate) fn unsent(identities: Arc<[Identity]>) -> Self {
        let count = identities.len();
        Self::new(identities, vec![Status::Pending; count], States::of(count))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
    }

    /// The one with this index.
    pub fn get(&self, index: usize) -> Option<Target> {
        let (identity, status) = (self.identities.get(index)?, self.statuses.get(index)?);
        Some(Target::new(identity.clone(), *status, self.states.get(index)))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Target> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// What became of each.
    pub fn statuses(&self) -> &[Status] {
        &self.statuses
    }
}

impl FromIterator<Target> for Targets {
    fn from_iter<T: IntoIterator<Item = Target>>(all: T) -> Self {
        let (mut identities, mut statuses, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for target in all {
            identities.push(target.identity);
            statuses.push(target.status);
            states.push(target.state);
        }
        Self::new(identities.into(), statuses, states.into_iter().collect())
    }
}

/// Everything that a report says of targets, from states.
pub(crate) fn targets_of(
    cast: &Cast,
    progress: Progress,
    identities: &[Identity],
    states: impl IntoIterator<Item = State>,
) -> Vec<Target> {
    let now = Timestamp::now();
    let pairs = identities.iter().zip(states);
    let target = |(identity, state): (&Identity, State)| {
        let status = cast.status(progress, state.brief(), now);
        Target::new(identity.clone(), status, state)
    };
    pairs.map(target).collect()
}
