//! What each part of a filter says of one record.

use super::{Compiled, Record, Test};
use crate::{Clause, Node, SystemField, ValueRef};

/// What one part of a filter says of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict<'a> {
    /// How many combinations the part is in.
    pub depth: usize,
    /// The part.
    pub node: &'a Node,
    /// Whether it holds.
    pub holds: bool,
    /// What a clause looked at: times as numbers of milliseconds since 1970. `None` where there is nothing.
    pub value: Option<ValueRef<'a>>,
}

impl Compiled {
    /// Says of every part whether it holds, each before its own parts: the first is the filter itself, and
    /// [matches](Self::matches) if that holds.
    pub fn verdicts<'a>(&'a self, record: &'a (impl Record + ?Sized)) -> Vec<Verdict<'a>> {
        let mut verdicts = Vec::new();
        judge(self.filter.node(), &self.test, record, 0, &mut verdicts);
        verdicts
    }
}

/// Judges a node by the test that it was compiled to, and returns whether it holds. Unlike matching, this
/// goes on where the answer is known.
fn judge<'a>(
    node: &'a Node,
    test: &Test,
    record: &'a (impl Record + ?Sized),
    depth: usize,
    verdicts: &mut Vec<Verdict<'a>>,
) -> bool {
    let at = verdicts.len();
    verdicts.push(Verdict {
        depth,
        node,
        holds: false,
        value: None,
    });
    let mut each = |node, test| judge(node, test, record, depth + 1, verdicts);
    let holds = match (node, test) {
        (Node::And(nodes), Test::All(tests)) => count(nodes, tests, each) == nodes.len(),
        (Node::Or(nodes), Test::Any(tests)) => count(nodes, tests, each) > 0,
        (Node::Not(node), Test::Not(test)) => !each(node, test),
        (Node::Clause(clause), test) => {
            verdicts[at].value = seen(clause, record);
            test.holds(record)
        }
        // A node and what it was compiled to are of one shape.
        (_, test) => test.holds(record),
    };
    verdicts[at].holds = holds;
    holds
}

/// How many of the nodes hold; all are judged.
fn count<'a, 't>(
    nodes: &'a [Node],
    tests: &'t [Test],
    mut judge: impl FnMut(&'a Node, &'t Test) -> bool,
) -> usize {
    nodes
        .iter()
        .zip(tests)
        .filter(|(node, test)| judge(node, test))
        .count()
}

fn seen<'a>(clause: &Clause, record: &'a (impl Record + ?Sized)) -> Option<ValueRef<'a>> {
    let time = |millis: i64| ValueRef::Number(millis as f64);
    match clause.path().system() {
        None => record.document().get(clause.path()),
        Some(SystemField::Identity) => Some(ValueRef::String(record.identity())),
        Some(SystemField::RegisteredAt) => Some(time(record.registered_at())),
        Some(SystemField::UpdatedAt) => Some(time(record.updated_at())),
        Some(SystemField::ExpiresAt) => record.expires_at().map(time),
    }
}
