//! One multicast while it is in this runner's memory.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use prism_slot::{Holder, Identity, Timestamp};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    Batch, Delivery, Tally, Targets,
    cast::{Cast, Phase, Progress},
    places::Places,
    records::{CastEntry, Part},
    reply::Reply,
    state::{Brief, News, Stage, State, Status},
    states::States,
};

/// Up to how many targets are searched one by one.
const FEW: usize = 16;

/// One multicast while it is in memory. What is known of its targets only grows.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) cast: Cast,
    pub(crate) targets: Arc<[Identity]>,
    /// Who holds the targets, where messages are stored for them.
    pub(crate) holders: Option<Arc<[Holder]>>,
    /// Where the parts of the ledger's record begin; empty where there is none.
    pub(crate) parts: Vec<Range<usize>>,
    /// Told to stop sending; who waits is told by `changed`.
    cancelled: AtomicBool,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    states: States,
    /// How many targets are not decided.
    undecided: usize,
    places: Option<Box<Places>>,
    phase: Phase,
    /// Nothing more is waited for.
    enough: bool,
    /// Whether the ledger knows that it is sent.
    finished: bool,
    feed: Option<Box<Feed>>,
    replies: Option<Box<Replies>>,
    /// Which parts have news that the ledger does not have.
    dirty: Vec<bool>,
    /// How many are writing such parts now.
    writers: usize,
    /// As far as the ledger has it.
    versions: Vec<u64>,
    /// When something was learnt last.
    touched: Instant,
}

/// Which targets there is news of, for somebody who reads them one by one.
#[derive(Debug)]
struct Feed {
    queue: VecDeque<usize>,
    queued: Vec<bool>,
}

impl Feed {
    fn push(&mut self, place: usize) {
        if !std::mem::replace(&mut self.queued[place], true) {
            self.queue.push_back(place);
        }
    }
}

/// What targets answered.
#[derive(Debug)]
struct Replies {
    /// Those that nobody has read yet.
    all: VecDeque<Reply>,
    /// Who has answered, by their places: also those whose answers found no room.
    from: HashSet<usize>,
    /// How much they take.
    bytes: usize,
    max_bytes: usize,
    /// How many of them end the waiting.
    enough: usize,
}

impl Tracker {
    pub(crate) fn new(
        cast: Cast,
        targets: Arc<[Identity]>,
        holders: Option<Arc<[Holder]>>,
        parts: Vec<Range<usize>>,
    ) -> Self {
        let inner = Inner {
            states: States::of(targets.len()),
            undecided: targets.len(),
            places: None,
            phase: Phase::Running,
            enough: false,
            finished: false,
            feed: None,
            replies: None,
            dirty: vec![false; parts.len()],
            writers: 0,
            versions: vec![0; parts.len()],
            touched: Instant::now(),
        };
        Self {
            cast,
            targets,
            holders,
            parts,
            cancelled: AtomicBool::new(false),
            inner: Mutex::new(inner),
            changed: Notify::new(),
        }
    }

    /// One that another runner has begun, as far as the ledger has it.
    pub(crate) fn resumed(entry: CastEntry, parts: Vec<(u64, Part)>) -> Self {
        let (mut targets, mut holders, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        for (_, part) in &parts {
            let begin = targets.len();
            targets.extend(part.identities.iter().cloned());
            let nobody = || vec![Holder([0; 16]); part.identities.len()];
            holders.extend(part.holders.clone().unwrap_or_else(nobody));
            ranges.push(begin..targets.len());
        }
        let tracker = Self::new(entry.cast, targets.into(), Some(holders.into()), ranges);
        for (number, (version, part)) in parts.into_iter().enumerate() {
            tracker.restore(number, version, part.states);
        }
        tracker
    }

    /// Answers of targets are collected from now on, up to so many bytes; so many of them are enough.
    pub(crate) fn collect(&self, enough: Option<usize>, max_bytes: usize) {
        let replies = Replies {
            all: VecDeque::new(),
            from: HashSet::new(),
            bytes: 0,
            max_bytes,
            enough: enough.unwrap_or(usize::MAX).min(self.targets.len()),
        };
        self.inner.lock().replies = Some(Box::new(replies));
    }

    /// News is kept for [`Self::next_news`] from now on.
    pub(crate) fn follow(&self) {
        let feed = Feed {
            queue: VecDeque::new(),
            queued: vec![false; self.targets.len()],
        };
        self.inner.lock().feed = Some(Box::new(feed));
    }

    /// Learns what became of the targets at these places.
    pub(crate) fn learn_at(&self, news: impl IntoIterator<Item = (usize, News)>) {
        let mut inner = self.inner.lock();
        let changed = news
            .into_iter()
            .map(|(place, news)| inner.learn(self, place, news))
            .fold(false, |changed, news| changed | news);
        self.wake(inner, changed);
    }

    /// Learns the same of all targets at these places.
    pub(crate) fn learn_of_all(&self, batch: &Batch, news: &News) {
        self.learn_at(batch.iter().map(|place| (place, news.clone())));
    }

    /// Wakes who waits for news, if there was any.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>, changed: bool) {
        if changed {
            inner.touched = Instant::now();
            drop(inner);
            self.changed.notify_waiters();
        }
    }

