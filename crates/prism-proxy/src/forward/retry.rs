//! Whether a call may be sent a second time: one rule, in one place.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::metrics::RetryCause;

/// What is known of an attempt that gave no answer to hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing reached the runner: no connection, a refused stream, a stream above the last one that a
    /// GOAWAY speaks of.
    Unsent,
    /// Nothing reached the runner: it takes no more streams than are open.
    Full,
    /// The runner answered that it is unavailable and has changed nothing.
    NotApplied,
    /// The runner was lost with the request in its hands.
    Lost,
}

/// What else the rule looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// This was the second attempt.
    pub(crate) second: bool,
    /// The method may be called twice.
    pub(crate) idempotent: bool,
    /// All of the request that was sent is still here to be sent again.
    pub(crate) replayable: bool,
    /// There is time left.
    pub(crate) in_time: bool,
}

/// Why a second attempt may be made; `None` when it must not.
///
/// A call whose answer has begun never gets here.
pub(crate) fn allowed(fate: Fate, circumstances: Circumstances) -> Option<RetryCause> {
    let Circumstances {
        second,
        idempotent,
        replayable,
        in_time,
    } = circumstances;
    if second || !replayable || !in_time {
        return None;
    }
    match fate {
        Fate::Unsent | Fate::Full => Some(RetryCause::unsent),
        Fate::NotApplied => Some(RetryCause::not_applied),
        Fate::Lost => idempotent.then_some(RetryCause::idempotent),
    }
}

/// Keeps retries from doubling the load on runners that are in trouble: a tenth of all calls, and some
/// more in reserve.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In tenths of a retry.
    balance: AtomicI64,
}

impl Budget {
    const RESERVE: i64 = 1_000;
    const PRICE: i64 = 10;

    /// A call was made.
    pub(crate) fn deposit(&self) {
        if self.balance.load(Ordering::Relaxed) < Self::RESERVE {
            self.balance.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pays for a retry, if there is enough.
    pub(crate) fn withdraw(&self) -> bool {
        let pay = |balance| (balance >= Self::PRICE).then_some(balance - Self::PRICE);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay)
            .is_ok()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            balance: AtomicI64::new(Self::RESERVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Circumstances = Circumstances {
        second: false,
        idempotent: false,
        replayable: true,
        in_time: true,
    };

    #[test]
    fn the_rule() {
        assert_eq!(allowed(Fate::Unsent, YES), Some(RetryCause::unsent));
        assert_eq!(allowed(Fate::Full, YES), Some(RetryCause::unsent));
        assert_eq!(allowed(Fate::NotApplied, YES), Some(RetryCause::not_applied));
        assert_eq!(
            allowed(Fate::Lost, YES),
            None,
            "what may have been applied is not sent again"
        );
        let idempotent = Circumstances {
            idempotent: true,
            ..YES
        };
        assert_eq!(allowed(Fate::Lost, idempotent), Some(RetryCause::idempotent));
    }

    #[test]
    fn nothing_is_sent_again_twice_or_late_or_in_part() {
        for fate in [Fate::Unsent, Fate::Full, Fate::NotApplied, Fate::Lost] {
            let yes = Circumstances {
                idempotent: true,
                ..YES
            };
            assert_eq!(allowed(fate, Circumstances { second: true, ..yes }), None);
            assert_eq!(
                allowed(
                    fate,
                    Circumstances {
                        replayable: false,
                        ..yes
                    }
                ),
                None
            );
            assert_eq!(
                allowed(
                    fate,
                    Circumstances {
                        in_time: false,
                        ..yes
                    }
                ),
                None
            );
        }
    }

    #[test]
    fn a_budget_is_a_tenth_of_the_calls_once_the_reserve_is_spent() {
        let budget = Budget::default();
        while budget.withdraw() {}
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }
}
