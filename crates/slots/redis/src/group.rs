//! Group commit: writes that come at the same time share calls.
//!
//! A call costs Redis and the network far more than what one more write adds to it. So while a few
//! calls are under way, further writes gather, and the next call takes what has gathered. Nobody waits
//! for company: a write that finds a call free goes at once.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::interfaces::Resp3Frame;
use parking_lot::Mutex;
use prism_slot::{Applied, Call, Error, Result};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    calls::Calls,
    codec::{Answer, Item, Reply},
    config::Config,
    error::{Effect, Fault, timeout, unavailable, unreadable},
    library::Function,
};

/// How many bytes of items one call carries, about: what Redis stores in a millisecond or two.
const CALL_BYTES: usize = 512 << 10;
/// How far back in the queue to look for writes that can share a call.
const LOOK_AHEAD: usize = 1_024;
/// Deadlines share a call when they differ by no more than this, or by an eighth of the time left.
/// The call ends at the first of them, so that nothing is sent after any.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// Sends writes over a link, in groups.
#[derive(Debug)]
pub(crate) struct Group {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: Arc<Calls>,
    max_writes: usize,
    max_calls: usize,
    max_queue: usize,
    state: Mutex<State>,
    calls: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Submission>,
    queued_writes: usize,
    calls: usize,
    closed: bool,
}

/// Writes that one caller handed over together. They stay in order.
#[derive(Debug)]
struct Submission {
    items: Vec<Item>,
    call: Call,
    ticket: Arc<Ticket>,
    reply: oneshot::Sender<Vec<Result<Answer>>>,
}

