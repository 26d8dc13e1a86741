//! Points in time, absolute and relative to the moment of a call.

use crate::document::ValueRef;

/// What a point in time may be, for error messages.
pub(crate) const EXPECTED: &str = "an RFC 3339 time or whole milliseconds since 1970";

/// Doubles hold every whole number up to here.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// How far from now a relative time may be, in milliseconds: some 140,000 years. Together with any moment
/// of a call, doubles hold it exactly.
const FURTHEST: u64 = 1 << 52;

/// A time relative to the moment of a call: `now`, `now-5m`, `now+1h`. Units are `ms`, `s`, `m`, `h`, `d` and
/// `w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelativeTime {
    /// In milliseconds; negative in the past.
    offset: i64,
}

impl RelativeTime {
    /// `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("now")?;
        let Some(sign) = rest.chars().next() else {
            return Some(Self { offset: 0 });
        };
        let amount = rest.strip_prefix(['-', '+'])?;
        let split = amount.find(|letter: char| !letter.is_ascii_digit())?;
        let (digits, unit) = amount.split_at(split);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        let offset = digits.parse::<u64>().ok()?.checked_mul(millis)?;
        let offset = i64::try_from(offset).ok().filter(|_| offset <= FURTHEST)?;
        Some(Self {
            offset: if sign == '-' { -offset } else { offset },
        })
    }

    /// The point in time for a call at `now`; both in milliseconds since 1970.
    pub fn at(self, now: i64) -> i64 {
        now.saturating_add(self.offset)
    }
}

/// Whether a text was meant to be a [relative time](RelativeTime) and is none: taken for any text, it would
/// be compared by its bytes, and nobody would notice.
pub(crate) fn is_malformed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("now") else {
        return false;
    };
    let amount = rest.trim_start().strip_prefix(['-', '+']);
    let meant = amount.is_some_and(|amount| {
        amount
            .trim_start()
            .starts_with(|first: char| first.is_ascii_digit())
    });
    meant && RelativeTime::parse(text).is_none()
}

/// Nanoseconds since 1970, if the operand says a time. Finer than records are, so that a time between
/// two milliseconds compares as what it is.
pub(crate) fn nanoseconds(operand: ValueRef<'_>) -> Option<i128> {
    match operand {
        ValueRef::Number(millis) if millis.fract() == 0.0 && millis.abs() <= LARGEST_WHOLE => {
            Some(from_millis(millis as i64))
        }
        ValueRef::String(text) => instant(text),
        _ => None,
    }
}

/// Nanoseconds since 1970 of an RFC 3339 text; `None` for any other text.
pub fn instant(text: &str) -> Option<i128> {
    // A date comes first, its shortest form has eight characters. To find out from the library that there is
    // none costs an allocation.
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || "+-−W".contains(letter));
    if text.len() - rest.len() < 8 || !rest.starts_with(['T', 't', ' ']) {
        return None;
    }
    Some(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond())
}

/// Milliseconds since 1970 as nanoseconds.
#[inline]
pub(crate) fn from_millis(millis: i64) -> i128 {
    i128::from(millis) * 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    #[test]
    fn times_are_text_or_whole_milliseconds() {
        let time = 1_704_067_200_000;
        assert_eq!(
            nanoseconds(ValueRef::Number(time as f64)),
            Some(from_millis(time))
        );
        for text in ["2024-01-01T00:00:00Z", "2024-01-01T02:30:00+02:30"] {
            assert_eq!(
                nanoseconds(ValueRef::String(text)),
                Some(from_millis(time)),
                "{text}"
            );
        }
        let fine = nanoseconds(ValueRef::String("2024-01-01T00:00:00.0000005Z"));
        assert_eq!(fine, Some(from_millis(time) + 500));
        for text in ["", "yesterday", "2024-01-01", "2024-01-01T00:00:00", "now"] {
            assert_eq!(nanoseconds(ValueRef::String(text)), None, "{text}");
        }
        assert_eq!(nanoseconds(ValueRef::Number(0.5)), None);
        assert_eq!(nanoseconds(ValueRef::Number(1e17)), None);
        assert_eq!(nanoseconds(ValueRef::Null), None);
    }

    #[test]
    fn relative_times_are_now_and_one_step_from_it() {
        let at = |text| RelativeTime::parse(text).map(|time| time.at(1_000_000_000_000));
        for (text, offset) in [
            ("now", 0),
            ("now-0s", 0),
            ("now+1ms", 1),
            ("now-5s", -5_000),
            ("now-5m", -300_000),
            ("now+1h", 3_600_000),
            ("now-30d", -2_592_000_000),
            ("now+2w", 1_209_600_000),
            ("now+4503599627370496ms", 1 << 52),
        ] {
            assert_eq!(at(text), Some(1_000_000_000_000 + offset), "{text}");
        }
        for text in [
            "",
            "no",
            "Now",
            "NOW-5m",
            "now-",
            "now5m",
            "now-5",
            "now-m",
            "now--5m",
            "now-5M",
            "now-5min",
            "now - 5m",
            "now-5m ",
            "now-1h30m",
            "now-1.5h",
            "now-4503599627370497ms",
            "now-99999999999999999999s",
            "now+٥m",
            "now-30000000000000w",
            "nowadays",
            "now+",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
        assert_eq!(RelativeTime::parse("now+1w").unwrap().at(i64::MAX), i64::MAX);
    }

    #[test]
    fn what_was_meant_to_be_relative_is_noticed() {
        for text in [
            "now-5",
            "now - 5m",
            "now -5m",
            "now+1.5h",
            "now-5min",
            "now-1h30m",
            "now-99999999999999999999s",
        ] {
            assert!(is_malformed(text), "{text}");
        }
        for text in [
            "now",
            "now-5m",
            "nowadays",
            "now-playing",
            "now, 5",
            "know-5",
            "5m",
            "",
        ] {
            assert!(!is_malformed(text), "{text}");
        }
    }

    proptest! {
        /// Looking first loses nothing.
        #[test]
        fn texts_are_times_as_the_library_says(
            date in select(vec!["2024-02-29", "20240229", "+002024-02-29", "−002024-02-29", "-0020240229", "+0020240229", "1969-W05-4", "2024W05", "x"]),
            between in select(vec!["T", "t", " ", "", "-"]), time in select(vec!["23:59:60", "01:02:03.5", "010203", "01", "01:02", ""]),
            zone in select(vec!["Z", "z", "+01:00", "-0330", "+01", "", "[UTC]", "Z[Europe/Berlin]"]),
        ) {
            let text = format!("{date}{between}{time}{zone}");
            let expected = text.parse::<jiff::Timestamp>().ok().map(|time| time.as_nanosecond());
            prop_assert_eq!(instant(&text), expected, "{}", text);
        }
    }
}
