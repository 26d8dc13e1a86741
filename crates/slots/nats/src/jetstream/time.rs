//! The times that JetStream writes: RFC 3339 in UTC, with up to nine digits behind the second.

use prism_slot::Timestamp;

const NANOS: u64 = 1_000_000_000;

/// Nanoseconds since 1970.
pub(crate) fn parse_nanos(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let is_date = (1970..=2_500).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let nanos = format!("{fraction:0<9}").parse::<u64>().ok()?;
    Some(seconds * NANOS + nanos)
}

/// As slots count.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let millis = parse_nanos(text)? / 1_000_000;
    i64::try_from(millis).ok().map(Timestamp)
}

/// Days since 1970 of a date in the Gregorian calendar, whose years are counted from March here, so that the leap day
/// is the last one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, nanos) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:01.5Z", 1_500_000_000),
            ("2000-02-29T12:00:00Z", 951_825_600 * NANOS),
            ("2024-03-01T00:00:00.000000001Z", 1_709_251_200 * NANOS + 1),
            ("2026-11-28T13:34:39.123456789Z", 1_795_872_879_123_456_789),
        ] {
            assert_eq!(parse_nanos(text), Some(nanos), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(Timestamp(1_500)));
        for text in [
            "",
            "1970",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_nanos(text), None, "{text}");
        }
    }
}
