//! What filters and patches mean, said as simply as possible, over `serde_json`.

use std::{cmp::Ordering, net::IpAddr};

use prism_filter::{Clause, Node, Operator, Record, SystemField};
use serde_json::{Map, Value, json};

use crate::support::{NOW, Sample};

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
    let ordering = matches!(
        operator,
        Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte
    );
    let relative =
        relative(&operand).filter(|_| ordering && clause.path().system() != Some(SystemField::Identity));
    if let Some(moment) = relative {
        return value.is_some_and(|value| is(&nanoseconds(&value), operator, &json!(moment as f64 * 1e6)));
    }
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
        Operator::SemverEq => versions(value, operand) == Some(Ordering::Equal),
        Operator::SemverLt => versions(value, operand) == Some(Ordering::Less),
        Operator::SemverLte => versions(value, operand).is_some_and(Ordering::is_le),
        Operator::SemverGt => versions(value, operand) == Some(Ordering::Greater),
        Operator::SemverGte => versions(value, operand).is_some_and(Ordering::is_ge),
        Operator::Within => is_within(value, operand),
        Operator::Cidr => texts(value, operand).is_some_and(|(address, network)| is_in(address, network)),
        Operator::Ne | Operator::Nin | Operator::Exists => unreachable!("said above"),
    }
}

fn versions(one: &Value, other: &Value) -> Option<Ordering> {
    let version = |value: &Value| semver::Version::parse(value.as_str()?).ok();
    Some(version(one)?.cmp_precedence(&version(other)?))
}

/// The moment that a relative time says, of those that the tests use.
fn relative(operand: &Value) -> Option<i64> {
    let offset = match operand.as_str()? {
        "now" => 0,
        "now-1s" => -1_000,
        "now+1s" => 1_000,
        "now-500ms" => -500,
        _ => return None,
    };
    Some(NOW + offset)
}

/// A point in time as a number; null for what is none.
fn nanoseconds(value: &Value) -> Value {
    match value {
        Value::Number(millis) => json!(millis.as_f64().unwrap() * 1e6),
        Value::String(text) => text
            .parse::<jiff::Timestamp>()
            .map_or(Value::Null, |time| json!(time.as_nanosecond() as f64)),
        _ => Value::Null,
    }
}

fn is_within(value: &Value, area: &Value) -> bool {
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
    let (Some(lat), Some(lon)) = (number(value, "lat"), number(value, "lon")) else {
        return false;
    };
    if lat.abs() > 90.0 || lon.abs() > 180.0 {
        return false;
    }
    let of = |key| number(area, key).unwrap();
    if area.get("radius_m").is_some() {
        let slack = 1e-3;
        return distance((lat, lon), (of("lat"), of("lon"))) <= of("radius_m") + slack;
    }
    // Every name of the meridian, or all meridians at a pole.
    let (west, east) = (of("west"), of("east"));
    let east = if east < west { east + 360.0 } else { east };
    let meets = [-360.0, 0.0, 360.0]
        .iter()
        .any(|turn| (west..=east).contains(&(lon + turn)));
    (of("south")..=of("north")).contains(&lat) && (meets || lat.abs() == 90.0)
}

/// The great-circle distance in metres by the angle between unit vectors.
fn distance(one: (f64, f64), other: (f64, f64)) -> f64 {
    let vector = |(lat, lon): (f64, f64)| {
        let (lat, lon) = (lat.to_radians(), lon.to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let chord = vector(one)
        .iter()
        .zip(vector(other))
        .map(|(a, b)| (a - b) * (a - b))
        .sum::<f64>()
        .sqrt();
    2.0 * 6_371_008.8 * (chord / 2.0).min(1.0).asin()
}

fn is_in(address: &str, network: &str) -> bool {
    let bits = |text: &str| -> Option<Vec<bool>> {
        let octets = match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(mapped) => mapped.octets().to_vec(),
                None => address.octets().to_vec(),
            },
        };
        Some(
            octets
                .iter()
                .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
                .collect(),
        )
    };
    let (base, prefix) = network.split_once('/').unwrap_or((network, ""));
    let base_bits = bits(base).unwrap();
    let mapped = base.parse::<std::net::Ipv6Addr>().is_ok() && base_bits.len() == 32;
    let prefix = prefix
        .parse()
        .unwrap_or(base_bits.len() + if mapped { 96 } else { 0 });
    let prefix: usize = prefix - if mapped { 96 } else { 0 };
    bits(address).is_some_and(|bits| bits.len() == base_bits.len() && bits[..prefix] == base_bits[..prefix])
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
