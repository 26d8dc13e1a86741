//! Fills and checks metadata.

use prism_filter::{Document, Path, ValueRef};
use serde_json::{Map, Value, json};

use super::{Field, Occasion, Schema, Type, Violation};

/// Writes defaults, automatic values and the primary key into a document. One that needs none of them
/// is returned as it is.
pub(super) fn fill(
    schema: &Schema,
    identity: &str,
    document: Document,
    now: i64,
    occasion: Occasion,
) -> Result<Document, Violation> {
    let mut missing: Vec<(&Path, Value)> = Vec::new();
    for field in &schema.fields {
        let absent = document.get(&field.path).is_none();
        if field.auto_now && (absent || occasion == Occasion::Registered) {
            missing.push((&field.path, json!(now)));
        } else if let Some(default) = field.default.as_ref().filter(|_| absent) {
            missing.push((&field.path, default.clone()));
        }
    }
    if let Some(key) = &schema.primary_key {
        match document.get(key) {
            None => missing.push((key, json!(identity))),
            Some(ValueRef::String(same)) if same == identity => {}
            Some(_) => return Err(violation(key, "is the primary key and must repeat the identity")),
        }
    }
    if missing.is_empty() {
        return Ok(document);
    }
    let Value::Object(mut tree) = document.to_value() else {
        return Ok(document);
    };
    for (path, value) in missing {
        insert(&mut tree, path, value)?;
    }
    Document::from_value(&Value::Object(tree)).map_err(|error| Violation {
        field: error.path().unwrap_or_default().to_owned(),
        problem: error.to_string(),
    })
}

fn insert(tree: &mut Map<String, Value>, path: &Path, value: Value) -> Result<(), Violation> {
    let Some((last, parents)) = path.keys().split_last() else {
        return Ok(());
    };
    let mut at = tree;
    for parent in parents {
        let below = at
            .entry(parent.to_string())
            .or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(below) = below else {
            return Err(violation(path, "cannot be filled in, what holds it is no object"));
        };
        at = below;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// Checks a whole document.
pub(super) fn all(schema: &Schema, document: &Document) -> Result<(), Violation> {
    for field in &schema.fields {
        match document.get(&field.path) {
            None if field.required => return Err(violation(&field.path, "is required and missing")),
            None => {}
            Some(found) => one(field, found).map_err(|problem| violation(&field.path, problem))?,
        }
    }
    if !schema.additional {
        for (key, _) in document.root().iter() {
            let known = |field: &Field| field.path.keys().first().is_some_and(|first| **first == *key);
            if !schema.fields.iter().any(known) {
                return Err(Violation {
                    field: key.to_owned(),
                    problem: "is not in the schema".to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Checks one value that is not stored yet, such as a default.
pub(super) fn value(field: &Field, value: &Value) -> Result<(), String> {
    let document = Document::from_value(&json!({ "value": value })).map_err(|error| error.to_string())?;
    match document.root().get("value") {
        Some(found) => one(field, found),
        None => Err("is missing".to_owned()),
    }
}

fn one(field: &Field, found: ValueRef<'_>) -> Result<(), String> {
    conforms(&field.kind, found)?;
    let Some(most) = field.max_length else {
        return Ok(());
    };
    let length = match found {
        ValueRef::String(text) => text.chars().count(),
        ValueRef::Array(items) => items.len(),
        _ => 0,
    };
    if length > most {
        return Err(format!("has a length of {length}, the schema allows {most}"));
    }
    Ok(())
}

fn conforms(kind: &Type, found: ValueRef<'_>) -> Result<(), String> {
    let fits = match (kind, found) {
        (Type::String, ValueRef::String(_))
        | (Type::Float, ValueRef::Number(_))
        | (Type::Boolean, ValueRef::Bool(_))
        | (Type::Object, ValueRef::Object(_))
        | (Type::Array(None), ValueRef::Array(_)) => true,
        (Type::Int | Type::Timestamp, ValueRef::Number(number)) => number.fract() == 0.0,
        (Type::Timestamp, ValueRef::String(text)) => text.parse::<jiff::Timestamp>().is_ok(),
        (Type::Enum(values), ValueRef::String(text)) => values.iter().any(|value| value == text),
        (Type::GeoPoint, ValueRef::Object(point)) => {
            let within = |key: &str, most: f64| matches!(point.get(key), Some(ValueRef::Number(degrees)) if degrees.abs() <= most);
            within("lat", 90.0) && within("lon", 180.0)
        }
        (Type::Array(Some(items)), ValueRef::Array(found)) => {
            return found.iter().enumerate().try_for_each(|(index, item)| {
                conforms(items, item).map_err(|problem| format!("item {index} {problem}"))
            });
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("is no {kind}: {}", shown(found)))
    }
}

/// The value as an error shows it, cut short.
fn shown(value: ValueRef<'_>) -> String {
    let text = value.to_value().to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn violation(path: &Path, problem: impl Into<String>) -> Violation {
    Violation {
        field: path.to_string(),
        problem: problem.into(),
    }
}
