//! Why a filter is refused.

use crate::{document::DocumentError, operator::Operator, path::PathError};

/// Why a filter is refused. The text names the clause, what is wrong with it and what to do.
///
/// A clause is named by the path of its field, after the combinations that it is in:
/// `$or[1].$not.battery`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The filter is not an object of JSON.
    #[error("the filter cannot be read: {source}")]
    Unreadable {
        /// Why not.
        source: DocumentError,
    },
    /// A member is not of the form that its key asks for.
    #[error("clause `{clause}`: {problem}")]
    Malformed {
        /// Which clause.
        clause: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A path cannot be read.
    #[error("clause `{clause}`: {source}")]
    Path {
        /// Which clause.
        clause: String,
        /// Why not.
        source: PathError,
    },
    /// There is no such operator.
    #[error(
        "clause `{clause}`: there is no operator `{operator}`; there are {known}, and `$and`, `$or`, `$not` \
         around clauses", known = known()
    )]
    UnknownOperator {
        /// Which clause.
        clause: String,
        /// The operator, as it was written.
        operator: String,
    },
    /// The operator does not apply to the system field.
    #[error("clause `{clause}`: `{operator}` does not apply to {field}")]
    Inapplicable {
        /// Which clause.
        clause: String,
        /// The operator.
        operator: Operator,
        /// What the field is, and what applies to it.
        field: &'static str,
    },
    /// The operand is relative to the moment of a call, and the filter is used beyond one.
    #[error(
        "clause `{clause}`: `{operand}` is relative to the moment of a call, of which there is none here; compare \
         with a point in time"
    )]
    RelativeTime {
        /// Which clause.
        clause: String,
        /// The operand.
        operand: String,
    },
    /// The operand is not of a type that the operator takes.
    #[error("clause `{clause}`: `{operator}` takes {expected}, not {found}")]
    WrongOperand {
        /// Which clause.
        clause: String,
        /// The operator.
        operator: Operator,
        /// What it takes.
        expected: &'static str,
        /// What it was given.
        found: String,
    },
    /// The operand cannot be held.
    #[error("clause `{clause}`: the operand cannot be used: {source}")]
    Operand {
        /// Which clause.
        clause: String,
        /// Why not.
        source: DocumentError,
    },
    /// A condition or an operand of the protobuf form is not set.
    #[error("clause `{clause}`: the {part} is not set, set it or leave the clause out")]
    Unset {
        /// Which clause.
        clause: String,
        /// What is missing.
        part: &'static str,
    },
    /// A regular expression cannot be read.
    #[error("clause `{clause}`: not a regular expression: {problem}")]
    Regex {
        /// Which clause.
        clause: String,
        /// What is wrong.
        problem: String,
    },
    /// [`Limits::max_depth`](crate::Limits::max_depth).
    #[error("clause `{clause}`: nested deeper than the limit of {limit}, make the filter flatter")]
    TooDeep {
        /// Which clause.
        clause: String,
        /// The limit.
        limit: usize,
    },
    /// [`Limits::max_clauses`](crate::Limits::max_clauses).
    #[error(
        "clause `{clause}`: one more than the limit of {limit} clauses, use fewer, or `in` instead of `$or`"
    )]
    TooManyClauses {
        /// The first that is too many.
        clause: String,
        /// The limit.
        limit: usize,
    },
    /// [`Limits::max_in_values`](crate::Limits::max_in_values).
    #[error("clause `{clause}`: {count} values are more than the limit of {limit}, split the list")]
    TooManyValues {
        /// Which clause.
        clause: String,
        /// How many it has.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A limit in bytes.
    #[error("clause `{clause}`: the {part} is larger than the limit of {limit} bytes, make it smaller")]
    TooLarge {
        /// Which clause.
        clause: String,
        /// What is too large.
        part: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// The clause at fault; empty where it is the filter as a whole.
    pub fn clause(&self) -> &str {
        match self {
            Self::Unreadable { source } => source.path().unwrap_or_default(),
            Self::Malformed { clause, .. }
            | Self::Path { clause, .. }
            | Self::UnknownOperator { clause, .. }
            | Self::Inapplicable { clause, .. }
            | Self::RelativeTime { clause, .. }
            | Self::WrongOperand { clause, .. }
            | Self::Operand { clause, .. }
            | Self::Unset { clause, .. }
            | Self::Regex { clause, .. }
            | Self::TooDeep { clause, .. }
            | Self::TooManyClauses { clause, .. }
            | Self::TooManyValues { clause, .. }
            | Self::TooLarge { clause, .. } => clause,
        }
    }

    /// What is wrong with an operand that cannot be held.
    pub(crate) fn of_operand(clause: String, source: DocumentError) -> Self {
        match source {
            DocumentError::TooLarge { limit } => Self::TooLarge {
                clause,
                part: "operand",
                limit,
            },
            source => Self::Operand { clause, source },
        }
    }
}

fn known() -> String {
    let names: Vec<_> = Operator::ALL
        .iter()
        .map(|operator| format!("`{operator}`"))
        .collect();
    names.join(" ")
}
