//! What a clause may ask of a value.

use std::fmt;

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// What a clause asks of the value at its path.
        ///
        /// [`Operator::Ne`] and [`Operator::Nin`] are the exact negations of [`Operator::Eq`] and
        /// [`Operator::In`], and so true where the field is missing. Every other one is false there,
        /// but for [`Operator::Exists`] with `false`. Nothing is converted: a comparison across types
        /// is false.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Operator { $($(#[$doc])* $name,)* }

        impl Operator {
            /// Every operator.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As in the JSON form.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The operator of this name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

operators! {
    /// The same type and value; arrays and objects by their whole content. An array never equals one of
    /// its elements: that is [`Operator::Contains`].
    Eq "eq",
    /// Not [`Operator::Eq`].
    Ne "ne",
    /// A smaller number, or a string that comes before by its bytes. With a [relative
    /// time](crate::notation::RelativeTime) such as `now-5m`, an earlier time: a number of milliseconds since
    /// 1970 or an RFC 3339 text. So do the other three that follow.
    Lt "lt",
    /// Less or equal.
    Lte "lte",
    /// A greater number, or a string that comes after by its bytes.
    Gt "gt",
    /// Greater or equal.
    Gte "gte",
    /// Equal to some element of the operand, an array.
    In "in",
    /// Not [`Operator::In`].
    Nin "nin",
    /// A string that begins with the operand, a string.
    StartsWith "startswith",
    /// A string that ends with the operand, a string.
    EndsWith "endswith",
    /// A string with the operand somewhere inside, or an array with an element equal to the operand.
    Contains "contains",
    /// A string that has a match of the operand, a regular expression, somewhere inside.
    Regex "regex",
    /// With `true`: the field is there, be it null. With `false`: it is missing.
    Exists "exists",
    /// A value of the named type: `string`, `number`, `boolean`, `null`, `array` or `object`.
    Type "type",
    /// A version, as Semantic Versioning 2.0.0 writes it, that comes before the operand, a version. Build
    /// metadata has no say.
    SemverLt "semver.lt",
    /// Before or equal.
    SemverLte "semver.lte",
    /// After.
    SemverGt "semver.gt",
    /// After or equal.
    SemverGte "semver.gte",
    /// A version of the same precedence.
    SemverEq "semver.eq",
    /// A place, `{"lat": 37.77, "lon": -122.42}` in degrees, in the area that the operand says: a circle
    /// `{"lat": …, "lon": …, "radius_m": …}` by great-circle distance, or a box
    /// `{"south": …, "west": …, "north": …, "east": …}`, which goes across the antimeridian where its west is
    /// greater than its east.
    Within "within",
    /// An IPv4 or IPv6 address as text in the network that the operand says, `10.0.0.0/8` or
    /// `2001:db8::/32`. An IPv4 address that is mapped into IPv6 is that IPv4 address.
    Cidr "cidr",
}

impl Operator {
    /// The operator that the segments at the end of a path name, and how many those are.
    pub(crate) fn at_end_of<'a>(segments: &[impl AsRef<str> + 'a]) -> Option<(Self, usize)> {
        let is_single = |name: &str| !name.contains('.');
        let (before, last) = match segments {
            [.., before, last] => (Some(before.as_ref()), last.as_ref()),
            [last] => (None, last.as_ref()),
            [] => return None,
        };
        if before == Some(VERSIONS) {
            let joined = format!("{VERSIONS}.{last}");
            if let Some(operator) = Self::parse(&joined) {
                return Some((operator, 2));
            }
        }
        Some((Self::parse(last).filter(|_| is_single(last))?, 1))
    }

    /// Whether it orders numbers and strings, and so also times.
    pub(crate) fn is_ordering(self) -> bool {
        matches!(self, Self::Lt | Self::Lte | Self::Gt | Self::Gte)
    }
}

/// The segment that begins the name of an operator on versions.
pub(crate) const VERSIONS: &str = "semver";

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_read_back_from_their_names() {
        for &operator in Operator::ALL {
            assert_eq!(Operator::parse(&operator.to_string()), Some(operator));
        }
        assert_eq!(Operator::parse("LT"), None);
    }
}
