//! Values on the command line. Whatever can be wrong with one is found here, before anybody is called.

use std::{collections::HashMap, time::Duration};

use prism_client::SessionId;
use prism_filter::{Document, Limits};
use prism_proto::pattern::{Filter, Position};
use prost_types::Value;

/// A JSON object, as the service will read it.
pub(super) fn object(text: &str) -> Result<HashMap<String, Value>, String> {
    let document = Document::from_json(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(document.to_proto())
}

/// A filter in its JSON form, as it goes over the wire.
pub(super) fn filter(text: &str) -> Result<Filter, String> {
    selection(text)?.to_proto().map_err(|error| error.to_string())
}

/// A filter in its JSON form. How large it may be is for the service to say, which is configured; the
/// limits here only keep a mistake from costing much.
pub(crate) fn selection(text: &str) -> Result<prism_filter::Filter, String> {
    let limits = Limits {
        max_depth: 32,
        max_clauses: 10_000,
        max_in_values: 100_000,
        // Four times what a namespace can allow: it takes up to a second to read.
        max_regex_bytes: 16 << 10,
        max_regex_program_bytes: 64 << 20,
        max_bytes: 4 << 20,
        ..Limits::default()
    };
    let filter = prism_filter::Filter::parse_str(text, &limits);
    // Regular expressions are read only here. What is relative to now will be so when the service is asked.
    let filter = filter.and_then(|filter| filter.compile_at(0, &limits).map(|_| filter));
    filter.map_err(|error| error.to_string())
}

/// A whole number of seconds.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(seconds) if seconds >= 0 => Ok(seconds),
        _ => Err("expected a number of seconds, 0 for no lease".to_owned()),
    }
}

/// A position as it is shown: the epoch in hexadecimal digits, a slash, the revision.
pub(super) fn position(text: &str) -> Result<Position, String> {
    let parts = text.split_once('/').and_then(|(epoch, revision)| {
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|epoch| *epoch != 0)?;
        let revision = revision.parse().ok()?;
        Some(Position { epoch, revision })
    });
    parts.ok_or_else(|| "expected a position such as `9f86d081884c7d65/42`".to_owned())
}

/// A session as it is shown: 32 hexadecimal digits.
pub(super) fn session(text: &str) -> Result<SessionId, String> {
    let number = u128::from_str_radix(text, 16).ok();
    let number = number.filter(|_| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let number = number.ok_or("expected 32 hexadecimal digits, as an import tells them")?;
    Ok(SessionId(number.to_be_bytes()))
}

/// How long something is to go on: `500ms`, `60s`, `5m`, `1h`; more than nothing.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let length = prism_core::config::parse_duration(text)?;
    (!length.is_zero())
        .then_some(length)
        .ok_or_else(|| "it needs some time".to_owned())
}

/// A share in percent, as one from 0 to 1.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse::<f64>().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected a share in percent, from 0 to 100".to_owned())
}

/// `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a time such as `500ms`, `10s` or `2m`".to_owned()),
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale));
    match millis {
        Some(0) => Err("a call needs some time".to_owned()),
        // More than grpc-timeout can carry, and than anybody waits.
        Some(millis) if millis > 24 * 3_600_000 => Err("at most 24 hours".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("expected a time such as `500ms`, `10s` or `2m`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_mistakes_say_where_and_why() {
        for (text, part) in [
            (r#"{"a": "#, "JSON"),
            (r#"{"a": 1,}"#, "column"),
            ("[1]", "expected a JSON object"),
            (r#"{"a": {"b": 9007199254740993}}"#, "`a.b`"),
            (r#"{"a": 1, "a": 2}"#, "given twice"),
        ] {
            let error = object(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(object(r#"{"a": null, "b": [1, {"c": 0.5}]}"#).is_ok());
    }

    #[test]
    fn filter_mistakes_name_the_clause() {
        for (text, part) in [
            (r#"{"battery": {"$less": 1}}"#, "battery"),
            (r#"{"$or": [{"a.lt": [1]}]}"#, "$or[0]"),
            (r#"{"firmware.regex": "1.(0"}"#, "unclosed group"),
            ("nonsense", "JSON"),
        ] {
            let error = filter(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(filter(r#"{"status": "online", "battery.lt": 0.2}"#).is_ok());
    }

    /// A namespace may allow more than is usual.
    #[test]
    fn how_large_a_filter_may_be_is_not_decided_here() {
        let long = "x".repeat(4 << 10);
        let large = r"\\w{50}";
        for pattern in [&long, large] {
            let read = filter(&format!(r#"{{"firmware.regex": "{pattern}"}}"#));
            assert!(read.is_ok(), "{read:?}");
        }
    }

    #[test]
    fn shares_are_percents_and_lengths_are_some_time() {
        assert_eq!(percent("25"), Ok(0.25));
        assert_eq!(percent("0.5%"), Ok(0.005));
        for wrong in ["", "-1", "101", "nan", "half"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        assert_eq!(length("1.5s"), Ok(Duration::from_millis(1_500)));
        for wrong in ["0s", "", "60", "soon"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), duration("10"));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "s",
            "0s",
            "25h",
            "-1s",
            "1.5s",
            "25000m",
            "99999999999999999999s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn positions_are_read_as_they_are_shown() {
        let shown = "00000000000000ff/42";
        let read = position(shown).unwrap();
        assert_eq!((read.epoch, read.revision), (255, 42));
        for wrong in ["", "42", "ff/", "/42", "0/42", "xyz/1", "ff/-1"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn leases_are_whole_seconds() {
        assert_eq!(seconds("0"), Ok(0));
        for wrong in ["-1", "1.5", "", "30s", "9223372036854775808"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
