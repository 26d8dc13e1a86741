//! From a filter to the set of rows that may match it.

use std::fmt;

use prism_filter::{Clause, Kind, Node, Operator, Path, SystemField, ValueRef};
use roaring::RoaringBitmap;

use super::{
    Estimate, Indexes, Lookup,
    field::{Range, Value},
};

/// A set that is this much larger than the one at hand narrows it less than it costs to make.
const NOT_WORTH_IT: u64 = 64;
/// So few rows are asked themselves sooner than narrowed down further.
const FEW_ROWS: u64 = 64;

/// How the rows of a filter are found.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    step: Step,
    pub(crate) estimate: Estimate,
}

#[derive(Debug, Clone)]
enum Step {
    /// In the index on the clause's path.
    Find { clause: Clause, lookup: Lookup },
    /// By name.
    Named(Vec<Box<str>>),
    /// What all have in common; the smallest first.
    All(Vec<Plan>),
    /// What any has.
    Any(Vec<Plan>),
    /// All rows but these.
    Except(Box<Plan>),
}

/// The rows of a view, as a plan sees them.
pub(crate) trait Space {
    fn indexes(&self) -> &Indexes;
    /// Every row that may be asked for.
    fn all(&self) -> RoaringBitmap;
    /// How many those are.
    fn count(&self) -> u64;
    /// The rows of one identity.
    fn named(&self, identity: &str) -> RoaringBitmap;
}

impl Plan {
    /// The way to the rows of a filter, if there is one that does not lead through all of them.
    pub(crate) fn of(node: &Node, space: &impl Space) -> Option<Self> {
        match node {
            Node::Clause(clause) => Self::of_clause(clause, space),
            Node::And(nodes) => Self::of_all(nodes, space),
            Node::Or(nodes) => Self::of_any(nodes, space),
            Node::Not(node) => Self::of(node, space)?.inverted(space),
        }
    }

    fn of_clause(clause: &Clause, space: &impl Space) -> Option<Self> {
        let asked = Question::of(clause)?;
        let plan = match asked.about {
            About::Names(names) => {
                let rows = names.len() as u64;
                Self {
                    step: Step::Named(names),
                    estimate: Estimate { rows, exact: true },
                }
            }
            About::Field(lookup) => {
                let estimate = space.indexes().get(clause.path())?.estimate(&lookup)?;
                let estimate = Estimate {
                    exact: estimate.exact && asked.exact,
                    ..estimate
                };
                Self {
                    step: Step::Find {
                        clause: clause.clone(),
                        lookup,
                    },
                    estimate,
                }
            }
        };
        if asked.negated {
            plan.inverted(space)
        } else {
            Some(plan)
        }
    }

    fn of_all(nodes: &[Node], space: &impl Space) -> Option<Self> {
        let mut plans: Vec<Self> = nodes.iter().filter_map(|node| Self::of(node, space)).collect();
        let complete = plans.len() == nodes.len();
        plans.sort_by_key(|plan| plan.estimate.rows);
        let rows = plans.first()?.estimate.rows;
        let worthwhile = |plan: &Self| plan.estimate.rows / NOT_WORTH_IT <= rows && rows > FEW_ROWS;
        let all = plans.len();
        let mut first = true;
        plans.retain(|plan| std::mem::take(&mut first) || worthwhile(plan));
        let exact = complete && plans.len() == all && plans.iter().all(|plan| plan.estimate.exact);
        if plans.len() == 1 {
            let plan = plans.pop()?;
            return Some(Self {
                estimate: Estimate { rows, exact },
                ..plan
            });
        }
        Some(Self {
            step: Step::All(plans),
            estimate: Estimate { rows, exact },
        })
    }

    fn of_any(nodes: &[Node], space: &impl Space) -> Option<Self> {
        let plans: Vec<Self> = nodes
            .iter()
            .map(|node| Self::of(node, space))
            .collect::<Option<_>>()?;
        let rows = plans.iter().map(|plan| plan.estimate.rows).sum();
        let exact = plans.iter().all(|plan| plan.estimate.exact);
        Some(Self {
            step: Step::Any(plans),
            estimate: Estimate { rows, exact },
        })
    }

    /// Only what is known exactly can be left out.
    fn inverted(self, space: &impl Space) -> Option<Self> {
        let Estimate { rows, exact } = self.estimate;
        let estimate = Estimate {
            rows: space.count().saturating_sub(rows),
            exact,
        };
        exact.then(|| Self {
            step: Step::Except(Box::new(self)),
            estimate,
        })
    }

