//! How questions are answered, and why a row is among the answers.

use prism_filter::{Compiled, Node, Path, Verdict};
use prism_slot::Position;

use super::{
    index::plan::{self, Plan},
    large::Begun,
    query::{Leased, Leases, Query},
    view::{SpaceAt, View},
};

/// How what matches a filter is found at the head.
#[derive(Debug)]
pub(crate) struct Explained {
    /// The way to the rows; absent where every one is asked.
    pub(crate) plan: Option<Plan>,
    /// The fields whose indexes it goes through.
    pub(crate) indexes: Vec<Path>,
    /// The fields on which there is no index, and one would have led to fewer rows.
    pub(crate) unindexed: Vec<Path>,
    /// The clauses that no index settles.
    pub(crate) residual: Vec<String>,
    /// How many rows the plan leads to.
    pub(crate) candidates: u64,
    /// Whether those are the rows that match.
    pub(crate) exact: bool,
    /// How many of them are asked themselves.
    pub(crate) asked: u64,
    /// How many rows there are.
    pub(crate) registered: u64,
    pub(crate) position: Position,
}

impl View {
    /// Begins to count what matches at the head, and tells how that is done. Uses indexes as any other query
    /// does, and wants none.
    pub(crate) fn explain(&self, query: &Query<'_>) -> (Explained, Begun) {
        let position = self.head();
        let at = position.revision;
        let node = query.filter.map(|filter| filter.filter().node());
        let plan = query.filter.and_then(|filter| {
            let space = SpaceAt { view: self, at };
            Plan::of(filter.filter().node(), filter.now(), &space)
        });
        let found = plan.as_ref().map(|plan| self.led_to(at, plan));
        let registered = self.open().len() as u64;
        let candidates = found.as_ref().map_or(registered, |(found, _)| found.len());
        let exact = found.as_ref().map_or(query.filter.is_none(), |(_, sure)| *sure);
        let explained = Explained {
            indexes: plan.iter().flat_map(used).collect(),
            unindexed: node.map(|node| self.unindexed(node)).unwrap_or_default(),
            residual: node.map(|node| residual(node, plan.as_ref())).unwrap_or_default(),
            plan,
            candidates,
            exact,
            asked: if exact { 0 } else { candidates },
            registered,
            position,
        };
        (explained, self.begin_in(at, query, found))
    }

    /// What each part of a filter says of a row at the head, as `use_of` takes it over.
    pub(crate) fn judge<T>(
        &self,
        identity: &str,
        filter: &Compiled,
        leases: Option<&Leases>,
        use_of: impl FnOnce(Vec<Verdict<'_>>) -> T,
    ) -> Option<T> {
        let row = self.get(identity)?;
        let lease = leases.and_then(|leases| leases.get(&row.identity));
        let expires_at = lease.copied().unwrap_or(row.expires_at);
        Some(use_of(filter.verdicts(&Leased { row, expires_at })))
    }

    fn unindexed(&self, node: &Node) -> Vec<Path> {
        let mut wanted = plan::wanted(node);
        wanted.retain(|path| !self.indexes().has(path));
        in_order(wanted)
    }
}

fn used(plan: &Plan) -> Vec<Path> {
    let paths = plan.clauses().into_iter().map(|(clause, _)| clause.path());
    in_order(paths.filter(|path| path.system().is_none()).cloned().collect())
}

fn in_order(mut paths: Vec<Path>) -> Vec<Path> {
    paths.sort();
    paths.dedup();
    paths
}

/// The clauses that the rows of a plan are still asked about.
fn residual(node: &Node, plan: Option<&Plan>) -> Vec<String> {
    let settled = plan.map(Plan::clauses).unwrap_or_default();
    let mut left = Vec::new();
    walk(node, &mut |clause| {
        if !settled.contains(&(clause, true)) {
            left.push(clause.to_string());
        }
    });
    left
}

/// Every clause of a filter.
pub(crate) fn clauses(filter: &Compiled) -> Vec<String> {
    residual(filter.filter().node(), None)
}

fn walk(node: &Node, visit: &mut impl FnMut(&prism_filter::Clause)) {
    match node {
        Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|node| walk(node, visit)),
        Node::Not(node) => walk(node, visit),
        Node::Clause(clause) => visit(clause),
    }
}
