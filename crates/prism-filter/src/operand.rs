//! What a clause compares with.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{
    document::{Bounds, Document, DocumentError, Encoder, Raw, ValueRef, array, encode_value, object},
    path::abbreviate,
};

/// What a clause compares with: any JSON value, in the same form as those of a [`Document`].
///
/// Made from Rust values with `into`, or with `try_into` from those that not every document can hold:
/// large integers, doubles that are not finite.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Operand(Arc<[u8]>);

impl Operand {
    const BOUNDS: Bounds = Bounds {
        depth: Document::MAX_DEPTH,
        bytes: Document::MAX_BYTES,
    };

    /// The array of these values.
    pub fn list<V>(values: impl IntoIterator<Item = V>) -> Result<Self, DocumentError>
    where
        V: TryInto<Self>,
        V::Error: Into<DocumentError>,
    {
        Self::encode(|encoder| {
            array(encoder, values, |encoder, value| {
                let operand: Self = value.try_into().map_err(Into::into)?;
                encoder.raw(operand.raw());
                Ok(())
            })
        })
    }

    /// The object of these numbers.
    pub(crate) fn numbers<const N: usize>(fields: [(&str, f64); N]) -> Result<Self, DocumentError> {
        Self::encode(|encoder| object(encoder, fields, Encoder::number))
    }

    /// The value itself.
    pub fn view(&self) -> ValueRef<'_> {
        ValueRef::new(self.raw())
    }

    /// The same value on its own.
    pub fn to_value(&self) -> serde_json::Value {
        self.view().to_value()
    }

    /// How many bytes it takes in memory, without the 16 of its reference counts.
    pub fn byte_len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn raw(&self) -> Raw<'_> {
        Raw(&self.0)
    }

    /// Whether it is the `"*"` that stands for any value where equality is asked.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.view() == ValueRef::String("*")
    }

    pub(crate) fn of(value: ValueRef<'_>) -> Self {
        Self::with(|encoder| match value {
            ValueRef::Null => encoder.null(),
            ValueRef::Bool(value) => encoder.boolean(value),
            ValueRef::Number(number) => encoder.finite(number),
            ValueRef::String(text) => encoder.string(text),
            ValueRef::Array(array) => encoder.raw(array.raw()),
            ValueRef::Object(object) => encoder.raw(object.raw()),
        })
    }

    /// An operand of what `write` writes.
    fn with(write: impl FnOnce(&mut Encoder)) -> Self {
        let mut encoder = Encoder::new(Self::BOUNDS, 16);
        write(&mut encoder);
        Self(encoder.finish().into())
    }

    fn encode(write: impl FnOnce(&mut Encoder) -> Result<(), DocumentError>) -> Result<Self, DocumentError> {
        Self::encode_within(Self::BOUNDS.bytes, write)
    }

    /// An operand of what `write` writes, no larger than `bytes`.
    pub(crate) fn encode_within(
        bytes: usize,
        write: impl FnOnce(&mut Encoder) -> Result<(), DocumentError>,
    ) -> Result<Self, DocumentError> {
        let mut encoder = Encoder::new(
            Bounds {
                bytes,
                ..Self::BOUNDS
            },
            16,
        );
        write(&mut encoder)?;
        Ok(Self(encoder.finish().into()))
    }
}

impl fmt::Debug for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl From<&str> for Operand {
    fn from(text: &str) -> Self {
        Self::with(|encoder| encoder.string(text))
    }
}

impl From<String> for Operand {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<bool> for Operand {
    fn from(value: bool) -> Self {
        Self::with(|encoder| encoder.boolean(value))
    }
}

impl From<i32> for Operand {
    fn from(number: i32) -> Self {
        Self::with(|encoder| encoder.finite(number.into()))
    }
}

impl From<u32> for Operand {
    fn from(number: u32) -> Self {
        Self::with(|encoder| encoder.finite(number.into()))
    }
}

impl TryFrom<i64> for Operand {
    type Error = DocumentError;

    fn try_from(number: i64) -> Result<Self, DocumentError> {
        Self::encode(|encoder| encoder.integer(number.into()))
    }
}

impl TryFrom<u64> for Operand {
    type Error = DocumentError;

    fn try_from(number: u64) -> Result<Self, DocumentError> {
        Self::encode(|encoder| encoder.integer(number.into()))
    }
}

impl TryFrom<f64> for Operand {
    type Error = DocumentError;

    fn try_from(number: f64) -> Result<Self, DocumentError> {
        Self::encode(|encoder| encoder.number(number))
    }
}

impl TryFrom<&serde_json::Value> for Operand {
    type Error = DocumentError;

    fn try_from(value: &serde_json::Value) -> Result<Self, DocumentError> {
        Self::encode(|encoder| encode_value(encoder, value))
    }
}

impl TryFrom<serde_json::Value> for Operand {
    type Error = DocumentError;

    fn try_from(value: serde_json::Value) -> Result<Self, DocumentError> {
        (&value).try_into()
    }
}

/// An operand as an error shows it: short, however long it is.
pub(crate) fn shown(operand: ValueRef<'_>) -> Cow<'static, str> {
    match operand {
        ValueRef::Array(_) => "an array".into(),
        ValueRef::Object(_) => "an object".into(),
        ValueRef::String(text) => format!("the string `{}`", abbreviate(text)).into(),
        scalar => format!("`{scalar:?}`").into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value<V>(operand: V) -> Result<Value, DocumentError>
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        operand
            .try_into()
            .map(|operand| operand.to_value())
            .map_err(Into::into)
    }

    #[test]
    fn operands_are_made_of_rust_values() {
        assert_eq!(value("a"), Ok(json!("a")));
        assert_eq!(value("a".to_owned()), Ok(json!("a")));
        assert_eq!(value(true), Ok(json!(true)));
        assert_eq!(value(false), Ok(json!(false)));
        assert_eq!(value(-3), Ok(json!(-3)));
        assert_eq!(value(3_u32), Ok(json!(3)));
        assert_eq!(value(-3_i64), Ok(json!(-3)));
        assert_eq!(value(3_u64), Ok(json!(3)));
        assert_eq!(value(0.5), Ok(json!(0.5)));
        assert_eq!(value(json!({"a": [null, 1]})), Ok(json!({"a": [null, 1]})));
        assert_eq!(Operand::list([1, 2]).unwrap().to_value(), json!([1, 2]));
        assert_eq!(format!("{:?}", Operand::from("a")), r#""a""#);
        assert_eq!(Operand::from("a").byte_len(), 2);
    }

    #[test]
    fn what_would_be_rounded_is_refused() {
        assert!(value((1_u64 << 53) + 1).is_err());
        assert!(value(i64::MAX).is_err());
        assert!(value(u64::MAX).is_err());
        assert_eq!(value(i64::MIN), Ok(json!(i64::MIN as f64)));
        assert!(value(f64::NAN).is_err());
        let nested = Operand::list([f64::INFINITY]).unwrap_err();
        assert_eq!(nested.path(), Some("[0]"));
    }
}
