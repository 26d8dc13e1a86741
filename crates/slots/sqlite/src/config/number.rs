//! Whole numbers, however they were written.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Whole doubles are integers: the control stream knows no other numbers.
pub(super) fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer)?.fit().map_err(de::Error::custom)
}

struct Whole(u64);

impl Whole {
    fn fit<T: TryFrom<u64>>(self) -> Result<T, String> {
        T::try_from(self.0).map_err(|_| format!("`{}` is too large a number here", self.0))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl de::Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Whole, E> {
        Ok(Whole(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Whole, E> {
        let refuse = |_| E::invalid_value(de::Unexpected::Signed(value), &self);
        u64::try_from(value).map(Whole).map_err(refuse)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and in range, as checked
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Whole, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() != 0.0 || !(0.0..=EXACT).contains(&value) {
            return Err(E::invalid_value(de::Unexpected::Float(value), &self));
        }
        Ok(Whole(value as u64))
    }
}
