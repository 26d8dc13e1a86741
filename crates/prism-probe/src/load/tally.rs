//! How calls went: how many, how long, and why not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use prism_client::{Code, Error, Reason, Result as Answer};

/// Whatever takes longer is recorded as this.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Times, kept to three digits each in bounded memory.
#[derive(Debug)]
pub(crate) struct Times(Mutex<Option<Histogram<u64>>>);

/// What there is to say of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean: Duration,
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) max: Duration,
}

impl Times {
    pub(crate) fn record(&self, time: Duration) {
        let micros = time.min(LONGEST).as_micros() as u64;
        if let Some(histogram) = self.0.lock().as_mut() {
            histogram.saturating_record(micros.max(1));
        }
    }

    /// How many took no longer than that.
    pub(crate) fn within(&self, limit: Duration) -> u64 {
        let micros = limit.min(LONGEST).as_micros() as u64;
        let times = self.0.lock();
        times
            .as_ref()
            .map_or(0, |times| times.count_between(0, micros.max(1)))
    }

    pub(crate) fn summary(&self) -> Summary {
        let times = self.0.lock();
        let Some(times) = times.as_ref().filter(|times| !times.is_empty()) else {
            return Summary::default();
        };
        let at = |share| Duration::from_micros(times.value_at_quantile(share));
        Summary {
            count: times.len(),
            mean: Duration::from_micros(times.mean() as u64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(times.max()),
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        // These bounds are ones that it takes.
        Self(Mutex::new(
            Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3).ok(),
        ))
    }
}

/// How the calls of one kind went.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of those that succeeded, from when they were due.
    pub(crate) times: Times,
    /// Of those that were shed: how early a service refuses.
    pub(crate) shed_times: Times,
    counts: Mutex<Counts>,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    /// Refused because there was too much to do.
    pub(crate) shed: u64,
    /// Due, and not begun because too many were under way.
    pub(crate) missed: u64,
    /// All others, by reason.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What the first of each reason said.
    pub(crate) said: BTreeMap<String, String>,
}

impl Counts {
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn begun(&self) -> u64 {
        self.ok + self.shed + self.failed()
    }
}

impl Tally {
    /// Notes how a call went that was due then.
    pub(crate) fn note<T>(&self, due: Instant, answer: &Answer<T>) {
        let took = due.elapsed();
        match answer {
            Ok(_) => {
                self.times.record(took);
                self.counts.lock().ok += 1;
            }
            Err(error) if is_shed(error) => {
                self.shed_times.record(took);
                self.counts.lock().shed += 1;
            }
            Err(error) => self.fail(error),
        }
    }

    /// Notes a failure of which the time says nothing.
    pub(crate) fn fail(&self, error: &Error) {
        let (reason, mut counts) = (reason(error), self.counts.lock());
        counts
            .said
            .entry(reason.clone())
            .or_insert_with(|| error.to_string());
        *counts.errors.entry(reason).or_default() += 1;
    }

    pub(crate) fn miss(&self) {
        self.counts.lock().missed += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }
}

/// Refused for want of capacity, which is what an overloaded service is to do. A namespace that is full is
/// another matter.
pub(crate) fn is_shed(error: &Error) -> bool {
    error.code() == Code::ResourceExhausted && error.reason() != Some(Reason::QuotaExceeded)
}

/// By which failures are counted: the service's own reason, else the code.
pub(crate) fn reason(error: &Error) -> String {
    match error.reason_text() {
        "" => format!("{:?}", error.code()).to_uppercase(),
        reason => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prism_core::failure::Failure;

    use super::*;

    fn refused(reason: Reason) -> Answer<()> {
        Err(Failure::new(reason, "x").not_applied().into())
    }

    #[test]
    fn what_is_shed_is_no_error_and_a_full_namespace_is_one() {
        let tally = Tally::default();
        let now = Instant::now();
        tally.note(now, &Ok(()));
        for reason in [
            Reason::Overloaded,
            Reason::RateLimited,
            Reason::QuotaExceeded,
            Reason::RunnerLost,
            Reason::RunnerLost,
        ] {
            tally.note(now, &refused(reason));
        }
        tally.miss();
        let counts = tally.counts();
        assert_eq!((counts.ok, counts.shed, counts.missed), (1, 2, 1));
        assert_eq!(counts.errors.get("QUOTA_EXCEEDED"), Some(&1));
        assert_eq!(counts.errors.get("RUNNER_LOST"), Some(&2));
        assert_eq!((counts.failed(), counts.begun()), (3, 6));
        assert_eq!(tally.times.summary().count, 1);
        assert_eq!(tally.shed_times.summary().count, 2);
    }

    #[test]
    fn what_took_no_longer_than_a_limit_is_counted() {
        let times = Times::default();
        assert_eq!(times.within(Duration::from_secs(1)), 0);
        for millis in [0, 500, 999, 1_010, 90_000] {
            times.record(Duration::from_millis(millis));
        }
        let within = [0, 600, 1_000, 100_000].map(|millis| times.within(Duration::from_millis(millis)));
        assert_eq!(within, [1, 2, 3, 5]);
        assert_eq!(times.within(Duration::MAX), 5);
    }

    #[test]
    fn times_are_kept_to_three_digits_and_within_bounds() {
        let times = Times::default();
        assert_eq!(times.summary(), Summary::default());
        for millis in 1..=1_000 {
            times.record(Duration::from_millis(millis));
        }
        let summary = times.summary();
        assert_eq!(summary.count, 1_000);
        for (found, millis) in [(summary.p50, 500.0), (summary.p99, 990.0), (summary.max, 1_000.0)] {
            let off = (found.as_secs_f64() * 1e3 / millis - 1.0).abs();
            assert!(off < 0.001, "{found:?} for {millis} ms");
        }
        times.record(Duration::ZERO);
        times.record(Duration::from_secs(1_000_000));
        assert_eq!(times.summary().count, 1_002);
        assert!(times.summary().max <= LONGEST + LONGEST / 1_000);
    }
}
