//! Holding calls back from somebody who refuses many of them for overload.
//!
//! A refusal costs whoever refuses, and the way to it, not much less than an answer to something small. So of the calls
//! to somebody who refuses, hardly more are under way than are taken; the others are refused here, where that costs next
//! to nothing. Each refusal is taken for one call too many, and each call that is taken for a part of one that could be
//! more, so that few are refused there. What stands still needs no rule of its own: calls that are not answered keep their
//! places, and those that are answered make room at once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::too_many;
use crate::failure::Failure;

/// How many more may be under way for each call that is taken. By as much one of this many is refused, and that keeps it
/// where it is.
const MORE: f64 = 1.0 / 32.0;
/// The limit is never smaller.
const LEAST: f64 = 4.0;
/// Where these are refused too, the next ones are sent after this time.
const PAUSE: Duration = Duration::from_millis(50);
/// After so long without a refusal there is no limit.
const CALM: Duration = Duration::from_secs(1);

/// Bounds how many calls are under way to somebody by what became of them.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Lately>);

/// A call that may be sent, until its answer is told or this is dropped.
#[derive(Debug)]
pub struct Sent<'a>(&'a Throttle);

#[derive(Debug, Default)]
struct Lately {
    under_way: usize,
    limit: Option<Limit>,
}

/// What is known since a call was refused.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// How many calls may be under way.
    most: f64,
    /// How many were taken since the last refusal.
    taken: f64,
    refused_at: Instant,
}

impl Throttle {
    /// Lets a call be sent, or refuses it.
    ///
    /// # Errors
    /// `OVERLOADED`, with nothing applied.
    pub fn admit(&self) -> Result<Sent<'_>, Failure> {
        let mut lately = self.0.lock();
        if let Some(limit) = lately.limit {
            let quiet = limit.refused_at.elapsed();
            if quiet >= CALM {
                lately.limit = None;
            } else if lately.under_way as f64 >= limit.most || limit.is_shut() && quiet < PAUSE {
                return Err(too_many());
            }
        }
        lately.under_way += 1;
        Ok(Sent(self))
    }
}

impl Sent<'_> {
    /// Takes note of the answer: whether it is that there is too much to do.
    pub fn answered(self, is_refused: bool) {
        self.0.0.lock().answered(is_refused);
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.0.lock().under_way -= 1;
    }
}

impl Lately {
    fn answered(&mut self, is_refused: bool) {
        let under_way = self.under_way as f64;
        if is_refused {
            let most = self.limit.map_or(under_way, |limit| limit.most);
            self.limit = Some(Limit {
                most: (most - 1.0).max(LEAST),
                taken: 0.0,
                refused_at: Instant::now(),
            });
        } else if let Some(limit) = &mut self.limit {
            limit.taken += 1.0;
            // It says nothing of how many could be under way where far fewer are.
            if under_way * 2.0 > limit.most {
                limit.most += limit.more();
            }
        }
    }
}

impl Limit {
    /// Even the least was too much.
    fn is_shut(&self) -> bool {
        self.most <= LEAST && self.taken == 0.0
    }

