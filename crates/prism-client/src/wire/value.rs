//! JSON values to and from `google.protobuf.Value`.
//!
//! Numbers are doubles on the wire. An integer that a double cannot hold exactly is refused rather than
//! rounded; a double that is an integer comes back as one, so that it fits integer types again.

use std::{
    collections::HashMap,
    fmt::{Arguments, Display},
    iter,
};

use prost_types::{ListValue, Struct, Value as WireValue, value::Kind};
use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::{Error, Result};

/// Beyond it not every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Serializes `value`, which must become an object.
pub(crate) fn to_object(field: &str, value: &impl Serialize) -> Result<Value> {
    let value =
        serde_json::to_value(value).map_err(|error| Error::invalid(field, format!("`{field}` {error}")))?;
    match value {
        Value::Object(_) => Ok(value),
        other => Err(no_object(field, &other)),
    }
}

/// An object as a request carries it. Null is an empty one.
pub(super) fn object_to_wire(field: impl Display, value: Value) -> Result<HashMap<String, WireValue>> {
    match value {
        Value::Null => Ok(HashMap::new()),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| {
                let value = to_wire(format_args!("{field}.{key}"), value)?;
                Ok((key, value))
            })
            .collect(),
        other => Err(no_object(field, &other)),
    }
}

/// An object as an answer carries it.
pub(super) fn object_from_wire(
    field: impl Display,
    members: impl IntoIterator<Item = (String, WireValue)>,
) -> Result<Map<String, Value>> {
    members
        .into_iter()
        .map(|(key, value)| {
            let value = from_wire(format_args!("{field}.{key}"), value)?;
            Ok((key, value))
        })
        .collect()
}

fn to_wire(field: Arguments<'_>, value: Value) -> Result<WireValue> {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(double(field, &number)?),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            let items =
                iter::zip(0.., items).map(|(index, item)| to_wire(format_args!("{field}[{index}]"), item));
            Kind::ListValue(ListValue {
                values: items.collect::<Result<_>>()?,
            })
        }
        object @ Value::Object(_) => Kind::StructValue(Struct {
            fields: object_to_wire(field, object)?.into_iter().collect(),
        }),
    };
    Ok(WireValue { kind: Some(kind) })
}

fn double(field: impl Display, number: &Number) -> Result<f64> {
    let whole = number
        .as_i64()
        .map(i128::from)
        .or(number.as_u64().map(i128::from));
    number
        .as_f64()
        .filter(|double| whole.is_none_or(|whole| *double as i128 == whole))
        .ok_or_else(|| {
            let message =
                format!("`{field}` is {number}, which a double cannot hold exactly: send it as a string");
            Error::invalid(field.to_string(), message)
        })
}

pub(super) fn from_wire(field: Arguments<'_>, value: WireValue) -> Result<Value> {
    Ok(match value.kind {
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::NumberValue(double)) => Value::Number(from_double(field, double)?),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => {
            let items = iter::zip(0.., list.values);
            let items = items.map(|(index, item)| from_wire(format_args!("{field}[{index}]"), item));
            Value::Array(items.collect::<Result<_>>()?)
        }
        Some(Kind::StructValue(object)) => Value::Object(object_from_wire(field, object.fields)?),
        None => return Err(Error::malformed(field, "has no value")),
    })
}

fn from_double(field: impl Display, double: f64) -> Result<Number> {
    let negative_zero = double == 0.0 && double.is_sign_negative();
    if double.fract() == 0.0 && double.abs() <= EXACT && !negative_zero {
        return Ok(Number::from(double as i64));
    }
    Number::from_f64(double)
        .ok_or_else(|| Error::malformed(field, format!("is {double}, which is no JSON number")))
}

fn no_object(field: impl Display, value: &Value) -> Error {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::invalid(
        field.to_string(),
        format!("`{field}` must be a JSON object, not {kind}"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round_trip(value: Value) -> Value {
        let wire = object_to_wire("metadata", value).unwrap();
        Value::Object(object_from_wire("metadata", wire).unwrap())
    }

    #[test]
    fn every_kind_of_value_survives() {
        let value = json!({
            "null": null, "true": true, "text": "é", "empty": {}, "none": [],
            "whole": 42, "negative": -7, "half": 0.5, "large": 9_007_199_254_740_992_u64, "huge": 1e300,
            "deep": {"list": [1, [2, {"x": null}]]},
        });
        assert_eq!(round_trip(value.clone()), value);
    }

    #[test]
    fn a_whole_double_comes_back_as_an_integer() {
        assert_eq!(round_trip(json!({"a": 3.0})), json!({"a": 3}));
        assert_eq!(round_trip(json!({"a": -0.0})), json!({"a": -0.0}));
    }

    #[test]
    fn an_integer_that_would_be_rounded_is_refused_by_name() {
        for value in [json!(9_007_199_254_740_993_u64), json!(i64::MAX), json!(u64::MAX)] {
            let error = object_to_wire("metadata", json!({"a": [0, {"b": value}]})).unwrap_err();
            assert_eq!(error.field(), Some("metadata.a[1].b"));
        }
        assert!(object_to_wire("metadata", json!({"a": i64::MIN})).is_ok());
    }

    #[test]
    fn only_objects_are_metadata() {
        assert!(object_to_wire("metadata", Value::Null).unwrap().is_empty());
        for value in [json!(1), json!("x"), json!([]), json!(true)] {
            assert_eq!(
                object_to_wire("metadata", value).unwrap_err().field(),
                Some("metadata")
            );
        }
        assert!(to_object("metadata", &[1, 2]).is_err());
        assert!(to_object("metadata", &()).is_err());
        assert!(to_object("metadata", &HashMap::from([(vec![1], 1)])).is_err());
    }

    #[test]
    fn values_that_json_does_not_have_are_malformed() {
        for kind in [
            None,
            Some(Kind::NumberValue(f64::NAN)),
            Some(Kind::NumberValue(f64::INFINITY)),
        ] {
            let wire = [("a".to_owned(), WireValue { kind })];
            let error = object_from_wire("identities[2].metadata", wire).unwrap_err();
            assert!(matches!(&error, Error::Malformed { field, .. } if field == "identities[2].metadata.a"));
        }
    }
}
