//! Filters made in code.

use super::{Clause, Filter, Node};
use crate::{DocumentError, Error, Kind, Operand, Operator, Path, location::Location};

/// Making filters in code. Conditions that are chained must all hold.
///
/// ```
/// # use prism_filter::Filter;
/// let nearby = Filter::new().eq("service_name", "payment-service").lt("battery", 0.2);
/// let other = Filter::new().is_in("region", ["eu-west", "eu-north"]);
/// assert_eq!(
///     Filter::or([nearby, Filter::not(other)]).to_string(),
///     r#"{"$or":[{"$not":{"region":{"$in":["eu-north","eu-west"]}}},"#.to_owned()
///         + r#"{"battery":{"$lt":0.2},"service_name":"payment-service"}]}"#,
/// );
/// ```
impl Filter {
    /// Matches everything.
    pub fn new() -> Self {
        Self::of(Node::And(Vec::new()))
    }

    /// Matches what all of `filters` match.
    pub fn and(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::combine(filters, Node::all)
    }

    /// Matches what any of `filters` matches.
    pub fn or(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::combine(filters, Node::any)
    }

    /// Matches what `filter` does not match.
    #[expect(
        clippy::should_implement_trait,
        reason = "a constructor beside `and` and `or`"
    )]
    pub fn not(filter: Self) -> Self {
        // A mistaken filter matches nothing, and so must its negation.
        match filter.mistake {
            Some(_) => filter,
            None => Self::of(Node::Not(Box::new(filter.node))),
        }
    }

    /// The value at `path` equals `value`; with `"*"`, there is one.
    #[must_use]
    pub fn eq<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.equality(path, Operator::Eq, value.try_into().map_err(Into::into))
    }

    /// The value at `path` does not equal `value`; with `"*"`, there is none.
    #[must_use]
    pub fn ne<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.equality(path, Operator::Ne, value.try_into().map_err(Into::into))
    }

    /// The value at `path` is less than `value`, a number or a string.
    #[must_use]
    pub fn lt<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.clause(path, Operator::Lt, value)
    }

    /// The value at `path` is at most `value`, a number or a string.
    #[must_use]
    pub fn lte<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.clause(path, Operator::Lte, value)
    }

    /// The value at `path` is greater than `value`, a number or a string.
    #[must_use]
    pub fn gt<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.clause(path, Operator::Gt, value)
    }

    /// The value at `path` is at least `value`, a number or a string.
    #[must_use]
    pub fn gte<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.clause(path, Operator::Gte, value)
    }

    /// The value at `path` equals one of `values`.
    #[must_use]
    pub fn is_in<V>(self, path: &str, values: impl IntoIterator<Item = V>) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.condition(path, Operator::In, Operand::list(values))
    }

    /// The value at `path` equals none of `values`.
    #[must_use]
    pub fn not_in<V>(self, path: &str, values: impl IntoIterator<Item = V>) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.condition(path, Operator::Nin, Operand::list(values))
    }

    /// The value at `path` is a string that begins with `prefix`.
    #[must_use]
    pub fn starts_with(self, path: &str, prefix: &str) -> Self {
        self.clause(path, Operator::StartsWith, prefix)
    }

    /// The value at `path` is a string that ends with `suffix`.
    #[must_use]
    pub fn ends_with(self, path: &str, suffix: &str) -> Self {
        self.clause(path, Operator::EndsWith, suffix)
    }

    /// The value at `path` is a string with `value` inside, or an array with `value` as an element.
    #[must_use]
    pub fn contains<V>(self, path: &str, value: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.clause(path, Operator::Contains, value)
    }

    /// The value at `path` is a string that has a match of `pattern` somewhere inside.
    #[must_use]
    pub fn regex(self, path: &str, pattern: &str) -> Self {
        self.clause(path, Operator::Regex, pattern)
    }

    /// There is a value at `path`, be it null.
    #[must_use]
    pub fn exists(self, path: &str) -> Self {
        self.clause(path, Operator::Exists, true)
    }

    /// There is no value at `path`.
    #[must_use]
    pub fn missing(self, path: &str) -> Self {
        self.clause(path, Operator::Exists, false)
    }

    /// The value at `path` is of type `kind`.
    #[must_use]
    pub fn has_type(self, path: &str, kind: Kind) -> Self {
        self.clause(path, Operator::Type, kind.as_str())
    }

    /// Any clause. Here `"*"` is nothing but an asterisk.
    #[must_use]
    pub fn clause<V>(self, path: &str, operator: Operator, operand: V) -> Self
    where
        V: TryInto<Operand>,
        V::Error: Into<DocumentError>,
    {
        self.condition(path, operator, operand.try_into().map_err(Into::into))
    }

    fn equality(self, path: &str, operator: Operator, operand: Result<Operand, DocumentError>) -> Self {
        match operand {
            Ok(operand) if operand.is_wildcard() => {
                self.condition(path, Operator::Exists, Ok((operator == Operator::Eq).into()))
            }
            other => self.condition(path, operator, other),
        }
    }

    fn condition(self, path: &str, operator: Operator, operand: Result<Operand, DocumentError>) -> Self {
        let added = match clause(path, operator, operand) {
            Ok(clause) => Self::of(Node::Clause(clause)),
            Err(mistake) => Self {
                node: Node::Or(Vec::new()),
                mistake: Some(Box::new(mistake)),
            },
        };
        Self::and([self, added])
    }

    fn combine(filters: impl IntoIterator<Item = Self>, list: impl FnOnce(Vec<Node>) -> Node) -> Self {
        let mut nodes = Vec::new();
        for filter in filters {
            if filter.mistake.is_some() {
                return filter;
            }
            nodes.push(filter.node);
        }
        Self::of(list(nodes))
    }
}

fn clause(path: &str, operator: Operator, operand: Result<Operand, DocumentError>) -> Result<Clause, Error> {
    let at = Location::Root;
    let name = || at.inside(path).to_string();
    let operand = operand.map_err(|source| Error::of_operand(name(), source))?;
    let path = Path::parse(path).map_err(|source| Error::Path {
        clause: name(),
        source,
    })?;
    Clause::new(path, operator, operand, &at)
}
