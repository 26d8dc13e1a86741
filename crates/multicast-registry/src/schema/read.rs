//! A schema as it is written: in full, or as a mapping from field to type.

mod types;

use prism_core::config::{Error, Path as At, decode_value, nearest};
use prism_filter::{Document, Path};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Field, Fields, Keys, Schema, Shape, Type, check};
use types::parse_type;

/// How many fields a schema has at most, those in objects included.
const MAX_FIELDS: usize = 1_000;

/// The long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    primary_key: Option<String>,
    fields: Option<Map<String, Value>>,
    #[serde(default = "yes")]
    additional: bool,
}

fn yes() -> bool {
    true
}

impl Schema {
    /// Reads either form. It is the long one if it has `fields`; the short one is the fields themselves,
    /// beside which may stand `primary_key` and `additional`.
    ///
    /// # Errors
    /// The first thing that is not understood; its path begins at the schema.
    pub fn read(tree: &Value) -> Result<Self, Error> {
        let is_long = tree.get("fields").is_some_and(Value::is_object);
        let long = if is_long {
            decode_value(tree)?
        } else {
            short(tree)?
        };
        let at = if is_long {
            At::root().key("fields")
        } else {
            At::root()
        };
        let written = long.fields.unwrap_or_default();
        let mut reader = Reader { fields: 0 };
        let inside = reader
            .inside(&written, long.additional, Place::top())
            .map_err(|error| error.within(&at))?;
        let primary_key = long.primary_key.map(|key| read_primary_key(&key, &inside));
        Ok(Self {
            primary_key: primary_key.transpose()?.flatten(),
            inside,
        })
    }
}

/// Takes the options out of the short form. A field of the same name is a type or a mapping, which these are
/// not; a field called `primary_key` needs the long form.
fn short(tree: &Value) -> Result<Whole, Error> {
    let mut fields: Map<String, Value> = decode_value(tree)?;
    let mut options = Map::new();
    if fields.get("additional").is_some_and(Value::is_boolean) {
        options.extend(fields.remove_entry("additional"));
    }
    options.extend(fields.remove_entry("primary_key"));
    let options: Whole = decode_value(&Value::Object(options))?;
    Ok(Whole {
        fields: Some(fields),
        ..options
    })
}

/// `string` is RFC-017's way to say that the identity is a text, which it always is.
fn read_primary_key(key: &str, inside: &Fields) -> Result<Option<Path>, Error> {
    let at = || At::root().key("primary_key");
    let path = Path::parse(key).map_err(|error| Error::new(at(), error.to_string()))?;
    match inside.type_at(path.keys()) {
        Some(Type::String) => Ok(Some(path)),
        Some(_) => Err(Error::new(
            at(),
            format!("the field `{key}` must have the type `string`"),
        )),
        None if key == "string" => Ok(None),
        None => {
            let names = inside.fields.iter().map(|field| field.name.as_str());
            let message = format!("there is no field `{key}`");
            Err(Error::new(at(), message).suggest(nearest(key, names)))
        }
    }
}

/// One field, or the items of a list, in the long form.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: String,
    required: Option<bool>,
    values: Option<Vec<String>>,
    items: Option<Value>,
    fields: Option<Map<String, Value>>,
    additional: Option<bool>,
    default: Option<Value>,
    max_length: Option<usize>,
    auto: Option<String>,
    index: Option<bool>,
}

/// Where a field is.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The path of the object that it is in, with a dot at its end; `None` in the items of a list, to which
    /// no path leads.
    path: Option<&'a str>,
    depth: usize,
}

impl Place<'_> {
    fn top() -> Self {
        Self {
            path: Some(""),
            depth: 1,
        }
    }
}

struct Reader {
    /// How many there were so far.
    fields: usize,
}

