//! A schema as its canonical tree.

use serde_json::{Map, Value, json};

use super::{Field, Fields, Schema, Shape, Type};

pub(super) fn schema(schema: &Schema) -> Value {
    let mut tree = Map::new();
    inside(&schema.inside, &mut tree);
    if let Some(key) = &schema.primary_key {
        tree.insert("primary_key".to_owned(), json!(key.to_string()));
    }
    Value::Object(tree)
}

fn inside(inside: &Fields, tree: &mut Map<String, Value>) {
    let fields = inside.fields.iter().map(|said| (said.name.clone(), field(said)));
    tree.insert("fields".to_owned(), Value::Object(fields.collect()));
    tree.insert("additional".to_owned(), json!(inside.additional));
}

fn field(field: &Field) -> Value {
    let mut tree = shape(&field.shape);
    tree.insert("required".to_owned(), json!(field.required));
    let optional = [
        ("default", field.default.clone()),
        ("auto", field.auto_now.then(|| json!("now"))),
        ("index", field.index.as_ref().map(|_| json!(true))),
    ];
    for (key, value) in optional {
        tree.extend(value.map(|value| (key.to_owned(), value)));
    }
    Value::Object(tree)
}

fn shape(shape: &Shape) -> Map<String, Value> {
    let mut tree = Map::new();
    let kind = match &shape.kind {
        // What is said about the items has no place between brackets.
        Type::Array(Some(items)) if !is_simple(items) => {
            tree.insert("items".to_owned(), Value::Object(self::shape(items)));
            "array".to_owned()
        }
        Type::Enum(values) if !values.iter().all(|value| is_plain(value)) => {
            tree.insert("values".to_owned(), json!(values));
            "enum".to_owned()
        }
        Type::Object(Some(fields)) => {
            inside(fields, &mut tree);
            "object".to_owned()
        }
        kind => kind.to_string(),
    };
    tree.insert("type".to_owned(), json!(kind));
    if let Some(length) = shape.max_length {
        tree.insert("max_length".to_owned(), json!(length));
    }
    tree
}

/// Whether the name of its type says everything.
fn is_simple(shape: &Shape) -> bool {
    let inner = match &shape.kind {
        Type::Object(fields) => fields.is_none(),
        Type::Array(Some(items)) => is_simple(items),
        Type::Enum(values) => values.iter().all(|value| is_plain(value)),
        _ => true,
    };
    inner && shape.max_length.is_none()
}

/// Whether a value of an enum is read back from between brackets, where commas separate and blanks around them do not
/// count.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.trim() == value && !value.contains(',')
}
