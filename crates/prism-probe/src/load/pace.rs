//! When operations begin.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ramp::Ramp, tally::Times};

/// How soon a pacer that waits hears that it is to stop.
const LISTEN: Duration = Duration::from_millis(50);
/// For how long it sleeps at least. What is due meanwhile begins together, that much late: a clock that woke for each of
/// very many would take their time from what it measures.
const NAP: Duration = Duration::from_micros(250);

/// What is done over and over.
pub(crate) trait Load: Send + 'static {
    /// One of it.
    type Item: Send + 'static;

    /// The next one in the order of the seed.
    fn next(&mut self) -> Self::Item;

    /// Does it; it was due then.
    fn perform(&self, item: Self::Item, due: Instant) -> BoxFuture<'static, ()>;

    /// It was due, and too many were under way.
    fn miss(&self, item: Self::Item);
}

/// An open loop: when something begins is decided by the clock, and never by whether what was begun before has
/// ended.
pub(crate) struct OpenLoop {
    pub(crate) ramp: Ramp,
    pub(crate) began: Instant,
    /// How many may be under way.
    pub(crate) most: usize,
    pub(crate) stop: CancellationToken,
    /// From when something was due until it began: the generator's own part of what is measured.
    pub(crate) lateness: Arc<Times>,
}

impl OpenLoop {
    /// Begins everything that is due, and returns when all of it has ended: for how long things were begun.
    ///
    /// The clock runs on a thread of its own: neither a timer of whole milliseconds nor a runtime that is busy
    /// with answers is to decide when the next question is asked.
    pub(crate) async fn run(self, load: impl Load) -> Duration {
        let tasks = TaskTracker::new();
        let (runtime, begun, began) = (Handle::current(), tasks.clone(), self.began);
        let clock = tokio::task::spawn_blocking(move || self.pace(load, &begun, &runtime));
        // It ends by itself, and a panic in it has been told by then.
        let _ = clock.await;
        let length = began.elapsed();
        tasks.close();
        tasks.wait().await;
        length
    }

    fn pace(&self, mut load: impl Load, tasks: &TaskTracker, runtime: &Handle) {
        let _within = runtime.enter();
        let room = Arc::new(Semaphore::new(self.most));
        let dues = (0..).map_while(|number| self.ramp.due(number));
        for due in dues.map(|due| self.began + due) {
            if !self.wait(due) {
                return;
            }
            let item = load.next();
            let Ok(permit) = room.clone().try_acquire_owned() else {
                load.miss(item);
                continue;
            };
            self.lateness.record(due.elapsed());
            let mut operation = load.perform(item, due);
            // A call that the client holds back ends here, and costs no task: of those there are most in an overload.
            if (&mut operation).now_or_never().is_some() {
                continue;
            }
            let task = async move {
                operation.await;
                drop(permit);
            };
            tasks.spawn(task);
        }
        self.wait(self.began + self.ramp.length());
    }

    /// Waits until then; whether nobody said to stop before.
    fn wait(&self, until: Instant) -> bool {
        loop {
            if self.stop.is_cancelled() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.clamp(NAP, LISTEN));
        }
    }
}

/// A closed loop: so many at a time, each begun when one before has ended.
pub(crate) struct ClosedLoop {
    pub(crate) at_once: usize,
    pub(crate) length: Duration,
    pub(crate) stop: CancellationToken,
}

impl ClosedLoop {
    /// Returns after that time, when everything has ended: how long it took.
    pub(crate) async fn run(self, load: impl Load) -> Duration {
        let began = Instant::now();
        let end = began + self.length;
        let load = Arc::new(Mutex::new(load));
        let tasks = TaskTracker::new();
        for _ in 0..self.at_once {
            let (load, stop) = (load.clone(), self.stop.clone());
            tasks.spawn(async move {
                while Instant::now() < end && !stop.is_cancelled() {
                    let operation = begin(&mut *load.lock());
                    operation.await;
                }
            });
        }
        tasks.close();
        tasks.wait().await;
        began.elapsed()
    }
}

