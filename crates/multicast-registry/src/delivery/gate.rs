//! Who may send, and when: multicasts take turns, and more than can be served in time are refused early.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// How many targets are sent to at a time, of all multicasts together.
const AT_A_TIME: u32 = 8 * 1_024;
/// What a window takes of them at least: not only its targets cost, it does too.
const LEAST: u32 = 32;
/// And at most, so that several windows are under way however large they are.
const MOST: u32 = 1_024;
/// How much of a new measurement goes into what is expected: an eighth.
const SMOOTHING: u64 = 8;
/// Below this many targets nothing is refused for lack of time: too little is known of so few.
const MIN_QUEUE: usize = 2_048;

/// Lets multicasts send in turns. Whoever has sent to a window of targets goes to the end of the queue, so that one to
/// many targets does not hold up those to few.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Semaphore,
    /// How many targets are admitted and not sent to.
    waiting: Arc<AtomicUsize>,
    /// How long a target takes, in nanoseconds, as far as is known.
    per_target: AtomicU64,
}

/// Targets that are admitted. Those that were not sent to are given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    waiting: Arc<AtomicUsize>,
    left: AtomicUsize,
}

/// The right to send to one window.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    began: Instant,
    targets: usize,
    places: SemaphorePermit<'a>,
}

/// More targets are under way than can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// How many are waiting.
    pub(crate) waiting: usize,
    /// In how long they will have been sent to.
    pub(crate) clear_in: Duration,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            places: Semaphore::new(AT_A_TIME as usize),
            waiting: Arc::default(),
            per_target: AtomicU64::new(0),
        }
    }

    /// Lets targets in, unless there are more than `max` with them, or their turn would not come in time.
    pub(crate) fn admit(&self, targets: usize, max: usize, deadline: Instant) -> Result<Admission, Crowded> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let admission = self.admit_anyway(targets);
        let per_target = Duration::from_nanos(self.per_target.load(Ordering::Relaxed));
        let clear_in = per_target.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX));
        // Half of the time is for sending, and for the answer.
        let in_time = waiting < MIN_QUEUE || Instant::now() + clear_in.saturating_mul(2) < deadline;
        // One alone is let in, however large it is.
        if in_time && (waiting == 0 || waiting.saturating_add(targets) <= max) {
            return Ok(admission);
        }
        Err(Crowded { waiting, clear_in })
    }

    /// Lets targets in, whatever else is under way.
    pub(crate) fn admit_anyway(&self, targets: usize) -> Admission {
        self.waiting.fetch_add(targets, Ordering::Relaxed);
        Admission {
            waiting: self.waiting.clone(),
            left: AtomicUsize::new(targets),
        }
    }

    /// Takes a turn to send to so many targets, if nobody has to be waited for.
    pub(crate) fn turn_at_once(&self, targets: usize) -> Option<Turn<'_>> {
        let places = self.places.try_acquire_many(wanted(targets)).ok()?;
        Some(self.begin(targets, places))
    }

    /// Waits for a turn to send to so many targets; `None` where the deadline comes first. Cancel safe.
    pub(crate) async fn turn(&self, targets: usize, deadline: Instant) -> Option<Turn<'_>> {
        let places = self.places.acquire_many(wanted(targets));
        let places = timeout_at(deadline, places).await.ok()?.ok()?;
        Some(self.begin(targets, places))
    }

    fn begin<'a>(&'a self, targets: usize, places: SemaphorePermit<'a>) -> Turn<'a> {
        Turn {
            gate: self,
            began: Instant::now(),
            targets,
            places,
        }
    }
}

/// How many places so many targets take.
fn wanted(targets: usize) -> u32 {
    u32::try_from(targets).unwrap_or(MOST).clamp(LEAST, MOST)
}

impl Turn<'_> {
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The window has been sent to.
    pub(crate) fn done(self, admission: &Admission) {
        admission.sent(self.targets);
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // While this window was sent to, others may have been in all the places that it did not take.
        let others = u64::from(AT_A_TIME) / self.places.num_permits() as u64;
        let share = took / (self.targets.max(1) as u64) / others;
        let expected = &self.gate.per_target;
        let known = expected.load(Ordering::Relaxed);
        expected.store((known * (SMOOTHING - 1) + share) / SMOOTHING, Ordering::Relaxed);
    }
}

impl Admission {
    fn sent(&self, targets: usize) {
        let sent = |left: usize| left.checked_sub(targets);
        let given_up = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sent);
        if given_up.is_ok() {
            self.waiting.fetch_sub(targets, Ordering::Relaxed);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.waiting.fetch_sub(*self.left.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(by: Duration) -> Instant {
        Instant::now() + by
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_let_in_than_are_allowed() {
        let gate = Gate::new();
        let deadline = later(Duration::from_secs(5));
        let first = gate.admit(500, 100, deadline);
        assert!(first.is_ok(), "one alone is, however large");
        assert_eq!(gate.admit(1, 100, deadline).unwrap_err().waiting, 500);
        drop(first);
        let one = gate.admit(60, 100, deadline).unwrap();
        assert!(gate.admit(50, 100, deadline).is_err());
        gate.turn(40, deadline).await.unwrap().done(&one);
        assert!(gate.admit(50, 100, deadline).is_ok());
    }

    /// A queue that cannot be served in time is refused early.
    #[tokio::test(start_paused = true)]
    async fn those_that_would_come_too_late_are_refused_at_once() {
        let gate = Gate::new();
        let slow = gate
            .admit(1_000, usize::MAX, later(Duration::from_secs(60)))
            .unwrap();
        for _ in 0..50 {
            let turn = gate.turn(10, later(Duration::from_secs(600))).await.unwrap();
            tokio::time::advance(Duration::from_secs(8)).await;
            turn.done(&slow);
        }
        let _queue = gate
            .admit(MIN_QUEUE, usize::MAX, later(Duration::from_secs(60)))
            .unwrap();
        let soon = gate.admit(10, usize::MAX, later(Duration::from_secs(5)));
        assert!(soon.unwrap_err().clear_in > Duration::from_secs(2));
        assert!(gate.admit(10, usize::MAX, later(Duration::from_secs(60))).is_ok());
    }

    /// One to many targets goes to the end of the queue after each window.
    #[tokio::test(start_paused = true)]
    async fn turns_are_taken() {
        let gate = Arc::new(Gate::new());
        let deadline = later(Duration::from_secs(60));
        let mut held = Vec::new();
        for _ in 0..AT_A_TIME / MOST {
            held.push(gate.turn(MOST as usize, deadline).await.unwrap());
        }
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let taker = |name: &'static str, windows: usize| {
            let (gate, order) = (gate.clone(), order.clone());
            tokio::spawn(async move {
                for _ in 0..windows {
                    let turn = gate.turn(MOST as usize, deadline).await.unwrap();
                    order.lock().push(name);
                    tokio::task::yield_now().await;
                    drop(turn);
                }
            })
        };
        let large = taker("large", 4);
        tokio::task::yield_now().await;
        let small = taker("small", 1);
        tokio::task::yield_now().await;
        held.pop();
        small.await.unwrap();
        large.await.unwrap();
        assert!(order.lock()[..3].contains(&"small"), "{order:?}");
        drop(held);
        let late = gate.turn(1, Instant::now()).await;
        assert!(late.is_some(), "there is a free one");
    }
}
