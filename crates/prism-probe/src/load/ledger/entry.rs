//! One multicast: who is to get it, and who has.

use std::time::Instant;

use prism_client::{Multicast, Status};
use tokio::sync::oneshot;

use super::bits::Bits;
use crate::load::stamp::Run;

/// One multicast, from its call until nothing of it is missing any more.
#[derive(Debug, Default)]
pub(super) struct Entry {
    received: Bits,
    answer: Option<Answer>,
    /// That of the latest receipt.
    last: Option<Instant>,
    pub(super) done: Option<oneshot::Sender<Instant>>,
}

/// What was answered, and what it still lacks.
#[derive(Debug, Default)]
struct Answer {
    listed: Bits,
    /// Of the listed ones, those that are not claimed to be delivered.
    unclaimed: Bits,
    /// Of those, the ones that are said not to be.
    denied: Bits,
    /// How many targets are counted and not listed. They are claimed.
    left_out: u64,
    /// How many were received by somebody who is not listed.
    extra: u64,
    /// How many listed ones have not received it, those included that are none of ours.
    missing: u64,
    is_refusal: bool,
}

/// What a receipt turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receipt {
    /// It was there before.
    Again,
    /// The multicast is not answered yet.
    Early,
    /// A target's.
    Expected { denied: bool },
    /// Of somebody who is no target.
    Unlisted,
}

/// What an answer made of what had been received before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Balance {
    pub(super) missing: u64,
    pub(super) unlisted: u64,
    pub(super) denied: u64,
}

impl Entry {
    pub(super) fn receive(&mut self, who: u32, when: Instant) -> Receipt {
        if !self.received.insert(who) {
            return Receipt::Again;
        }
        self.last = self.last.max(Some(when));
        let Some(answer) = &mut self.answer else {
            return Receipt::Early;
        };
        if answer.listed.contains(who) {
            answer.missing -= 1;
            return Receipt::Expected {
                denied: answer.denied.contains(who),
            };
        }
        answer.extra += 1;
        if answer.extra <= answer.left_out {
            Receipt::Expected { denied: false }
        } else {
            Receipt::Unlisted
        }
    }

    pub(super) fn answer(&mut self, run: Run, told: &Multicast) -> Balance {
        let mut answer = Answer {
            left_out: told.target_count.saturating_sub(told.statuses.len() as u64),
            ..Answer::default()
        };
        let mut strangers = 0;
        for status in &told.statuses {
            let Some(number) = run.number(&status.identity) else {
                strangers += 1;
                continue;
            };
            answer.listed.insert(number);
            if status.status != Status::Delivered {
                answer.unclaimed.insert(number);
            }
            if status.status == Status::Failed {
                answer.denied.insert(number);
            }
        }
        let got = answer.listed.common(&self.received);
        answer.missing = answer.listed.count() - got + strangers;
        answer.extra = self.received.count() - got;
        let balance = Balance {
            missing: answer.missing + answer.left_out.saturating_sub(answer.extra),
            unlisted: answer.extra.saturating_sub(answer.left_out),
            denied: answer.denied.common(&self.received),
        };
        self.answer = Some(answer);
        balance
    }

    /// Nobody was to get it.
    pub(super) fn refuse(&mut self) -> Balance {
        self.answer = Some(Answer {
            extra: self.received.count(),
            is_refusal: true,
            ..Answer::default()
        });
        Balance {
            unlisted: self.received.count(),
            ..Balance::default()
        }
    }

    /// When the last of all targets received it; `None` as long as one is missing. With no target at all it
    /// is `otherwise`.
    pub(super) fn complete(&self, otherwise: Instant) -> Option<Instant> {
        let answer = self.answer.as_ref()?;
        let is_complete = answer.missing == 0 && answer.extra >= answer.left_out;
        is_complete.then(|| self.last.unwrap_or(otherwise))
    }

    /// How many are claimed to be delivered, and did not receive it.
    pub(super) fn false_claims(&self) -> u64 {
        let Some(answer) = &self.answer else { return 0 };
        let received = answer.listed.common(&self.received) - answer.unclaimed.common(&self.received);
        let claimed = answer.listed.count() - answer.unclaimed.count();
        claimed - received + answer.left_out.saturating_sub(answer.extra)
    }

    /// Whether its targets are known.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether it certainly was not made.
    pub(super) fn is_refused(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.is_refusal)
    }

    /// How many have received it.
    pub(super) fn received(&self) -> u64 {
        self.received.count()
    }
}
