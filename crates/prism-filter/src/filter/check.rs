//! Holds a tree against limits.

use super::{Clause, Node};
use crate::{Error, Limits, Operator, ValueRef, location::Location};

/// Whether the tree is within `limits`.
pub(super) fn node(node: &Node, limits: &Limits) -> Result<(), Error> {
    Budget::new(limits).node(node, 0, &Location::Root)
}

/// Whether members of an `$and` can be the members of one JSON object: no two need the same key. So
/// written, the `$and` itself costs no depth.
pub(super) fn share_an_object(nodes: &[Node]) -> bool {
    let mut keys = std::collections::HashSet::new();
    nodes.iter().all(|node| match node {
        Node::And(_) => false,
        Node::Or(_) => keys.insert((None, true)),
        Node::Not(_) => keys.insert((None, false)),
        Node::Clause(clause) => keys.insert((Some((clause.path(), clause.operator())), true)),
    })
}

/// What a filter may still use.
pub(crate) struct Budget<'l> {
    pub(crate) limits: &'l Limits,
    clauses: usize,
    /// Of regular expressions, in bytes.
    patterns: usize,
}

impl<'l> Budget<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            clauses: 0,
            patterns: 0,
        }
    }

    /// Takes one clause.
    pub(crate) fn clause(&mut self, at: &Location<'_>) -> Result<(), Error> {
        let limit = self.limits.max_clauses;
        if self.clauses == limit {
            return Err(Error::TooManyClauses {
                clause: at.to_string(),
                limit,
            });
        }
        self.clauses += 1;
        Ok(())
    }

    /// Refuses a combination inside `depth - 1` others if that is too deep.
    pub(crate) fn depth(&self, depth: usize, at: &Location<'_>) -> Result<(), Error> {
        let limit = self.limits.max_depth;
        if depth > limit {
            return Err(Error::TooDeep {
                clause: at.to_string(),
                limit,
            });
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, depth: usize, at: &Location<'_>) -> Result<(), Error> {
        match node {
            Node::Clause(clause) => {
                let path = clause.path().to_string();
                let at = at.inside(&path);
                self.clause(&at)?;
                self.sizes(clause, path.len(), &at)
            }
            Node::Not(node) => {
                let at = at.inside("$not");
                self.depth(depth + 1, &at)?;
                self.node(node, depth + 1, &at)
            }
            Node::And(nodes) if share_an_object(nodes) => self.members(nodes, depth, at, "$and"),
            Node::And(nodes) => self.members(nodes, depth + 1, at, "$and"),
            Node::Or(nodes) => self.members(nodes, depth + 1, at, "$or"),
        }
    }

    fn members(
        &mut self,
        nodes: &[Node],
        depth: usize,
        at: &Location<'_>,
        list: &'static str,
    ) -> Result<(), Error> {
        self.depth(depth, &at.inside(list))?;
        if nodes.is_empty() {
            self.clause(at)?;
        }
        for (index, node) in nodes.iter().enumerate() {
            self.node(node, depth, &at.member(list, index))?;
        }
        Ok(())
    }

    fn sizes(&mut self, clause: &Clause, path_bytes: usize, at: &Location<'_>) -> Result<(), Error> {
        let limits = self.limits;
        let within = |part, bytes, limit| {
            let too_large = || Error::TooLarge {
                clause: at.to_string(),
                part,
                limit,
            };
            if bytes > limit { Err(too_large()) } else { Ok(()) }
        };
        within("path", path_bytes, limits.max_path_bytes)?;
        within("operand", clause.operand().byte_len(), limits.max_operand_bytes)?;
        match (clause.operator(), clause.operand().view()) {
            (Operator::Regex, ValueRef::String(pattern)) => {
                self.patterns += pattern.len();
                let part = if pattern.len() == self.patterns {
                    "regular expression"
                } else {
                    "regular expression, together with those before it,"
                };
                within(part, self.patterns, limits.max_regex_bytes)
            }
            (Operator::In | Operator::Nin, ValueRef::Array(values))
                if values.len() > limits.max_in_values =>
            {
                let (count, limit) = (values.len(), limits.max_in_values);
                Err(Error::TooManyValues {
                    clause: at.to_string(),
                    count,
                    limit,
                })
            }
            _ => Ok(()),
        }
    }
}
