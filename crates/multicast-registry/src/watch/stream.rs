//! What one watcher is given.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prism_filter::Compiled;
use prism_slot::{Position, Timestamp};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{
    Event, Hub, Member,
    groups::{Told, event_of},
    lost_at, transition,
};
use crate::{
    coordinator::{Coordinator, Enumerate, Error},
    directory::Row,
    metrics::NamespaceMetrics,
};

/// How often a watcher of whom nothing else is to be told learns how far it has come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);
/// How many changes a watcher looks at before others get their turn.
const SLICE: usize = 256;
/// How many registrations of a snapshot are fetched at a time.
const PAGE: usize = 500;

/// What a watcher is given.
#[derive(Debug, Clone)]
pub enum WatchItem {
    /// A registration that matched when the watch began, and when its lease ends.
    Present {
        /// The registration.
        row: Arc<Row>,
        /// When its lease ends.
        expires_at: Option<Timestamp>,
    },
    /// A change.
    Changed(Arc<Event>),
    /// Everything up to here has been given. The first one ends the snapshot.
    Bookmark(Position),
}

/// A watch: the registrations that match, and then each change to that set.
pub struct Watch {
    coordinator: Coordinator,
    hub: Arc<Hub>,
    filter: Option<Arc<Compiled>>,
    phase: Phase,
    /// Everything up to here has been found; what matters of it has been given or is in `ready`.
    at: Position,
    /// Everything up to here has been given; `None` in a snapshot.
    given: Option<Position>,
    /// That of the last bookmark.
    marked: Option<Position>,
    ready: VecDeque<WatchItem>,
    bookmarks: Interval,
    _place: Place,
}

enum Phase {
    /// The pages as of `at`, from this cursor on.
    Snapshot(Enumerate),
    /// In the log. One that fell behind keeps its place in its group meanwhile.
    CatchingUp(Option<Member>),
    Live(Member),
    Over(Error),
}

/// One of the places that a namespace has for watchers.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<AtomicUsize>,
    metrics: NamespaceMetrics,
}

impl Place {
    /// Takes one, if there are fewer than so many taken.
    pub(crate) fn take(
        taken: &Arc<AtomicUsize>,
        most: usize,
        metrics: &NamespaceMetrics,
    ) -> Result<Self, Error> {
        metrics.watchers_changed(1);
        let place = Self {
            taken: taken.clone(),
            metrics: metrics.clone(),
        };
        if taken.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Error::overloaded(
                format!("the namespace has {most} watchers and takes no more"),
                most,
            ));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.metrics.watchers_changed(-1);
    }
}

impl Watch {
    /// Begins with everything that matches.
    pub(crate) async fn with_snapshot(
        coordinator: Coordinator,
        hub: Arc<Hub>,
        filter: Option<Arc<Compiled>>,
        place: Place,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let request = Enumerate {
            filter: filter.as_ref().map(|filter| filter.filter().clone()),
            limit: PAGE,
            ..Enumerate::default()
        };
        let phase = Phase::Snapshot(request);
        let mut watch = Self::new(coordinator, hub, filter, phase, None, place);
        watch.next_page(deadline).await?;
        Ok(watch)
    }

    /// Goes on after a position that the view has reached.
    pub(crate) fn resumed(
        coordinator: Coordinator,
        hub: Arc<Hub>,
        filter: Option<Arc<Compiled>>,
        place: Place,
        at: Position,
    ) -> Result<Self, Error> {
        let mut watch = Self::new(coordinator, hub, filter, Phase::CatchingUp(None), Some(at), place);
        watch.catch_up()?;
        Ok(watch)
    }

