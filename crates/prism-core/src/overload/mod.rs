//! Whether this process has more to do than it can, and how many calls may be under way then.
//!
//! What there is too much of waits in the runtime's queue, whatever it is: calls, answers to carry, messages to hand
//! on. So that queue is watched: how long a task waits there before it runs. A burst may make it long for a moment; when
//! it stays long, fewer calls may be under way than there are, by as much as it is too long, and fewer again while it
//! stays so. The others are refused at once, which costs little, and those under way are answered in time. While the queue is short
//! more and more may be. A call that waits for a backend is no work here: it is one of those under way, and as long as
//! the queue is short that is no reason to refuse others.
//!
//! Whoever sends calls to a process that refuses many holds most of them back ([`Throttle`]).

mod throttle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

pub use throttle::Throttle;

use crate::failure::{Failure, Reason};

/// How often the queue is looked at.
const EVERY: Duration = Duration::from_millis(10);
/// For how long a task may wait in the queue. A call waits in one a dozen times on its way through two processes and back:
/// this is a fifth of a second for all of them.
const TARGET: Duration = Duration::from_millis(15);
/// In a shorter queue there is hardly anything.
const IDLE: Duration = Duration::from_millis(1);
/// For how long the queue is long, more than it is short, before that is an overload, and before fewer calls may have made
/// a difference.
const STANDING: Duration = Duration::from_millis(200);
/// For how much of that one look counts at most: a long wait alone is a burst, or a process that was stopped for a while.
const LOOK: Duration = Duration::from_millis(80);
/// So many calls may always be under way.
const LEAST: usize = 64;
/// What is left of the limit where the queue stays long: as much as it is too long, between these.
const CUT: (f64, f64) = (0.3, 0.9);
/// By how much it grows with each look at a short queue, and at one with hardly anything in it: whoever has nothing to do
/// has no reason to refuse.
const GROWTH: f64 = 1.01;
const IDLE_GROWTH: f64 = 1.1;
/// More than ever are under way.
const NO_LIMIT: f64 = 1e9;

fn too_many() -> Failure {
    // All who are refused are told another time, so that they do not come back together.
    let pause = Duration::from_millis(rand::random_range(100..300));
    let message = "more calls come than can be answered in time, try again later";
    Failure::new(Reason::Overloaded, message)
        .retry_after(pause)
        .not_applied()
        .hold_back()
}

/// Decides which calls are taken. Clones share everything.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Doorway>);

#[derive(Debug)]
struct Doorway {
    under_way: AtomicUsize,
    limit: AtomicUsize,
}

/// A call that was taken, until this is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Doorway>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Gate {
    /// Open, until [`Self::watch`] finds a reason to refuse.
    fn default() -> Self {
        Self(Arc::new(Doorway {
            under_way: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
        }))
    }
}

impl Gate {
    /// Takes a call, or says that it is one too many and when to come again.
    ///
    /// # Errors
    /// `OVERLOADED`, with nothing applied.
    pub fn admit(&self) -> Result<Admitted, Failure> {
        let before = self.0.under_way.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(self.0.clone());
        match before < self.0.limit.load(Ordering::Relaxed) {
            true => Ok(admitted),
            false => Err(too_many()),
        }
    }

    /// Looks at the queue of the runtime that it runs on. Never ends.
    pub async fn watch(&self) {
        let mut limit = Limit::default();
        loop {
            let due = Instant::now() + EVERY;
            sleep_until(due).await;
            // A task that is made here runs next; the second one has the first go to the end of the queue.
            let first = tokio::spawn(std::future::ready(()));
            let second = tokio::spawn(std::future::ready(()));
            let _ = tokio::join!(first, second);
            let was_limited = limit.is_limited();
            let (waited, under_way) = (due.elapsed(), self.0.under_way.load(Ordering::Relaxed));
            limit.look(waited, under_way);
            self.0.limit.store(limit.most as usize, Ordering::Relaxed);
            if limit.is_limited() && !was_limited {
                tracing::warn!(
                    ?waited,
                    under_way,
                    "more is to be done than can be, some calls are refused"
                );
            } else if was_limited && !limit.is_limited() {
                tracing::info!("all calls are taken again");
            }
        }
    }
}

/// How many calls may be under way.
#[derive(Debug, Clone, Copy)]
struct Limit {
    most: f64,
    /// For how long the queue was long lately, less the time for which it was short. Each thread of the runtime has a queue
    /// of its own, so among long ones there may be a short one.
    standing: Duration,
    /// How long it was at the least when it was long.
    least: Duration,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            most: NO_LIMIT,
            standing: Duration::ZERO,
            least: Duration::MAX,
        }
    }
}

impl Limit {
    fn is_limited(&self) -> bool {
        self.most < NO_LIMIT
    }

