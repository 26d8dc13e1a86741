//! When a call must be over, and how that travels: the `grpc-timeout` header.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use prism_core::failure::{Failure, Reason};
use tokio::time::Instant;

use super::method::Shape;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The bounds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// For a call that must end and says no bound itself.
    pub default: Duration,
    /// For a call that must end and says a longer one.
    pub longest: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            default: Duration::from_secs(30),
            longest: Duration::from_secs(300),
        }
    }
}

/// When a call must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// The answer must have begun.
    pub(crate) begin: Option<Instant>,
    /// The answer must have ended.
    pub(crate) end: Option<Instant>,
    /// The caller said so.
    stated: bool,
}

impl Deadline {
    /// Of a call of this shape that came `now`.
    pub(crate) fn of(
        headers: &HeaderMap,
        shape: Shape,
        bounds: Bounds,
        now: Instant,
    ) -> Result<Self, Failure> {
        let asked = headers.get(GRPC_TIMEOUT).map(parse).transpose()?;
        let at = |timeout: Duration| now.checked_add(timeout);
        let asked_end = asked.and_then(at);
        Ok(match shape {
            Shape::Unary => {
                let end = at(asked.unwrap_or(bounds.default).min(bounds.longest));
                Self {
                    begin: end,
                    end,
                    stated: asked.is_some(),
                }
            }
            // It may be a stream; a stream ends when its ends like.
            Shape::Unknown => {
                let begin = at(asked.unwrap_or(bounds.default).min(bounds.longest));
                Self {
                    begin,
                    end: asked_end,
                    stated: asked.is_some(),
                }
            }
            Shape::Streaming => Self {
                begin: asked_end,
                end: asked_end,
                stated: asked.is_some(),
            },
        })
    }

    /// Tells the runner how much time the caller has left. What the caller did not say is not made up: the
    /// runner has a limit of its own for such calls, by namespace, and this end gives them up by its own.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, now: Instant) {
        match self.end.filter(|_| self.stated) {
            Some(end) => headers.insert(GRPC_TIMEOUT, format(end.saturating_duration_since(now))),
            None => headers.remove(GRPC_TIMEOUT),
        };
    }
}

fn parse(value: &HeaderValue) -> Result<Duration, Failure> {
    let refuse = || {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let message = format!("`{text}` is no `grpc-timeout`, write up to eight digits and one of `HMSmun`");
        Failure::new(Reason::InvalidRequest, message)
            .field("grpc-timeout")
            .not_applied()
    };
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(refuse)?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(refuse());
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3_600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(refuse()),
    }
}

/// The finest unit in which eight digits suffice.
fn format(left: Duration) -> HeaderValue {
    const DIGITS: u128 = 99_999_999;
    let text = if left.as_micros() <= DIGITS {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= DIGITS {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(DIGITS))
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        default: Duration::from_secs(30),
        longest: Duration::from_secs(60),
    };

    fn deadline(timeout: Option<&'static str>, shape: Shape) -> (Option<Duration>, Option<Duration>) {
        let mut headers = HeaderMap::new();
        if let Some(timeout) = timeout {
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
        }
        let now = Instant::now();
        let deadline = Deadline::of(&headers, shape, BOUNDS, now).unwrap();
        let left = |at: Option<Instant>| at.map(|at| at - now);
        (left(deadline.begin), left(deadline.end))
    }

    fn both(seconds: u64) -> (Option<Duration>, Option<Duration>) {
        let at = Some(Duration::from_secs(seconds));
        (at, at)
    }

    #[tokio::test]
    async fn a_unary_call_always_ends() {
        assert_eq!(deadline(None, Shape::Unary), both(30));
        assert_eq!(deadline(Some("5S"), Shape::Unary), both(5));
        assert_eq!(deadline(Some("2M"), Shape::Unary), both(60));
    }

    #[tokio::test]
    async fn a_stream_ends_when_it_said_so() {
        assert_eq!(deadline(None, Shape::Streaming), (None, None));
        assert_eq!(deadline(Some("2M"), Shape::Streaming), both(120));
    }

    #[tokio::test]
    async fn a_call_of_unknown_shape_begins_in_time() {
        assert_eq!(
            deadline(None, Shape::Unknown),
            (Some(Duration::from_secs(30)), None)
        );
        assert_eq!(deadline(Some("5S"), Shape::Unknown), both(5));
    }

    #[test]
    fn every_unit_reads_and_nonsense_is_refused() {
        let read = |text: &'static str| parse(&HeaderValue::from_static(text));
        for (text, nanos) in [
            ("1H", 3_600_000_000_000_u64),
            ("1M", 60_000_000_000),
            ("1S", 1_000_000_000),
            ("1m", 1_000_000),
            ("1u", 1_000),
            ("1n", 1),
        ] {
            assert_eq!(read(text), Ok(Duration::from_nanos(nanos)));
        }
        for text in ["", "S", "1", "123456789S", "-1S", "1.5S", "1x", "1 S"] {
            assert_eq!(read(text).unwrap_err().reason, Reason::InvalidRequest, "{text}");
        }
    }

    #[test]
    fn what_is_left_survives_the_wire_without_growing() {
        for left in [
            0,
            1,
            999,
            99_999_999,
            100_000_000,
            5_000_000_000,
            90_000_000_000_000,
        ] {
            let left = Duration::from_micros(left);
            let read = parse(&format(left)).unwrap();
            assert!(
                read <= left && left - read <= left / 1_000,
                "{left:?} became {read:?}"
            );
        }
    }
}
