//! What is remembered of callers, in bounded memory.

use std::{
    hash::{BuildHasher, RandomState},
    ops::Add,
    time::Duration,
};

use governor::{
    clock::{Clock, Reference},
    nanos::Nanos,
    state::StateStore,
};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The state of those callers that were heard of last.
///
/// There are two generations. Whoever calls is in the young one; when that is full it becomes the old one,
/// and what was the old one is forgotten. So a caller is forgotten only after half as many others as are
/// remembered have called since, and whoever can send as many callers has as many allowances anyway.
#[derive(Debug)]
pub(super) struct Recent {
    generations: Mutex<Generations>,
    each: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Nanos>,
    old: HashMap<u64, Nanos>,
}

impl Recent {
    /// Remembers at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            generations: Mutex::default(),
            each: (most / 2).max(1),
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.len() + generations.old.len()
    }
}

impl StateStore for Recent {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut generations = self.generations.lock();
        let Generations { young, old } = &mut *generations;
        let known = young.get(key).or_else(|| old.get(key)).copied();
        let decided = decide(known);
        // One who was refused has called as well, and is not to be forgotten sooner.
        let state = decided.as_ref().ok().map(|(_, state)| *state).or(known);
        if let Some(state) = state {
            if young.len() >= self.each && !young.contains_key(key) {
                *old = std::mem::take(young);
            }
            old.remove(key);
            young.insert(*key, state);
        }
        decided.map(|(value, _)| value)
    }
}

/// Gives callers the numbers under which they are remembered, which nobody outside can guess.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(RandomState);

impl Numbers {
    pub(super) fn of(&self, caller: &super::Caller) -> u64 {
        self.0.hash_one(caller)
    }
}

/// The runtime's clock, which tests can stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuntimeClock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Instant);

impl Clock for RuntimeClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, time: Nanos) -> Self {
        Self(self.0 + Duration::from(time))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, time: Nanos) -> Self {
        Self(self.0.checked_sub(time.into()).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the calls of a key.
    fn count(recent: &Recent, key: u64) -> u64 {
        let counted = recent.measure_and_replace(&key, |known| {
            let count = known.map_or(0, u64::from) + 1;
            Ok::<_, ()>((count, count.into()))
        });
        counted.unwrap()
    }

    #[test]
    fn memory_is_bounded_whoever_calls() {
        let recent = Recent::new(1_000);
        for key in 0..100_000 {
            count(&recent, key);
            assert!(recent.len() <= 1_000);
        }
    }

    #[test]
    fn who_calls_on_is_not_forgotten_however_many_others_do() {
        let recent = Recent::new(100);
        for round in 1..1_000 {
            assert_eq!(count(&recent, 7), round);
            for other in 0..40 {
                count(&recent, 1_000 + round * 40 + other);
            }
        }
    }

    #[test]
    fn who_is_refused_is_not_forgotten_either() {
        let recent = Recent::new(100);
        count(&recent, 7);
        for round in 0..100 {
            let refused = recent.measure_and_replace(&7, Err::<((), Nanos), _>);
            assert_eq!(refused.unwrap_err().map(u64::from), Some(1));
            for other in 0..40 {
                count(&recent, 1_000 + round * 40 + other);
            }
        }
    }
}
