//! A call on its way: from a caller, through the queue, to the thread that owns the connection, and back.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use prism_slot::{Applied, Error, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    error::{Fault, closed, timeout, unavailable},
    step::Step,
};

/// Who has a call: the queue, the thread, or nobody because its caller has gone.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    /// True for the one who gets it.
    fn claim(&self, by: u8) -> bool {
        let claimed = self
            .0
            .compare_exchange(QUEUED, by, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok()
    }
}

/// A call as the thread sees it.
pub(crate) trait Job: Send {
    /// How many bytes it brings, about.
    fn size(&self) -> usize;
    /// Whether it is still wanted, and in time. One that is not answers by itself.
    fn take(&mut self, now: Instant) -> bool;
    /// Whether there is no time left for it.
    fn is_late(&self, now: Instant) -> bool;
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
    /// Whether it would have the file hold more.
    fn grows(&self) -> bool;
    /// Does the work, from the beginning each time. `Err` where nothing of it may stay.
    fn run(&mut self, step: &mut Step<'_>) -> Result<(), Fault>;
    /// Its outcome is this, whatever the work has found.
    fn fail(&mut self, error: Error);
    /// Tells the caller.
    fn answer(self: Box<Self>);
}

/// What a call brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// How many bytes, about.
    pub(crate) size: usize,
    /// Whether it would have the file hold more. Where there is no room, only such calls are refused.
    pub(crate) grows: bool,
}

impl Load {
    /// Of a call that stores nothing, or no more than there was.
    pub(crate) fn of(size: usize) -> Self {
        Self { size, grows: false }
    }

    /// Of a call that stores.
    pub(crate) fn stored(size: usize) -> Self {
        Self { size, grows: true }
    }
}

struct Call<T, W> {
    work: W,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    deadline: Instant,
    load: Load,
    ticket: Arc<Ticket>,
    _room: OwnedSemaphorePermit,
}

impl<T, W> Job for Call<T, W>
where
    T: Send,
    W: FnMut(&mut Step<'_>) -> Result<T, Fault> + Send,
{
    fn size(&self) -> usize {
        self.load.size
    }

    fn grows(&self) -> bool {
        self.load.grows
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.reply.is_closed() || !self.ticket.claim(TAKEN) {
            return false;
        }
        if self.is_late(now) {
            self.outcome = Some(Err(timeout(Applied::No)));
            return false;
        }
        true
    }

    fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed() || self.ticket.0.load(Ordering::Acquire) == ABANDONED
    }

    fn run(&mut self, step: &mut Step<'_>) -> Result<(), Fault> {
        self.outcome = Some(match (self.work)(step) {
            Ok(done) => Ok(done),
            Err(Fault::Refused(error)) => Err(error),
            Err(fault) => return Err(fault),
        });
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // A caller that has gone does not mind.
            let _ = self.reply.send(outcome);
        }
    }
}

/// The caller's end of a call.
#[must_use]
pub(crate) struct Pending<T> {
    answer: oneshot::Receiver<Result<T>>,
    deadline: Instant,
    ticket: Arc<Ticket>,
}

/// A call for the queue, and the end at which its answer arrives.
pub(crate) fn call<T, W>(
    deadline: Instant,
    load: Load,
    room: OwnedSemaphorePermit,
    work: W,
) -> (Box<dyn Job>, Pending<T>)
where
    T: Send + 'static,
    W: FnMut(&mut Step<'_>) -> Result<T, Fault> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let ticket = Arc::new(Ticket::default());
    let call = Call {
        work,
        outcome: None,
        reply,
        deadline,
        load,
        ticket: ticket.clone(),
        _room: room,
    };
    let pending = Pending {
        answer,
        deadline,
        ticket,
    };
    (Box::new(call), pending)
}

impl<T> Pending<T> {
    /// Waits for the answer until the deadline; where the call is being executed then, for `grace` longer.
    ///
    /// Dropping the future abandons the answer, and the call if it is not being executed yet.
    pub(crate) async fn answer(mut self, grace: std::time::Duration) -> Result<T> {
        let mut answered = timeout_at(self.deadline, &mut self.answer).await;
        if answered.is_err() {
            if self.ticket.claim(ABANDONED) {
                return Err(timeout(Applied::No));
            }
            answered = timeout_at(self.deadline + grace, &mut self.answer).await;
        }
        match answered {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if self.ticket.claim(ABANDONED) => Err(closed()),
            Ok(Err(_)) => Err(unavailable("its thread has ended", Applied::Unknown)),
            Err(_) => Err(timeout(Applied::Unknown)),
        }
    }
}
