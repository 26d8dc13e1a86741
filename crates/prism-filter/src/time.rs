//! Points in time, as operands of the system fields that are times.

use crate::document::ValueRef;

/// What such an operand may be, for error messages.
pub(crate) const EXPECTED: &str = "an RFC 3339 time or whole milliseconds since 1970";

/// Doubles hold every whole number up to here.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Nanoseconds since 1970, if the operand says a time. Finer than records are, so that a time between
/// two milliseconds compares as what it is.
pub(crate) fn nanoseconds(operand: ValueRef<'_>) -> Option<i128> {
    match operand {
        ValueRef::Number(millis) if millis.fract() == 0.0 && millis.abs() <= LARGEST_WHOLE => {
            Some(from_millis(millis as i64))
        }
        ValueRef::String(text) => Some(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()),
        _ => None,
    }
}

/// Milliseconds since 1970 as nanoseconds.
#[inline]
pub(crate) fn from_millis(millis: i64) -> i128 {
    i128::from(millis) * 1_000_000
}

#[cfg(test)]
mod tests {
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
        for text in ["", "yesterday", "2024-01-01", "2024-01-01T00:00:00"] {
            assert_eq!(nanoseconds(ValueRef::String(text)), None, "{text}");
        }
        assert_eq!(nanoseconds(ValueRef::Number(0.5)), None);
        assert_eq!(nanoseconds(ValueRef::Number(1e17)), None);
        assert_eq!(nanoseconds(ValueRef::Null), None);
    }
}
