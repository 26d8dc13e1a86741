//! A question about one value.

use std::{borrow::Cow, fmt};

use crate::{
    Error, Kind, Operand, Operator, Path, SystemField, ValueRef,
    location::Location,
    notation::{self, Area, Network, RelativeTime, Version},
    operand::shown,
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

    /// The time relative to the moment of a call that it compares with. Any value is then read as a point in
    /// time, but for the identity, which is compared with the text as it is.
    pub fn relative_time(&self) -> Option<RelativeTime> {
        let is_text = self.path.system() == Some(SystemField::Identity);
        match self.operand.view() {
            ValueRef::String(text) if self.operator.is_ordering() && !is_text => RelativeTime::parse(text),
            _ => None,
        }
    }

    pub(crate) fn new(
        path: Path,
        operator: Operator,
        operand: Operand,
        at: &Location<'_>,
    ) -> Result<Self, Error> {
        let clause = || at.inside(&path.to_string()).to_string();
        if let Some(field) = path.system().and_then(|field| inapplicable(operator, field)) {
            return Err(Error::Inapplicable {
                clause: clause(),
                operator,
                field,
            });
        }
        let taken = taken(operator, path.system());
        taken.check(operand.view()).map_err(|found| Error::WrongOperand {
            clause: clause(),
            operator,
            expected: taken.describe(),
            found: found.into_owned(),
        })?;
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

/// `path operator operand`, the operand as JSON.
impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.path, self.operator, self.operand)
    }
}

/// Which operands an operator takes.
#[derive(Clone, Copy)]
enum Taken {
    Anything,
    Text,
    Ordered,
    Time,
    TimeOrRelative,
    Truth,
    TypeName,
    List,
    Texts,
    Times,
    Version,
    Area,
    Network,
}

impl Taken {
    /// Fails with what the operand is where it is not of this sort.
    fn check(self, operand: ValueRef<'_>) -> Result<(), Cow<'static, str>> {
        match (self, operand) {
            (Self::Area, area) => Area::of(area).map(|_| ()),
            (Self::Ordered | Self::TimeOrRelative, ValueRef::String(text))
                if notation::is_malformed(text) =>
            {
                let text = shown(operand);
                Err(format!(
                    "{text}; a time relative to the call is `now`, `now-5m` or `now+1h`, in `ms s m h d w`"
                )
                .into())
            }
            (taken, operand) if taken.includes(operand) => Ok(()),
            (_, operand) => Err(shown(operand)),
        }
    }

    fn includes(self, operand: ValueRef<'_>) -> bool {
        match self {
            Self::Anything => true,
            Self::Text => operand.kind() == Kind::String,
            Self::Ordered => matches!(operand.kind(), Kind::Number | Kind::String),
            Self::Time => notation::nanoseconds(operand).is_some(),
            Self::TimeOrRelative => Self::Time.includes(operand) || is(operand, RelativeTime::parse),
            Self::Truth => operand.kind() == Kind::Boolean,
            Self::TypeName => matches!(operand, ValueRef::String(name) if Kind::parse(name).is_some()),
            Self::List => operand.kind() == Kind::Array,
            Self::Texts => every(operand, Self::Text),
            Self::Times => every(operand, Self::Time),
            Self::Version => is(operand, Version::parse),
            Self::Area => Area::of(operand).is_ok(),
            Self::Network => is(operand, Network::parse),
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Anything => "anything",
            Self::Text => "a string",
            Self::Ordered => "a number or a string",
            Self::Time => notation::EXPECTED_TIME,
            Self::TimeOrRelative => {
                "an RFC 3339 time, whole milliseconds since 1970 or a time relative to the call such as `now-5m`"
            }
            Self::Truth => "`true` or `false`",
            Self::TypeName => "one of `string`, `number`, `boolean`, `null`, `array` and `object`",
            Self::List => "an array",
            Self::Texts => "an array of strings",
            Self::Times => "an array of RFC 3339 times or whole milliseconds since 1970",
            Self::Version => "a semantic version of three numbers, such as `1.2.0` or `2.0.0-rc.1`",
            Self::Area => notation::EXPECTED_AREA,
            Self::Network => notation::EXPECTED_NETWORK,
        }
    }
}

fn taken(operator: Operator, field: Option<SystemField>) -> Taken {
    use Operator::{
        Cidr, Contains, EndsWith, Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin, Regex, SemverEq, SemverGt,
        SemverGte, SemverLt, SemverLte, StartsWith, Type, Within,
    };
    match (operator, field) {
        (SemverLt | SemverLte | SemverGt | SemverGte | SemverEq, _) => Taken::Version,
        (Within, _) => Taken::Area,
        (Cidr, _) => Taken::Network,
        (Exists, _) => Taken::Truth,
        (Type, _) => Taken::TypeName,
        (StartsWith | EndsWith | Regex, _) => Taken::Text,
        (In | Nin, None) => Taken::List,
        (In | Nin, Some(SystemField::Identity)) => Taken::Texts,
        (In | Nin, Some(_)) => Taken::Times,
        (Lt | Lte | Gt | Gte, None) => Taken::Ordered,
        (Eq | Ne | Contains, None) => Taken::Anything,
        (Eq | Ne | Lt | Lte | Gt | Gte | Contains, Some(SystemField::Identity)) => Taken::Text,
        (Lt | Lte | Gt | Gte, Some(_)) => Taken::TimeOrRelative,
        (Eq | Ne | Contains, Some(_)) => Taken::Time,
    }
}

/// What the field is, if the operator does not apply to such.
fn inapplicable(operator: Operator, field: SystemField) -> Option<&'static str> {
    use Operator::{Eq, Exists, Gt, Gte, In, Lt, Lte, Ne, Nin, Within};
    let for_times = matches!(operator, Eq | Ne | Lt | Lte | Gt | Gte | In | Nin | Exists);
    if field.is_time() && !for_times {
        return Some("a time, compare it with `lt` or `gte`");
    }
    (!field.is_time() && operator == Within).then_some("an identity, which is text and no place")
}

/// Whether the operand is text that `read` can read.
fn is<'a, T>(operand: ValueRef<'a>, read: impl FnOnce(&'a str) -> Option<T>) -> bool {
    matches!(operand, ValueRef::String(text) if read(text).is_some())
}

fn every(operand: ValueRef<'_>, taken: Taken) -> bool {
    matches!(operand, ValueRef::Array(array) if array.iter().all(|element| taken.includes(element)))
}
