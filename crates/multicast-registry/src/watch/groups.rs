//! Watchers by filter, and which filters a change may concern.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use prism_filter::{Compiled, Node, Operator, Path, SystemField, ValueRef};
use tokio::sync::broadcast;

use super::{Event, Kind, transition};
use crate::{
    coordinator::Error,
    directory::{Key, Step, value_at},
};

/// How many events a watcher is told before it reads; whoever is further behind finds them in the log. Each group has
/// room for so many from the beginning, and there may be as many groups as watchers.
pub(super) const BACKLOG: usize = 32;

pub(super) type GroupId = u64;

/// What the watchers of a group are told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Event(Arc<Event>),
    /// Nothing more will come.
    End(Box<Error>),
}

/// The watchers of one filter.
#[derive(Debug)]
struct Group {
    filter: Option<Arc<Compiled>>,
    name: Box<str>,
    anchor: Option<Anchor>,
    told: broadcast::Sender<Told>,
    members: usize,
}

/// All groups.
///
/// A filter that asks for certain values of a field is *anchored* there: a change concerns it only if the
/// field has or had one of them. All others are shown every change, and so their number is bounded.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: HashMap<GroupId, Group>,
    by_name: HashMap<Box<str>, GroupId>,
    anchored: HashMap<Path, BTreeMap<Key, Vec<GroupId>>>,
    adrift: Vec<GroupId>,
    next: GroupId,
    evaluations: u64,
    /// Kept for its memory.
    concerned: Vec<GroupId>,
}

/// The values of which a matching registration has one at a path.
#[derive(Debug, Clone)]
struct Anchor {
    path: Path,
    values: Vec<Key>,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a watcher to the group of its filter. `most` filters without an anchor are taken.
    pub(super) fn enter(
        &mut self,
        filter: Option<Arc<Compiled>>,
        most: usize,
    ) -> Result<(GroupId, broadcast::Receiver<Told>), Error> {
        let name = filter
            .as_ref()
            .map_or_else(String::new, |filter| filter.filter().to_string());
        if let Some(id) = self.by_name.get(name.as_str())
            && let Some(group) = self.all.get_mut(id)
        {
            group.members += 1;
            return Ok((*id, group.told.subscribe()));
        }
        let anchor = filter.as_ref().and_then(|filter| anchor(filter.filter().node()));
        if anchor.is_none() && self.adrift.len() >= most {
            return Err(Error::overloaded(
                format!(
                    "{most} filters are watched already that every change is compared with; \
                     ask for a value of some field, or share a filter that is watched"
                ),
                most,
            ));
        }
        let id = self.next;
        self.next += 1;
        match &anchor {
            Some(anchor) => self.drop_anchor(anchor, id),
            None => self.adrift.push(id),
        }
        let (told, receiver) = broadcast::channel(BACKLOG);
        let name: Box<str> = name.into();
        self.by_name.insert(name.clone(), id);
        let group = Group {
            filter,
            name,
            anchor,
            told,
            members: 1,
        };
        self.all.insert(id, group);
        Ok((id, receiver))
    }

    /// Takes a watcher out. A group that nobody is in is gone.
    pub(super) fn leave(&mut self, id: GroupId) {
        let Some(group) = self.all.get_mut(&id) else {
            return;
        };
        group.members -= 1;
        if group.members > 0 {
            return;
        }
        if let Some(group) = self.all.remove(&id) {
            self.by_name.remove(&group.name);
            match &group.anchor {
                Some(anchor) => self.weigh_anchor(anchor, id),
                None => self.adrift.retain(|other| *other != id),
            }
        }
    }

    /// Tells everybody that nothing more will come.
    pub(super) fn end(&mut self, why: &Error) {
        for group in self.all.values() {
            // Nobody may be listening any more.
            let _ = group.told.send(Told::End(Box::new(why.clone())));
        }
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    /// Tells those whom a step concerns.
    pub(super) fn tell(&mut self, step: &Step<'_>) {
        let mut concerned = std::mem::take(&mut self.concerned);
        concerned.clear();
        for (path, groups) in &self.anchored {
            let rows = [step.before, step.after].into_iter().flatten();
            let values = rows.filter_map(|row| Key::of(value_at(row, path)?));
            concerned.extend(values.filter_map(|value| groups.get(&value)).flatten());
        }
        concerned.sort_unstable();
        concerned.dedup();
        concerned.extend(&self.adrift);
        self.evaluations += concerned.len() as u64;
        let mut events: [Option<Arc<Event>>; 3] = Default::default();
        for id in &concerned {
            let Some(group) = self.all.get(id) else { continue };
            let Some(kind) = transition(group.filter.as_deref(), step) else {
                continue;
            };
            let event = &mut events[kind as usize];
            if event.is_none() {
                *event = event_of(step, kind);
            }
            if let Some(event) = event {
                let _ = group.told.send(Told::Event(event.clone()));
            }
        }
        self.concerned = concerned;
    }

    /// How often a filter was compared with a change since this was last asked.
    pub(super) fn take_evaluations(&mut self) -> u64 {
        std::mem::take(&mut self.evaluations)
    }

    fn drop_anchor(&mut self, anchor: &Anchor, id: GroupId) {
        let values = self.anchored.entry(anchor.path.clone()).or_default();
        for value in &anchor.values {
            values.entry(value.clone()).or_default().push(id);
        }
    }

    fn weigh_anchor(&mut self, anchor: &Anchor, id: GroupId) {
        let Some(values) = self.anchored.get_mut(&anchor.path) else {
            return;
        };
        for value in &anchor.values {
            if let Some(ids) = values.get_mut(value) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
        }
        if values.is_empty() {
            self.anchored.remove(&anchor.path);
        }
    }
}

pub(super) fn event_of(step: &Step<'_>, kind: Kind) -> Option<Arc<Event>> {
    let event = Event {
        kind,
        cause: step.cause,
        revision: step.revision,
        row: step.shown(kind)?,
    };
    Some(Arc::new(event))
}

/// Where a filter is anchored, if anywhere: with the fewest values.
fn anchor(node: &Node) -> Option<Anchor> {
    match node {
        Node::And(nodes) => nodes
            .iter()
            .filter_map(anchor)
            .min_by_key(|anchor| anchor.values.len()),
        Node::Or(_) | Node::Not(_) => None,
        // A moment is written in many ways, and rows have a number.
        Node::Clause(clause) if clause.path().system().is_some_and(SystemField::is_time) => None,
        Node::Clause(clause) => {
            let values = match (clause.operator(), clause.operand().view()) {
                (Operator::Eq, value) => vec![Key::of(value)?],
                (Operator::In, ValueRef::Array(values)) => {
                    values.iter().map(Key::of).collect::<Option<_>>()?
                }
                _ => return None,
            };
            let path = clause.path().clone();
            Some(Anchor { path, values })
        }
    }
}
