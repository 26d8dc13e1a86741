//! What filters and patches mean, said as simply as possible, over `serde_json`.

use std::cmp::Ordering;

use prism_filter::{Clause, Node, Operator, Record, SystemField};
use serde_json::{Map, Value};

use crate::support::Sample;

/// Whether the record with this metadata is one that the node describes.
pub(crate) fn holds(node: &Node, record: &Sample, metadata: &Value) -> bool {
    match node {
        Node::And(nodes) => nodes.iter().all(|node| holds(node, record, metadata)),
        Node::Or(nodes) => nodes.iter().any(|node| holds(node, record, metadata)),
        Node::Not(node) => !holds(node, record, metadata),
        Node::Clause(clause) => clause_holds(clause, record, metadata),
    }
}

fn clause_holds(clause: &Clause, record: &Sample, metadata: &Value) -> bool {
    let value = value_at(clause, record, metadata);
    let operand = clause.operand().to_value();
    let (operator, time) = (
        clause.operator(),
        clause.path().system().is_some_and(SystemField::is_time),
    );
    let operand = if time && operator != Operator::Exists {
        in_millis(&operand)
    } else {
        operand
    };
    match operator {
        Operator::Ne => !value.is_some_and(|value| equal(&value, &operand)),
        Operator::Nin => !value.is_some_and(|value| is_one_of(&value, &operand)),
        Operator::Exists => Value::Bool(value.is_some()) == operand,
        positive => value.is_some_and(|value| is(&value, positive, &operand)),
    }
}

fn is(value: &Value, operator: Operator, operand: &Value) -> bool {
    let order = match (value, operand) {
        (Value::Number(one), Value::Number(other)) => one.as_f64().partial_cmp(&other.as_f64()),
        (Value::String(one), Value::String(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
        _ => None,
    };
    match operator {
        Operator::Eq => equal(value, operand),
        Operator::Lt => order == Some(Ordering::Less),
        Operator::Lte => order.is_some_and(Ordering::is_le),
        Operator::Gt => order == Some(Ordering::Greater),
        Operator::Gte => order.is_some_and(Ordering::is_ge),
        Operator::In => is_one_of(value, operand),
        Operator::Type => operand == type_of(value),
        Operator::Contains => match value {
            Value::Array(elements) => elements.iter().any(|element| equal(element, operand)),
            _ => texts(value, operand).is_some_and(|(text, part)| text.contains(part)),
        },
        Operator::StartsWith => texts(value, operand).is_some_and(|(text, part)| text.starts_with(part)),
        Operator::EndsWith => texts(value, operand).is_some_and(|(text, part)| text.ends_with(part)),
        Operator::Regex => texts(value, operand)
            .is_some_and(|(text, pattern)| regex_automata::meta::Regex::new(pattern).unwrap().is_match(text)),
        Operator::Ne | Operator::Nin | Operator::Exists => unreachable!("said above"),
    }
}

fn value_at(clause: &Clause, record: &Sample, metadata: &Value) -> Option<Value> {
    match clause.path().system() {
        Some(SystemField::Identity) => Some(record.identity().into()),
        Some(SystemField::RegisteredAt) => Some(record.registered_at().into()),
        Some(SystemField::UpdatedAt) => Some(record.updated_at().into()),
        Some(SystemField::ExpiresAt) => record.expires_at().map(Value::from),
        None => clause
            .path()
            .keys()
            .iter()
            .try_fold(metadata, |value, key| value.get(&**key))
            .cloned(),
    }
}

/// Times as numbers of milliseconds, so that they compare like any number.
fn in_millis(operand: &Value) -> Value {
    match operand {
        Value::String(text) => text.parse::<jiff::Timestamp>().unwrap().as_millisecond().into(),
        Value::Array(times) => times.iter().map(in_millis).collect(),
        other => other.clone(),
    }
}

/// Equality of values whose numbers are doubles.
pub(crate) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same = |(key, value)| other.get(key).is_some_and(|other| equal(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

fn is_one_of(value: &Value, alternatives: &Value) -> bool {
    alternatives
        .as_array()
        .unwrap()
        .iter()
        .any(|alternative| equal(value, alternative))
}

fn texts<'a>(one: &'a Value, other: &'a Value) -> Option<(&'a str, &'a str)> {
    one.as_str().zip(other.as_str())
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `MergePatch` of RFC 7396.
pub(crate) fn merge(target: Option<Value>, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut merged = match target {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    for (key, value) in patch {
        let old = merged.remove(key);
        if !value.is_null() {
            merged.insert(key.clone(), merge(old, value));
        }
    }
    Value::Object(merged)
}
