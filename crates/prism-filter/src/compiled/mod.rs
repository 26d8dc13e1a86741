//! Filters ready for use.

mod predicate;
mod reading;
mod verdict;

use std::fmt;

use crate::{
    Clause, Document, Error, Filter, Limits, Node, Operator, SystemField, ValueRef,
    location::Location,
    notation::{from_millis, nanoseconds},
};

use predicate::{Order, Predicate, Regexes};
use reading::Reading;

pub use verdict::Verdict;

/// What a filter is asked about.
pub trait Record {
    /// Its name, unique in its namespace.
    fn identity(&self) -> &str;
    /// When the registration was made, in milliseconds since 1970.
    fn registered_at(&self) -> i64;
    /// When the metadata was last written, in milliseconds since 1970.
    fn updated_at(&self) -> i64;
    /// When the lease ends, in milliseconds since 1970; `None` without a lease.
    fn expires_at(&self) -> Option<i64>;
    /// The metadata.
    fn document(&self) -> &Document;
}

/// A filter ready to be asked about records. May be shared between threads.
#[derive(Clone)]
pub struct Compiled {
    filter: Filter,
    test: Test,
    now: Option<i64>,
    uses_expires_at: bool,
}

impl Compiled {
    pub(crate) fn new(filter: Filter, limits: &Limits, now: Option<i64>) -> Result<Self, Error> {
        let mut compiler = Compiler {
            regexes: Regexes::new(limits),
            now,
            uses_expires_at: false,
        };
        let test = compiler.node(filter.node(), &Location::Root)?;
        Ok(Self {
            now: now.filter(|_| filter.uses_relative_time()),
            filter,
            test,
            uses_expires_at: compiler.uses_expires_at,
        })
    }

    /// Whether the record is one that the filter describes.
    ///
    /// Allocates nothing, except that the engine of a regular expression fills its bounded caches while
    /// it meets a thread or a kind of text for the first times. Takes time linear in the values that the
    /// filter looks at.
    #[inline]
    pub fn matches(&self, record: &(impl Record + ?Sized)) -> bool {
        self.test.holds(record)
    }

    /// What was compiled.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The moment that it was [compiled for](Filter::compile_at), in milliseconds since 1970; `None` where the
    /// answer does not depend on it.
    pub fn now(&self) -> Option<i64> {
        self.now
    }

    /// Whether the answer depends on when leases end, which changes without a write to the record.
    pub fn uses_expires_at(&self) -> bool {
        self.uses_expires_at
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiled({})", self.filter)
    }
}

/// A node of the tree in the form that answers fastest.
#[derive(Clone)]
enum Test {
    All(Box<[Test]>),
    Any(Box<[Test]>),
    Not(Box<Test>),
    Metadata {
        keys: Box<[Box<str>]>,
        predicate: Predicate,
    },
    Identity(Predicate),
    Time {
        field: SystemField,
        test: TimeTest,
    },
}

/// What is asked of a point in time. Operands are in nanoseconds since 1970.
#[derive(Clone)]
enum TimeTest {
    Exists,
    Ordered(Order, i128),
    AnyOf(Box<[i128]>),
}

impl Test {
    #[inline]
    fn holds(&self, record: &(impl Record + ?Sized)) -> bool {
        match self {
            Self::Metadata { keys, predicate } => record
                .document()
                .find(keys)
                .is_some_and(|value| predicate.holds(value)),
            Self::All(tests) => tests.iter().all(|test| test.holds(record)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(record)),
            Self::Not(test) => !test.holds(record),
            Self::Identity(predicate) => predicate.holds_for_text(record.identity().as_bytes()),
            Self::Time { field, test } => test.holds(*field, record),
        }
    }
}

impl TimeTest {
    fn holds(&self, field: SystemField, record: &(impl Record + ?Sized)) -> bool {
        let millis = match field {
            SystemField::Identity => None,
            SystemField::RegisteredAt => Some(record.registered_at()),
            SystemField::UpdatedAt => Some(record.updated_at()),
            SystemField::ExpiresAt => record.expires_at(),
        };
        let Some(time) = millis.map(from_millis) else {
            return false;
        };
        match self {
            Self::Exists => true,
            Self::Ordered(order, bound) => order.admits(time.cmp(bound)),
            Self::AnyOf(times) => times.contains(&time),
        }
    }
}

struct Compiler<'l> {
    regexes: Regexes<'l>,
    now: Option<i64>,
    uses_expires_at: bool,
}

impl Compiler<'_> {
    fn node(&mut self, node: &Node, at: &Location<'_>) -> Result<Test, Error> {
        Ok(match node {
            Node::And(nodes) => Test::All(self.nodes(nodes, "$and", at)?),
            Node::Or(nodes) => Test::Any(self.nodes(nodes, "$or", at)?),
            Node::Not(node) => Test::Not(Box::new(self.node(node, &at.inside("$not"))?)),
            Node::Clause(clause) => self.clause(clause, at)?,
        })
    }

    fn nodes(&mut self, nodes: &[Node], list: &'static str, at: &Location<'_>) -> Result<Box<[Test]>, Error> {
        let node = |(index, node)| self.node(node, &at.member(list, index));
        nodes.iter().enumerate().map(node).collect()
    }

    fn clause(&mut self, clause: &Clause, at: &Location<'_>) -> Result<Test, Error> {
        let moment = self.moment(clause, at)?;
        let test = match clause.path().system() {
            None => Test::Metadata {
                keys: clause.path().keys().into(),
                predicate: match moment {
                    Some(millis) => Predicate::Reads(Box::new(Reading::time(clause.operator(), millis))),
                    None => Predicate::new(clause, &mut self.regexes, at)?,
                },
            },
            Some(SystemField::Identity) => Test::Identity(Predicate::new(clause, &mut self.regexes, at)?),
            Some(field) => {
                self.uses_expires_at |= field == SystemField::ExpiresAt;
                Test::Time {
                    field,
                    test: TimeTest::new(clause, moment),
                }
            }
        };
        Ok(if is_negation(clause) {
            Test::Not(Box::new(test))
        } else {
            test
        })
    }
}

impl Compiler<'_> {
    /// What a time relative to now is, if the clause compares with one.
    fn moment(&self, clause: &Clause, at: &Location<'_>) -> Result<Option<i64>, Error> {
        match (clause.relative_time(), self.now) {
            (None, _) => Ok(None),
            (Some(time), Some(now)) => Ok(Some(time.at(now))),
            (Some(_), None) => Err(Error::RelativeTime {
                clause: at.inside(&clause.path().to_string()).to_string(),
                operand: clause.operand().view().as_str().unwrap_or_default().to_owned(),
            }),
        }
    }
}

impl TimeTest {
    /// `moment` is what a relative time of the clause is.
    fn new(clause: &Clause, moment: Option<i64>) -> Self {
        let operand = clause.operand().view();
        match (clause.operator(), operand) {
            (operator, _) if let Some(millis) = moment => {
                Self::Ordered(Order::of(operator), from_millis(millis))
            }
            (Operator::Exists, _) => Self::Exists,
            (_, ValueRef::Array(times)) => Self::AnyOf(times.iter().filter_map(nanoseconds).collect()),
            // A clause's operand is one that its operator takes.
            (operator, time) => Self::Ordered(Order::of(operator), nanoseconds(time).unwrap_or_default()),
        }
    }
}

/// Whether the clause says that something does not hold.
fn is_negation(clause: &Clause) -> bool {
    match clause.operator() {
        Operator::Ne | Operator::Nin => true,
        Operator::Exists => clause.operand().view() == ValueRef::Bool(false),
        _ => false,
    }
}