    /// Learns about identities; whether any of it was news.
    pub(crate) fn learn_of(&self, news: impl IntoIterator<Item = (Identity, News)>) -> bool {
        let mut inner = self.inner.lock();
        let mut changed = false;
        for (identity, news) in news {
            if let Some(place) = inner.place(&self.targets, &identity) {
                changed |= inner.learn(self, place, news);
            }
        }
        self.wake(inner, changed);
        changed
    }

    /// Takes the answer of a target, if such are collected; the first one counts, and is kept where there is room.
    pub(crate) fn answered(&self, reply: Reply) {
        let mut inner = self.inner.lock();
        let Some(place) = inner.place(&self.targets, &reply.identity) else {
            return;
        };
        let Some(replies) = &mut inner.replies else {
            return;
        };
        if !replies.from.insert(place) {
            return;
        }
        let bytes = replies.bytes + reply.size();
        if bytes <= replies.max_bytes {
            replies.bytes = bytes;
            replies.all.push_back(reply);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// All targets have been sent to, or will not be.
    pub(crate) fn sent(&self) {
        let mut inner = self.inner.lock();
        if inner.phase == Phase::Running {
            inner.phase = match self.is_cancelled() {
                true => Phase::Cancelled,
                false => Phase::Sent,
            };
            inner.tell_of_sending(self);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Nothing more is waited for.
    pub(crate) fn enough(&self) {
        self.inner.lock().enough = true;
        self.changed.notify_waiters();
    }

    /// Whether the ledger still has to be told that it is sent.
    pub(crate) fn is_unfinished(&self) -> bool {
        let inner = self.inner.lock();
        inner.phase != Phase::Running && !inner.finished
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.inner.lock().finished
    }

    /// The ledger knows that it is sent.
    pub(crate) fn set_finished(&self) {
        let mut inner = self.inner.lock();
        inner.finished = true;
        inner.tell_of_sending(self);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// How far sending has come.
    pub(crate) fn progress(&self) -> Progress {
        self.inner.lock().progress(&self.cast)
    }

    /// Whether there are targets that have failed, or have unless somebody tries again.
    pub(crate) fn has_failed(&self) -> bool {
        let (inner, now) = (self.inner.lock(), Timestamp::now());
        let is_failed = |state: &Brief| self.cast.status(Progress::Settled, *state, now) == Status::Failed;
        inner.states.briefs().iter().any(is_failed)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.inner.lock().phase
    }

    /// Whether the ledger has all its targets.
    pub(crate) fn is_written(&self) -> bool {
        self.inner.lock().versions.iter().all(|version| *version != 0)
    }

    /// Goes on from what the ledger says.
    pub(crate) fn restore(&self, part: usize, version: u64, states: Vec<State>) {
        let mut inner = self.inner.lock();
        inner.versions[part] = version;
        for (place, state) in self.parts[part].clone().zip(states) {
            for news in state.news() {
                inner.learn(self, place, news);
            }
        }
        inner.dirty[part] = false;
        inner.touched = Instant::now();
    }

    /// What is known of the targets in this range.
    pub(crate) fn states(&self, range: Range<usize>) -> Vec<State> {
        self.inner.lock().states.range(range).collect()
    }

    /// Those of the targets at these places that are not at a stage yet, and may still come there.
    pub(crate) fn below(&self, stage: Stage, batch: Batch) -> Batch {
        let inner = self.inner.lock();
        let briefs = inner.states.briefs();
        batch.filter(|place| briefs[place].stage < stage && !briefs[place].is_final())
    }

    /// The targets whose last attempt came to this, by their places.
    pub(crate) fn ended(&self, is_such: impl Fn(Brief) -> bool) -> Vec<usize> {
        let inner = self.inner.lock();
        let such = inner.states.briefs().iter().enumerate();
        let such = such.filter(|(_, state)| is_such(**state));
        such.map(|(place, _)| place).collect()
    }

    /// Which of these places have such a state, and which have not.
    pub(crate) fn divide(&self, batch: Batch, is_such: impl Fn(Brief) -> bool) -> (Batch, Batch) {
        let inner = self.inner.lock();
        let briefs = inner.states.briefs();
        let such = batch.iter().filter(|place| is_such(briefs[*place]));
        let such = Batch::Some(such.collect());
        (such, batch.filter(|place| !is_such(briefs[place])))
    }

    /// Everything that there is to say of the targets, in their order.
    pub(crate) fn told(&self) -> (Phase, Targets) {
        let inner = self.inner.lock();
        let statuses = self.statuses(&inner).collect();
        (
            inner.phase,
            Targets::new(self.targets.clone(), statuses, inner.states.clone()),
        )
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally::of(self.statuses(&self.inner.lock()))
    }

    fn statuses(&self, inner: &Inner) -> impl ExactSizeIterator<Item = Status> {
        let (progress, now) = (inner.progress(&self.cast), Timestamp::now());
        let states = inner.states.briefs().iter();
        states.map(move |state| self.cast.status(progress, *state, now))
    }

    /// The answers that are kept and have not been read by [`Self::next_news`], and how many targets have answered.
    pub(crate) fn replies(&self) -> (Vec<Reply>, usize) {
        let inner = self.inner.lock();
        let replies = inner.replies.as_ref();
        replies.map_or_else(Default::default, |replies| {
            (replies.all.iter().cloned().collect(), replies.from.len())
        })
    }

    /// Nobody listens any more: neither answers nor news are kept.
    pub(crate) fn unattended(&self) {
        let mut inner = self.inner.lock();
        (inner.replies, inner.feed) = (None, None);
    }

    /// Waits until every target is decided, or enough have answered, or the deadline.
    pub(crate) async fn decided(&self, deadline: Instant) {
        self.until(deadline, Inner::is_over).await;
    }

    /// Waits until nothing is sent any more, or the deadline: the phase then.
    pub(crate) async fn stopped(&self, deadline: Instant) -> Phase {
        self.until(deadline, |inner| inner.phase != Phase::Running).await;
        self.phase()
    }

    async fn until(&self, deadline: Instant, is_so: impl Fn(&Inner) -> bool) {
        let _ = timeout_at(deadline, self.changed_until(|| is_so(&self.inner.lock()))).await;
    }

    async fn changed_until(&self, is_so: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    /// Has whoever sends it stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Does this, unless it is cancelled before that is done.
    pub(crate) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.changed_until(|| self.is_cancelled()) => None,
            done = work => Some(done),
        }
    }

    /// The next news, as far as [`Self::follow`] was called before; `None` once there will be no more, or it is not
    /// waited for any longer. Cancel safe.
    pub(crate) async fn next_news(&self, deadline: Instant) -> Option<Told> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut inner = self.inner.lock();
                if let Some(told) = inner.tell(&self.cast) {
                    return Some(told);
                }
                if inner.is_over() {
                    return None;
                }
            }
            timeout_at(deadline, changed).await.ok()?;
        }
    }

    /// The next news, as [`Self::next_news`], if there is any now.
    pub(crate) fn news(&self) -> Option<Told> {
        self.inner.lock().tell(&self.cast)
    }

    /// The parts with news that the ledger does not have, to be written by whoever calls this, until
    /// [`Self::end_writing`].
    pub(crate) fn take_dirty(&self) -> Vec<usize> {
        let mut inner = self.inner.lock();
        inner.writers += 1;
        let dirty = std::mem::replace(&mut inner.dirty, vec![false; self.parts.len()]);
        let dirty = dirty.into_iter().enumerate().filter(|(_, dirty)| *dirty);
        dirty.map(|(part, _)| part).collect()
    }

    pub(crate) fn end_writing(&self) {
        let mut inner = self.inner.lock();
        inner.writers -= 1;
        let is_last = inner.writers == 0;
        drop(inner);
        if is_last {
            self.changed.notify_waiters();
        }
    }

    /// Waits until nobody writes parts; whether that is so by the deadline.
    pub(crate) async fn written(&self, deadline: Instant) -> bool {
        self.until(deadline, |inner| inner.writers == 0).await;
        self.inner.lock().writers == 0
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.inner.lock().dirty.contains(&true)
    }

    pub(crate) fn mark_dirty(&self, part: usize) {
        self.inner.lock().dirty[part] = true;
    }

    pub(crate) fn version(&self, part: usize) -> u64 {
        self.inner.lock().versions[part]
    }

    pub(crate) fn set_version(&self, part: usize, version: u64) {
        self.inner.lock().versions[part] = version;
    }

    /// How long nothing was learnt.
    pub(crate) fn idle(&self) -> Duration {
        self.inner.lock().touched.elapsed()
    }
}

/// News for somebody who reads it piece by piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// More is known of a target.
    Target(usize, Status, State),
    /// A target answered.
    Reply(Reply),
}

