//! Holding calls back from somebody who refuses many of them for overload.
//!
//! A refusal costs whoever refuses, and the way to it, not much less than an answer to something small. So of the calls
//! to somebody who refuses, only a few more are sent than are taken; the others are refused here, where that costs next
//! to nothing. How many are taken is known from those few, so the end of the overload is noticed by itself.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::too_many;
use crate::failure::Failure;

/// How many calls are sent for each that is taken.
const SENT: f64 = 1.2;
/// So many refusals are nothing unusual.
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
    at: Instant,
}

impl Default for Throttle {
    fn default() -> Self {
        Self(Mutex::new(Lately {
            taken: 0.0,
            refused: 0.0,
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
        let too_many_by = lately.taken + lately.refused - SENT * lately.taken - USUAL;
        let share = too_many_by / (lately.taken + lately.refused + 1.0);
        if share <= 0.0 || rand::random::<f64>() >= share {
            return Ok(());
        }
        lately.refused += 1.0;
        Err(too_many())
    }

    /// Takes note of an answer: whether it is that there is too much to do.
    pub fn answered(&self, is_refused: bool) {
        let mut lately = self.0.lock();
        lately.age(Instant::now());
        match is_refused {
            true => lately.refused += 1.0,
            false => lately.taken += 1.0,
        }
    }
}

impl Lately {
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
    async fn some_is_held_back_while_much_is_refused_and_nothing_afterwards() {
        let throttle = Throttle::default();
        calls(&throttle, 5_000, 4).await;
        let sent = calls(&throttle, 1_000, 4).await;
        assert!((1..700).contains(&sent), "{sent} of 1,000");
        tokio::time::advance(HALF_LIFE * 20).await;
        assert_eq!(calls(&throttle, 1_000, 1).await, 1_000);
    }
}
