//! How often one caller may call: what `behavior.caller_*` says.
//!
//! Each runner counts by itself, in memory. Nothing is counted where nothing is limited.

mod caller;
mod recent;

#[cfg(test)]
mod tests;

pub use caller::Caller;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{NotUntil, Quota, RateLimiter, middleware::NoOpMiddleware};

use crate::config::{Behavior, Rate};
use recent::{Moment, Numbers, Recent, RuntimeClock};

/// Of how many callers it is remembered how often they called. A caller takes about 32 bytes for each kind.
const REMEMBERED: usize = 65_536;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes a registration or a lease, or opens a session.
    Write,
    /// It changes nothing.
    Read,
    /// It sends.
    Multicast,
}

/// A call that comes too soon, or asks for too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The key of `behavior` that limits it.
    pub key: &'static str,
    /// What is limited.
    pub what: &'static str,
    /// How often it may happen.
    pub rate: Rate,
    /// How much of it may happen at once.
    pub burst: u32,
    /// When it may happen next; `None` where it never may, being more than the burst.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, what) = (self.rate, self.what);
        write!(f, "one caller is allowed `{rate}` {what}")?;
        match self.retry_after {
            Some(pause) => write!(f, ", try again in {} ms", pause.as_millis()),
            None => write!(f, " and `{}` at once, ask for less at a time", self.burst),
        }
    }
}

impl std::error::Error for Exceeded {}

/// Counts the calls of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    numbers: Numbers,
    writes: Option<Arc<Limit>>,
    reads: Option<Arc<Limit>>,
    multicasts: Option<Arc<Limit>>,
    targets: Option<Arc<Limit>>,
}

impl Limits {
    /// The limits of a behaviour; `None` where it has none. What was counted `before` under a limit that
    /// stays as it is stays counted.
    pub(crate) fn of(behavior: &Behavior, before: Option<&Self>) -> Option<Arc<Self>> {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let limit = |rule: Rule, rate: Option<Rate>, before: &Option<Arc<Limit>>| {
            let rate = rate?;
            let same = before
                .as_ref()
                .filter(|limit| limit.is(rate, behavior.caller_burst));
            let new = || Arc::new(Limit::new(rule, rate, behavior.caller_burst));
            Some(same.cloned().unwrap_or_else(new))
        };
        let limits = Self {
            numbers: before.numbers.clone(),
            writes: limit(WRITES, behavior.caller_writes, &before.writes),
            reads: limit(READS, behavior.caller_reads, &before.reads),
            multicasts: limit(MULTICASTS, behavior.caller_multicasts, &before.multicasts),
            targets: limit(TARGETS, behavior.caller_targets, &before.targets),
        };
        let all = [&limits.writes, &limits.reads, &limits.multicasts, &limits.targets];
        all.iter().any(|limit| limit.is_some()).then(|| Arc::new(limits))
    }

    /// Counts a call.
    pub(crate) fn admit(&self, kind: Kind, caller: &Caller) -> Result<(), Exceeded> {
        let limit = match kind {
            Kind::Write => &self.writes,
            Kind::Read => &self.reads,
            Kind::Multicast => &self.multicasts,
        };
        self.count(limit.as_deref(), caller, NonZeroU32::MIN)
    }

    /// Counts the targets of a multicast: all of them or, where they are too many, none.
    pub(crate) fn admit_targets(&self, caller: &Caller, count: usize) -> Result<(), Exceeded> {
        match NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)) {
            Some(count) => self.count(self.targets.as_deref(), caller, count),
            None => Ok(()),
        }
    }

    fn count(&self, limit: Option<&Limit>, caller: &Caller, count: NonZeroU32) -> Result<(), Exceeded> {
        match limit {
            Some(limit) => limit.count(self.numbers.of(caller), count),
            None => Ok(()),
        }
    }
}

/// What is limited, and by which key.
#[derive(Debug, Clone, Copy)]
struct Rule {
    key: &'static str,
    what: &'static str,
}

const WRITES: Rule = Rule {
    key: "caller_writes",
    what: "writes",
};
const READS: Rule = Rule {
    key: "caller_reads",
    what: "reads",
};
const MULTICASTS: Rule = Rule {
    key: "caller_multicasts",
    what: "multicasts",
};
const TARGETS: Rule = Rule {
    key: "caller_targets",
    what: "targets of multicasts",
};

/// One limit, for every caller by itself.
#[derive(Debug)]
struct Limit {
    rule: Rule,
    rate: Rate,
    saved: Duration,
    burst: NonZeroU32,
    limiter: RateLimiter<u64, Recent, RuntimeClock, NoOpMiddleware<Moment>>,
}

impl Limit {
    fn new(rule: Rule, rate: Rate, saved: Duration) -> Self {
        let burst = rate.within(saved);
        // A period of nothing would be no rate; the shortest is 100 ns.
        let quota = Quota::with_period(rate.period()).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let limiter = RateLimiter::new(quota.allow_burst(burst), Recent::new(REMEMBERED), RuntimeClock);
        Self {
            rule,
            rate,
            saved,
            burst,
            limiter,
        }
    }

    fn is(&self, rate: Rate, saved: Duration) -> bool {
        self.rate == rate && self.saved == saved
    }

    fn count(&self, caller: u64, count: NonZeroU32) -> Result<(), Exceeded> {
        let exceeded = |retry_after| Exceeded {
            key: self.rule.key,
            what: self.rule.what,
            rate: self.rate,
            burst: self.burst.get(),
            retry_after,
        };
        match self.limiter.check_key_n(&caller, count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(too_soon)) => Err(exceeded(Some(self.pause(&too_soon)))),
            Err(_) => Err(exceeded(None)),
        }
    }

    /// How long to wait. Rounded up to what a message can say, or the next attempt would come too soon.
    fn pause(&self, too_soon: &NotUntil<Moment>) -> Duration {
        use governor::clock::Clock;
        let exact = too_soon.wait_time_from(self.limiter.clock().now());
        Duration::from_millis(u64::try_from(exact.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}
