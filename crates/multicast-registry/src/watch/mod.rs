//! Watch: who matches, and then each change to that.
//!
//! Everything comes from the view's log of changes. One hub reads it once for all watchers: those with
//! the same filter are one group, and a change is shown only to the groups that it may concern. A watcher
//! that has just come, comes back or falls behind reads the log itself until it has caught up with the hub.

mod groups;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use parking_lot::Mutex;
use prism_filter::Compiled;
use prism_slot::{Cause, Epoch, Position, Revision};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    coordinator::Error,
    directory::{Directory, Row, Step},
    metrics::NamespaceMetrics,
};
use groups::{GroupId, Groups, Told};
pub(crate) use stream::Place;
pub use stream::{Watch, WatchItem};

/// How many changes the groups are told of before others get their turn: no more than a watcher is told before it
/// reads, so that whoever reads at once does not fall behind.
const SLICE: usize = groups::BACKLOG;

/// How many changes before those that the groups are told of next are kept for watchers who have not read yet, however
/// short the namespace's history is.
const BEHIND: u64 = 1_024;

/// What a change did to the set of registrations that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It matches, and did not before.
    Enter,
    /// It matched before and still does.
    Update,
    /// It does not match any more, or is gone.
    Leave,
}

/// One change to the set of registrations that match.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// What was written.
    pub cause: Cause,
    /// When.
    pub revision: Revision,
    /// The registration as it is now; for one that left, as it last matched.
    pub row: Arc<Row>,
}

/// What a step of history means to those who watch a filter; `None` when nothing.
fn transition(filter: Option<&Compiled>, step: &Step<'_>) -> Option<Kind> {
    let matches = |row: Option<&Row>| row.is_some_and(|row| filter.is_none_or(|filter| filter.matches(row)));
    match (matches(step.before), matches(step.after)) {
        (false, true) => Some(Kind::Enter),
        (true, true) => Some(Kind::Update),
        (true, false) => Some(Kind::Leave),
        (false, false) => None,
    }
}

impl Step<'_> {
    /// The row that an event of this kind shows.
    fn shown(&self, kind: Kind) -> Option<Arc<Row>> {
        let row = match kind {
            Kind::Enter | Kind::Update => self.after,
            Kind::Leave => self.before,
        };
        row.map(|row| Arc::new(row.copy()))
    }
}

/// Tells groups of watchers what happens in a view.
pub(crate) struct Hub {
    directory: Directory,
    state: Mutex<State>,
    metrics: NamespaceMetrics,
}

#[derive(Debug)]
struct State {
    /// The groups have been told of everything up to here.
    at: Position,
    groups: Groups,
    /// Nobody tells them any more.
    closed: bool,
}

impl Hub {
    pub(crate) fn new(directory: Directory, metrics: NamespaceMetrics) -> Self {
        let state = State {
            at: Position {
                epoch: Epoch(0),
                revision: Revision::ZERO,
            },
            groups: Groups::default(),
            closed: false,
        };
        Self {
            directory,
            state: Mutex::new(state),
            metrics,
        }
    }

    /// Tells the groups what happens, until cancelled. Exactly one task runs this.
    pub(crate) async fn run(&self, cancelled: CancellationToken) {
        let mut heads = self.directory.heads();
        let follow = async {
            loop {
                heads.mark_unchanged();
                while self.advance() {
                    // However much there is to tell, others get their turn.
                    tokio::task::yield_now().await;
                }
                if heads.changed().await.is_err() {
                    return;
                }
            }
        };
        cancelled.run_until_cancelled(follow).await;
        self.close();
    }

    /// Ends every watch, now and later.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.groups.end(&Error::Draining);
        self.hold(&state);
    }

    /// Tells of some changes; whether there are more.
    fn advance(&self) -> bool {
        let mut state = self.state.lock();
        let State { at, groups, .. } = &mut *state;
        let more = self.directory.read(|view| {
            let head = view.head();
            if groups.is_empty() {
                *at = head;
                return false;
            }
            let steps = match view.changes_after(at.revision) {
                Some(steps) if at.epoch == head.epoch => steps,
                lost => {
                    groups.end(&lost_at(*at, head, lost.is_none()));
                    *at = head;
                    return false;
                }
            };
            for step in steps.take(SLICE) {
                groups.tell(&step);
                at.revision = step.revision;
            }
            *at != head
        });
        self.metrics.watch_evaluated(groups.take_evaluations());
        self.hold(&state);
        more
    }

    /// Has the view keep what the groups are to be told of, and some of what they were told of last.
    fn hold(&self, state: &State) {
        let after = Revision(state.at.revision.0.saturating_sub(BEHIND));
        self.directory.hold((!state.groups.is_empty()).then_some(after));
    }

    /// Has a watcher told of what happens to those who match, if it has `caught_up` with the view. The groups are told
    /// nothing while it is asked.
    fn enter(
        self: &Arc<Self>,
        filter: Option<Arc<Compiled>>,
        most: usize,
        caught_up: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<Option<Member>, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Draining);
        }
        if state.groups.is_empty() {
            // Whoever has caught up is to be told of everything from here on.
            state.at = self.directory.read(|view| {
                self.directory.hold(Some(view.head().revision));
                view.head()
            });
        }
        let entered = caught_up().and_then(|caught_up| match caught_up {
            true => state.groups.enter(filter, most).map(Some),
            false => Ok(None),
        });
        self.hold(&state);
        let member = |(group, told)| Member {
            hub: self.clone(),
            group,
            told,
        };
        Ok(entered?.map(member))
    }

    /// Takes a watcher out of its group.
    fn leave(&self, group: GroupId) {
        let mut state = self.state.lock();
        state.groups.leave(group);
        self.hold(&state);
    }

    /// The groups have been told of everything up to here.
    fn position(&self) -> Position {
        self.state.lock().at
    }
}

/// Why a watch that had come so far cannot go on over this view.
fn lost_at(at: Position, head: Position, compacted: bool) -> Error {
    if at.epoch != head.epoch || !compacted {
        return Error::OtherEpoch { current: head.epoch };
    }
    Error::Compacted {
        asked: at.revision,
        floor: head.revision,
    }
}

/// One watcher's place in a group.
struct Member {
    hub: Arc<Hub>,
    group: GroupId,
    told: broadcast::Receiver<Told>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hub.leave(self.group);
    }
}
