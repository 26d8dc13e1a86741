//! Holding calls back from somebody who refuses many of them for overload.
//!
//! A refusal costs whoever refuses, and the way to it, not much less than an answer to something small. So of the calls
//! to somebody who refuses, only a few more are sent than are taken; the others are refused here, where that costs next
//! to nothing. Where hardly any of those few is refused any more, several times as many are sent, and again as many of those:
//! what stood still for a moment has all its work again soon after.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::too_many;
use crate::failure::Failure;

/// How many calls are sent for each that is taken: where many of them are refused, and where none is.
const SENT: (f64, f64) = (1.05, 3.0);
/// Many are refused where this share is.
const MANY: f64 = 0.2;
/// Of so many answers it is the share, the newest counting most. By answers and not by time: whoever answers again after
/// a while is soon known to.
const ANSWERS: f64 = 16.0;
/// So many calls are sent in any case, in about the time below.
const USUAL: f64 = 10.0;
/// After this time what happened counts half.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// What became of the calls to somebody lately.
#[derive(Debug)]
pub struct Throttle(Mutex<Lately>);

#[derive(Debug)]
struct Lately {
    taken: f64,
    /// There or here.
    refused: f64,
    /// Which share of the last answers was a refusal.
    refusals: f64,
    at: Instant,
}

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new(Lately {
            taken: 0.0,
            refused: 0.0,
            refusals: 0.0,
            at: Instant::now(),
        }))
    }
}

impl Throttle {
    /// Lets a call be sent, or refuses it.
    ///
    /// # Errors
    /// `OVERLOADED`, with nothing applied.
    pub fn admit(&self) -> Result<(), Failure> {
        let mut lately = self.0.lock();
        lately.age(Instant::now());
        let share = (lately.sent() * lately.taken + USUAL) / (lately.taken + lately.refused + 1.0);
        if share >= 1.0 || rand::random::<f64>() < share {
            return Ok(());
        }
        lately.refused += 1.0;
        Err(too_many())
    }

    /// Takes note of an answer: whether it is that there is too much to do.
    pub fn answered(&self, is_refused: bool) {
        let mut lately = self.0.lock();
        lately.age(Instant::now());
        let counted = match is_refused {
            true => &mut lately.refused,
            false => &mut lately.taken,
        };
        *counted += 1.0;
        lately.refusals += (f64::from(u8::from(is_refused)) - lately.refusals) / ANSWERS;
    }
}

impl Lately {
    /// How many are sent for each that is taken.
    fn sent(&self) -> f64 {
        let (least, most) = SENT;
        most - (most - least) * (self.refusals / MANY).min(1.0)
    }

    fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let left = 0.5_f64.powf(passed.div_duration_f64(HALF_LIFE));
        (self.taken, self.refused, self.at) = (self.taken * left, self.refused * left, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls at a thousand a second, of which one of so many that are sent is taken; how many were sent.
    async fn calls(throttle: &Throttle, count: usize, one_of: u32) -> usize {
        let mut sent = 0;
        for _ in 0..count {
            tokio::time::advance(Duration::from_millis(1)).await;
            if throttle.admit().is_ok() {
                sent += 1;
                throttle.answered(rand::random_range(0..one_of) != 0);
            }
        }
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_taken_are_all_sent() {
        assert_eq!(calls(&Throttle::default(), 1_000, 1).await, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_refusals_hold_nothing_back() {
        let throttle = Throttle::default();
        (0..5).for_each(|_| throttle.answered(true));
        assert_eq!(calls(&throttle, 100, 1).await, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn most_is_held_back_while_much_is_refused_and_nothing_afterwards() {
        let throttle = Throttle::default();
        calls(&throttle, 5_000, 4).await;
        let sent = calls(&throttle, 1_000, 4).await;
        assert!((1..200).contains(&sent), "{sent} of 1,000");
        tokio::time::advance(HALF_LIFE * 20).await;
        assert_eq!(calls(&throttle, 1_000, 1).await, 1_000);
    }

    /// A call each millisecond, to somebody who takes at most so many of each hundred; how many are taken and how many refused there.
    async fn capacity(throttle: &Throttle, count: usize, most: usize) -> (usize, usize) {
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..count / 100 {
            let mut left = most;
            for _ in 0..100 {
                tokio::time::advance(Duration::from_millis(1)).await;
                if throttle.admit().is_err() {
                    continue;
                }
                throttle.answered(left == 0);
                match left.checked_sub(1) {
                    Some(less) => (left, taken) = (less, taken + 1),
                    None => refused += 1,
                }
            }
        }
        (taken, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_some_gets_as_many_and_few_more() {
        let throttle = Throttle::default();
        capacity(&throttle, 5_000, 20).await;
        let (taken, refused) = capacity(&throttle, 10_000, 20).await;
        assert!(taken > 1_700, "{taken} of 2,000");
        assert!(refused < 700, "{refused} beside {taken}");
    }

    /// Otherwise it has nothing to do for seconds.
    #[tokio::test(start_paused = true)]
    async fn whoever_stood_still_has_all_its_work_again_soon() {
        let throttle = Throttle::default();
        capacity(&throttle, 5_000, 50).await;
        capacity(&throttle, 2_000, 0).await;
        capacity(&throttle, 1_500, 50).await;
        let (taken, _) = capacity(&throttle, 1_000, 50).await;
        assert!(taken > 400, "{taken} of 500");
    }
}
