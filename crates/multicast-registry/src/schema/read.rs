//! A schema as it is written: in full, or as a mapping from field to type.

use prism_core::config::{Error, Path as At, decode_value, nearest};
use prism_filter::Path;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Field, Schema, Type, check};

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

/// The long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    primary_key: Option<String>,
    fields: Option<Map<String, Value>>,
    #[serde(default = "yes")]
    additional: bool,
}

/// One field in the long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongField {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    required: bool,
    values: Option<Vec<String>>,
    items: Option<String>,
    default: Option<Value>,
    max_length: Option<usize>,
    auto: Option<String>,
    #[serde(default)]
    index: bool,
}

fn yes() -> bool {
    true
}

impl Schema {
    /// Reads either form. It is the long one if it has `fields` or `primary_key`.
    ///
    /// # Errors
    /// The first thing that is not understood; its path begins at the schema.
    pub fn read(tree: &Value) -> Result<Self, Error> {
        let is_long = tree.get("fields").is_some_and(Value::is_object) || tree.get("primary_key").is_some();
        let long = if is_long {
            decode_value(tree)?
        } else {
            Long {
                primary_key: None,
                fields: Some(decode_value(tree)?),
                additional: true,
            }
        };
        let at = |name: &str| {
            let root = At::root();
            if is_long {
                root.key("fields").key(name)
            } else {
                root.key(name)
            }
        };
        let written = long.fields.unwrap_or_default();
        let mut fields = Vec::with_capacity(written.len());
        for (name, value) in &written {
            fields.push(read_field(name, value).map_err(|error| error.within(&at(name)))?);
        }
        fields.sort_by(|one: &Field, other| one.path.cmp(&other.path));
        let primary_key = long
            .primary_key
            .map(|key| read_primary_key(&key, &fields))
            .transpose()?
            .flatten();
        Ok(Self {
            primary_key,
            fields,
            additional: long.additional,
        })
    }
}

/// `string` is RFC-017's way to say that the identity is a text, which it always is.
fn read_primary_key(key: &str, fields: &[Field]) -> Result<Option<Path>, Error> {
    let at = || At::root().key("primary_key");
    let path = Path::parse(key).map_err(|error| Error::new(at(), error.to_string()))?;
    match fields.iter().find(|field| field.path == path) {
        Some(field) if field.kind == Type::String => Ok(Some(path)),
        Some(_) => Err(Error::new(
            at(),
            format!("the field `{key}` must have the type `string`"),
        )),
        None if key == "string" => Ok(None),
        None => {
            let names: Vec<String> = fields.iter().map(|field| field.path.to_string()).collect();
            let message = format!("there is no field `{key}`");
            Err(Error::new(at(), message).suggest(nearest(key, names.iter().map(String::as_str))))
        }
    }
}

fn read_field(name: &str, written: &Value) -> Result<Field, Error> {
    let path = Path::parse(name).map_err(|error| Error::new(At::root(), error.to_string()))?;
    if path.system().is_some() {
        return Err(Error::new(
            At::root(),
            format!("`{name}` is a system field, a schema has no say in it"),
        ));
    }
    let long = match written {
        Value::String(kind) => LongField {
            kind: kind.clone(),
            required: false,
            values: None,
            items: None,
            default: None,
            max_length: None,
            auto: None,
            index: false,
        },
        other => decode_value(other)?,
    };
    let at = if written.is_string() {
        At::root()
    } else {
        At::root().key("type")
    };
    let kind = read_kind(&long, &at)?;
    if let Some(other) = long.auto.as_deref().filter(|auto| *auto != "now") {
        return Err(Error::new(
            At::root().key("auto"),
            format!("unknown value `{other}`, expected `now`"),
        ));
    }
    let field = Field {
        path,
        required: long.required,
        default: long.default,
        max_length: long.max_length,
        auto_now: long.auto.is_some(),
        index: long.index,
        kind,
    };
    check_field(&field)?;
    Ok(field)
}

fn check_field(field: &Field) -> Result<(), Error> {
    let fault = |key: &str, message: String| Err(Error::new(At::root().key(key), message));
    if field.auto_now && field.kind != Type::Timestamp {
        return fault(
            "auto",
            format!("only a `timestamp` can be automatic, this is `{}`", field.kind),
        );
    }
    if field.auto_now && field.default.is_some() {
        return fault(
            "default",
            "an automatic field is always written and needs no default".to_owned(),
        );
    }
    if field.max_length.is_some() && !matches!(field.kind, Type::String | Type::Array(_)) {
        return fault(
            "max_length",
            format!(
                "only a `string` or `array` has a length, this is `{}`",
                field.kind
            ),
        );
    }
    if let Some(default) = &field.default
        && let Err(problem) = check::value(field, default)
    {
        return fault("default", format!("the default {problem}"));
    }
    Ok(())
}

/// The type of a field; `at` is where its name is written.
fn read_kind(field: &LongField, at: &At) -> Result<Type, Error> {
    let kind = parse_type(&field.kind).map_err(|error| error.within(at))?;
    match (kind, &field.values, &field.items) {
        (Type::Enum(inline), Some(values), None) if inline.is_empty() && !values.is_empty() => {
            Ok(Type::Enum(values.clone()))
        }
        (Type::Enum(inline), None, None) if inline.is_empty() => Err(Error::new(
            At::root(),
            "missing key `values`: name what the enum may be",
        )),
        (Type::Array(None), None, Some(items)) => {
            let items = parse_type(items).map_err(|error| error.within(&At::root().key("items")))?;
            Ok(Type::Array(Some(Box::new(items))))
        }
        (kind, None, None) => Ok(kind),
        (kind, Some(_), _) => Err(Error::new(
            At::root().key("values"),
            format!("`values` does not go with the type `{kind}`"),
        )),
        (kind, None, Some(_)) => Err(Error::new(
            At::root().key("items"),
            format!("`items` does not go with the type `{kind}`"),
        )),
    }
}

/// `string`, `enum[a, b]`, `array[string]`, …
fn parse_type(text: &str) -> Result<Type, Error> {
    let text = text.trim();
    let (name, inside) = match text.split_once('[') {
        Some((name, rest)) => match rest.strip_suffix(']') {
            Some(inside) => (name.trim_end(), Some(inside)),
            None => return Err(Error::new(At::root(), format!("`{text}` has no closing `]`"))),
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
        ("object", None) => Ok(Type::Object),
        ("array", None) => Ok(Type::Array(None)),
        ("array", Some(items)) => Ok(Type::Array(Some(Box::new(parse_type(items)?)))),
        ("enum", None) => Ok(Type::Enum(Vec::new())),
        ("enum", Some(values)) => {
            let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
            if values.iter().any(String::is_empty) {
                return Err(Error::new(At::root(), format!("`{text}` has an empty value")));
            }
            Ok(Type::Enum(values))
        }
        _ => {
            let message = format!("unknown type `{text}`, expected one of `{}`", TYPES.join("`, `"));
            Err(Error::new(At::root(), message).suggest(nearest(name, TYPES)))
        }
    }
}
