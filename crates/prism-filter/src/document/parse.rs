//! From JSON to the encoded form, from text or from values in memory.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{
    encode::{Begun, Encoder},
    error::DocumentError,
};

/// From here on the JSON parser hands integers over as doubles.
const ROUNDED_FROM: f64 = 9_223_372_036_854_775_808.0;

/// Encodes the one value that `text` consists of.
pub(crate) fn text(encoder: &mut Encoder, text: &[u8]) -> Result<(), DocumentError> {
    // Once for all is cheaper than string by string.
    let text = std::str::from_utf8(text).map_err(|error| syntax(&error))?;
    let large = read(encoder, text)?;
    match large.then(|| rounded_integer(text)).flatten() {
        Some((offset, integer)) => Err(DocumentError::Inexact {
            path: path_at(text, offset),
            integer,
        }),
        None => Ok(()),
    }
}

/// Encodes a value in memory.
pub(crate) fn value(encoder: &mut Encoder, value: &Value) -> Result<(), DocumentError> {
    match value {
        Value::Null => encoder.null(),
        Value::Bool(value) => encoder.boolean(*value),
        Value::Number(number) => {
            return match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(integer), ..) => encoder.integer(integer.into()),
                (_, Some(integer), _) => encoder.integer(integer.into()),
                (.., double) => encoder.number(double.unwrap_or(f64::NAN)),
            };
        }
        Value::String(text) => encoder.string(text),
        Value::Array(elements) => return array(encoder, elements, self::value),
        Value::Object(fields) => return object(encoder, fields, self::value),
    }
    Ok(())
}

/// Encodes an array whose elements `write` encodes.
pub(crate) fn array<T>(
    encoder: &mut Encoder,
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Encoder, T) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let array = encoder.open()?;
    for (index, element) in elements.into_iter().enumerate() {
        let member = encoder.begin(b"");
        write(encoder, element).map_err(|error| error.in_element(index))?;
        encoder.end(member)?;
    }
    encoder.close_array(array);
    Ok(())
}

/// Encodes an object whose values `write` encodes.
pub(crate) fn object<K: AsRef<str>, T>(
    encoder: &mut Encoder,
    fields: impl IntoIterator<Item = (K, T)>,
    write: impl Fn(&mut Encoder, T) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let object = encoder.open()?;
    for (key, value) in fields {
        let key = key.as_ref().as_bytes();
        let member = encoder.begin(key);
        write(encoder, value).map_err(|error| error.in_field(key))?;
        encoder.end(member)?;
    }
    encoder.close_object(object)
}

/// Encodes `text`. Returns whether it has numbers so large that integers among them may have been
/// rounded.
fn read(encoder: &mut Encoder, text: &str) -> Result<bool, DocumentError> {
    let mut reading = Reading {
        encoder,
        failure: None,
        large: false,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = Seed(&mut reading)
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    match result {
        Ok(()) => Ok(reading.large),
        Err(error) => Err(reading.failure.take().unwrap_or_else(|| syntax(&error))),
    }
}

/// Finds an integer in valid JSON that no double holds exactly, and where it begins.
fn rounded_integer(text: &str) -> Option<(usize, String)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let length = match byte {
            b'"' => string_length(&bytes[at..]),
            b'-' | b'0'..=b'9' => number_length(&bytes[at..]),
            _ => 1,
        };
        let number = text.get(at..at + length).filter(|_| byte != b'"' && length > 1);
        if let Some(number) = number.filter(|number| !number.contains(['.', 'e', 'E'])) {
            // The full decimal expansion of the nearest double.
            let nearest = number.parse().map(|double: f64| format!("{double:.0}"));
            if nearest.is_ok_and(|nearest| nearest != number) {
                return Some((at, number.to_owned()));
            }
        }
        at += length;
    }
    None
}

/// The length of the string literal that `text` begins with.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of the number that `text` begins with.
fn number_length(text: &[u8]) -> usize {
    let part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    text.iter().position(|byte| !part(byte)).unwrap_or(text.len())
}

/// The path of the value that begins at `offset` of valid JSON: where reading stops when the text
/// ends there.
fn path_at(text: &str, offset: usize) -> String {
    let mut encoder = Encoder::new(
        super::encode::Bounds {
            depth: usize::MAX,
            bytes: usize::MAX,
        },
        offset,
    );
    let stopped = read(&mut encoder, &text[..offset]).err();
    stopped
        .and_then(|error| error.path().map(str::to_owned))
        .unwrap_or_default()
}

fn syntax(error: &dyn fmt::Display) -> DocumentError {
    DocumentError::Syntax {
        path: String::new(),
        message: error.to_string(),
    }
}

/// What is shared by the visitors of one text.
struct Reading<'e> {
    encoder: &'e mut Encoder,
    /// Why reading ended; serde's error only unwinds the visitors.
    failure: Option<DocumentError>,
    large: bool,
}

impl Reading<'_> {
    /// Keeps a failure of ours.
    fn keep<T, E: de::Error>(&mut self, result: Result<T, DocumentError>) -> Result<T, E> {
        result.map_err(|failure| {
            let error = E::custom(&failure);
            self.failure = Some(failure);
            error
        })
    }

    /// Notes on the way out where the failure is seen from one level further out.
    fn locate<E: de::Error>(&mut self, error: E, outer: impl FnOnce(DocumentError) -> DocumentError) -> E {
        let failure = self.failure.take().unwrap_or_else(|| syntax(&error));
        self.failure = Some(outer(failure));
        error
    }
}

/// Encodes the value that comes next.
struct Seed<'r, 'e>(&'r mut Reading<'e>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.encoder.null();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.encoder.boolean(value);
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        let result = self.0.encoder.integer(value.into());
        self.0.keep(result)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let result = self.0.encoder.integer(value.into());
        self.0.keep(result)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.0.large |= value.abs() >= ROUNDED_FROM;
        let result = self.0.encoder.number(value);
        self.0.keep(result)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.encoder.string(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let reading = self.0;
        let array = reading.encoder.open();
        let array = reading.keep(array)?;
        for index in 0.. {
            let member = reading.encoder.begin(b"");
            match elements.next_element_seed(Seed(reading)) {
                Ok(None) => break,
                Ok(Some(())) => {}
                Err(error) => return Err(reading.locate(error, |failure| failure.in_element(index))),
            }
            let ended = reading.encoder.end(member);
            reading.keep(ended)?;
        }
        reading.encoder.close_array(array);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let reading = self.0;
        let object = reading.encoder.open();
        let object = reading.keep(object)?;
        while let Some(member) = fields.next_key_seed(Key(reading.encoder))? {
            if let Err(error) = fields.next_value_seed(Seed(reading)) {
                let key = reading.encoder.key(member).to_vec();
                return Err(reading.locate(error, |failure| failure.in_field(&key)));
            }
            let ended = reading.encoder.end(member);
            reading.keep(ended)?;
        }
        let closed = reading.encoder.close_object(object);
        reading.keep(closed)
    }
}

/// Begins a member with the key that comes next.
struct Key<'e>(&'e mut Encoder);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Begun;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Begun, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Begun;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Begun, E> {
        Ok(self.0.begin(key.as_bytes()))
    }
}
