//! From the tree to the JSON form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Clause, Node, check::share_an_object};
use crate::{Operator, ValueRef};

/// The object that expresses `node`.
pub(super) fn object(node: &Node) -> Value {
    let mut members = BTreeMap::new();
    match node {
        Node::And(nodes) if !share_an_object(nodes) => {
            members.insert("$and".to_owned(), list(nodes));
        }
        Node::And(nodes) => all(nodes, &mut members),
        other => all(std::slice::from_ref(other), &mut members),
    }
    in_order(members)
}

/// Adds conditions that do not need the same key twice.
fn all(nodes: &[Node], members: &mut BTreeMap<String, Value>) {
    let mut fields: BTreeMap<String, Vec<&Clause>> = BTreeMap::new();
    for node in nodes {
        match node {
            Node::And(nodes) => members.extend([("$and".to_owned(), list(nodes))]),
            Node::Or(nodes) => members.extend([("$or".to_owned(), list(nodes))]),
            Node::Not(node) => members.extend([("$not".to_owned(), object(node))]),
            Node::Clause(clause) => fields.entry(clause.path().to_string()).or_default().push(clause),
        }
    }
    members.extend(fields.into_iter().map(|(path, clauses)| (path, field(&clauses))));
}

fn list(nodes: &[Node]) -> Value {
    nodes.iter().map(object).collect()
}

/// What is asked of one field.
fn field(clauses: &[&Clause]) -> Value {
    match clauses {
        [clause] if reads_as_equality(clause) => clause.operand().to_value(),
        _ => {
            let operand = |clause: &&Clause| (format!("${}", clause.operator()), clause.operand().to_value());
            in_order(clauses.iter().map(operand).collect())
        }
    }
}

/// Whether the operand alone would be read as this clause.
fn reads_as_equality(clause: &Clause) -> bool {
    let plain = match clause.operand().view() {
        ValueRef::Object(object) => !object.iter().any(|(key, _)| key.starts_with('$')),
        _ => !clause.operand().is_wildcard(),
    };
    clause.operator() == Operator::Eq && plain && !clause.path().ends_in_operator()
}

/// An object whose members are in order, however the map type of this build keeps them.
fn in_order(members: BTreeMap<String, Value>) -> Value {
    Value::Object(Map::from_iter(members))
}