    fn new(
        coordinator: Coordinator,
        hub: Arc<Hub>,
        filter: Option<Arc<Compiled>>,
        phase: Phase,
        resumed_from: Option<Position>,
        place: Place,
    ) -> Self {
        // Watchers that came together are not all told together.
        let first = BOOKMARK_EVERY.mul_f64(rand::random_range(0.5..1.0));
        let mut bookmarks = interval_at(Instant::now() + first, BOOKMARK_EVERY);
        bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            hub,
            filter,
            phase,
            at: resumed_from.unwrap_or_else(|| coordinator.directory().head()),
            given: resumed_from,
            marked: None,
            coordinator,
            ready: VecDeque::new(),
            bookmarks,
            _place: place,
        }
    }

    /// Everything up to here has been given, so that the watch can be resumed from here; `None` in a
    /// snapshot, which cannot be resumed halfway.
    pub fn position(&self) -> Option<Position> {
        self.given
    }

    /// Whether it is told of what happens as it happens.
    #[cfg(test)]
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    /// The next item. Cancel safe: what was not given is given next time.
    ///
    /// # Errors
    /// Why the watch is over. After [`Error::TooSlow`] it can be resumed from the last position given where that is still
    /// known, after [`Error::Draining`] elsewhere; after [`Error::Compacted`] and [`Error::OtherEpoch`] it begins anew.
    pub async fn next(&mut self) -> Result<WatchItem, Error> {
        let item = self.go_on().await;
        match &item {
            Ok(WatchItem::Present { .. }) => {}
            Ok(WatchItem::Changed(event)) => {
                self.given = Some(Position {
                    revision: event.revision,
                    ..self.at
                })
            }
            Ok(WatchItem::Bookmark(at)) => self.given = Some(*at),
            Err(error) => self.phase = Phase::Over(error.clone()),
        }
        item
    }

    async fn go_on(&mut self) -> Result<WatchItem, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            match &mut self.phase {
                Phase::Snapshot(_) => {
                    let patience = self.coordinator.config().behavior.call_timeout;
                    self.next_page(Instant::now() + patience).await?;
                }
                Phase::CatchingUp(member) => {
                    let fell_behind = member.is_some();
                    match self.catch_up() {
                        Err(Error::Compacted { .. }) if fell_behind => {
                            return Err(Error::TooSlow { at: self.at });
                        }
                        caught_up => caught_up?,
                    }
                    // However much there is to look at, others get their turn.
                    tokio::task::yield_now().await;
                }
                Phase::Live(_) => {
                    if let Some(item) = self.listen().await? {
                        return Ok(item);
                    }
                }
                Phase::Over(error) => return Err(error.clone()),
            }
        }
    }

    /// What the group is told next; `None` where that is nothing new.
    async fn listen(&mut self) -> Result<Option<WatchItem>, Error> {
        let Phase::Live(member) = &mut self.phase else {
            return Ok(None);
        };
        let told = tokio::select! {
            biased;
            told = member.told.recv() => told,
            _ = self.bookmarks.tick() => {
                // Asked first: whatever came up to here is in the queue by then.
                let reached = self.hub.position();
                let moved = reached.epoch == self.at.epoch && reached.revision > self.at.revision;
                if !moved || !member.told.is_empty() {
                    return Ok(None);
                }
                self.at = reached;
                self.marked = Some(reached);
                return Ok(Some(WatchItem::Bookmark(reached)));
            }
        };
        match told {
            Ok(Told::Event(event)) if event.revision > self.at.revision => {
                self.at.revision = event.revision;
                Ok(Some(WatchItem::Changed(event)))
            }
            // Found in the log before.
            Ok(Told::Event(_)) => Ok(None),
            Ok(Told::End(why)) => Err(*why),
            Err(RecvError::Lagged(_)) => {
                self.fall_behind();
                Ok(None)
            }
            Err(RecvError::Closed) => Err(Error::Draining),
        }
    }

    /// Goes back to the log, which has what the watcher was not told of.
    fn fall_behind(&mut self) {
        if let Phase::Live(member) = std::mem::replace(&mut self.phase, Phase::CatchingUp(None)) {
            self.phase = Phase::CatchingUp(Some(member));
        }
    }

    async fn next_page(&mut self, deadline: Instant) -> Result<(), Error> {
        let Phase::Snapshot(request) = &mut self.phase else {
            return Ok(());
        };
        let mut page = self.coordinator.enumerate(request.clone(), deadline).await?;
        self.at = page.position;
        let rows = page.rows.iter().map(|row| WatchItem::Present {
            row: Arc::new(row.copy()),
            expires_at: page.expires_at(row),
        });
        self.ready.extend(rows);
        request.cursor = page.next.take();
        if request.cursor.is_none() {
            self.phase = Phase::CatchingUp(None);
            self.mark();
        }
        Ok(())
    }

    /// Looks at some of what happened since, and joins its group once that is little: while the group is told nothing,
    /// so that it misses nothing either.
    fn catch_up(&mut self) -> Result<(), Error> {
        if self.look()? {
            return Ok(());
        }
        let most = self.coordinator.config().behavior.max_watch_filters;
        let (hub, filter) = (self.hub.clone(), self.filter.clone());
        if let Some(member) = hub.enter(filter, most, || self.look().map(|more| !more))? {
            self.phase = Phase::Live(member);
            self.mark();
        }
        Ok(())
    }

    /// Everything up to here has been told, which is said once.
    fn mark(&mut self) {
        if self.marked != Some(self.at) {
            self.marked = Some(self.at);
            self.ready.push_back(WatchItem::Bookmark(self.at));
        }
    }

    /// Looks at some of what happened since; whether there is more.
    fn look(&mut self) -> Result<bool, Error> {
        let (at, filter, ready) = (&mut self.at, self.filter.as_deref(), &mut self.ready);
        self.coordinator.directory().read(|view| {
            let head = view.head();
            let steps = match view.changes_after(at.revision) {
                Some(steps) if at.epoch == head.epoch => steps,
                lost => return Err(lost_at(*at, head, lost.is_none())),
            };
            for step in steps.take(SLICE) {
                at.revision = step.revision;
                let event = transition(filter, &step).and_then(|kind| event_of(&step, kind));
                ready.extend(event.map(WatchItem::Changed));
            }
            Ok(*at != head)
        })
    }
}
