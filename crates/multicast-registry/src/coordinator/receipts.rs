//! What is known of multicasts later: read, and cancelled, through any runner.

use std::{sync::Arc, time::Duration};

use prism_slot::{Applied, Identity, MulticastId, Outcome, Ticket};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{Coordinator, Error};
use crate::delivery::{
    Brief, CastEntry, Delivery, End, KeyEntry, News, Note, Part, Phase, Progress, Query, QueryAnswer,
    Receipt, ReceiptsScope, Report, Runner, Stage, State, Status, Tally, Target, Targets, Tracker,
    targets_of,
};

/// How often the ledger is looked at for the end of a multicast that another runner makes.
const LOOK: Duration = Duration::from_millis(50);
/// How long a runner that is alive has to say whether it is at work on a multicast.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long another runner's answer is waited for before it is asked again.
const ASKED: Duration = Duration::from_secs(2);
/// How many targets a page has at most.
pub const MAX_PAGE: usize = 1_000;
/// How many targets another runner is asked for at a time: their names fit into a note.
const ASK: usize = 500;
/// How many identities are taken back at a time.
const CANCEL: usize = 1_024;

/// Which targets of a multicast to show.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// How many.
    pub limit: usize,
    /// Where to begin.
    pub offset: usize,
    /// Only those with one of these; all if empty.
    pub only: Vec<Status>,
}

/// A multicast as a whole, wherever it is known from.
struct Known {
    entry: CastEntry,
    progress: Progress,
    identities: Vec<Identity>,
    states: Vec<State>,
}

impl Coordinator {
    /// What is known of a multicast now, a page of its targets at a time.
    ///
    /// # Errors
    /// [`Error::UnknownMulticast`]; an unavailable ledger.
    pub async fn get_multicast(
        &self,
        id: MulticastId,
        pages: Pages,
        deadline: Instant,
    ) -> Result<Report, Error> {
        self.open_for_calls()?;
        let known = self.known(id, deadline).await?;
        Ok(known.report(&pages))
    }

    /// Takes back what has not been handed over yet: what is not sent, and what waits in inboxes. Then as
    /// [`Self::get_multicast`].
    ///
    /// # Errors
    /// As [`Self::get_multicast`]; [`Error::DeadlineExceeded`] when it is not known by then that sending has ended.
    pub async fn cancel_multicast(&self, id: MulticastId, deadline: Instant) -> Result<Report, Error> {
        self.open_for_calls()?;
        self.stop(id, deadline).await?;
        let known = match self.shared.desk.get(id) {
            Some(tracker) => {
                self.take_back_here(&tracker, deadline).await?;
                Known::of(&tracker, self.shared.runner)
            }
            None => {
                let mut known = self.known(id, deadline).await?;
                self.take_back_recorded(&mut known, deadline).await?;
                known
            }
        };
        let all = Pages {
            limit: MAX_PAGE,
            ..Pages::default()
        };
        Ok(known.report(&all))
    }

    /// Has it sent to nobody else, also should its runner end now, and waits until what is under way has ended, for that
    /// might be stored after it was looked for.
    async fn stop(&self, id: MulticastId, deadline: Instant) -> Result<(), Error> {
        loop {
            let tracker = self.shared.desk.get(id);
            let stopped = match &tracker {
                Some(tracker) => self.stop_here(tracker, deadline).await?,
                None => self.stop_elsewhere(id, deadline).await?,
            };
            if stopped {
                return Ok(());
            }
            timeout_at(deadline, sleep(LOOK))
                .await
                .map_err(|_| Error::DeadlineExceeded)?;
        }
    }

    /// False where it goes on: one whose call was given up may do so in another tracker.
    async fn stop_here(&self, tracker: &Tracker, deadline: Instant) -> Result<bool, Error> {
        tracker.cancel();
        let patience = deadline.min(Instant::now() + PATIENCE);
        if tracker.stopped(patience).await == Phase::Running {
            return Ok(false);
        }
        if tracker.cast.recorded && tracker.is_unfinished() {
            self.books().finish(tracker, deadline).await?;
        }
        Ok(true)
    }

