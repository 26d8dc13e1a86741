//! A question about one value.

use std::borrow::Cow;

use crate::{
    Error, Kind, Operand, Operator, Path, SystemField, ValueRef, location::Location, path::abbreviate, time,
};

/// A question about one value: `path operator operand`. The operand is of a type that the operator takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clause {
    path: Path,
    operator: Operator,
    operand: Operand,
}

impl Clause {
    /// Where it looks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it asks.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    pub fn operand(&self) -> &Operand {
        &self.operand
    }

    pub(crate) fn new(
        path: Path,
        operator: Operator,
        operand: Operand,
        at: &Location<'_>,
    ) -> Result<Self, Error> {
        let clause = || at.inside(&path.to_string()).to_string();
        if path.system().is_some_and(SystemField::is_time) && !applies_to_times(operator) {
            return Err(Error::NotForTimes {
                clause: clause(),
                operator,
            });
        }
        let taken = taken(operator, path.system());
        if !taken.includes(operand.view()) {
            let found = shown(operand.view()).into_owned();
            return Err(Error::WrongOperand {
                clause: clause(),
                operator,
                expected: taken.describe(),
                found,
            });
        }
        Ok(Self {
            path,
            operator,
            operand,
        })
    }

    /// That the field at `path` exists.
    pub(crate) fn exists(path: Path, exists: bool) -> Self {
        Self {
            path,
            operator: Operator::Exists,
            operand: exists.into(),
        }
    }

    /// The same question with another operand of the same type.
    pub(crate) fn with(&self, operand: Operand) -> Self {
        Self {
            path: self.path.clone(),
            operator: self.operator,
            operand,
        }
    }
}

/// Which operands an operator takes.
#[derive(Clone, Copy)]
enum Taken {
    Anything,
    Text,
    Ordered,
    Time,
    Truth,
    TypeName,
    List,
    Texts,
    Times,
}

impl Taken {
    fn includes(self, operand: ValueRef<'_>) -> bool {
        match self {
            Self::Anything => true,
            Self::Text => operand.kind() == Kind::String,
            Self::Ordered => matches!(operand.kind(), Kind::Number | Kind::String),
            Self::Time => time::nanoseconds(operand).is_some(),
            Self::Truth => operand.kind() == Kind::Boolean,
            Self::TypeName => matches!(operand, ValueRef::String(name) if Kind::parse(name).is_some()),
            Self::List => operand.kind() == Kind::Array,
            Self::Texts => every(operand, Self::Text),
            Self::Times => every(operand, Self::Time),
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Anything => "anything",
            Self::Text => "a string",
            Self::Ordered => "a number or a string",
            Self::Time => time::EXPECTED,
            Self::Truth => "`true` or `false`",
            Self::TypeName => "one of `string`, `number`, `boolean`, `null`, `array` and `object`",
            Self::List => "an array",
            Self::Texts => "an array of strings",
            Self::Times => "an array of RFC 3339 times or whole milliseconds since 1970",
        }
    }
}

fn taken(operator: Operator, field: Option<SystemField>) -> Taken {
    use Operator::{Contains, EndsWith, Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin, Regex, StartsWith, Type};
    match (operator, field) {
        (Exists, _) => Taken::Truth,
        (Type, _) => Taken::TypeName,
        (StartsWith | EndsWith | Regex, _) => Taken::Text,
        (In | Nin, None) => Taken::List,
        (In | Nin, Some(SystemField::Identity)) => Taken::Texts,
        (In | Nin, Some(_)) => Taken::Times,
        (Lt | Lte | Gt | Gte, None) => Taken::Ordered,
        (Eq | Ne | Contains, None) => Taken::Anything,
        (Eq | Ne | Lt | Lte | Gt | Gte | Contains, Some(SystemField::Identity)) => Taken::Text,
        (Eq | Ne | Lt | Lte | Gt | Gte | Contains, Some(_)) => Taken::Time,
    }
}

fn applies_to_times(operator: Operator) -> bool {
    use Operator::{Contains, EndsWith, Regex, StartsWith, Type};
    !matches!(operator, StartsWith | EndsWith | Contains | Regex | Type)
}

fn every(operand: ValueRef<'_>, taken: Taken) -> bool {
    matches!(operand, ValueRef::Array(array) if array.iter().all(|element| taken.includes(element)))
}

/// An operand as an error shows it: short, however long it is.
fn shown(operand: ValueRef<'_>) -> Cow<'static, str> {
    match operand {
        ValueRef::Array(_) => "an array".into(),
        ValueRef::Object(_) => "an object".into(),
        ValueRef::String(text) => format!("the string `{}`", abbreviate(text)).into(),
        scalar => format!("`{scalar:?}`").into(),
    }
}