    fn look(&mut self, waited: Duration, under_way: usize) {
        let passed = (EVERY + waited).min(LOOK);
        if waited <= TARGET {
            let is_idle = waited <= IDLE && self.standing.is_zero();
            let growth = if is_idle { IDLE_GROWTH } else { GROWTH };
            self.most = (self.most * growth).min(NO_LIMIT);
            self.standing = self.standing.saturating_sub(passed);
            if self.standing.is_zero() {
                // Whatever was long is over, and says nothing of what is long next.
                self.least = Duration::MAX;
            }
            return;
        }
        self.standing += passed;
        self.least = waited.min(self.least);
        if self.standing >= STANDING {
            let left = TARGET.div_duration_f64(self.least).clamp(CUT.0, CUT.1);
            self.most = (self.most.min(under_way as f64) * left).max(LEAST as f64);
            // It is not over yet, whatever the next look finds.
            (self.standing, self.least) = (STANDING / 4, Duration::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = TARGET.saturating_mul(2);

    /// What the limit is after these waits, with so many calls under way.
    fn after(waits: &[Duration], under_way: usize) -> f64 {
        let mut limit = Limit::default();
        waits.iter().for_each(|waited| limit.look(*waited, under_way));
        limit.most
    }

    #[test]
    fn a_burst_is_no_overload() {
        let waits = [LONG, Duration::ZERO, LONG * 50, LONG, Duration::ZERO];
        assert_eq!(after(&waits, 10_000), NO_LIMIT);
    }

    /// When it goes on, it has to catch up.
    #[test]
    fn a_process_that_was_stopped_for_a_while_refuses_nobody() {
        let waits = [1_000, 150, 20, 0, 0].map(Duration::from_millis);
        assert_eq!(after(&waits, 10_000), NO_LIMIT);
    }

    /// The queues of the runtime's threads are not equally long.
    #[test]
    fn a_short_queue_among_long_ones_is_no_end() {
        let limit = after(&[LONG, LONG, Duration::ZERO].repeat(3), 1_000);
        assert!((500.0..510.0).contains(&limit), "{limit}");
    }

    #[test]
    fn fewer_and_fewer_may_be_under_way_while_the_queue_is_long() {
        let (soon, later) = (after(&[LONG; 9], 1_000), after(&[LONG; 18], 1_000));
        assert!(later < soon && soon < 1_000.0, "{later} {soon}");
        assert_eq!(after(&[LONG; 1_000], 1_000), LEAST as f64, "some always");
    }

    /// By one wait among many it is not known how much too much there is.
    #[test]
    fn the_limit_is_cut_by_as_much_as_the_queue_was_always_too_long() {
        let cut = |waits: &[Duration]| after(waits, 1_000);
        assert_eq!(cut(&[TARGET * 2; 7]), 500.0);
        assert_eq!(
            cut(&[TARGET * 100, TARGET * 2, TARGET * 100, TARGET * 100]),
            500.0
        );
        assert_eq!(cut(&[TARGET * 11 / 10; 10]), 900.0);
        assert_eq!(cut(&[TARGET * 100; 3]), 300.0);
        let mut long_after = vec![TARGET * 11 / 10];
        long_after.extend([Duration::ZERO; 5]);
        long_after.extend([TARGET * 100; 3]);
        assert_eq!(cut(&long_after), 300.0, "what was long before says nothing");
    }

    #[test]
    fn there_is_no_limit_any_more_in_the_end() {
        for (short, looks) in [(TARGET, 2_000), (Duration::ZERO, 200)] {
            let mut waits = vec![LONG; 100];
            waits.extend([short; 10]);
            let limited = after(&waits, 1_000);
            assert!(limited < 1_000.0, "{limited}");
            waits.extend(vec![short; looks]);
            assert_eq!(after(&waits, 1_000), NO_LIMIT);
        }
    }

    #[tokio::test]
    async fn so_many_are_taken_and_no_more_until_one_is_answered() {
        let gate = Gate::default();
        gate.0.limit.store(2, Ordering::Relaxed);
        let (first, _second) = (gate.admit().unwrap(), gate.admit().unwrap());
        for _ in 0..2 {
            assert_eq!(gate.admit().unwrap_err().reason, Reason::Overloaded);
        }
        drop(first);
        let _third = gate.admit().unwrap();
        assert!(gate.admit().is_err());
    }

    /// More tasks than the runtime can run, each for a moment.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_queue_is_noticed() {
        let gate = Gate::default();
        let watched = gate.clone();
        let watching = tokio::spawn(async move { watched.watch().await });
        let limit = || gate.0.limit.load(Ordering::Relaxed);
        let mut busy = tokio::task::JoinSet::new();
        for _ in 0..1_000 {
            busy.spawn(async {
                loop {
                    let until = std::time::Instant::now() + Duration::from_millis(1);
                    while std::time::Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        while limit() > LEAST {
            tokio::task::yield_now().await;
        }
        busy.shutdown().await;
        while limit() <= LEAST {
            tokio::time::sleep(EVERY).await;
        }
        watching.abort();
    }
}