    /// By how much it grows: the faster, the longer nothing was refused, until it doubles with every round of calls.
    fn more(&self) -> f64 {
        (MORE * (1.0 + self.taken / self.most)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const TICK: Duration = Duration::from_millis(1);
    /// How many ticks a call takes that is taken.
    const LONG: u64 = 20;

    /// Somebody who takes calls while there are fewer than `most`, and a caller who would send ten in each tick.
    struct Played<'a> {
        throttle: &'a Throttle,
        under_way: VecDeque<(u64, Sent<'a>)>,
        tick: u64,
        most: usize,
        taken: usize,
        refused: usize,
    }

    impl<'a> Played<'a> {
        fn new(throttle: &'a Throttle, most: usize) -> Self {
            Self {
                throttle,
                under_way: VecDeque::new(),
                tick: 0,
                most,
                taken: 0,
                refused: 0,
            }
        }

        /// How many were taken, and how many refused there, in so much time.
        async fn play(&mut self, ticks: u64) -> (usize, usize) {
            (self.taken, self.refused) = (0, 0);
            for _ in 0..ticks {
                tokio::time::advance(TICK).await;
                self.tick += 1;
                while let Some((_, sent)) = self.under_way.pop_front_if(|(until, _)| *until <= self.tick) {
                    sent.answered(false);
                    self.taken += 1;
                }
                for _ in 0..10 {
                    match self.throttle.admit() {
                        Ok(sent) if self.under_way.len() < self.most => {
                            self.under_way.push_back((self.tick + LONG, sent));
                        }
                        Ok(sent) => {
                            sent.answered(true);
                            self.refused += 1;
                        }
                        Err(failure) => assert!(failure.hold_back),
                    }
                }
            }
            (self.taken, self.refused)
        }
    }

    fn refuse(throttle: &Throttle, count: usize) {
        (0..count).for_each(|_| throttle.admit().unwrap().answered(true));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_taken_are_all_sent() {
        let throttle = Throttle::default();
        let sent: Vec<_> = (0..10_000).map(|_| throttle.admit().unwrap()).collect();
        sent.into_iter().for_each(|sent| sent.answered(false));
        assert_eq!(throttle.0.lock().under_way, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_refusals_hold_few_back() {
        let throttle = Throttle::default();
        let mut sent: Vec<_> = (0..100).map(|_| throttle.admit().unwrap()).collect();
        sent.drain(..5).for_each(|sent| sent.answered(true));
        assert!(throttle.admit().is_err(), "95 are under way");
        drop(sent.pop());
        assert!(throttle.admit().is_ok(), "one that is given up makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_some_gets_as_many_and_few_more() {
        for most in [20, 100] {
            let throttle = Throttle::default();
            let mut played = Played::new(&throttle, most);
            played.play(1_000).await;
            let (taken, refused) = played.play(2_000).await;
            let possible = most * 2_000 / LONG as usize;
            assert!(taken * 100 > possible * 98, "{taken} of {possible}");
            assert!(
                (1..taken / 16).contains(&refused),
                "{refused} refused beside {taken}"
            );
        }
    }

    /// It would have nothing to do otherwise.
    #[tokio::test(start_paused = true)]
    async fn whoever_takes_more_soon_gets_more() {
        let throttle = Throttle::default();
        let mut played = Played::new(&throttle, 10);
        played.play(1_000).await;
        played.most = 160;
        played.play(800).await;
        let (taken, _) = played.play(200).await;
        assert!(taken > 1_500, "{taken} of 1,600");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_refused_everything_for_a_while_has_all_its_work_again_soon() {
        let throttle = Throttle::default();
        let mut played = Played::new(&throttle, 100);
        played.play(1_000).await;
        played.most = 0;
        let (_, refused) = played.play(3_000).await;
        assert!(refused < 200, "{refused} refused in vain");
        played.most = 100;
        played.play(600).await;
        let (taken, _) = played.play(200).await;
        assert!(taken > 950, "{taken} of 1,000");
    }

    #[tokio::test(start_paused = true)]
    async fn where_even_the_least_is_refused_little_is_sent() {
        let throttle = Throttle::default();
        refuse(&throttle, 1);
        for _ in 0..100 {
            assert!(throttle.admit().is_err());
            tokio::time::advance(PAUSE).await;
            refuse(&throttle, 1);
        }
        tokio::time::advance(PAUSE).await;
        throttle.admit().unwrap().answered(false);
        let sent: Vec<_> = (0..10).map_while(|_| throttle.admit().ok()).collect();
        assert_eq!(sent.len(), LEAST as usize, "one was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_long_ago_holds_nothing_back() {
        let throttle = Throttle::default();
        refuse(&throttle, 1);
        tokio::time::advance(CALM).await;
        let sent: Vec<_> = (0..100).map(|_| throttle.admit().unwrap()).collect();
        assert_eq!(sent.len(), 100);
    }
}