impl Inner {
    /// An identity's place. Few are looked for; many are found by a table made for the first one.
    fn place(&mut self, targets: &[Identity], identity: &Identity) -> Option<usize> {
        if targets.len() <= FEW {
            return targets.iter().position(|target| target == identity);
        }
        let places = self.places.get_or_insert_with(|| Box::new(Places::of(targets)));
        places.find(targets, identity)
    }

    #[inline]
    fn learn(&mut self, tracker: &Tracker, place: usize, news: News) -> bool {
        let required = tracker.cast.required;
        let Some(before) = self.states.learn(place, news) else {
            return false;
        };
        let now = self.states.briefs()[place];
        match (before.is_decided(required), now.is_decided(required)) {
            (false, true) => self.undecided -= 1,
            (true, false) => self.undecided += 1,
            _ => {}
        }
        let part = tracker.parts.partition_point(|part| part.end <= place);
        if let Some(dirty) = self.dirty.get_mut(part) {
            *dirty = true;
        }
        if let Some(feed) = &mut self.feed {
            feed.push(place);
        }
        true
    }

    fn progress(&self, cast: &Cast) -> Progress {
        match self.phase {
            Phase::Running => Progress::Sending,
            _ if cast.delivery == Delivery::AtMostOnce || self.finished => Progress::Settled,
            _ => Progress::Sent,
        }
    }

