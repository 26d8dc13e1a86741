//! Strict decoding of a configuration tree, with errors that people can act on.

use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::{Error, Path, Segment};

/// Decodes a tree that has no text behind it, as it arrives on the control stream.
///
/// Doubles that are whole decode into integers, because that stream has no other numbers.
///
/// # Errors
/// The first unknown key, wrong type or value out of range, with its path.
pub fn decode_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(whole_numbers(value)).map_err(|error| {
        let path = Path::from(error.path());
        explain(path, &error.into_inner().to_string())
    })
}

/// The candidate that `word` was probably meant to be, if any is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole_number(number)),
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), whole_numbers(value)))
            .collect(),
        other => other.clone(),
    }
}

#[allow(clippy::cast_possible_truncation)] // in range and whole, as checked
fn whole_number(number: &Number) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: above it a double is no exact integer
    match number.as_f64() {
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() <= EXACT => {
            Number::from(double as i64)
        }
        _ => number.clone(),
    }
}

/// Rewrites serde's words into ours.
fn explain(path: Path, text: &str) -> Error {
    if let Some(rest) = text.strip_prefix("unknown field ") {
        return unknown_key(path, rest);
    }
    if let Some(rest) = text.strip_prefix("unknown variant ") {
        let mut names = backticked(rest);
        let found = names.next().unwrap_or_default();
        let valid: Vec<_> = names.collect();
        return Error::new(
            path,
            format!("unknown value `{found}`, expected {}", one_of(&valid)),
        )
        .suggest(nearest(found, valid.iter().copied()));
    }
    if let Some(rest) = text.strip_prefix("missing field ") {
        return Error::new(path, format!("missing key {rest}"));
    }
    if let Some((found, expected)) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        let message = format!("expected {}, found {}", expectation(expected), finding(found));
        return Error::new(path, message);
    }
    Error::new(path, text)
}

fn unknown_key(path: Path, rest: &str) -> Error {
    let mut names = backticked(rest);
    let found = names.next().unwrap_or_default();
    let valid: Vec<_> = names.collect();
    // Depending on the reader the path ends at the key or at the mapping that holds it.
    let path = match path.segments().last() {
        Some(Segment::Key(last)) if last == found => path,
        _ => path.key(found),
    };
    let suggestion = nearest(found, valid.iter().copied());
    let message = match suggestion {
        None if !valid.is_empty() => format!("unknown key `{found}`, expected {}", one_of(&valid)),
        _ => format!("unknown key `{found}`"),
    };
    Error::new(path, message).suggest(suggestion)
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., last] => format!("`{}` or `{last}`", first.join("`, `")),
    }
}

fn expectation(expected: &str) -> String {
    let text = match expected {
        "u8" => "an integer from `0` to `255`",
        "u16" => "an integer from `0` to `65535`",
        "u32" => "an integer from `0` to `4294967295`",
        "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number in range",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other => match other.strip_prefix("struct ") {
            Some(_) => "a mapping",
            None => other,
        },
    };
    text.to_owned()
}

/// `string "x"` becomes `` `x` ``, `integer `5`` becomes `` `5` ``; a container keeps its name.
fn finding(found: &str) -> String {
    match found {
        "map" => return "a mapping".to_owned(),
        "sequence" => return "a list".to_owned(),
        "null" | "unit value" | "Option value" => return "nothing".to_owned(),
        _ => {}
    }
    if let Some(quoted) = found.strip_prefix("string ") {
        let text: String = serde_json::from_str(quoted).unwrap_or_else(|_| quoted.to_owned());
        return format!("`{text}`");
    }
    backticked(found)
        .next()
        .map_or_else(|| found.to_owned(), |value| format!("`{value}`"))
}
