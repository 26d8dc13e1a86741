//! How often something may happen.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// The most that a rate may count. More often than that, counting would cost more than what is counted.
const MOST: u32 = 10_000_000;

/// How often something may happen: `100/s`, `30/m`, `5/h`, or a number a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }
}

impl Rate {
    /// So often a second; `None` for never, and for more often than can be counted.
    pub fn per_second(count: u64) -> Option<Self> {
        Self::new(count, Unit::Second)
    }

    /// The time in which it may happen once.
    pub fn period(self) -> Duration {
        self.unit.duration() / self.count.get()
    }

    /// How often it may happen in so long a time, and at least once.
    pub fn within(self, time: Duration) -> NonZeroU32 {
        let often = time.as_nanos() / self.period().as_nanos().max(1);
        NonZeroU32::new(u32::try_from(often).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    fn new(count: u64, unit: Unit) -> Option<Self> {
        let count = u32::try_from(count).ok().filter(|count| *count <= MOST)?;
        let count = NonZeroU32::new(count)?;
        Some(Self { count, unit })
    }
}

/// What is expected where a rate is.
const EXPECTED: &str = "write it like `100/s`, `30/m` or `5/h`, from `1` to `10000000`";

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, unit) = text.trim().split_once('/').unwrap_or((text.trim(), "s"));
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit.trim());
        let rate = count.trim().parse().ok().zip(unit);
        rate.and_then(|(count, unit)| Self::new(count, unit))
            .ok_or_else(|| format!("`{text}` is no rate, {EXPECTED}"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit.name())
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl Visitor<'_> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rate like `100/s`, or a number a second")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Rate, E> {
        Rate::per_second(value).ok_or_else(|| E::custom(format!("`{value}` is no rate, {EXPECTED}")))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Rate, E> {
        self.visit_u64(u64::try_from(value).unwrap_or_default())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Rate, E> {
        value.parse().map_err(E::custom)
    }
}

/// How a rate is written, for the JSON Schema.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code)] // the schema is what it is for
pub(super) enum RateText {
    Number(u64),
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_every_spelling_and_printed_so_that_they_read_back() {
        for (text, printed, period_ms) in [
            ("100", "100/s", 10),
            ("100/s", "100/s", 10),
            (" 30 / m ", "30/m", 2_000),
            ("5/h", "5/h", 720_000),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), printed, "{text}");
            assert_eq!(rate.period(), Duration::from_millis(period_ms), "{text}");
            assert_eq!(printed.parse(), Ok(rate));
        }
        assert_eq!(
            serde_json::from_value::<Rate>(7.into()).unwrap(),
            Rate::per_second(7).unwrap()
        );
        for text in [
            "",
            "0",
            "0/s",
            "-1",
            "1.5/s",
            "5/d",
            "often",
            "10000001/s",
            "s",
            "/s",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("30/m"), "{text}: {error}");
        }
        for number in [
            serde_json::json!(0),
            serde_json::json!(-1),
            serde_json::json!(true),
        ] {
            assert!(serde_json::from_value::<Rate>(number).is_err());
        }
    }

    #[test]
    fn an_allowance_is_at_least_one() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        let within = |text, time| rate(text).within(time).get();
        assert_eq!(within("100/s", Duration::from_secs(2)), 200);
        assert_eq!(within("6/m", Duration::from_secs(1)), 1);
        assert_eq!(within("6/m", Duration::from_secs(20)), 2);
        assert_eq!(within("10000000/s", Duration::from_secs(3_600)), u32::MAX);
    }
}
