//! When clients are asked to renew, so that those who came together do not come together again.
//!
//! Each answer that grants a lease says when to renew it: after a third of its length, give or take a
//! fifth. That alone takes many periods to spread a crowd: thousands that register within a second
//! come back within four tenths of a period, and again. So what was asked for is counted by
//! the time at which it falls due, and where a lease would meet a crowd it is asked to come sooner, when
//! fewer are expected. Never later: no lease comes closer to its end for the sake of others.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use prism_slot::Ttl;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

/// When a lease is renewed, in thirds of its length.
const USUAL: (f64, f64) = (0.8, 1.2);
/// When it may be renewed to get out of the way of others.
const POSSIBLE: (f64, f64) = (0.2, USUAL.1);
/// There is a crowd where this many times more are expected than at another time.
const CROWD: f64 = 1.25;
/// So few more are none.
const HANDFUL: f64 = 8.0;
/// Moments that are counted by themselves: a power of two, and enough for the latest renewal of the
/// longest lease that is counted in moments of this length.
const MOMENTS: usize = 128;

/// What the clients of one namespace were asked for by this runner.
#[derive(Debug)]
pub(super) struct Pacing {
    began: Instant,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
struct Asked {
    /// By the power of two below the length of the leases in milliseconds.
    by_length: BTreeMap<u32, Box<Expected>>,
    random: SmallRng,
}

impl Pacing {
    pub(super) fn new() -> Self {
        Self::from_seed(rand::random())
    }

    fn from_seed(seed: u64) -> Self {
        let asked = Asked {
            by_length: BTreeMap::new(),
            random: SmallRng::seed_from_u64(seed),
        };
        Self {
            began: Instant::now(),
            asked: Mutex::new(asked),
        }
    }

    /// For the leases that are granted by one call now.
    pub(super) fn answer(&self) -> Answer<'_> {
        Answer {
            now: self.began.elapsed().as_millis() as u64,
            asked: self.asked.lock(),
            before: None,
        }
    }
}

/// What one call is answered. Leases of one length that came together are asked back together: many in
/// one call is what everybody wants.
pub(super) struct Answer<'a> {
    now: u64,
    asked: MutexGuard<'a, Asked>,
    /// What was asked for the lease before, and its length.
    before: Option<(Ttl, u64)>,
}

impl Answer<'_> {
    /// When to renew a lease of this length.
    pub(super) fn renew_after(&mut self, ttl: Ttl) -> Duration {
        let asked = &mut *self.asked;
        let power = ttl.as_millis().ilog2();
        let expected = asked
            .by_length
            .entry(power)
            .or_insert_with(|| Expected::of(power));
        let after = match self.before {
            Some((before, after)) if before == ttl => after,
            _ => choose(expected, &mut asked.random, self.now, ttl),
        };
        expected.add(self.now.saturating_add(after));
        self.before = Some((ttl, after));
        Duration::from_millis(after)
    }
}

fn choose(expected: &Expected, random: &mut SmallRng, now: u64, ttl: Ttl) -> u64 {
    let third = ttl.as_millis() as f64 / 3.0;
    let mut draw = |(from, to): (f64, f64)| (third * random.random_range(from..=to)) as u64;
    let load = |after: u64| f64::from(expected.at(now.saturating_add(after)));
    let usual = draw(USUAL);
    let (one, other) = (draw(POSSIBLE), draw(POSSIBLE));
    let quieter = if load(one) <= load(other) { one } else { other };
    let crowded = load(usual) > CROWD * load(quieter) + HANDFUL;
    if crowded { quieter } else { usual }
}

/// How many renewals are expected at which moment. Moments that have passed make room for later ones.
#[derive(Debug)]
struct Expected {
    /// The length of a moment in milliseconds, as a power of two.
    moment: u32,
    counts: [Count; MOMENTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// Since the beginning.
    moment: u64,
    count: u32,
}

impl Expected {
    fn of(power: u32) -> Box<Self> {
        Box::new(Self {
            moment: power.saturating_sub(MOMENTS.ilog2()),
            counts: [Count::default(); MOMENTS],
        })
    }

    fn at(&self, time: u64) -> u32 {
        let moment = time >> self.moment;
        let known = &self.counts[moment as usize % MOMENTS];
        if known.moment == moment { known.count } else { 0 }
    }

    fn add(&mut self, time: u64) {
        let moment = time >> self.moment;
        let count = self.at(time).saturating_add(1);
        self.counts[moment as usize % MOMENTS] = Count { moment, count };
    }
}

#[cfg(test)]
mod tests;
