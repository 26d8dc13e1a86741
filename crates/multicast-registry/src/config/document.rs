//! The configuration described for tools and people: a JSON Schema for the plugin's manifest, and the
//! reference page of the documentation. Both are made from the types themselves.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Behavior, Needs, PATTERN, slot};

/// The JSON Schema of one namespace.
pub fn manifest_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string" },
            "pattern": { "enum": [PATTERN, "multicast_registry"] },
            "pattern_version": { "type": "string" },
            "description": { "type": "string" },
            "operations": {},
            "slots": slots_schema(),
            "backend_slots": slots_schema(),
            "behavior": schema_of::<Behavior>(),
            "identity_schema": { "type": "object" },
            "needs": schema_of::<Needs>(),
            "on_move": { "enum": ["refuse", "discard"] },
        },
    })
}

fn slots_schema() -> Value {
    let any_slot = json!({ "type": ["string", "object", "null"] });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "registry": any_slot,
            "messaging": any_slot,
            "durability": any_slot,
            "composition": { "type": "object" },
        },
    })
}

/// The settings of each backend of this build, by slot.
pub(super) fn backend_schemas() -> Vec<(&'static str, &'static str, Value)> {
    slot::backend_schemas()
}

pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("title");
    }
    schema
}

/// The reference of every key, as Markdown tables.
pub fn reference() -> String {
    let mut page = String::new();
    section(&mut page, "`behavior`", &schema_of::<Behavior>());
    section(&mut page, "`needs`", &schema_of::<Needs>());
    for (slot, backend, schema) in backend_schemas() {
        section(&mut page, &format!("The {slot} slot on `{backend}`"), &schema);
    }
    page
}

fn section(page: &mut String, title: &str, schema: &Value) {
    page.push_str(&format!("## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"));
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for (key, property) in properties {
        let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let default = match &property["default"] {
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        page.push_str(&format!("| `{key}` | {} | {default} | {meaning} |\n", kind(property)));
    }
    page.push('\n');
}

/// The type of a property, for people.
fn kind(property: &Value) -> String {
    if let Some(values) = property["enum"].as_array().or_else(|| property["oneOf"].as_array()) {
        let name = |value: &Value| value.as_str().or(value["const"].as_str()).map(|text| format!("`{text}`"));
        let names: Vec<String> = values.iter().filter_map(name).collect();
        if !names.is_empty() {
            return names.join(" or ");
        }
    }
    if let Some(kinds) = property["anyOf"].as_array() {
        let mut kinds: Vec<String> = kinds.iter().map(kind).filter(|kind| kind != "null").collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    match &property["type"] {
        Value::String(kind) => kind.clone(),
        Value::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
            kinds.join(" or ")
        }
        _ => "any".to_owned(),
    }
}
