//! The syntax tree.

mod builder;
mod canonical;
mod check;
mod clause;
mod parse;
mod render;

use std::fmt;

pub use clause::Clause;

pub(crate) use parse::{Parser, document};

use crate::{Compiled, Error, Limits};

/// A condition on a record. See the [crate] for the language.
///
/// Built in code, it may hold a mistake that the types cannot prevent: a path that does not parse, an
/// operand of the wrong type. The first one is kept, the filter then matches nothing, and
/// [checking](Filter::check), compiling or sending it returns the mistake.
///
/// Two filters are equal if they are the same conditions, in whatever order and nesting they were
/// given: if their texts, which are [canonical](Filter::canonical), are equal.
#[derive(Clone)]
pub struct Filter {
    node: Node,
    /// The first mistake of the builder.
    mistake: Option<Box<Error>>,
}

/// A node of the tree.
///
/// A list never holds a list of its own sort, nor is it one of a single member: such are merged when the
/// tree is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// True when every member is; of none, true.
    And(Vec<Node>),
    /// True when some member is; of none, false.
    Or(Vec<Node>),
    /// True when the member is not.
    Not(Box<Node>),
    /// A question about one value.
    Clause(Clause),
}

impl Node {
    /// What is true when all of `nodes` are.
    pub(crate) fn all(nodes: impl IntoIterator<Item = Self>) -> Self {
        let nested = |node| match node {
            Self::And(nodes) => nodes,
            other => vec![other],
        };
        Self::single(nodes.into_iter().flat_map(nested).collect()).unwrap_or_else(Self::And)
    }

    /// What is true when one of `nodes` is.
    pub(crate) fn any(nodes: impl IntoIterator<Item = Self>) -> Self {
        let nested = |node| match node {
            Self::Or(nodes) => nodes,
            other => vec![other],
        };
        Self::single(nodes.into_iter().flat_map(nested).collect()).unwrap_or_else(Self::Or)
    }

    fn uses_relative_time(&self) -> bool {
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(Self::uses_relative_time),
            Self::Not(node) => node.uses_relative_time(),
            Self::Clause(clause) => clause.relative_time().is_some(),
        }
    }

    fn single(nodes: Vec<Self>) -> Result<Self, Vec<Self>> {
        let [node] = <[Self; 1]>::try_from(nodes)?;
        Ok(node)
    }
}

impl Filter {
    /// The tree.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Whether it matches every record because it asks for nothing.
    pub fn is_empty(&self) -> bool {
        matches!(&self.node, Node::And(nodes) if nodes.is_empty())
    }

    /// Reads the JSON form from text.
    pub fn parse_str(json: &str, limits: &Limits) -> Result<Self, Error> {
        parse::text(json, limits)
    }

    /// Reads the JSON form.
    pub fn parse_json(json: &serde_json::Value, limits: &Limits) -> Result<Self, Error> {
        parse::value(json, limits)
    }

    /// The JSON form, which reads back as the same conditions.
    pub fn to_json(&self) -> serde_json::Value {
        render::object(&self.node)
    }

    /// The same condition with members in order, without repetitions and double negations.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self {
            node: canonical::node(&self.node),
            mistake: self.mistake.clone(),
        }
    }

    /// Whether it is free of mistakes and within `limits`, but for regular expressions, which only
    /// [`Filter::compile`] reads.
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        match &self.mistake {
            Some(mistake) => Err((**mistake).clone()),
            None => check::node(&self.node, limits),
        }
    }

    /// Makes it ready for use, now and later.
    ///
    /// # Errors
    /// A mistake or a limit; [`Error::RelativeTime`] where it [asks about one](Self::uses_relative_time).
    pub fn compile(&self, limits: &Limits) -> Result<Compiled, Error> {
        self.check(limits)?;
        Compiled::new(self.clone(), limits, None)
    }

    /// Makes it ready for one call, which takes place at `now`, in milliseconds since 1970: what its [relative
    /// times](crate::notation::RelativeTime) are relative to.
    ///
    /// # Errors
    /// A mistake or a limit.
    pub fn compile_at(&self, now: i64, limits: &Limits) -> Result<Compiled, Error> {
        self.check(limits)?;
        Compiled::new(self.clone(), limits, Some(now))
    }

    /// Whether the answer depends on the moment of the call, since it compares with a time relative to that.
    pub fn uses_relative_time(&self) -> bool {
        self.node.uses_relative_time()
    }

    pub(crate) fn mistake(&self) -> Option<&Error> {
        self.mistake.as_deref()
    }

    pub(crate) fn of(node: Node) -> Self {
        Self { node, mistake: None }
    }
}

/// Matches everything.
impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// Canonical JSON text: equal for equal filters, and so a key for whatever depends on a filter.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", render::object(&canonical::node(&self.node)))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mistake {
            Some(mistake) => write!(f, "Filter(mistaken: {mistake})"),
            None => write!(f, "Filter({self})"),
        }
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.mistake == other.mistake && canonical::node(&self.node) == canonical::node(&other.node)
    }
}

impl Eq for Filter {}
