//! Configurations as `google.protobuf.Struct` on the wire and as JSON objects everywhere else.

use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::{Map, Number, Value};

/// Below it every whole number has a double of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A value that exists on one side only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {problem}")]
pub struct Unfit {
    /// Where, e.g. `slots.registry.config.db`.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

/// The JSON form.
///
/// Whole numbers become JSON integers again: every number on the wire is a double, and a port that
/// reads `6379.0` would be refused by whatever expects an integer.
///
/// # Errors
/// When a number is infinite or not a number.
pub fn to_json(wire: Struct) -> Result<Map<String, Value>, Unfit> {
    object_to_json(wire, &mut Vec::new())
}

fn object_to_json(wire: Struct, path: &mut Vec<String>) -> Result<Map<String, Value>, Unfit> {
    let mut object = Map::new();
    for (key, value) in wire.fields {
        path.push(key);
        let value = value_to_json(value, path)?;
        object.insert(path.pop().unwrap_or_default(), value);
    }
    Ok(object)
}

fn value_to_json(wire: Wire, path: &mut Vec<String>) -> Result<Value, Unfit> {
    Ok(match wire.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::NumberValue(number)) => number_to_json(number).ok_or_else(|| Unfit {
            path: path.join("."),
            problem: format!("`{number}` is no number that a configuration can hold, use a finite one"),
        })?,
        Some(Kind::StructValue(object)) => Value::Object(object_to_json(object, path)?),
        Some(Kind::ListValue(list)) => {
            let mut items = Vec::with_capacity(list.values.len());
            for (index, item) in list.values.into_iter().enumerate() {
                path.push(index.to_string());
                items.push(value_to_json(item, path)?);
                path.pop();
            }
            Value::Array(items)
        }
    })
}

fn number_to_json(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Some(Value::Number(Number::from(number as i64)));
    }
    Number::from_f64(number).map(Value::Number)
}

/// The wire form.
///
/// # Errors
/// When an integer has no double of its own.
pub fn from_json(object: &Map<String, Value>) -> Result<Struct, Unfit> {
    object_from_json(object, &mut Vec::new())
}

fn object_from_json(object: &Map<String, Value>, path: &mut Vec<String>) -> Result<Struct, Unfit> {
    let mut wire = Struct::default();
    for (key, value) in object {
        path.push(key.clone());
        wire.fields.insert(key.clone(), value_from_json(value, path)?);
        path.pop();
    }
    Ok(wire)
}

fn value_from_json(value: &Value, path: &mut Vec<String>) -> Result<Wire, Unfit> {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Number(number) => Kind::NumberValue(number_from_json(number).ok_or_else(|| Unfit {
            path: path.join("."),
            problem: format!("`{number}` is too large to travel exactly, write it as a string"),
        })?),
        Value::Object(object) => Kind::StructValue(object_from_json(object, path)?),
        Value::Array(items) => {
            let mut values = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                values.push(value_from_json(item, path)?);
                path.pop();
            }
            Kind::ListValue(ListValue { values })
        }
    };
    Ok(Wire { kind: Some(kind) })
}

fn number_from_json(number: &Number) -> Option<f64> {
    let double = number.as_f64()?;
    let exact = number.is_f64() || double.abs() < EXACT;
    (exact && double.is_finite()).then_some(double)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn a_configuration_survives_the_wire() {
        let config = object(json!({
            "slots": {"registry": {"backend": "redis", "interfaces": ["A", "B"],
                "config": {"db": 0, "port": 6379, "ratio": 0.5, "tls": true, "password": null}}},
            "behavior": {},
        }));
        assert_eq!(to_json(from_json(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn whole_doubles_become_integers_again() {
        let config = object(json!({"port": 6379.0, "zero": -0.0, "large": 1e300}));
        let read = to_json(from_json(&config).unwrap()).unwrap();
        assert_eq!(read["port"], json!(6379));
        assert_eq!(read["zero"], json!(0));
        assert_eq!(read["large"], json!(1e300));
    }

    #[test]
    fn a_number_that_does_not_survive_is_refused_with_its_path() {
        let config = object(json!({"slots": {"registry": [{"seed": 9_007_199_254_740_993_u64}]}}));
        let unfit = from_json(&config).unwrap_err();
        assert_eq!(unfit.path, "slots.registry.0.seed");

        let mut wire = Struct::default();
        let value = Wire {
            kind: Some(Kind::NumberValue(f64::NAN)),
        };
        wire.fields.insert("db".to_owned(), value);
        assert_eq!(to_json(wire).unwrap_err().path, "db");
    }
}
