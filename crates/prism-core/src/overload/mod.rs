//! Whether this process has more to do than it can, and how much of what comes is to be taken then.
//!
//! What there is too much of waits in the runtime's queue, whatever it is: calls, answers to carry, messages to hand
//! on. So that queue is watched: how long a task waits there before it runs. A burst may make it long for a moment; when
//! it stays long, a share of the calls is refused at once, which costs little, and the rest is answered in time. The
//! share taken falls by a factor while the queue is long and grows by a step while it is not.
//!
//! Whoever sends calls to a process that refuses many holds most of them back ([`Throttle`]).

mod throttle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

pub use throttle::Throttle;

use crate::failure::{Failure, Reason};

/// How often the queue is looked at.
const EVERY: Duration = Duration::from_millis(10);
/// For how long a task may wait in the queue. A call waits there several times, so this is a second or so of its time.
const TARGET: Duration = Duration::from_millis(100);
/// For how long the queue is long before that is an overload.
const STANDING: Duration = Duration::from_secs(1);
/// How much more is taken after a look at a short queue.
const STEP: f32 = 0.02;
/// How much less for each [`TARGET`] that a task waited, and at most.
const CUT: (f32, f32) = (0.1, 0.5);
/// The smallest share: calls must be taken for the end of the overload to be noticed by callers.
const LEAST: f32 = 0.02;

fn too_many() -> Failure {
    // All who are refused are told another time, so that they do not come back together.
    let pause = Duration::from_millis(rand::random_range(100..300));
    let message = "more calls come than can be answered in time, try again later";
    Failure::new(Reason::Overloaded, message)
        .retry_after(pause)
        .not_applied()
}

/// Decides which calls are taken. Clones share everything.
#[derive(Debug, Clone)]
pub struct Gate {
    /// The share of the calls that come, as the bits of an `f32`.
    share: Arc<AtomicU32>,
}

impl Default for Gate {
    /// Open, until [`Self::watch`] finds a reason to refuse.
    fn default() -> Self {
        Self {
            share: Arc::new(AtomicU32::new(1_f32.to_bits())),
        }
    }
}

impl Gate {
    /// Takes a call, or says that it is one too many and when to come again.
    ///
    /// # Errors
    /// `OVERLOADED`, with nothing applied.
    pub fn admit(&self) -> Result<(), Failure> {
        let share = self.share();
        if share >= 1.0 || rand::random::<f32>() < share {
            return Ok(());
        }
        Err(too_many())
    }

    fn share(&self) -> f32 {
        f32::from_bits(self.share.load(Ordering::Relaxed))
    }

    /// Looks at the queue of the runtime that it runs on. Never ends.
    pub async fn watch(&self) {
        let mut share = Share::default();
        loop {
            let due = Instant::now() + EVERY;
            sleep_until(due).await;
            // A task that is made here runs next; the second one has the first go to the end of the queue.
            let first = tokio::spawn(std::future::ready(()));
            let second = tokio::spawn(std::future::ready(()));
            let _ = tokio::join!(first, second);
            let (before, now) = (share.taken, Instant::now());
            let waited = now - due;
            share.look(waited, now);
            self.share.store(share.taken.to_bits(), Ordering::Relaxed);
            if before >= 1.0 && share.taken < 1.0 {
                tracing::warn!(?waited, "more is to be done than can be, some calls are refused");
            } else if before < 1.0 && share.taken >= 1.0 {
                tracing::info!("all calls are taken again");
            }
        }
    }
}

/// The share of calls that is taken.
#[derive(Debug, Clone, Copy)]
struct Share {
    taken: f32,
    /// Since when the queue was long at every look.
    long_since: Option<Instant>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            taken: 1.0,
            long_since: None,
        }
    }
}

impl Share {
    fn look(&mut self, waited: Duration, now: Instant) {
        if waited <= TARGET {
            self.taken = (self.taken + STEP).min(1.0);
            self.long_since = None;
            return;
        }
        // Whoever waited until now has waited since then. One long wait is no overload: a burst, or a process that was
        // stopped for a while.
        let is_first = self.long_since.is_none();
        let since = *self.long_since.get_or_insert(now);
        let stands = self.taken < 1.0 || now - since >= STANDING;
        if !is_first && stands {
            let cut = (CUT.0 * waited.div_duration_f32(TARGET)).min(CUT.1);
            self.taken = (self.taken * (1.0 - cut)).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = TARGET.saturating_mul(4);

    /// Looks every 10 ms.
    fn after(looks: &[Duration]) -> f32 {
        let (mut share, mut now) = (Share::default(), Instant::now());
        for waited in looks {
            now += EVERY + *waited;
            share.look(*waited, now);
        }
        share.taken
    }

    #[test]
    fn a_burst_is_no_overload() {
        assert_eq!(
            after(&[LONG, LONG, Duration::ZERO, LONG * 20, Duration::ZERO]),
            1.0
        );
    }

    #[test]
    fn the_longer_the_queue_the_less_is_taken() {
        let (bad, worse) = (after(&[LONG / 2; 8]), after(&[LONG; 8]));
        assert!(worse < bad && bad < 1.0, "{worse} {bad}");
        assert_eq!(after(&[LONG; 100]), LEAST, "some always");
    }

    #[test]
    fn everything_is_taken_again_soon_after() {
        let mut looks = vec![LONG; 100];
        looks.extend([Duration::ZERO; 50]);
        assert_eq!(after(&looks), 1.0);
    }

    #[tokio::test]
    async fn an_open_gate_takes_everything_and_a_narrow_one_a_share() {
        let gate = Gate::default();
        assert!((0..1_000).all(|_| gate.admit().is_ok()));
        gate.share.store(0.5_f32.to_bits(), Ordering::Relaxed);
        let taken = (0..10_000).filter(|_| gate.admit().is_ok()).count();
        assert!((4_000..6_000).contains(&taken), "{taken}");
        let refused = std::iter::repeat_with(|| gate.admit()).find_map(Result::err);
        assert_eq!(refused.unwrap().reason, Reason::Overloaded);
    }

    /// More tasks than the runtime can run, each for a moment.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_long_queue_is_noticed() {
        let gate = Gate::default();
        let watched = gate.clone();
        let watching = tokio::spawn(async move { watched.watch().await });
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
        while gate.share() >= 1.0 {
            tokio::task::yield_now().await;
        }
        busy.shutdown().await;
        while gate.share() < 1.0 {
            tokio::time::sleep(EVERY).await;
        }
        watching.abort();
    }
}