impl Reader {
    fn inside(
        &mut self,
        written: &Map<String, Value>,
        additional: bool,
        place: Place<'_>,
    ) -> Result<Fields, Error> {
        let mut fields = Vec::with_capacity(written.len().min(MAX_FIELDS));
        for (name, value) in written {
            let at = At::root().key(name.as_str());
            fields.push(
                self.field(name, value, place)
                    .map_err(|error| error.within(&at))?,
            );
        }
        fields.sort_by(|one: &Field, other| one.keys.cmp(&other.keys));
        check_beside(&fields)?;
        let fills = fields.iter().any(Field::fills);
        Ok(Fields {
            fields,
            additional,
            fills,
        })
    }

    fn field(&mut self, name: &str, written: &Value, place: Place<'_>) -> Result<Field, Error> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            let message = format!("a schema has at most {MAX_FIELDS} fields");
            return Err(Error::new(At::root(), message));
        }
        let (path, keys) = read_name(name, place)?;
        let long = read_long(written)?;
        let below = format!("{path}.");
        let inside = Place {
            path: place.path.map(|_| below.as_str()),
            depth: place.depth + keys.len(),
        };
        let shape = self.shape(&long, written.is_string(), inside)?;
        if let Some(other) = long.auto.as_deref().filter(|auto| *auto != "now") {
            let message = format!("unknown value `{other}`, expected `now`");
            return Err(Error::new(At::root().key("auto"), message));
        }
        let index = long.index.unwrap_or_default().then(|| Path::parse(&path).ok());
        let field = Field {
            name: name.to_owned(),
            keys,
            shape,
            required: long.required.unwrap_or_default(),
            default: long.default,
            auto_now: long.auto.is_some(),
            index: index.flatten(),
        };
        check_field(&field, place)?;
        Ok(field)
    }

    /// The type of a field with its bounds. `is_short`: it is written as a name and nothing else.
    fn shape(&mut self, long: &Written, is_short: bool, place: Place<'_>) -> Result<Shape, Error> {
        let at = if is_short {
            At::root()
        } else {
            At::root().key("type")
        };
        let key = |key: &str| At::root().key(key);
        if place.depth > Document::MAX_DEPTH {
            return Err(Error::new(At::root(), "is nested deeper than metadata can be"));
        }
        let named = parse_type(&long.kind, place.depth).map_err(|error| error.within(&at))?;
        let kind = match named {
            Type::Enum(inline) => Type::Enum(types::enum_values(inline, long.values.as_deref())?),
            Type::Array(None) => match &long.items {
                Some(items) => {
                    let items = self
                        .items(items, place)
                        .map_err(|error| error.within(&key("items")))?;
                    Type::Array(Some(Box::new(items)))
                }
                None => Type::Array(None),
            },
            Type::Object(None) if long.fields.is_some() || long.additional.is_some() => {
                let none = Map::new();
                let written = long.fields.as_ref().unwrap_or(&none);
                let inside = self.inside(written, long.additional.unwrap_or(true), place);
                Type::Object(Some(Box::new(
                    inside.map_err(|error| error.within(&key("fields")))?,
                )))
            }
            kind => kind,
        };
        check_goes_with(long, &kind)?;
        let max_length = long.max_length;
        if max_length.is_some() && !matches!(kind, Type::String | Type::Array(_)) {
            let message = format!("only a `string` or `array` has a length, this is `{kind}`");
            return Err(Error::new(key("max_length"), message));
        }
        Ok(Shape { kind, max_length })
    }

    fn items(&mut self, written: &Value, list: Place<'_>) -> Result<Shape, Error> {
        let long = read_long(written)?;
        let meant_for_fields = [
            ("required", long.required.is_some()),
            ("default", long.default.is_some()),
            ("auto", long.auto.is_some()),
            ("index", long.index.is_some()),
        ];
        if let Some((key, _)) = meant_for_fields.iter().find(|(_, given)| *given) {
            let message = format!("`{key}` is said of a field, and not of the items of a list");
            return Err(Error::new(At::root().key(*key), message));
        }
        let place = Place {
            path: None,
            depth: list.depth + 1,
        };
        self.shape(&long, written.is_string(), place)
    }
}

