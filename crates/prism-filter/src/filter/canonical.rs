//! One form for filters that say the same.

use super::{Clause, Node, render};
use crate::{Operand, Operator, ValueRef};

/// The same condition with members in the order of their texts, without repetitions and double
/// negations.
pub(super) fn node(node: &Node) -> Node {
    match node {
        Node::Clause(clause) => Node::Clause(self::clause(clause)),
        Node::Not(node) => match self::node(node) {
            Node::Not(node) => *node,
            other => Node::Not(Box::new(other)),
        },
        Node::And(nodes) => match Node::all(nodes.iter().map(self::node)) {
            Node::And(nodes) => Node::all(in_order(nodes)),
            other => other,
        },
        Node::Or(nodes) => match Node::any(nodes.iter().map(self::node)) {
            Node::Or(nodes) => Node::any(in_order(nodes)),
            other => other,
        },
    }
}

fn in_order(nodes: Vec<Node>) -> Vec<Node> {
    let mut nodes: Vec<_> = nodes
        .into_iter()
        .map(|node| (render::object(&node).to_string(), node))
        .collect();
    nodes.sort_by(|(one, _), (other, _)| one.cmp(other));
    nodes.dedup_by(|(one, _), (other, _)| one == other);
    nodes.into_iter().map(|(_, node)| node).collect()
}

/// The order and repetitions of a list of alternatives do not matter.
fn clause(clause: &Clause) -> Clause {
    let (Operator::In | Operator::Nin, ValueRef::Array(array)) = (clause.operator(), clause.operand().view())
    else {
        return clause.clone();
    };
    let mut values: Vec<_> = array.iter().collect();
    values.sort();
    values.dedup();
    match Operand::list(values.into_iter().map(Operand::of)) {
        Ok(list) => clause.with(list),
        // Too large, which a part of an operand is not.
        Err(_) => clause.clone(),
    }
}
