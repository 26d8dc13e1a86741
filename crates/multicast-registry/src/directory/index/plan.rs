//! From a filter to the set of rows that may match it.

use std::fmt;

use prism_filter::{Clause, Kind, Node, Operator, Path, SystemField, ValueRef};
use roaring::RoaringBitmap;

use super::{
    Estimate, Indexes, Lookup,
    field::{Range, Value},
    reading::Readings,
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
    /// In the index on the path of the clauses, which are all about the same.
    Find {
        clauses: Vec<Clause>,
        lookup: Lookup,
        exact: bool,
    },
    /// By name.
    Named { clause: Clause, names: Vec<Box<str>> },
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
    /// The way to the rows of a filter, if there is one that does not lead through all of them. `now` is the
    /// moment that the filter was compiled for.
    pub(crate) fn of(node: &Node, now: Option<i64>, space: &impl Space) -> Option<Self> {
        Planner { now, space }.node(node)
    }

    /// The rows: all that match, and others only where the estimate is not exact.
    pub(crate) fn find(&self, space: &impl Space) -> RoaringBitmap {
        match &self.step {
            Step::Find { clauses, lookup, .. } => clauses
                .first()
                .and_then(|clause| space.indexes().get(clause.path()))
                .map_or_else(|| space.all(), |field| field.find(lookup)),
            Step::Named { names, .. } => names
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

    /// The clauses that lead to the rows, and of each whether it does so exactly.
    pub(crate) fn clauses(&self) -> Vec<(&Clause, bool)> {
        match &self.step {
            Step::Find { clauses, exact, .. } => clauses.iter().map(|clause| (clause, *exact)).collect(),
            Step::Named { clause, .. } => vec![(clause, true)],
            Step::All(plans) | Step::Any(plans) => plans.iter().flat_map(Self::clauses).collect(),
            Step::Except(plan) => plan.clauses(),
        }
    }
}

/// Finds the way for one call.
struct Planner<'a, S> {
    now: Option<i64>,
    space: &'a S,
}

impl<S: Space> Planner<'_, S> {
    fn node(&self, node: &Node) -> Option<Plan> {
        match node {
            Node::Clause(clause) => self.clause(clause),
            Node::And(nodes) => self.all(nodes),
            Node::Or(nodes) => self.any(nodes),
            Node::Not(node) => self.inverted(self.node(node)?),
        }
    }

    fn clause(&self, clause: &Clause) -> Option<Plan> {
        let asked = Question::of(clause, self.now)?;
        let plan = match asked.about {
            About::Names(names) => Plan {
                estimate: Estimate {
                    rows: names.len() as u64,
                    exact: true,
                },
                step: Step::Named {
                    clause: clause.clone(),
                    names,
                },
            },
            About::Field(lookup) => self.find(vec![clause.clone()], lookup, asked.exact)?,
        };
        if asked.negated {
            self.inverted(plan)
        } else {
            Some(plan)
        }
    }

    /// What clauses on one path ask for together.
    fn find(&self, clauses: Vec<Clause>, lookup: Lookup, exact: bool) -> Option<Plan> {
        let field = self.space.indexes().get(clauses.first()?.path())?;
        let estimate = field.estimate(&lookup);
        let exact = estimate.exact && exact;
        Some(Plan {
            step: Step::Find {
                clauses,
                lookup,
                exact,
            },
            estimate: Estimate { exact, ..estimate },
        })
    }

    fn all(&self, nodes: &[Node]) -> Option<Plan> {
        let (between, others) = self.between(nodes);
        let all = between.len() + others.len();
        let between = between
            .into_iter()
            .map(|(clauses, lookup)| self.find(clauses, lookup, true));
        let others = others.into_iter().map(|node| self.node(node));
        let mut plans: Vec<Plan> = between.chain(others).flatten().collect();
        plans.sort_by_key(|plan| plan.estimate.rows);
        let rows = plans.first()?.estimate.rows;
        let worthwhile = |plan: &Plan| plan.estimate.rows / NOT_WORTH_IT <= rows && rows > FEW_ROWS;
        let mut first = true;
        plans.retain(|plan| std::mem::take(&mut first) || worthwhile(plan));
        let exact = plans.len() == all && plans.iter().all(|plan| plan.estimate.exact);
        if plans.len() == 1 {
            let plan = plans.pop()?;
            return Some(Plan {
                estimate: Estimate { rows, exact },
                ..plan
            });
        }
        Some(Plan {
            step: Step::All(plans),
            estimate: Estimate { rows, exact },
        })
    }

    /// Puts the bounds of values of one field together: each by itself may leave nearly everything, and both next to
    /// nothing. Returns what is left of the parts beside them.
    fn between<'n>(&self, nodes: &'n [Node]) -> (Vec<(Vec<Clause>, Lookup)>, Vec<&'n Node>) {
        let mut between: Vec<(Vec<Clause>, Lookup)> = Vec::new();
        let mut others = Vec::new();
        for node in nodes {
            let Some((clause, lookup)) = self.bounds(node) else {
                others.push(node);
                continue;
            };
            let joined = between.iter_mut().any(|(clauses, known)| {
                let path = clauses.first().map(Clause::path);
                let joins = path == Some(clause.path()) && known.narrow(&lookup);
                if joins {
                    clauses.push(clause.clone());
                }
                joins
            });
            if !joined {
                between.push((vec![clause.clone()], lookup));
            }
        }
        (between, others)
    }

    /// What a part of a filter asks for, where that is values between bounds.
    fn bounds<'n>(&self, node: &'n Node) -> Option<(&'n Clause, Lookup)> {
        let Node::Clause(clause) = node else { return None };
        match Question::of(clause, self.now)? {
            Question {
                about: About::Field(lookup),
                exact: true,
                negated: false,
            } if lookup.has_bounds() => Some((clause, lookup)),
            _ => None,
        }
    }

    fn any(&self, nodes: &[Node]) -> Option<Plan> {
        let plans: Vec<Plan> = nodes.iter().map(|node| self.node(node)).collect::<Option<_>>()?;
        let rows = plans.iter().map(|plan| plan.estimate.rows).sum();
        let exact = plans.iter().all(|plan| plan.estimate.exact);
        Some(Plan {
            step: Step::Any(plans),
            estimate: Estimate { rows, exact },
        })
    }

    /// Only what is known exactly can be left out.
    fn inverted(&self, plan: Plan) -> Option<Plan> {
        let Estimate { rows, exact } = plan.estimate;
        let estimate = Estimate {
            rows: self.space.count().saturating_sub(rows),
            exact,
        };
        exact.then(|| Plan {
            step: Step::Except(Box::new(plan)),
            estimate,
        })
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
            Step::Find { clauses, .. } => {
                for (index, clause) in clauses.iter().enumerate() {
                    match index {
                        0 => write!(f, "index({} {}", clause.path(), clause.operator())?,
                        _ => write!(f, " {}", clause.operator())?,
                    }
                }
                f.write_str(")")
            }
            Step::Named { names, .. } => write!(f, "names({})", names.len()),
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
            // Any moment will do to find out what is asked.
            let asked = Question::of(clause, Some(0));
            let useful = asked.is_some_and(|asked| !asked.negated && asked.about.is_selective());
            useful.then(|| clause.path().clone()).into_iter().collect()
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

impl About {
    /// Whether an index on the field would lead to few rows.
    fn is_selective(&self) -> bool {
        match self {
            Self::Names(_) => false,
            Self::Field(lookup) => lookup.is_selective(),
        }
    }
}

impl Question {
    /// `None` for what no index can answer.
    fn of(clause: &Clause, now: Option<i64>) -> Option<Self> {
        match (clause.path().system(), clause.relative_time()) {
            (Some(SystemField::Identity), _) => Self::of_names(clause),
            (Some(_), _) => None,
            (None, None) => Self::of_values(clause),
            (None, Some(time)) => Self::of_time(clause.operator(), time.at(now?)),
        }
    }

    /// Of a point in time, in milliseconds since 1970.
    fn of_time(operator: Operator, millis: i64) -> Option<Self> {
        let number = Value::of(ValueRef::Number(millis as f64))?;
        let numbers = Range::ordered(operator, number)?;
        let texts = Readings::instants(operator, i128::from(millis) * 1_000_000);
        Some(Self {
            about: About::Field(Lookup::Time(numbers, texts)),
            exact: true,
            negated: false,
        })
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
            operator @ (Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte) => {
                Lookup::Range(Range::ordered(operator, value()?)?)
            }
            operator @ (Operator::SemverLt
            | Operator::SemverLte
            | Operator::SemverGt
            | Operator::SemverGte
            | Operator::SemverEq) => Lookup::Reads(Readings::versions(operator, operand.as_str()?)?),
            Operator::Cidr => Lookup::Reads(Readings::addresses(operand.as_str()?)?),
            Operator::Within => Lookup::Reads(Readings::latitudes(operand)?),
            Operator::StartsWith => Lookup::Prefix(operand.as_str()?.into()),
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
