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
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "registry": slot_schema("registry"),
            "messaging": slot_schema("messaging"),
            "durability": slot_schema("durability"),
            "composition": {},
        },
    })
}

/// One slot in all its spellings: a backend's name, or a mapping with the settings in `config` or beside
/// the name.
fn slot_schema(slot: &str) -> Value {
    let of_slot: Vec<Backend> = backend_schemas()
        .into_iter()
        .filter(|backend| backend.slot == slot)
        .collect();
    let names: Vec<&str> = of_slot
        .iter()
        .flat_map(|backend| backend.names.iter().copied())
        .collect();
    let mut forms = vec![json!({ "type": "string", "enum": names })];
    forms.extend(of_slot.iter().map(|backend| {
        let mut settings = backend.settings["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        if slot == "durability" {
            settings.insert("use_messaging".to_owned(), json!({ "type": "boolean" }));
        }
        for key in slot::behavior_keys(slot) {
            settings.insert((*key).to_owned(), json!({}));
        }
        let mut properties = settings.clone();
        for spelling in ["backend", "driver", "type"] {
            properties.insert(spelling.to_owned(), json!({ "enum": backend.names }));
        }
        properties.insert(
            "interfaces".to_owned(),
            json!({ "type": "array", "items": { "type": "string" } }),
        );
        let config = json!({ "type": "object", "properties": settings, "additionalProperties": false });
        properties.insert("config".to_owned(), config);
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }));
    json!({ "anyOf": forms })
}

/// A backend of this build, described.
pub struct Backend {
    /// The slot that it can fill.
    pub slot: &'static str,
    /// Its name, and the other ones that are understood.
    pub backend: &'static str,
    pub(super) names: &'static [&'static str],
    /// What it can do.
    pub(super) capability: Value,
    /// The JSON Schema of its settings.
    pub(super) settings: Value,
}

impl Backend {
    /// As in the plugin's manifest.
    pub fn to_value(&self) -> Value {
        json!({ "capability": self.capability, "config_schema": self.settings })
    }
}

/// The backends of this build.
pub fn backend_schemas() -> Vec<Backend> {
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
    for backend in backend_schemas() {
        let title = format!("The {} slot on `{}`", backend.slot, backend.backend);
        section(&mut page, &title, &backend.settings);
    }
    page
}

fn section(page: &mut String, title: &str, schema: &Value) {
    page.push_str(&format!(
        "## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
    ));
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for (key, property) in properties {
        let meaning = property["description"]
            .as_str()
            .unwrap_or_default()
            .replace('\n', " ")
            .replace('|', "\\|");
        let default = match &property["default"] {
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        page.push_str(&format!(
            "| `{key}` | {} | {default} | {meaning} |\n",
            kind(property)
        ));
    }
    page.push('\n');
}

/// The type of a property, for people.
fn kind(property: &Value) -> String {
    if let Some(values) = property["enum"]
        .as_array()
        .or_else(|| property["oneOf"].as_array())
    {
        let name = |value: &Value| {
            value
                .as_str()
                .or(value["const"].as_str())
                .map(|text| format!("`{text}`"))
        };
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
            let kinds: Vec<&str> = kinds
                .iter()
                .filter_map(Value::as_str)
                .filter(|kind| *kind != "null")
                .collect();
            kinds.join(" or ")
        }
        _ => "any".to_owned(),
    }
}
