//! What is asked of one value.

use std::cmp::Ordering;

use memchr::memmem::Finder;
use regex_automata::{
    meta::{self, BuildError},
    nfa::thompson::WhichCaptures,
    util::syntax,
};

use crate::{Clause, Error, Kind, Limits, Operand, Operator, ValueRef, document::Raw, location::Location};

use super::reading::Reading;

/// How much of a lazily built automaton an engine keeps per thread.
const REGEX_CACHE_BYTES: usize = 256 << 10;

/// How deep groups in a regular expression may be nested.
const REGEX_NESTING: u32 = 50;

/// Which outcomes of a comparison are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Order {
    /// Of an operator that compares, without its negation.
    pub(super) fn of(operator: Operator) -> Self {
        match operator {
            Operator::Lt | Operator::SemverLt => Self::Less,
            Operator::Lte | Operator::SemverLte => Self::LessOrEqual,
            Operator::Gt | Operator::SemverGt => Self::Greater,
            Operator::Gte | Operator::SemverGte => Self::GreaterOrEqual,
            _ => Self::Equal,
        }
    }

    #[inline]
    pub(super) fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Equal => ordering.is_eq(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Greater => ordering.is_gt(),
        }
    }
}

/// What is asked of a value that is there. A clause that negates asks the opposite; its compiler adds
/// the `Not`.
#[derive(Clone)]
pub(super) enum Predicate {
    Exists,
    Equals(Operand),
    Number(Order, f64),
    Text(Order, Box<[u8]>),
    /// Sorted by their bytes in memory.
    AnyOf(Box<[Box<[u8]>]>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
    /// The text, if the operand is one, and the operand as an element.
    Contains(Option<Box<Finder<'static>>>, Operand),
    Regex(Box<meta::Regex>),
    Type(Kind),
    /// What the value says beyond its type.
    Reads(Box<Reading>),
}

impl Predicate {
    pub(super) fn new(clause: &Clause, regexes: &mut Regexes<'_>, at: &Location<'_>) -> Result<Self, Error> {
        let operand = clause.operand();
        let text = || operand.raw().text().unwrap_or_default();
        Ok(match clause.operator() {
            Operator::Exists => Self::Exists,
            Operator::Eq | Operator::Ne => Self::Equals(operand.clone()),
            Operator::In | Operator::Nin => Self::any_of(operand),
            operator @ (Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte) => {
                match operand.view() {
                    ValueRef::Number(number) => Self::Number(Order::of(operator), number),
                    _ => Self::Text(Order::of(operator), text().into()),
                }
            }
            Operator::StartsWith => Self::StartsWith(text().into()),
            Operator::EndsWith => Self::EndsWith(text().into()),
            Operator::Contains => {
                let finder = operand
                    .raw()
                    .text()
                    .map(|text| Box::new(Finder::new(text).into_owned()));
                Self::Contains(finder, operand.clone())
            }
            Operator::Regex => Self::Regex(Box::new(regexes.build(clause, at)?)),
            Operator::Type => Self::Type(match operand.view() {
                ValueRef::String(name) => Kind::parse(name).unwrap_or(Kind::Null),
                _ => Kind::Null,
            }),
            Operator::SemverLt
            | Operator::SemverLte
            | Operator::SemverGt
            | Operator::SemverGte
            | Operator::SemverEq
            | Operator::Within
            | Operator::Cidr => Self::Reads(Box::new(Reading::of(clause))),
        })
    }

    fn any_of(operand: &Operand) -> Self {
        let elements = operand
            .raw()
            .elements()
            .into_iter()
            .flat_map(|elements| elements.iter());
        let mut values: Vec<Box<[u8]>> = elements.map(|element| element.0.into()).collect();
        values.sort_unstable();
        Self::AnyOf(values.into())
    }

    /// Whether a value of the metadata is such.
    #[inline]
    pub(super) fn holds(&self, value: Raw<'_>) -> bool {
        match self {
            Self::Equals(operand) => value.is(operand.raw()),
            Self::Exists => true,
            Self::Number(order, bound) => value
                .number()
                .is_some_and(|number| order.admits(number.total_cmp(bound))),
            Self::AnyOf(values) => values
                .binary_search_by(|candidate| (**candidate).cmp(value.0))
                .is_ok(),
            Self::Type(kind) => value.kind() == *kind,
            Self::Contains(_, element) if value.text().is_none() => value
                .elements()
                .is_some_and(|elements| elements.iter().any(|one| one.is(element.raw()))),
            Self::Reads(reading) => reading.holds(value),
            _ => value.text().is_some_and(|text| self.holds_for_text(text)),
        }
    }

    /// Whether a string is such.
    pub(super) fn holds_for_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Text(order, bound) => order.admits(text.cmp(bound)),
            Self::StartsWith(prefix) => text.starts_with(prefix),
            Self::EndsWith(suffix) => text.ends_with(suffix),
            Self::Contains(finder, _) => finder.as_ref().is_some_and(|finder| finder.find(text).is_some()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Equals(operand) => operand.raw().text() == Some(text),
            // Strings differ from each other by what follows their common tag.
            Self::AnyOf(values) => values
                .binary_search_by(|value| Raw(value).text().cmp(&Some(text)))
                .is_ok(),
            Self::Exists => true,
            Self::Type(kind) => *kind == Kind::String,
            Self::Reads(reading) => reading.holds_for_text(text),
            Self::Number(..) => false,
        }
    }
}

/// Builds the regular expressions of one filter within its limit of memory.
pub(super) struct Regexes<'l> {
    limits: &'l Limits,
    used: usize,
}

impl<'l> Regexes<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self { limits, used: 0 }
    }

    /// Builds the one of `clause`.
    ///
    /// The engines take time linear in the text. One that could need more memory per text is given up
    /// for one that does not.
    fn build(&mut self, clause: &Clause, at: &Location<'_>) -> Result<meta::Regex, Error> {
        let limit = self.limits.max_regex_program_bytes;
        let pattern = match clause.operand().view() {
            ValueRef::String(pattern) => pattern,
            _ => "",
        };
        let config = meta::Config::new()
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(limit - self.used))
            .hybrid_cache_capacity(REGEX_CACHE_BYTES);
        let built = meta::Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().nest_limit(REGEX_NESTING))
            .build(pattern);
        let name = || at.inside(&clause.path().to_string()).to_string();
        let too_large = || Error::TooLarge {
            clause: name(),
            part: "compiled regular expression",
            limit,
        };
        let regex = built.map_err(|error| match error.size_limit() {
            Some(_) => too_large(),
            None => Error::Regex {
                clause: name(),
                problem: problem(&error),
            },
        })?;
        self.used += regex.memory_usage();
        if self.used > limit {
            Err(too_large())
        } else {
            Ok(regex)
        }
    }
}

/// What is wrong with a pattern, in one line.
fn problem(error: &BuildError) -> String {
    let text = error
        .syntax_error()
        .map_or_else(|| error.to_string(), ToString::to_string);
    // The parser draws the pattern with a caret and says what is wrong in the last line.
    let line = text
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
