//! Values that configurations write in more than one way: durations, sizes, lists, secrets.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor},
};

const DURATION_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("K", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Longest duration that a configuration may name: a hundred years.
const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads `500ms`, `5s`, `1m`, `2h`, `7d`, `1w`, also with a fraction (`1.5s`).
///
/// # Errors
/// A text without a number or with another unit, as a message for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration, write it like `500ms`, `5s`, `1m`, `2h` or `7d`");
    let millis = with_unit(text, &DURATION_UNITS).ok_or_else(expected)?;
    checked(Duration::from_micros((millis * 1_000.0) as u64))
}

/// Reads `512`, `64KiB`, `4MiB`, `1GB` as a number of bytes.
///
/// # Errors
/// A text without a number or with another unit, as a message for people.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let expected = || format!("`{text}` is no size, write it like `512`, `64KiB` or `4MiB`");
    if let Ok(bytes) = text.trim().parse::<usize>() {
        return Ok(bytes);
    }
    let bytes = with_unit(text, &SIZE_UNITS).ok_or_else(expected)?;
    Ok(bytes as usize)
}

/// The shortest exact text that [`parse_duration`] reads back.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let exact = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)));
    match exact {
        Some((name, unit)) => format!("{}{name}", millis / u128::from(*unit)),
        None => format!("{millis}ms"),
    }
}

/// For `serialize_with`: a duration as [`format_duration`] writes it.
///
/// # Errors
/// As the serializer has it.
pub fn duration_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

/// For `deserialize_with`: a duration, where a bare number counts milliseconds.
///
/// # Errors
/// Anything that is neither a number nor a duration text.
pub fn duration_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor { unit_ms: 1 })
}

/// For `deserialize_with`: a duration, where a bare number counts seconds.
///
/// # Errors
/// Anything that is neither a number nor a duration text.
pub fn duration_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(DurationVisitor { unit_ms: 1_000 })
}

/// As [`duration_ms`], for an `Option`; the field also needs `#[serde(default)]`.
///
/// # Errors
/// Anything that is neither null, a number nor a duration text.
pub fn optional_duration_ms<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_option(Optional(DurationVisitor { unit_ms: 1 }))
}

/// As [`duration_seconds`], for an `Option`; the field also needs `#[serde(default)]`.
///
/// # Errors
/// Anything that is neither null, a number nor a duration text.
pub fn optional_duration_seconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_option(Optional(DurationVisitor { unit_ms: 1_000 }))
}

/// For `deserialize_with`: a size in bytes, as a number or a text like `64KiB`.
///
/// # Errors
/// Anything else.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(SizeVisitor)
}

/// As [`size`], for an `Option`; the field also needs `#[serde(default)]`.
///
/// # Errors
/// Anything else.
pub fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    deserializer.deserialize_option(Optional(SizeVisitor))
}

/// For `deserialize_with`: a list of texts, where a single text is a list of one.
///
/// # Errors
/// Anything else.
pub fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(OneOrMany)
}

/// A value that never shows: not in `Debug`, not in the error for a wrong type.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a value that must not show.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(empty)"
        } else {
            "Secret(***)"
        })
    }
}

/// Serializes as `***`: printed configurations carry no secrets.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    Some(number * *factor as f64)
}

fn checked(duration: Duration) -> Result<Duration, String> {
    if duration > MAX_DURATION {
        return Err("the duration is longer than a hundred years".to_owned());
    }
    Ok(duration)
}

struct DurationVisitor {
    unit_ms: u64,
}

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.unit_ms == 1 {
            "milliseconds"
        } else {
            "seconds"
        };
        write!(f, "a duration like `500ms` or `5s`, or a number of {unit}")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Duration, E> {
        checked(Duration::from_millis(value.saturating_mul(self.unit_ms))).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Duration, E> {
        let value =
            u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
        self.visit_u64(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Duration, E> {
        if !(value.is_finite() && value >= 0.0) {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        checked(Duration::from_micros(
            (value * self.unit_ms as f64 * 1_000.0) as u64,
        ))
        .map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Duration, E> {
        parse_duration(value).map_err(E::custom)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size like `64KiB`, or a number of bytes")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<usize, E> {
        usize::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<usize, E> {
        usize::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<usize, E> {
        parse_size(value).map_err(E::custom)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(vec![value.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(de::value::SeqAccessDeserializer::new(items))
    }
}

/// Lets a visitor of a value also visit its absence.
struct Optional<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Optional<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self.0).map(Some)
    }
}

struct SecretVisitor;

impl SecretVisitor {
    fn refuse<T, E: de::Error>(self, kind: &str) -> Result<T, E> {
        Err(E::invalid_type(de::Unexpected::Other(kind), &self))
    }
}

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text (put it in quotes)")
    }

    fn visit_str<E>(self, value: &str) -> Result<Secret, E> {
        Ok(Secret::new(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Secret, E> {
        Ok(Secret(value))
    }

    // A number is refused, not converted: `0123` has already lost its zero.
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
        self.refuse("a number")
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
        self.refuse("a number")
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
        self.refuse("a number")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
        self.refuse("a boolean")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_every_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("1.5s", 1_500),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "5 parsecs", "99999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_print_so_that_they_read_back() {
        for millis in [0, 1, 999, 1_000, 61_000, 3_600_000, 86_400_000, 604_800_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_read_in_every_unit() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("4 MiB"), Ok(4_194_304));
        assert!(parse_size("many").is_err());
    }

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        let error = serde_json::from_str::<Secret>("12345").unwrap_err().to_string();
        assert!(!error.contains("12345") && error.contains("quotes"), "{error}");
    }
}