/// Who has a submission: the queue, a call, or nobody because its caller has gone.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    /// True for the one who gets it.
    fn claim(&self, by: u8) -> bool {
        self.0
            .compare_exchange(QUEUED, by, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Group {
    pub(crate) fn new(link: Arc<Calls>, config: &Config) -> Self {
        let shared = Arc::new(Shared {
            link,
            max_writes: config.group_max_writes,
            max_calls: config.group_calls,
            max_queue: config.queue_max_writes,
            state: Mutex::default(),
            calls: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Self { shared }
    }

    /// Writes a batch; answers in the order of the items.
    ///
    /// Dropping the future abandons the answer; the writes are not sent if they were not yet.
    pub(crate) async fn write(&self, call: Call, items: Vec<Item>) -> Vec<Result<Answer>> {
        let count = items.len();
        if count == 0 {
            return Vec::new();
        }
        let ticket = Arc::new(Ticket::default());
        let (reply, answers) = oneshot::channel();
        let submission = Submission {
            items,
            call,
            ticket: ticket.clone(),
            reply,
        };
        if let Err(error) = self.shared.enqueue(submission) {
            return vec![Err(error); count];
        }
        let unanswered = |why: fn(Applied) -> Error| {
            let applied = if ticket.claim(ABANDONED) {
                Applied::No
            } else {
                Applied::Unknown
            };
            vec![Err(why(applied)); count]
        };
        match timeout_at(call.deadline, answers).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) => unanswered(|applied| unavailable("the slot is closed", applied)),
            Err(_) => unanswered(timeout),
        }
    }

    /// Refuses further writes, drops those that wait, and lets those under way end, for `limit` at most.
    pub(crate) async fn close(&self, limit: Duration) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.queued_writes = 0;
            std::mem::take(&mut state.queue)
        };
        // Each caller sees its reply go, and its ticket unclaimed.
        drop(waiting);
        self.shared.calls.close();
        let _ = tokio::time::timeout(limit, self.shared.calls.wait()).await;
        self.shared.stop.cancel();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    fn enqueue(self: &Arc<Self>, submission: Submission) -> Result<()> {
        let count = submission.items.len();
        let mut state = self.state.lock();
        if state.closed {
            return Err(unavailable("the slot is closed", Applied::No));
        }
        if state.queued_writes + count > self.max_queue && !state.queue.is_empty() {
            let message = format!("{} writes wait already; slow down", state.queued_writes);
            return Err(unavailable(message, Applied::No));
        }
        state.queued_writes += count;
        state.queue.push_back(submission);
        if state.calls < self.max_calls {
            state.calls += 1;
            let shared = self.clone();
            self.calls.spawn(async move {
                let stop = shared.stop.clone();
                stop.run_until_cancelled(shared.run()).await;
            });
        }
        Ok(())
    }

    /// Makes one call after the other until nothing waits.
    async fn run(&self) {
        while let Some(group) = self.next_group() {
            self.commit(group).await;
        }
    }

    /// Takes what the next call carries. Without anything to take, this call is counted as ended, in
    /// the same moment: a write that comes later starts its own.
    fn next_group(&self) -> Option<Vec<Submission>> {
        let mut state = self.state.lock();
        loop {
            if state.queue.is_empty() {
                state.calls -= 1;
                return None;
            }
            let group = take_group(&mut state, self.max_writes, Instant::now());
            if !group.is_empty() {
                return Some(group);
            }
        }
    }

    async fn commit(&self, group: Vec<Submission>) {
        let Some(call) = shared_call(&group) else { return };
        let counts: Vec<usize> = group.iter().map(|submission| submission.items.len()).collect();
        let (mut items, mut replies) = (
            Vec::with_capacity(counts.iter().sum()),
            Vec::with_capacity(group.len()),
        );
        for submission in group {
            items.extend(submission.items);
            replies.push(submission.reply);
        }
        let mut answers = self.send(call, &items).await.into_iter();
        for (reply, count) in replies.into_iter().zip(counts) {
            // A caller that has gone does not mind.
            let _ = reply.send(answers.by_ref().take(count).collect());
        }
    }

    /// Sends items in as few calls as the limits allow, in order, one after the other.
    async fn send(&self, call: Call, items: &[Item]) -> Vec<Result<Answer>> {
        let mut answers = Vec::with_capacity(items.len());
        let mut rest = items;
        while !rest.is_empty() {
            let (part, later) = rest.split_at(first_part(rest, self.max_writes));
            answers.extend(self.send_part(call, part).await);
            rest = later;
        }
        answers
    }

    async fn send_part(&self, call: Call, items: &[Item]) -> Vec<Result<Answer>> {
        let relieving = items.iter().all(Item::relieves);
        let function = if relieving {
            Function::Relieve
        } else {
            Function::Write
        };
        let sent = self
            .link
            .invoke(function, call, &flat(items.iter()), Effect::Write)
            .await;
        match sent {
            Ok(frame) => answers(frame, items.len()),
            Err(Fault::OutOfMemory(message)) if !relieving => {
                self.send_relieving(call, items, &message).await
            }
            Err(fault) => vec![Err(fault.into_error(Applied::Unknown)); items.len()],
        }
    }

    /// Redis has no memory to store anything more: sends what frees some, refuses the rest.
    async fn send_relieving(&self, call: Call, items: &[Item], message: &str) -> Vec<Result<Answer>> {
        let relieving: Vec<&Item> = items.iter().filter(|item| item.relieves()).collect();
        let mut relieved = Vec::new().into_iter();
        if !relieving.is_empty() {
            let arguments = flat(relieving.iter().copied());
            let sent = self
                .link
                .invoke(Function::Relieve, call, &arguments, Effect::Write)
                .await;
            let all = match sent {
                Ok(frame) => answers(frame, relieving.len()),
                Err(fault) => vec![Err(fault.into_error(Applied::Unknown)); relieving.len()],
            };
            relieved = all.into_iter();
        }
        let refuse = || Err(unavailable(message, Applied::No));
        items
            .iter()
            .map(|item| {
                if item.relieves() {
                    relieved.next().unwrap_or_else(refuse)
                } else {
                    refuse()
                }
            })
            .collect()
    }
}

/// Takes submissions that can share a call, the first in the queue always among them. Those that come
/// too late are answered and left out, and so are those whose callers have gone.
fn take_group(state: &mut State, max_writes: usize, now: Instant) -> Vec<Submission> {
    let (mut group, mut passed): (Vec<Submission>, Vec<Submission>) = (Vec::new(), Vec::new());
    let (mut writes, mut bytes) = (0, 0);
    while passed.len() < LOOK_AHEAD && writes < max_writes && bytes < CALL_BYTES {
        let Some(submission) = state.queue.pop_front() else {
            break;
        };
        let count = submission.items.len();
        let size: usize = submission.items.iter().map(Item::bytes).sum();
        let fits = writes + count <= max_writes && bytes + size <= CALL_BYTES;
        if group
            .first()
            .is_some_and(|first| !fits || !can_share(&first.call, &submission.call, now))
        {
            passed.push(submission);
            continue;
        }
        state.queued_writes -= count;
        if let Some(submission) = still_wanted(submission, now) {
            writes += count;
            bytes += size;
            group.push(submission);
        }
    }
    for submission in passed.into_iter().rev() {
        state.queue.push_front(submission);
    }
    group
}

fn still_wanted(submission: Submission, now: Instant) -> Option<Submission> {
    if submission.reply.is_closed() || !submission.ticket.claim(TAKEN) {
        return None;
    }
    if submission.call.deadline > now {
        return Some(submission);
    }
    let count = submission.items.len();
    let _ = submission.reply.send(vec![Err(timeout(Applied::No)); count]);
    None
}

fn can_share(first: &Call, other: &Call, now: Instant) -> bool {
    let apart = first.deadline.max(other.deadline) - first.deadline.min(other.deadline);
    let slack = DEADLINE_SLACK.max(first.deadline.saturating_duration_since(now) / 8);
    first.epoch == other.epoch && apart <= slack
}

/// The call that a group shares; it ends at the first of their deadlines.
fn shared_call(group: &[Submission]) -> Option<Call> {
    let deadline = group.iter().map(|submission| submission.call.deadline).min()?;
    Some(Call {
        epoch: group[0].call.epoch,
        deadline,
    })
}

/// How many of the first items go into one call; at least one.
fn first_part(items: &[Item], max_writes: usize) -> usize {
    let mut bytes = 0;
    let fitting = items.iter().take(max_writes).take_while(|item| {
        bytes += item.bytes();
        bytes <= CALL_BYTES
    });
    fitting.count().max(1)
}

fn flat<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<Bytes> {
    items
        .flat_map(|item| std::iter::once(item.head.clone()).chain(item.metadata.clone()))
        .collect()
}

/// One answer an item, or the same error for all.
fn answers(frame: Resp3Frame, count: usize) -> Vec<Result<Answer>> {
    let read = Reply::read(frame).and_then(|mut reply| {
        let epoch = reply.head.epoch;
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            answers.push(Ok(Answer {
                epoch,
                bytes: reply.text()?,
            }));
        }
        if reply.parts.len() > 0 {
            return Err(unreadable("redis answered to more writes than it was sent"));
        }
        Ok(answers)
    });
    read.unwrap_or_else(|error| vec![Err(error); count])
}

#[cfg(test)]
mod tests;
