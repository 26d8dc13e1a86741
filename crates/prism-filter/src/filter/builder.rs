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

    /// The value at `path` is less than `value`, a number or a string; a string such as `now-5m` is a time
    /// relative to the moment of the call, here and in the three methods that follow.
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

    /// The value at `path` is a version before `version`.
    #[must_use]
    pub fn semver_lt(self, path: &str, version: &str) -> Self {
        self.clause(path, Operator::SemverLt, version)
    }

    /// The value at `path` is a version before `version`, or of its precedence.
    #[must_use]
    pub fn semver_lte(self, path: &str, version: &str) -> Self {
        self.clause(path, Operator::SemverLte, version)
    }

    /// The value at `path` is a version after `version`.
    #[must_use]
    pub fn semver_gt(self, path: &str, version: &str) -> Self {
        self.clause(path, Operator::SemverGt, version)
    }

    /// The value at `path` is a version after `version`, or of its precedence.
    #[must_use]
    pub fn semver_gte(self, path: &str, version: &str) -> Self {
        self.clause(path, Operator::SemverGte, version)
    }

    /// The value at `path` is a version of the precedence of `version`: the same but for build metadata.
    #[must_use]
    pub fn semver_eq(self, path: &str, version: &str) -> Self {
        self.clause(path, Operator::SemverEq, version)
    }

    /// The value at `path` is a place at most `radius_m` metres away from the one at `lat`, `lon`, in degrees.
    #[must_use]
    pub fn within_radius(self, path: &str, (lat, lon): (f64, f64), radius_m: f64) -> Self {
        self.area(path, [("lat", lat), ("lon", lon), ("radius_m", radius_m)])
    }

    /// The value at `path` is a place in the box between two corners, each a latitude and a longitude in
    /// degrees. A western longitude that is greater than the eastern one goes across the antimeridian.
    #[must_use]
    pub fn within_box(self, path: &str, (south, west): (f64, f64), (north, east): (f64, f64)) -> Self {
        self.area(
            path,
            [("south", south), ("west", west), ("north", north), ("east", east)],
        )
    }

    /// The value at `path` is an address in `network`, such as `10.0.0.0/8` or `2001:db8::/32`.
    #[must_use]
    pub fn cidr(self, path: &str, network: &str) -> Self {
        self.clause(path, Operator::Cidr, network)
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

    fn area<const N: usize>(self, path: &str, numbers: [(&str, f64); N]) -> Self {
        self.condition(path, Operator::Within, Operand::numbers(numbers))
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