    /// The rows: all that match, and others only where the estimate is not exact.
    pub(crate) fn find(&self, space: &impl Space) -> RoaringBitmap {
        match &self.step {
            Step::Find { clause, lookup } => space
                .indexes()
                .get(clause.path())
                .map_or_else(|| space.all(), |field| field.find(lookup)),
            Step::Named(names) => names
                .iter()
                .fold(RoaringBitmap::new(), |rows, name| rows | space.named(name)),
            Step::All(plans) => plans
                .iter()
                .map(|plan| plan.find(space))
                .reduce(|one, other| one & other)
                .unwrap_or_default(),
            Step::Any(plans) => plans
                .iter()
                .fold(RoaringBitmap::new(), |rows, plan| rows | plan.find(space)),
            Step::Except(plan) => space.all() - plan.find(space),
        }
    }
}

/// In words, for those who ask how a filter is answered.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, plans: &[Self]| {
            write!(f, "{name}(")?;
            for (index, plan) in plans.iter().enumerate() {
                let separator = if index > 0 { ", " } else { "" };
                write!(f, "{separator}{plan}")?;
            }
            f.write_str(")")
        };
        match &self.step {
            Step::Find { clause, .. } => write!(f, "index({} {})", clause.path(), clause.operator()),
            Step::Named(names) => write!(f, "names({})", names.len()),
            Step::All(plans) => list(f, "all", plans),
            Step::Any(plans) => list(f, "any", plans),
            Step::Except(plan) => write!(f, "except({plan})"),
        }
    }
}

/// The fields on which an index would have helped: those that a matching row must have some value in.
pub(crate) fn wanted(node: &Node) -> Vec<Path> {
    match node {
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().flat_map(wanted).collect(),
        Node::Not(_) => Vec::new(),
        Node::Clause(clause) => {
            let useful = Question::of(clause).is_some_and(|asked| asked.exact && !asked.negated);
            let field = clause.path().system().is_none() && clause.operator() != Operator::Exists;
            (useful && field)
                .then(|| clause.path().clone())
                .into_iter()
                .collect()
        }
    }
}

/// What a clause asks of an index.
struct Question {
    about: About,
    /// Whether a row that the index finds matches for certain.
    exact: bool,
    negated: bool,
}

enum About {
    Names(Vec<Box<str>>),
    Field(Lookup),
}

impl Question {
    /// `None` for what no index can answer.
    fn of(clause: &Clause) -> Option<Self> {
        match clause.path().system() {
            Some(SystemField::Identity) => Self::of_names(clause),
            Some(_) => None,
            None => Self::of_values(clause),
        }
    }

    fn of_names(clause: &Clause) -> Option<Self> {
        let text = |value: ValueRef<'_>| match value {
            ValueRef::String(text) => Some(Box::from(text)),
            _ => None,
        };
        let (names, negated) = match (clause.operator(), clause.operand().view()) {
            (Operator::Eq, name) => (text(name).into_iter().collect(), false),
            (Operator::Ne, name) => (text(name).into_iter().collect(), true),
            (Operator::In, ValueRef::Array(names)) => (names.iter().filter_map(text).collect(), false),
            (Operator::Nin, ValueRef::Array(names)) => (names.iter().filter_map(text).collect(), true),
            _ => return None,
        };
        Some(Self {
            about: About::Names(names),
            exact: true,
            negated,
        })
    }

    fn of_values(clause: &Clause) -> Option<Self> {
        let operand = clause.operand().view();
        let value = || Value::of(operand);
        let any_of = || match operand {
            ValueRef::Array(list) => list.iter().map(Value::of).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let lookup = match clause.operator() {
            Operator::Eq | Operator::Ne => Lookup::AnyOf(vec![value()?]),
            Operator::In | Operator::Nin => Lookup::AnyOf(any_of()?),
            Operator::Lt => Lookup::Range(Range::below(value()?, false)),
            Operator::Lte => Lookup::Range(Range::below(value()?, true)),
            Operator::Gt => Lookup::Range(Range::above(value()?, false)),
            Operator::Gte => Lookup::Range(Range::above(value()?, true)),
            Operator::StartsWith => match operand {
                ValueRef::String(prefix) => Lookup::Prefix(prefix.into()),
                _ => return None,
            },
            Operator::Contains => Lookup::Contains(value()?),
            Operator::EndsWith | Operator::Regex => Lookup::SomeText,
            Operator::Exists => Lookup::Exists,
            Operator::Type if operand == ValueRef::String(Kind::String.as_str()) => Lookup::SomeText,
            Operator::Type => Lookup::Exists,
        };
        let negated = match clause.operator() {
            Operator::Ne | Operator::Nin => true,
            Operator::Exists => operand == ValueRef::Bool(false),
            _ => false,
        };
        // Of types, the index tells only text from everything else.
        let exact = clause.operator() != Operator::Type;
        Some(Self {
            about: About::Field(lookup),
            exact,
            negated,
        })
    }
}
