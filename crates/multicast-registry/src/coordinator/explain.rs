//! Explain: how a filter is answered, and why an identity matches it or does not.

use std::{fmt, sync::Arc, time::Duration};

use prism_filter::{Compiled, Filter, Node, SystemField, ValueRef, Verdict as Judged};
use prism_slot::{Error as SlotError, Identity, Position, Timestamp};
use tokio::time::Instant;

use super::{
    Config, Coordinator, Error,
    enumerate::{Freshness, compile_at, tolerate},
};
use crate::directory::{Begun, Explained, Leases, Query, Row, clauses};

/// How much is shown of a clause or of a value, in bytes.
const SHOWN: usize = 512;

/// How a filter is answered: by the same means as an enumeration would, which it is as expensive as.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What was asked: the view or, without one, the slot.
    pub access: Access,
    /// The indexes that lead to the registrations, and how what they lead to is combined; absent where every
    /// registration is asked.
    pub steps: Option<String>,
    /// The fields whose indexes those are.
    pub indexes: Vec<String>,
    /// The fields that have no index, although one would lead to fewer registrations.
    pub unindexed: Vec<String>,
    /// The clauses that no index settles: every candidate is asked about the filter because of them.
    pub residual: Vec<String>,
    /// Whether the candidates are the answer, and none had to be asked.
    pub exact: bool,
    /// How many registrations the indexes were expected to lead to.
    pub estimated: u64,
    /// How many they led to.
    pub candidates: u64,
    /// How many were asked about the filter themselves, which is what an answer costs.
    pub asked: u64,
    /// How many match.
    pub matches: u64,
    /// How many are registered; where no view is kept, how many the slot looked at.
    pub registered: u64,
    /// How long it took to find them.
    pub elapsed: Duration,
    /// As of here.
    pub position: Position,
    /// How long ago the view was known to be current, where the answer may be stale.
    pub age: Option<Duration>,
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The view in this runner's memory.
    View,
    /// The slot, which looks at every registration and sends those that may match. With `view: none`.
    Query,
    /// The slot, which sends every registration since it cannot select. With `view: none`.
    Scan,
}

/// What one part of a filter says of one registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many combinations the part is in.
    pub depth: usize,
    /// `$and`, `$or`, `$not`, or a clause as `field operator operand`.
    pub part: String,
    /// Whether it holds.
    pub holds: bool,
    /// What a clause looked at, as JSON, times as RFC 3339 texts. Absent where there is nothing.
    pub value: Option<String>,
}

/// Why a registration matches a filter or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Whether it matches: whether an enumeration at this position has it.
    pub matches: bool,
    /// Every part of the filter, each before its own parts; the first is the filter.
    pub verdicts: Vec<Verdict>,
    /// As of here.
    pub position: Position,
    /// How long ago the view was known to be current, where the answer may be stale.
    pub age: Option<Duration>,
}

impl Coordinator {
    /// Answers a filter as an enumeration would, and says how.
    ///
    /// # Errors
    /// As [`Coordinator::enumerate`].
    pub async fn explain(&self, filter: Option<&Filter>, deadline: Instant) -> Result<Explanation, Error> {
        self.open_for_calls()?;
        let config = self.config();
        let filter = compile_at(&config, filter, Timestamp::now())?;
        if self.shared.directory.is_bare() {
            return self.explain_search(filter, deadline).await;
        }
        let mut freshness = self.fresh(&config, deadline).await?;
        let leases = self.filter_leases(filter.as_deref(), freshness, deadline).await;
        let leases = tolerate(&config, leases, &mut freshness)?;
        let query = Query {
            filter: filter.as_deref(),
            leases: leases.as_ref(),
            ..Query::default()
        };
        let started = std::time::Instant::now();
        let (explained, begun) = self.shared.directory.read(|view| view.explain(&query));
        let matches = match begun {
            Begun::Done(found) => found.total,
            Begun::Large(candidates) => candidates.page(&query).await?.0.total,
        };
        Ok(Explanation {
            matches,
            elapsed: started.elapsed(),
            age: self.age(freshness),
            ..Explanation::of(&explained)
        })
    }

