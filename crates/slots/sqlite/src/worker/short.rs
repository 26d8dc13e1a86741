//! What is done where there is no room: calls that store nothing are executed with less of what can be done without.

use std::thread;

use prism_slot::{Applied, Result};
use tokio::time::Instant;

use super::{Failure, LOCK_PAUSE, Worker, answer};
use crate::{
    call::Job,
    connect::Connected,
    error::{is_busy, timeout},
    step::Thrift,
};

type Jobs = Vec<Box<dyn Job>>;

impl Worker {
    /// Executes calls once more after a transaction of which nothing stayed: without the lease clock, then in ever
    /// smaller groups, at last without what they find on their way. Whether another connection is needed.
    pub(super) fn make_do(&mut self, connected: &mut Connected, jobs: Jobs) -> bool {
        self.short = Some(Instant::now());
        let (mut groups, mut is_lost) = (vec![(jobs, Thrift::Clock)], false);
        while let Some((jobs, thrift)) = groups.pop() {
            // There is room in the log again once what is in it has been brought into the file.
            let _ = connected.checkpoint();
            let mut jobs = in_time(jobs);
            if jobs.is_empty() {
                continue;
            }
            match self.execute_again(connected, &mut jobs, thrift) {
                Err(failure) if failure.of_room && jobs.len() > 1 => {
                    let others = jobs.split_off(jobs.len() / 2);
                    groups.extend([(others, thrift), (jobs, thrift)]);
                }
                Err(failure) if failure.of_room && thrift < Thrift::Findings => {
                    groups.push((jobs, Thrift::Findings));
                }
                outcome => is_lost |= answer(jobs, outcome),
            }
        }
        is_lost
    }

    fn execute_again(
        &mut self,
        connected: &mut Connected,
        jobs: &mut Jobs,
        thrift: Thrift,
    ) -> Result<(), Failure> {
        self.cached.begin();
        self.cached.thrift = thrift;
        let before = connected.conn.total_changes();
        self.begin_again(connected, jobs)?;
        jobs.iter_mut()
            .try_for_each(|job| self.one(connected, job.as_mut()))?;
        self.commit(connected, before)
    }

    /// Begins a transaction, for as long as any of the calls has time.
    fn begin_again(&mut self, connected: &Connected, jobs: &Jobs) -> Result<(), Failure> {
        loop {
            match connected.conn.execute_batch("BEGIN IMMEDIATE") {
                Err(error) if is_busy(&error) && !jobs.iter().all(|job| job.is_late(Instant::now())) => {
                    thread::sleep(LOCK_PAUSE);
                }
                begun => return begun.map_err(|error| self.broken(&connected.conn, &error)),
            }
        }
    }
}

/// Those that there is still time for. The others are told.
fn in_time(jobs: Jobs) -> Jobs {
    let now = Instant::now();
    let (mut late, in_time): (Jobs, Jobs) = jobs.into_iter().partition(|job| job.is_late(now));
    for job in &mut late {
        job.fail(timeout(Applied::No));
    }
    answer(late, Ok(()));
    in_time
}
