//! The lease clock (DESIGN §3): time as the leases of one namespace see it.
//!
//! Wall clocks jump, stores go away, runners all stop at once. None of that may expire anybody who
//! could not renew meanwhile, and none of it may keep the really dead alive. So leases are measured
//! on a clock of their own that only moves while the namespace is being served: each slot call
//! advances it by the time since the call before, at most [`MAX_STEP`]. A larger gap says that nobody
//! was serving (or that the wall clock jumped): every lease then gets at least one full ttl from the
//! moment of resumption.
//!
//! This is the reference; a slot whose state lives in a server repeats it there.

use crate::{Timestamp, Ttl};

/// The longest step, in milliseconds. Runners call every namespace at least once a second, so an
/// ordinary gap is far below it.
pub const MAX_STEP: u64 = 2_000;

/// The clock of one namespace. Persisted with the namespace's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClock {
    /// Lease time in milliseconds.
    pub now: u64,
    /// The wall clock at the last call.
    pub last_seen: Timestamp,
    /// The lease time at which serving last resumed after an interruption.
    pub resumed_at: u64,
}

impl LeaseClock {
    /// A clock that starts at zero.
    pub fn new(wall: Timestamp) -> Self {
        Self {
            now: 0,
            last_seen: wall,
            resumed_at: 0,
        }
    }

    /// Advances to a call at `wall`.
    ///
    /// A step back of up to [`MAX_STEP`] is ordinary clock discipline and simply does not advance;
    /// treating each as an interruption would let a dithering clock keep the dead alive.
    pub fn tick(&mut self, wall: Timestamp) {
        let gap = wall.0.saturating_sub(self.last_seen.0);
        self.last_seen = wall;
        self.now += gap.clamp(0, MAX_STEP as i64) as u64;
        if gap.unsigned_abs() > MAX_STEP {
            self.resumed_at = self.now;
        }
    }

    /// The deadline of a lease that is granted or renewed now.
    pub fn deadline(&self, ttl: Ttl) -> u64 {
        self.now.saturating_add(ttl.as_millis())
    }

    /// When a lease really ends: its deadline, but never sooner than one ttl after serving resumed.
    pub fn effective(&self, deadline: u64, ttl: Ttl) -> u64 {
        deadline.max(self.resumed_at.saturating_add(ttl.as_millis()))
    }

    /// Whether the lease has ended.
    pub fn is_due(&self, deadline: u64, ttl: Ttl) -> bool {
        self.effective(deadline, ttl) <= self.now
    }

    /// When the lease ends on the wall clock, if nothing interrupts, or ended.
    pub fn expires_at(&self, deadline: u64, ttl: Ttl) -> Timestamp {
        let end = self.effective(deadline, ttl);
        let (left, over) = (end.saturating_sub(self.now), self.now.saturating_sub(end));
        let now = self.last_seen.0;
        Timestamp(now.saturating_add_unsigned(left).saturating_sub_unsigned(over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn clock() -> LeaseClock {
        LeaseClock::new(Timestamp(1_000_000))
    }

    fn ttl(millis: u64) -> Ttl {
        Ttl::from_millis(millis).unwrap()
    }

    /// Serves without interruption for `millis`, calling every half second.
    fn serve(clock: &mut LeaseClock, millis: i64) {
        let end = clock.last_seen.0 + millis;
        while clock.last_seen.0 < end {
            clock.tick(Timestamp((clock.last_seen.0 + 500).min(end)));
        }
    }

    #[test]
    fn a_lease_ends_after_its_ttl_of_served_time() {
        let mut clock = clock();
        let deadline = clock.deadline(ttl(10_000));
        serve(&mut clock, 9_999);
        assert!(!clock.is_due(deadline, ttl(10_000)));
        serve(&mut clock, 1);
        assert!(clock.is_due(deadline, ttl(10_000)));
    }

    #[test]
    fn an_outage_grants_one_more_ttl_and_no_more() {
        let mut clock = clock();
        let deadline = clock.deadline(ttl(10_000));
        serve(&mut clock, 9_000);
        let before = clock.now;
        clock.tick(Timestamp(clock.last_seen.0 + 5 * 60_000));
        assert_eq!(clock.now, before + MAX_STEP);
        assert!(!clock.is_due(deadline, ttl(10_000)));
        serve(&mut clock, 9_999);
        assert!(!clock.is_due(deadline, ttl(10_000)));
        serve(&mut clock, 1);
        assert!(clock.is_due(deadline, ttl(10_000)));
    }

    #[test]
    fn wall_clock_jumps_expire_nobody_early() {
        for jump in [HOUR, -HOUR] {
            let mut clock = clock();
            let deadline = clock.deadline(ttl(10_000));
            serve(&mut clock, 5_000);
            clock.tick(Timestamp(clock.last_seen.0 + jump));
            serve(&mut clock, 9_999);
            assert!(!clock.is_due(deadline, ttl(10_000)), "jump of {jump} ms");
            serve(&mut clock, 1);
            assert!(clock.is_due(deadline, ttl(10_000)), "jump of {jump} ms");
        }
    }

    #[test]
    fn the_end_is_told_on_the_wall_clock_before_and_after_it() {
        let mut clock = clock();
        let deadline = clock.deadline(ttl(10_000));
        let end = Timestamp(clock.last_seen.0 + 10_000);
        for served in [0, 9_999, 1, 5_000] {
            serve(&mut clock, served);
            assert_eq!(clock.expires_at(deadline, ttl(10_000)), end);
        }
        let never = ttl(u64::MAX);
        assert_eq!(
            clock.expires_at(clock.deadline(never), never),
            Timestamp(i64::MAX)
        );
    }

    #[test]
    fn a_dithering_clock_does_not_keep_the_dead_alive() {
        let mut clock = clock();
        let deadline = clock.deadline(ttl(10_000));
        for _ in 0..40 {
            serve(&mut clock, 500);
            clock.tick(Timestamp(clock.last_seen.0 - 20));
        }
        assert!(clock.is_due(deadline, ttl(10_000)));
    }
}