fn begin<L: Load>(load: &mut L) -> BoxFuture<'static, ()> {
    let item = load.next();
    load.perform(item, Instant::now())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::load::ramp::Shape;

    /// Numbers that are performed until they are let go.
    #[derive(Clone)]
    struct Held {
        next: usize,
        begun: Arc<AtomicUsize>,
        missed: Arc<AtomicUsize>,
        /// What was said to be due, and when.
        dues: Arc<Mutex<Vec<Instant>>>,
        /// As many as it has permits may end.
        gate: Arc<Semaphore>,
    }

    impl Held {
        fn new() -> Self {
            Self {
                next: 0,
                begun: Arc::default(),
                missed: Arc::default(),
                dues: Arc::default(),
                gate: Arc::new(Semaphore::new(0)),
            }
        }
    }

    impl Load for Held {
        type Item = usize;

        fn next(&mut self) -> usize {
            self.next += 1;
            self.next
        }

        fn perform(&self, _: usize, due: Instant) -> BoxFuture<'static, ()> {
            self.dues.lock().push(due);
            self.begun.fetch_add(1, SeqCst);
            let gate = self.gate.clone();
            Box::pin(async move {
                if let Ok(permit) = gate.acquire().await {
                    permit.forget();
                }
            })
        }

        fn miss(&self, _: usize) {
            self.missed.fetch_add(1, SeqCst);
        }
    }

    fn open_loop(most: usize, stop: CancellationToken) -> OpenLoop {
        let length = Duration::from_millis(20);
        OpenLoop {
            ramp: Ramp::new(&Shape::Constant, Some(1_000.0), length).unwrap(),
            began: Instant::now(),
            most,
            stop,
            lateness: Arc::default(),
        }
    }

    #[tokio::test]
    async fn an_open_loop_begins_all_that_is_due_and_says_what_had_no_room() {
        let load = Held::new();
        let open = open_loop(3, CancellationToken::new());
        let lateness = open.lateness.clone();
        let run = tokio::spawn(open.run(load.clone()));
        while load.missed.load(SeqCst) < 17 {
            tokio::task::yield_now().await;
        }
        assert_eq!(load.begun.load(SeqCst), 3);
        assert!(!run.is_finished(), "it waits for what is under way");
        load.gate.add_permits(3);
        run.await.unwrap();
        assert_eq!(lateness.summary().count, 3);
    }

    /// A latency that counted from when it was begun would hide that a service made others wait.
    #[tokio::test]
    async fn what_begins_late_was_due_when_it_was_due() {
        let load = Held::new();
        load.gate.add_permits(20);
        let mut open = open_loop(20, CancellationToken::new());
        open.began -= Duration::from_secs(60);
        let dues: Vec<_> = (0..20)
            .map(|number| open.began + Duration::from_millis(number))
            .collect();
        let lateness = open.lateness.clone();
        open.run(load.clone()).await;
        assert_eq!(*load.dues.lock(), dues);
        assert!(lateness.summary().p50 >= Duration::from_secs(59));
    }

    #[tokio::test]
    async fn nothing_is_begun_after_the_stop() {
        let stop = CancellationToken::new();
        stop.cancel();
        let load = Held::new();
        open_loop(3, stop.clone()).run(load.clone()).await;
        let closed = ClosedLoop {
            at_once: 2,
            length: Duration::from_secs(3_600),
            stop,
        };
        closed.run(load.clone()).await;
        assert_eq!(load.begun.load(SeqCst), 0);
    }

    #[tokio::test]
    async fn a_closed_loop_never_has_more_under_way() {
        let load = Held::new();
        let stop = CancellationToken::new();
        let closed = ClosedLoop {
            at_once: 4,
            length: Duration::from_secs(3_600),
            stop: stop.clone(),
        };
        let run = tokio::spawn(closed.run(load.clone()));
        for round in 1..=3 {
            while load.begun.load(SeqCst) < 4 * round {
                tokio::task::yield_now().await;
            }
            assert_eq!(load.begun.load(SeqCst), 4 * round);
            if round == 3 {
                stop.cancel();
            }
            load.gate.add_permits(4);
        }
        run.await.unwrap();
        assert_eq!((load.begun.load(SeqCst), load.missed.load(SeqCst)), (12, 0));
    }
}
