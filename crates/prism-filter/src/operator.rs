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
    /// A smaller number, or a string that comes before by its bytes.
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
}

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
