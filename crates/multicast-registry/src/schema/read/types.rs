//! The names of types: `string`, `enum[a, b]`, `array[string]`, …

use prism_core::config::{Error, Path as At, nearest};
use prism_filter::Document;

use super::super::{Shape, Type};

/// How many values an enum has at most.
const MAX_VALUES: usize = 1_000;

const TYPES: [&str; 10] = [
    "string",
    "int",
    "float",
    "number",
    "boolean",
    "enum",
    "timestamp",
    "geo_point",
    "array",
    "object",
];

/// Reads the name of a type that is `depth` deep in the metadata. An `enum` without values has none yet.
pub(super) fn parse_type(text: &str, depth: usize) -> Result<Type, Error> {
    let text = text.trim();
    let fault = |message: String| Error::new(At::root(), message);
    if depth > Document::MAX_DEPTH {
        return Err(fault("is nested deeper than metadata can be".to_owned()));
    }
    let (name, inside) = match text.split_once('[') {
        Some((name, rest)) => match rest.strip_suffix(']') {
            Some(inside) => (name.trim_end(), Some(inside)),
            None => return Err(fault(format!("`{text}` has no closing `]`"))),
        },
        None => (text, None),
    };
    match (name, inside) {
        ("string", None) => Ok(Type::String),
        ("int" | "integer", None) => Ok(Type::Int),
        ("float" | "number" | "double", None) => Ok(Type::Float),
        ("boolean" | "bool", None) => Ok(Type::Boolean),
        ("timestamp", None) => Ok(Type::Timestamp),
        ("geo_point", None) => Ok(Type::GeoPoint),
        ("object", None) => Ok(Type::Object(None)),
        ("array", None) => Ok(Type::Array(None)),
        ("array", Some(items)) => {
            let kind = items_type(items, depth + 1)?;
            let shape = Shape {
                kind,
                max_length: None,
            };
            Ok(Type::Array(Some(Box::new(shape))))
        }
        ("enum", None) => Ok(Type::Enum(Vec::new())),
        ("enum", Some(values)) => {
            let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
            if values.iter().any(String::is_empty) {
                return Err(fault(format!("`{text}` has an empty value")));
            }
            Ok(Type::Enum(values))
        }
        _ => {
            let message = format!("unknown type `{text}`, expected one of `{}`", TYPES.join("`, `"));
            Err(fault(message).suggest(nearest(name, TYPES)))
        }
    }
}

fn items_type(text: &str, depth: usize) -> Result<Type, Error> {
    match parse_type(text, depth)? {
        Type::Enum(values) => Ok(Type::Enum(enum_values(values, None)?)),
        kind => Ok(kind),
    }
}

/// The values of an enum, which stand in its type or beside it.
pub(super) fn enum_values(inline: Vec<String>, beside: Option<&[String]>) -> Result<Vec<String>, Error> {
    let fault = |at, message: String| Err(Error::new(at, message));
    let (at, values) = match beside {
        None if inline.is_empty() => {
            return fault(
                At::root(),
                "missing key `values`: name what the enum may be".to_owned(),
            );
        }
        None => (At::root(), inline),
        Some(_) if !inline.is_empty() => {
            let message = "the values already stand in the type, keep one of the two";
            return fault(At::root().key("values"), message.to_owned());
        }
        Some([]) => {
            return fault(
                At::root().key("values"),
                "an enum has at least one value".to_owned(),
            );
        }
        Some(values) => (At::root().key("values"), values.to_vec()),
    };
    if values.len() > MAX_VALUES {
        let count = values.len();
        return fault(
            at,
            format!("an enum has at most {MAX_VALUES} values, not {count}"),
        );
    }
    let twice = |(index, value): &(usize, &String)| values[..*index].contains(value);
    match values.iter().enumerate().find(twice) {
        Some((_, value)) => fault(at, format!("the value `{value}` is given twice")),
        None => Ok(values),
    }
}
