//! How long to wait before trying again: exponential growth, a cap, and jitter.

use std::{ops::RangeInclusive, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// The bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The longest first pause. It doubles with every failure.
    pub base: Duration,
    /// No pause is longer.
    pub cap: Duration,
}

impl Policy {
    /// The range from which the pause after `failures` earlier ones is drawn.
    ///
    /// The lower end is half the base and stays there: it keeps a peer that refuses at once from being
    /// called in a busy loop, while the spread of the rest grows as wide as the cap.
    pub fn range(&self, failures: u32) -> RangeInclusive<Duration> {
        let ceiling = self
            .base
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        let ceiling = ceiling.min(self.cap);
        (self.base / 2).min(ceiling)..=ceiling
    }
}

/// A sequence of pauses.
///
/// Each is drawn evenly from [`Policy::range`], so that many peers which lost the same server at the
/// same moment come back spread out.
#[derive(Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
    random: StdRng,
}

impl Backoff {
    /// A sequence that differs from that of every other process.
    pub fn new(policy: Policy) -> Self {
        Self::from_rng(policy, rand::make_rng())
    }

    /// A sequence that is the same for the same seed.
    pub fn seeded(policy: Policy, seed: u64) -> Self {
        Self::from_rng(policy, StdRng::seed_from_u64(seed))
    }

    fn from_rng(policy: Policy, random: StdRng) -> Self {
        Self {
            policy,
            failures: 0,
            random,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let range = self.policy.range(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.random.random_range(range)
    }

    /// How many pauses were taken since the beginning or the last [`reset`](Self::reset).
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(800),
    };

    #[test]
    fn pauses_grow_to_the_cap_and_never_vanish() {
        let mut backoff = Backoff::seeded(POLICY, 7);
        for failures in 0..100 {
            let pause = backoff.pause();
            assert!(
                POLICY.range(failures).contains(&pause),
                "pause {failures}: {pause:?}"
            );
            assert!(pause >= Duration::from_millis(25) && pause <= POLICY.cap);
        }
        assert_eq!(*POLICY.range(99).end(), POLICY.cap);
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::seeded(POLICY, 7);
        for _ in 0..10 {
            backoff.pause();
        }
        backoff.reset();
        assert!(backoff.pause() <= POLICY.base);
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses_and_another_does_not() {
        let draw = |seed| {
            let mut backoff = Backoff::seeded(POLICY, seed);
            (0..20).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn peers_that_fail_together_do_not_return_together() {
        let late: Vec<Duration> = (0..1_000)
            .map(|seed| {
                let mut backoff = Backoff::seeded(POLICY, seed);
                (0..8).map(|_| backoff.pause()).last().unwrap()
            })
            .collect();
        let busiest = (0..8)
            .map(|slice| {
                let from = Duration::from_millis(100 * slice);
                late.iter()
                    .filter(|pause| (from..from + Duration::from_millis(100)).contains(*pause))
                    .count()
            })
            .max()
            .unwrap();
        assert!(
            busiest < 250,
            "{busiest} of 1000 peers return within one tenth of a second"
        );
    }

    #[test]
    fn a_cap_below_the_base_is_obeyed() {
        let policy = Policy {
            base: Duration::from_secs(10),
            cap: Duration::from_secs(1),
        };
        assert_eq!(Backoff::seeded(policy, 1).pause(), Duration::from_secs(1));
    }
}
