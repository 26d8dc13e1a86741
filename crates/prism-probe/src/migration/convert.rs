//! From one type to another, where the way back leads to the same.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde_json::{Value, json};

/// Beyond it not every integer is a double, which is what metadata holds.
const EXACT: i64 = 1 << 53;

/// What is made of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conversion {
    from: Type,
    to: Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    String,
    Integer,
    Number,
    Boolean,
    /// Unix milliseconds.
    Timestamp,
}

const TYPES: [(Type, &[&str]); 5] = [
    (Type::String, &["string"]),
    (Type::Integer, &["integer", "int"]),
    (Type::Number, &["number", "float"]),
    (Type::Boolean, &["boolean", "bool"]),
    (Type::Timestamp, &["timestamp"]),
];

impl Conversion {
    /// The value as the other type; as it is, where it is of that type already.
    pub(crate) fn apply(self, value: &Value) -> Result<Value, String> {
        let Self { from, to } = self;
        if to.holds(value) {
            return Ok(value.clone());
        }
        if !from.holds(value) {
            return Err(format!("is no {from}: {}", shown(value)));
        }
        match value {
            Value::String(text) => {
                read(text, to).ok_or_else(|| format!("is not exactly a {to}: {}", shown(value)))
            }
            other => write(other, from)
                .map(Value::String)
                .ok_or_else(|| format!("is out of range: {}", shown(value))),
        }
    }
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer | Self::Timestamp => whole(value).is_some(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

fn whole(value: &Value) -> Option<i64> {
    let exact = |number: &i64| (-EXACT..=EXACT).contains(number);
    match value.as_i64() {
        Some(number) => Some(number).filter(exact),
        None => {
            let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
            Some(number as i64).filter(exact)
        }
    }
}

/// A text as another type, if that would be written as the same text. Of a timestamp the same instant is
/// enough, to the millisecond.
fn read(text: &str, to: Type) -> Option<Value> {
    let value = match to {
        Type::Integer => json!(text.parse::<i64>().ok()?),
        Type::Number => serde_json::from_str::<Value>(text)
            .ok()
            .filter(Value::is_number)?,
        Type::Boolean => json!(text.parse::<bool>().ok()?),
        Type::Timestamp => {
            let instant: Timestamp = text.parse().ok()?;
            let millis = instant.as_millisecond();
            let exact = Timestamp::from_millisecond(millis).ok() == Some(instant);
            return exact.then(|| json!(millis));
        }
        Type::String => return None,
    };
    let exact = to.holds(&value) && write(&value, to).as_deref() == Some(text);
    exact.then_some(value)
}

fn write(value: &Value, from: Type) -> Option<String> {
    match (from, value) {
        (Type::Timestamp, value) => Timestamp::from_millisecond(whole(value)?)
            .ok()
            .map(|instant| instant.to_string()),
        (Type::Integer, value) => whole(value).map(|number| number.to_string()),
        (Type::Number, Value::Number(number)) => Some(match whole(value) {
            Some(number) => number.to_string(),
            None => number.to_string(),
        }),
        (Type::Boolean, Value::Bool(flag)) => Some(flag.to_string()),
        _ => None,
    }
}

/// The value as a message shows it, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = TYPES.iter().find(|(kind, _)| kind == self);
        f.write_str(known.map_or("", |(_, names)| names[0]))
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = TYPES.iter().find(|(_, names)| names.contains(&text.trim()));
        known.map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<_> = TYPES.iter().map(|(_, names)| names[0]).collect();
            format!("unknown type `{text}`, expected one of `{}`", names.join("`, `"))
        })
    }
}

impl FromStr for Conversion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text
            .split_once(':')
            .ok_or_else(|| format!("expected FROM:TO, there is no `:` in `{text}`"))?;
        let conversion = Self {
            from: from.parse()?,
            to: to.parse()?,
        };
        let is_string = |kind| kind == Type::String;
        if is_string(conversion.from) == is_string(conversion.to) {
            return Err(format!(
                "`{text}` is not possible: a string becomes another type, or another type a string"
            ));
        }
        Ok(conversion)
    }
}