fn read_long(written: &Value) -> Result<Written, Error> {
    match written {
        Value::String(kind) => Ok(Written {
            kind: kind.clone(),
            ..Written::default()
        }),
        other => decode_value(other),
    }
}

/// The path of a field from the top, as far as one leads there, and its keys from the object that it is in.
fn read_name(name: &str, place: Place<'_>) -> Result<(String, Keys), Error> {
    let fault = |message: String| Error::new(At::root(), message);
    let alone = Path::parse(name).map_err(|error| fault(error.to_string()))?;
    if alone.system().is_some() {
        let message = format!("`{name}` is a system field, a schema has no say in it");
        return Err(fault(message));
    }
    let above = place.path.unwrap_or_default();
    let path = format!("{above}{name}");
    let whole = Path::parse(&path).map_err(|error| fault(error.to_string()))?;
    let skipped = Path::parse(above.trim_end_matches('.')).map_or(0, |above| above.keys().len());
    let keys = whole.keys().get(skipped..).unwrap_or_default();
    Ok((path, keys.into()))
}

/// What is said of a type that has no such thing.
fn check_goes_with(long: &Written, kind: &Type) -> Result<(), Error> {
    let of_object = matches!(kind, Type::Object(_));
    let stray = [
        ("values", long.values.is_some() && !matches!(kind, Type::Enum(_))),
        ("items", long.items.is_some() && !long.kind.trim().eq("array")),
        ("fields", long.fields.is_some() && !of_object),
        ("additional", long.additional.is_some() && !of_object),
    ];
    match stray.iter().find(|(_, stray)| *stray) {
        Some((key, _)) => {
            let message = format!("`{key}` does not go with the type `{kind}`");
            Err(Error::new(At::root().key(*key), message))
        }
        None => Ok(()),
    }
}

fn check_field(field: &Field, place: Place<'_>) -> Result<(), Error> {
    let fault = |key: &str, message: String| Err(Error::new(At::root().key(key), message));
    let kind = &field.shape.kind;
    if field.auto_now && *kind != Type::Timestamp {
        let message = format!("only a `timestamp` can be automatic, this is `{kind}`");
        return fault("auto", message);
    }
    if field.auto_now && field.default.is_some() {
        let message = "an automatic field is always written and needs no default";
        return fault("default", message.to_owned());
    }
    if place.path.is_none() {
        let filled = [
            ("auto", field.auto_now),
            ("default", field.default.is_some()),
            ("index", field.index.is_some()),
        ];
        if let Some((key, _)) = filled.iter().find(|(_, given)| *given) {
            return fault(key, format!("`{key}` has no effect inside a list, leave it out"));
        }
    }
    if let Some(default) = &field.default
        && let Err(problem) = check::value(&field.shape, default)
    {
        return fault("default", format!("the default {problem}"));
    }
    Ok(())
}

/// Fields of one object that say something about each other. They are sorted.
fn check_beside(fields: &[Field]) -> Result<(), Error> {
    for (index, field) in fields.iter().enumerate() {
        let below = |other: &&Field| other.keys.starts_with(&field.keys);
        let Some(other) = fields[index + 1..].iter().take_while(below).next() else {
            continue;
        };
        let fault = |message| Err(Error::new(At::root().key(other.name.as_str()), message));
        let name = &field.name;
        if other.keys == field.keys {
            return fault(format!("the same field is given as `{name}`"));
        }
        match &field.shape.kind {
            Type::Object(None) | Type::GeoPoint => {}
            Type::Object(Some(_)) => {
                return fault(format!("what is in `{name}` stands among its own `fields`"));
            }
            kind => return fault(format!("`{name}` is `{kind}`, there are no fields in it")),
        }
    }
    Ok(())
}
