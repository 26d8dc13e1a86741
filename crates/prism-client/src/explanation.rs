//! How the service answers a filter, and why.

use std::{fmt, time::Duration};

use crate::Position;

/// How a filter is answered, by doing so once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The indexes that lead to the registrations and how what they lead to is combined, for example
    /// `all(index(battery lt), index(status eq))`. `None`: every registration is asked.
    pub steps: Option<String>,
    /// The fields whose indexes those are.
    pub indexes: Vec<String>,
    /// The fields that have no index, although one would lead to fewer registrations.
    pub unindexed: Vec<String>,
    /// The clauses that no index settles: every candidate is asked about the filter because of them.
    pub residual: Vec<String>,
    /// Whether the candidates are the answer, and none had to be asked.
    pub exact: bool,
    /// How many registrations the indexes were expected to lead to.
    pub estimated_count: u64,
    /// How many they led to.
    pub candidate_count: u64,
    /// How many were asked about the filter themselves, which is what an answer costs.
    pub asked_count: u64,
    /// How many match.
    pub match_count: u64,
    /// How many are registered.
    pub registered_count: u64,
    /// How long it took to find those that match.
    pub elapsed: Duration,
    /// The answer is as of here.
    pub position: Position,
    /// The time since the view was known to be current, where the answer may be stale.
    pub view_age: Option<Duration>,
    /// The same for people.
    pub text: String,
}

/// Why an identity matches a filter or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Whether an enumeration at [`position`](Self::position) has it.
    pub matches: bool,
    /// Every part of the filter, each before its own parts; the first is the filter.
    pub verdicts: Vec<Verdict>,
    /// The answer is as of here.
    pub position: Position,
    /// The time since the view was known to be current, where the answer may be stale.
    pub view_age: Option<Duration>,
    /// The same for people.
    pub text: String,
}

/// What one part of a filter says of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many combinations the part is in.
    pub depth: usize,
    /// `$and`, `$or`, `$not`, `{}` for a filter of nothing, or a clause as `field operator operand`. What is
    /// long is cut and ends in `…`.
    pub part: String,
    /// Whether it holds.
    pub holds: bool,
    /// What a clause looked at, as JSON. `None` where there is nothing.
    pub value: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
