//! Slots whose leases live in the test's time.

use fred::types::Value;
use prism_slot::{
    Timestamp,
    lease::LeaseClock,
    memory::{Clock, ManualClock},
};

use super::{super::support::Admin, steps::TICK};

/// Where the lease clock stands in the head of a namespace: now, the wall clock at the last call, and
/// when it was resumed.
const CLOCK: i64 = 89;

/// A slot with a hand on its clock.
pub(super) struct Warped<'a, S> {
    slot: &'a S,
    time: Time<'a>,
}

enum Time<'a> {
    Memory(&'a ManualClock),
    Redis {
        admin: &'a Admin,
        head: String,
        /// What the clock in the head ought to be.
        clock: LeaseClock,
        passed: i64,
    },
}

impl<'a, S> Warped<'a, S> {
    pub(super) fn memory(slot: &'a S, clock: &'a ManualClock) -> Self {
        Self {
            slot,
            time: Time::Memory(clock),
        }
    }

    pub(super) fn redis(slot: &'a S, admin: &'a Admin, namespace: &str) -> Self {
        Self {
            slot,
            time: Time::Redis {
                admin,
                head: format!("{{prism:{namespace}}}:registry:head"),
                clock: LeaseClock::new(Timestamp(0)),
                passed: 0,
            },
        }
    }

    /// Lets time go by until the next call.
    pub(super) fn pass(&mut self, millis: u64) {
        match &mut self.time {
            Time::Memory(clock) => clock.advance(std::time::Duration::from_millis(millis)),
            Time::Redis { passed, .. } => *passed += millis as i64,
        }
    }

    /// How many whole ticks there are until `end`.
    pub(super) fn left(&self, end: Option<Timestamp>) -> Option<i64> {
        let now = match &self.time {
            Time::Memory(clock) => clock.now(),
            Time::Redis { .. } => Timestamp::now(),
        };
        end.map(|end| (end.0 - now.0).div_euclid(TICK as i64))
    }

    /// The slot, for one call.
    pub(super) async fn now(&mut self) -> &'a S {
        if let Time::Redis {
            admin,
            head,
            clock,
            passed,
        } = &mut self.time
        {
            // Time that really went by is taken back, so that it does not add up.
            let seen = Timestamp::now().0 - *passed;
            let fields = [clock.now, seen as u64, clock.resumed_at].map(u64::to_be_bytes);
            let arguments = vec![
                head.as_str().into(),
                CLOCK.into(),
                Value::Bytes(fields.concat().into()),
            ];
            admin.run_bytes("SETRANGE", arguments).await.unwrap();
            clock.tick(Timestamp(clock.last_seen.0 + *passed));
            *passed = 0;
        }
        self.slot
    }
}