    /// False where it goes on, with another runner now.
    async fn stop_elsewhere(&self, id: MulticastId, deadline: Instant) -> Result<bool, Error> {
        // It may have been taken over since it was begun.
        let entry = self.books().cast(id, deadline).await?;
        let runner = entry.as_ref().map_or(Runner::of(id), |entry| entry.runner);
        let answer = self.ask(runner, id, 0, 0, true, deadline).await?;
        let is_begun = |answer: &QueryAnswer| answer.at_work && answer.known.is_none();
        if answer.as_ref().is_some_and(is_begun) || self.shared.desk.has(id) {
            return Ok(false);
        }
        if let Some((entry, _)) = answer.and_then(|answer| answer.known) {
            return Ok(entry.phase != Phase::Running);
        }
        let is_stored = |entry: &CastEntry| entry.cast.delivery != Delivery::AtMostOnce;
        if !entry.as_ref().is_some_and(is_stored) {
            return Ok(true);
        }
        // Nobody is at work on it. Whoever would go on with it finds this first.
        let now = self.books().cancel(id, runner, deadline).await?;
        Ok(now.is_none_or(|now| now.phase != Phase::Running))
    }

    /// Takes back what waits for the targets of a multicast that this runner has in memory. The ledger knows it first.
    async fn take_back_here(&self, tracker: &Arc<Tracker>, deadline: Instant) -> Result<(), Error> {
        let id = tracker.cast.id;
        if tracker.cast.delivery == Delivery::AtMostOnce {
            return Ok(());
        }
        let places = tracker.ended(is_waiting);
        let waiting: Vec<Identity> = places
            .iter()
            .map(|place| tracker.targets[*place].clone())
            .collect();
        let learn = |taken: usize| tracker.learn_at([(places[taken], cancelled())]);
        let taken = self.take_back(id, &waiting, learn, deadline).await;
        let written = self.books().flush(tracker, deadline).await;
        if written.is_err() && self.shared.desk.get(id).is_none() {
            // Where it is written up as soon as that goes.
            self.shared.desk.put(tracker.clone());
        }
        taken.and(written.map_err(Error::from))
    }

    /// As [`Self::take_back_here`] for one of which this runner knows what the ledger says.
    async fn take_back_recorded(&self, known: &mut Known, deadline: Instant) -> Result<(), Error> {
        let (id, runner) = (known.entry.cast.id, known.entry.runner);
        if known.entry.cast.delivery == Delivery::AtMostOnce {
            return Ok(());
        }
        let places: Vec<usize> = (0..known.states.len())
            .filter(|place| is_waiting(known.states[*place].brief()))
            .collect();
        let waiting: Vec<Identity> = places
            .iter()
            .map(|place| known.identities[*place].clone())
            .collect();
        let mut receipts = Vec::new();
        let learn = |taken: usize| {
            known.states[places[taken]].learn(cancelled());
            receipts.push(Receipt {
                identity: waiting[taken].clone(),
                news: Some(cancelled()),
                reply: None,
            });
        };
        let taken = self.take_back(id, &waiting, learn, deadline).await;
        if receipts.is_empty() {
            return taken;
        }
        let written = self.books().apply(id, &receipts, deadline).await;
        let post = match runner == self.shared.runner {
            true => None,
            false => self.books().post_of(runner, deadline).await.ok().flatten(),
        };
        let ticket = Ticket {
            multicast: id,
            receipts: post.filter(|post| !post.is_empty()),
        };
        // Who has it in memory learns of it, too; what could not be written down is as soon as that goes.
        if ticket.receipts.is_some() || written.is_err() {
            for receipt in &receipts {
                self.shared
                    .courier
                    .say(&ticket, &receipt.identity, cancelled(), None);
            }
        }
        taken.and(written.map_err(Error::from))
    }