    /// Says of every part of a filter whether it holds for one registration.
    ///
    /// # Errors
    /// As [`Coordinator::enumerate`]; `NotFound` where the identity is not registered.
    pub async fn explain_why(
        &self,
        identity: Identity,
        filter: Option<&Filter>,
        deadline: Instant,
    ) -> Result<Why, Error> {
        self.open_for_calls()?;
        let config = self.config();
        let everything = Filter::new();
        let filter = compile_at(&config, filter.or(Some(&everything)), Timestamp::now())?;
        if let (true, Some(filter)) = (self.shared.directory.is_bare(), &filter) {
            return self.why_in_slot(identity, filter, deadline).await;
        }
        let mut freshness = self.fresh(&config, deadline).await?;
        let lease = self
            .lease_of(&identity, filter.as_deref(), freshness, deadline)
            .await;
        let lease = tolerate(&config, lease, &mut freshness)?;
        let judged = self.shared.directory.read(|view| {
            let shown = |verdicts: Vec<Judged<'_>>| verdicts.iter().map(Verdict::of).collect::<Vec<_>>();
            let verdicts = view.judge(identity.as_str(), filter.as_deref()?, lease.as_ref(), shown)?;
            Some((verdicts, view.head()))
        });
        let (verdicts, position) = judged.ok_or(SlotError::NotFound(identity))?;
        Ok(Why {
            matches: verdicts.first().is_some_and(|verdict| verdict.holds),
            verdicts,
            position,
            age: self.age(freshness),
        })
    }

    /// Answers a filter by a search.
    async fn explain_search(
        &self,
        filter: Option<Arc<Compiled>>,
        deadline: Instant,
    ) -> Result<Explanation, Error> {
        let started = std::time::Instant::now();
        let count = |count: &mut u64, _| {
            *count += 1;
            Ok(())
        };
        let residual = filter.as_deref().map(clauses).unwrap_or_default();
        let exact = residual.is_empty();
        let (searched, matches) = self.search(filter, None, deadline, || 0, count).await?;
        let (access, steps) = match searched.by_query {
            true => (Access::Query, Some("query()".to_owned())),
            false => (Access::Scan, None),
        };
        Ok(Explanation {
            access,
            steps,
            indexes: Vec::new(),
            unindexed: Vec::new(),
            residual: residual.into_iter().map(cut).collect(),
            exact,
            estimated: searched.sent,
            candidates: searched.sent,
            asked: if exact { 0 } else { searched.sent },
            matches,
            registered: searched.examined,
            elapsed: started.elapsed(),
            position: searched.position,
            age: None,
        })
    }

    /// Judges a registration as the slot has it.
    async fn why_in_slot(
        &self,
        identity: Identity,
        filter: &Compiled,
        deadline: Instant,
    ) -> Result<Why, Error> {
        let read = self.get(identity.clone(), deadline).await?;
        let record = read.record.ok_or(SlotError::NotFound(identity))?;
        let row = Row::new(&record, self.stored_document(&record)?);
        let verdicts: Vec<Verdict> = filter.verdicts(&row).iter().map(Verdict::of).collect();
        Ok(Why {
            matches: verdicts.first().is_some_and(|verdict| verdict.holds),
            verdicts,
            position: read.head,
            age: None,
        })
    }

    async fn fresh(&self, config: &Arc<Config>, deadline: Instant) -> Result<Freshness, Error> {
        let consistency = config.behavior.consistency;
        self.freshen(config, consistency, None, None, deadline).await
    }

    fn age(&self, freshness: Freshness) -> Option<Duration> {
        (freshness == Freshness::Stale).then(|| self.shared.directory.age())
    }

