//! Keeping registrations, many in one call, when the service says.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prism_client::{Lease, Position, Registration, Renewal};

use super::{
    fleet::Fleet,
    tally::{Tally, Times, reason},
};

/// What is due within this time goes into one call.
const WINDOW: Duration = Duration::from_millis(100);
/// How many at most.
const BATCH: usize = 1_000;
/// After how long a call that failed is made again. Leases last several times as long.
const AGAIN: Duration = Duration::from_millis(500);

/// Registrations that are renewed when the service says so.
#[derive(Default)]
pub(crate) struct Renewing {
    due: Mutex<BinaryHeap<Reverse<(Instant, u32)>>>,
    generations: Mutex<BTreeMap<u32, Position>>,
    /// The calls.
    pub(crate) tally: Arc<Tally>,
    /// By how much later than they were told to come they came.
    pub(crate) lateness: Times,
    /// What is not renewed any more, by reason.
    lost: Mutex<BTreeMap<String, u64>>,
    renewed: Mutex<u64>,
}

impl Renewing {
    /// Takes on these, of which the first has this number.
    pub(crate) fn add(&self, first: u32, registrations: Vec<Registration>) {
        let now = Instant::now();
        let (mut due, mut generations) = (self.due.lock(), self.generations.lock());
        for (number, registration) in (first..).zip(registrations) {
            generations.insert(number, registration.generation);
            if let Some(pause) = registration.renew_after {
                due.push(Reverse((now + pause, number)));
            }
        }
    }

    /// Renews, for ever.
    pub(crate) async fn run(&self, fleet: &Fleet) -> Infallible {
        loop {
            let batch = self.batch(Instant::now());
            if batch.is_empty() {
                tokio::time::sleep(WINDOW).await;
            } else {
                self.renew(fleet, &batch).await;
            }
        }
    }

    /// How many were taken on.
    pub(crate) fn registered(&self) -> u64 {
        self.generations.lock().len() as u64
    }

    /// How many renewals there were.
    pub(crate) fn renewed(&self) -> u64 {
        *self.renewed.lock()
    }

    /// What is not renewed any more, by reason.
    pub(crate) fn lost(&self) -> BTreeMap<String, u64> {
        self.lost.lock().clone()
    }

    /// What is due by then.
    fn batch(&self, now: Instant) -> Vec<u32> {
        let mut due = self.due.lock();
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(Reverse((when, number))) = due.peek().copied()
            && when <= now
        {
            due.pop();
            self.lateness.record(now - when);
            batch.push(number);
        }
        batch
    }

    async fn renew(&self, fleet: &Fleet, batch: &[u32]) {
        let leases = {
            let generations = self.generations.lock();
            let lease = |number: &u32| Lease {
                identity: fleet.run.name(*number),
                generation: generations.get(number).copied(),
            };
            batch.iter().map(lease).collect::<Vec<_>>()
        };
        let begun = Instant::now();
        let answer = fleet.registry(batch[0]).renew(leases).await;
        self.tally.note(begun, &answer);
        match answer {
            Ok(renewals) => self.note(batch, renewals),
            Err(_) => {
                let again = Instant::now() + AGAIN;
                self.due
                    .lock()
                    .extend(batch.iter().map(|number| Reverse((again, *number))));
            }
        }
    }

    fn note(&self, batch: &[u32], renewals: Vec<Renewal>) {
        let now = Instant::now();
        let mut due = self.due.lock();
        for (number, renewal) in batch.iter().zip(renewals) {
            match renewal.result {
                Ok(renewed) => {
                    *self.renewed.lock() += 1;
                    due.extend(renewed.renew_after.map(|pause| Reverse((now + pause, *number))));
                }
                Err(error) => *self.lost.lock().entry(reason(&error)).or_default() += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use prism_client::{Outcome, Renewed};

    use super::*;

    fn registration(number: u32, pause: Duration) -> Registration {
        Registration {
            identity: format!("{number}"),
            outcome: Outcome::Registered,
            registered_at: SystemTime::UNIX_EPOCH,
            expires_at: None,
            generation: Position {
                epoch: 1,
                revision: 1,
            },
            position: Position {
                epoch: 1,
                revision: 1,
            },
            renew_after: Some(pause),
            ttl: None,
        }
    }

    #[test]
    fn what_is_due_comes_in_order_and_in_portions() {
        let renewing = Renewing::default();
        let pauses = (0..1_500).rev().map(Duration::from_millis);
        let all = pauses
            .enumerate()
            .map(|(number, pause)| registration(number as u32, pause));
        renewing.add(0, all.collect());
        let then = Instant::now() + Duration::from_secs(2);
        let first = renewing.batch(then);
        assert_eq!((first.len(), first[0]), (BATCH, 1_499), "the soonest first");
        assert_eq!(renewing.batch(then).len(), 500);
        assert!(renewing.batch(then).is_empty());
        assert_eq!(renewing.lateness.summary().count, 1_500);
    }

    #[test]
    fn what_was_renewed_comes_again_and_what_was_lost_does_not() {
        let renewing = Renewing::default();
        let renewal = |result| Renewal {
            identity: "x".to_owned(),
            result,
        };
        let renewed = Renewed {
            expires_at: None,
            renew_after: Some(Duration::from_secs(1)),
        };
        let gone = prism_core::failure::Failure::new(prism_client::Reason::NotRegistered, "x");
        renewing.note(&[1, 2], vec![renewal(Ok(renewed)), renewal(Err(gone.into()))]);
        assert_eq!(renewing.renewed(), 1);
        assert_eq!(renewing.lost(), BTreeMap::from([("NOT_FOUND".to_owned(), 1)]));
        assert!(renewing.batch(Instant::now()).is_empty());
        assert_eq!(renewing.batch(Instant::now() + Duration::from_secs(2)), [1]);
    }
}