    /// Takes messages of these back that are stored and not with a consumer. Says which were taken, whatever others fail
    /// with.
    async fn take_back(
        &self,
        id: MulticastId,
        waiting: &[Identity],
        mut learn: impl FnMut(usize),
        deadline: Instant,
    ) -> Result<(), Error> {
        let Some(inbox) = self.inbox() else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for (number, part) in waiting.chunks(CANCEL).enumerate() {
            let taken = inbox.cancel(id, part, deadline).await;
            for (place, taken) in (number * CANCEL..).zip(taken) {
                match taken {
                    Ok(true) => learn(place),
                    Ok(false) => {}
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        Ok(outcome?)
    }

    async fn known(&self, id: MulticastId, deadline: Instant) -> Result<Known, Error> {
        if let Some(tracker) = self.shared.desk.get(id) {
            return Ok(Known::of(&tracker, self.shared.runner));
        }
        if let Some(known) = self.recorded(id, deadline).await? {
            return Ok(known);
        }
        self.asked(id, deadline).await?.ok_or(Error::UnknownMulticast(id))
    }

    /// As the ledger has it.
    async fn recorded(&self, id: MulticastId, deadline: Instant) -> Result<Option<Known>, Error> {
        let Some(known) = self.in_ledger(id, deadline).await? else {
            return Ok(None);
        };
        if !self.is_nobodys(&known, deadline).await?
            || self.is_at_work(known.entry.runner, id, deadline).await
        {
            return Ok(Some(known));
        }
        // It may have come to its end before that was asked.
        let mut known = self.in_ledger(id, deadline).await?;
        if let Some(known) = known.as_mut().filter(|known| known.is_running()) {
            known.abandon();
        }
        Ok(known)
    }

    /// Whether nobody goes on with it, should its runner have ended: it is sent once, or what there is to send is not
    /// kept any more.
    async fn is_nobodys(&self, known: &Known, deadline: Instant) -> Result<bool, Error> {
        let cast = &known.entry.cast;
        let is_sent_once = cast.delivery == Delivery::AtMostOnce;
        Ok(known.is_running() && (is_sent_once || !self.books().has_load(cast.id, deadline).await?))
    }

    async fn in_ledger(&self, id: MulticastId, deadline: Instant) -> Result<Option<Known>, Error> {
        let books = self.books();
        let Some(entry) = books.cast(id, deadline).await? else {
            return Ok(None);
        };
        let parts = books.parts(&entry, deadline).await?;
        let mut known = Known {
            identities: Vec::with_capacity(entry.target_count),
            states: Vec::with_capacity(entry.target_count),
            progress: Progress::recorded(entry.phase),
            entry,
        };
        for (_, part) in parts {
            known.identities.extend(part.identities);
            known.states.extend(part.states);
        }
        Ok(Some(known))
    }

    /// As the runner that made it has it.
    async fn asked(&self, id: MulticastId, deadline: Instant) -> Result<Option<Known>, Error> {
        let mut known: Option<Known> = None;
        loop {
            let offset = known.as_ref().map_or(0, |known| known.identities.len());
            let asked = self.ask(Runner::of(id), id, offset, ASK, false, deadline).await?;
            let Some(answer) = asked else {
                return Ok(None);
            };
            let Some((mut entry, part)) = answer.known else {
                return Ok(None);
            };
            entry.cast.recorded = false;
            let known = known.get_or_insert_with(|| Known {
                progress: Progress::recorded(entry.phase),
                entry,
                identities: Vec::new(),
                states: Vec::new(),
            });
            known.identities.extend(part.identities);
            known.states.extend(part.states);
            if !answer.more {
                break;
            }
        }
        Ok(known)
    }

    /// Asks the runner that has a multicast; `None` where it is not alive.
    async fn ask(
        &self,
        runner: Runner,
        multicast: MulticastId,
        offset: usize,
        limit: usize,
        cancel: bool,
        deadline: Instant,
    ) -> Result<Option<QueryAnswer>, Error> {
        if runner == self.shared.runner {
            return Ok(None);
        }
        let post = self.books().post_of(runner, deadline).await?;
        let Some(post) = post.filter(|post| !post.is_empty()) else {
            return Ok(None);
        };
        self.shared.courier.ready(deadline).await;
        let Some(answer_to) = self.shared.courier.address() else {
            return Ok(None);
        };
        let (question, mut answered) = self.shared.questions.ask();
        let note = Note::Query(Query {
            multicast,
            request: question.request,
            answer_to,
            offset,
            limit,
            cancel,
        });
        let note = note.encode();
        // Questions and answers are lost where a post is full. Any answer counts, however late.
        while Instant::now() < deadline {
            let sent = self.messaging().send(&post, note.clone(), deadline).await;
            match sent {
                Outcome::NoSubscriber => return Ok(None),
                Outcome::NotSent(message) => {
                    return Err(prism_slot::Error::Unavailable {
                        backend: self.messaging().capability().backend,
                        message,
                        applied: Applied::No,
                    }
                    .into());
                }
                Outcome::Accepted | Outcome::Unknown(_) => {}
            }
            let patience = deadline.min(Instant::now() + ASKED);
            if let Ok(Ok(answer)) = timeout_at(patience, &mut answered).await {
                return Ok(Some(answer));
            }
        }
        Err(Error::DeadlineExceeded)
    }

    /// Whether a runner sends a multicast, or is about to begin it. One that is alive and does not answer may be.
    async fn is_at_work(&self, runner: Runner, id: MulticastId, deadline: Instant) -> bool {
        if runner == self.shared.runner {
            return self.shared.desk.has(id);
        }
        let until = deadline.min(Instant::now() + PATIENCE);
        match self.ask(runner, id, 0, 0, false, until).await {
            Ok(answer) => answer.is_some_and(|answer| answer.at_work || answer.known.is_some()),
            Err(_) => true,
        }
    }

    /// Cancels a multicast for another runner, as far as that can be done now. Whether it is over, and would be without
    /// this runner.
    async fn cancel_here(&self, tracker: &Arc<Tracker>, deadline: Instant) -> bool {
        let cancelled = async {
            let is_over = self.stop_here(tracker, deadline).await?;
            if is_over {
                self.take_back_here(tracker, deadline).await?;
            }
            Ok::<bool, Error>(is_over)
        };
        let (namespace, multicast) = (self.shared.sessions.namespace(), tracker.cast.id);
        cancelled.await.unwrap_or_else(|error| {
            tracing::warn!(namespace, %multicast, %error, "a multicast could not be cancelled, trying again when asked to");
            false
        })
    }

    /// Answers another runner.
    pub(super) async fn answer(&self, query: Query, deadline: Instant) {
        let tracker = self.shared.desk.get(query.multicast);
        let is_over = match tracker.as_ref().filter(|_| query.cancel) {
            Some(tracker) => self.cancel_here(tracker, deadline).await,
            None => true,
        };
        let count = tracker.as_ref().map_or(0, |tracker| tracker.targets.len());
        let range = query.offset.min(count)..query.offset.saturating_add(query.limit.min(ASK)).min(count);
        let answer = QueryAnswer {
            request: query.request,
            more: range.end < count,
            at_work: self.shared.desk.has(query.multicast),
            known: tracker.map(|tracker| {
                let part = Part {
                    identities: tracker.targets[range.clone()].to_vec(),
                    states: tracker.states(range),
                    holders: None,
                };
                let mut entry = entry_of(&tracker, self.shared.runner);
                if !is_over {
                    entry.phase = Phase::Running;
                }
                (entry, part)
            }),
        };
        let note = Note::Answer(answer).encode();
        // Where it is lost, the other side asks again, or gives up.
        let _ = self.messaging().send(&query.answer_to, note, deadline).await;
    }

    /// The outcome of the multicast that has an idempotency key, once it has one; `None` where it is not begun, and nobody
    /// is about to.
    pub(super) async fn outcome_of(
        &self,
        key: &KeyEntry,
        deadline: Instant,
    ) -> Result<Option<Report>, Error> {
        let all = Pages {
            limit: usize::MAX,
            ..Pages::default()
        };
        loop {
            // What has a key is in the ledger before anything of it is sent.
            let known = match self.shared.desk.get(key.multicast) {
                Some(tracker) => Some(Known::of(&tracker, self.shared.runner)),
                None => self.recorded(key.multicast, deadline).await?,
            };
            match &known {
                Some(known) if known.progress != Progress::Settled => {}
                Some(_) => return Ok(known.map(|known| known.report(&all))),
                None if !key.yields || self.is_at_work(key.runner, key.multicast, deadline).await => {}
                None => return Ok(None),
            }
            if timeout_at(deadline, sleep(LOOK)).await.is_err() || Instant::now() >= deadline {
                let report = known.map(|known| known.report(&all));
                return report.map(Some).ok_or(Error::DeadlineExceeded);
            }
        }
    }
}

/// Whether a message may wait in an inbox.
fn is_waiting(state: Brief) -> bool {
    // Also one that is only not known to be stored.
    state.stage < Stage::Acked && matches!(state.end, None | Some(End::Unknown))
}

fn cancelled() -> News {
    News::Ended(End::Cancelled, None)
}

fn entry_of(tracker: &Tracker, runner: Runner) -> CastEntry {
    CastEntry {
        cast: tracker.cast.clone(),
        runner,
        target_count: tracker.targets.len(),
        part_count: tracker.parts.len(),
        phase: tracker.phase(),
    }
}

impl Known {
    fn of(tracker: &Tracker, runner: Runner) -> Self {
        Self {
            entry: entry_of(tracker, runner),
            progress: tracker.progress(),
            identities: tracker.targets.to_vec(),
            states: tracker.states(0..tracker.targets.len()),
        }
    }

    fn is_running(&self) -> bool {
        self.entry.phase == Phase::Running
    }

    /// Nobody sends it any more, and nobody knows how far that came.
    fn abandon(&mut self) {
        self.entry.phase = Phase::Sent;
        self.progress = Progress::Settled;
        let open = self
            .states
            .iter_mut()
            .filter(|state| state.stage == Stage::Resolved);
        for state in open {
            state.learn(News::Ended(
                End::Unknown,
                Some("its runner ended while it sent".into()),
            ));
        }
    }

    fn report(self, pages: &Pages) -> Report {
        let Self {
            entry,
            progress,
            identities,
            states,
        } = self;
        let (cast, phase) = (&entry.cast, entry.phase);
        let targets = targets_of(cast, progress, &identities, states);
        let mut tally = Tally::of(targets.iter().map(Target::status));
        // Of parts that made room for others nobody knows any more who was in them.
        tally.timeout += entry.target_count.saturating_sub(targets.len());
        let asked = |target: &Target| pages.only.is_empty() || pages.only.contains(&target.status());
        let mut shown = targets.into_iter().filter(asked).skip(pages.offset);
        let page: Targets = shown.by_ref().take(pages.limit).collect();
        let next = shown.next().map(|_| pages.offset + page.len());
        let scope = match cast.recorded {
            true => ReceiptsScope::Ledger,
            false => ReceiptsScope::Runner,
        };
        Report {
            id: cast.id,
            position: cast.position,
            targets: page,
            tally,
            phase,
            replayed: false,
            kept: Some((scope, cast.kept_until)),
            replies: Vec::new(),
            reply_count: 0,
            next,
        }
    }
}

/// Questions to other runners that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: parking_lot::Mutex<std::collections::HashMap<u64, oneshot::Sender<QueryAnswer>>>,
}

/// A question that is open until this is dropped.
struct Question<'a> {
    questions: &'a Questions,
    request: u64,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.questions.open.lock().remove(&self.request);
    }
}

impl Questions {
    fn ask(&self) -> (Question<'_>, oneshot::Receiver<QueryAnswer>) {
        let (request, (sender, answered)) = (rand::random(), oneshot::channel());
        self.open.lock().insert(request, sender);
        let question = Question {
            questions: self,
            request,
        };
        (question, answered)
    }

    pub(super) fn answered(&self, answer: QueryAnswer) {
        let asked = self.open.lock().remove(&answer.request);
        if let Some(asked) = asked {
            // Fails where nobody waits any more.
            let _ = asked.send(answer);
        }
    }
}