    /// What was not told of before, since it might have been tried again.
    fn tell_of_sending(&mut self, tracker: &Tracker) {
        let is_settled = self.progress(&tracker.cast) == Progress::Settled;
        let Some(feed) = self.feed.as_mut().filter(|_| is_settled) else {
            return;
        };
        let states = self.states.briefs().iter().enumerate();
        let of_sending = states.filter(|(_, state)| state.is_of_sending());
        of_sending.for_each(|(place, _)| feed.push(place));
    }

    /// Whether nothing more is waited for.
    fn is_over(&self) -> bool {
        if self.enough {
            return true;
        }
        let is_sent = self.phase != Phase::Running;
        let Some(replies) = &self.replies else {
            return is_sent && self.undecided == 0;
        };
        let may_answer = |state: &&Brief| state.end.is_none();
        let all = || self.states.briefs().iter().filter(may_answer).count();
        let answered = replies.from.len();
        answered >= replies.enough || is_sent && self.undecided == 0 && answered >= all()
    }

    fn tell(&mut self, cast: &Cast) -> Option<Told> {
        let progress = self.progress(cast);
        let feed = self.feed.as_mut()?;
        while let Some(place) = feed.queue.pop_front() {
            feed.queued[place] = false;
            let state = self.states.get(place);
            if progress == Progress::Settled || !state.brief().is_of_sending() {
                let status = cast.status(progress, state.brief(), Timestamp::now());
                return Some(Told::Target(place, status, state));
            }
        }
        let replies = self.replies.as_mut()?;
        let reply = replies.all.pop_front()?;
        // There is room for others now.
        replies.bytes -= reply.size();
        Some(Told::Reply(reply))
    }
}

#[cfg(test)]
mod tests;