    /// When the lease of one identity ends, for a filter that asks.
    async fn lease_of(
        &self,
        identity: &Identity,
        filter: Option<&Compiled>,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Option<Leases>, Error> {
        if freshness == Freshness::Stale || !filter.is_some_and(Compiled::uses_expires_at) {
            return Ok(None);
        }
        let directory = &self.shared.directory;
        let leased = directory.read(|view| view.get(identity.as_str()).is_some_and(|row| row.ttl.is_some()));
        let asked = leased.then(|| identity.clone());
        self.leases(asked.into_iter().collect(), deadline).await
    }
}

impl Explanation {
    /// How it is found, before it is.
    fn of(explained: &Explained) -> Self {
        let texts = |paths: &[prism_filter::Path]| paths.iter().map(|path| cut(path.to_string())).collect();
        let estimate = explained.plan.as_ref().map(|plan| plan.estimate);
        Self {
            access: Access::View,
            steps: explained.plan.as_ref().map(ToString::to_string),
            indexes: texts(&explained.indexes),
            unindexed: texts(&explained.unindexed),
            residual: explained.residual.iter().cloned().map(cut).collect(),
            exact: explained.exact,
            estimated: estimate.map_or(explained.candidates, |estimate| estimate.rows),
            candidates: explained.candidates,
            asked: explained.asked,
            matches: 0,
            registered: explained.registered,
            elapsed: Duration::ZERO,
            position: explained.position,
            age: None,
        }
    }
}

impl Verdict {
    /// Whether the part is a clause, which looks at a value, rather than a combination of parts.
    pub fn is_clause(&self) -> bool {
        !["{}", "$and", "$or", "$not"].contains(&self.part.as_str())
    }

    fn of(judged: &Judged<'_>) -> Self {
        let part = match judged.node {
            Node::And(nodes) if nodes.is_empty() => "{}".to_owned(),
            Node::And(_) => "$and".to_owned(),
            Node::Or(_) => "$or".to_owned(),
            Node::Not(_) => "$not".to_owned(),
            Node::Clause(clause) => cut(clause.to_string()),
        };
        Self {
            depth: judged.depth,
            part,
            holds: judged.holds,
            value: judged.value.map(|value| cut(seen(judged.node, value))),
        }
    }
}

/// A value as JSON, a time as people read it.
fn seen(node: &Node, value: ValueRef<'_>) -> String {
    let time = match (node, value) {
        (Node::Clause(clause), ValueRef::Number(millis))
            if clause.path().system().is_some_and(SystemField::is_time) =>
        {
            jiff::Timestamp::from_millisecond(millis as i64).ok()
        }
        _ => None,
    };
    match time {
        Some(time) => format!("\"{time}\""),
        None => format!("{value:?}"),
    }
}

/// The text, or as much of it as is shown.
fn cut(mut text: String) -> String {
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push('…');
    }
    text
}

/// For people, one fact a line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.access, &self.steps) {
            (Access::Query, _) => writeln!(
                f,
                "plan: the slot looks at every registration and selects (no view)"
            )?,
            (Access::Scan, _) => writeln!(
                f,
                "plan: the slot sends every registration, it cannot select (no view)"
            )?,
            (Access::View, Some(steps)) => writeln!(f, "plan: {steps}")?,
            (Access::View, None) => writeln!(f, "plan: every registration")?,
        }
        let lists = [
            ("indexes", &self.indexes),
            ("no index on", &self.unindexed),
            ("left over", &self.residual),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            writeln!(f, "{name}: {}", list.join(", "))?;
        }
        writeln!(
            f,
            "{} of {} registrations match; {} candidates, {} expected, {} asked",
            self.matches, self.registered, self.candidates, self.estimated, self.asked
        )?;
        write!(f, "{:?}", self.elapsed)
    }
}

/// For people: one part a line, indented as they are nested.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, verdict) in self.verdicts.iter().enumerate() {
            let line = if index > 0 { "\n" } else { "" };
            let holds = if verdict.holds { "yes" } else { "no " };
            write!(
                f,
                "{line}{holds} {:indent$}{}",
                "",
                verdict.part,
                indent = 2 * verdict.depth
            )?;
            match &verdict.value {
                Some(value) => write!(f, " (is {value})")?,
                None if verdict.is_clause() => write!(f, " (is missing)")?,
                None => {}
            }
        }
        Ok(())
    }
}
