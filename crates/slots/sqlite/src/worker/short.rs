//! What is done where there is no room: calls that store nothing are executed with less of what can be done without.

use std::thread;

use prism_slot::{Applied, Result};
use tokio::time::Instant;

use super::{Failure, LOCK_PAUSE, Worker, answer};
use crate::{
    call::Job,
    connect::Connected,
    error::{is_busy, is_full, timeout},
    step::Thrift,
};

/// How often calls are executed once more as they are: another process may be in the way of the log beginning anew, or
/// take what room there is.
const TRIES: u32 = 5;

type Jobs = Vec<Box<dyn Job>>;

impl Worker {
    /// Refuses those calls that would have stored more, where there was no room for all of them, and does what can be
    /// done for the others, or there will never be any. Whether another connection is needed.
    pub(super) fn make_room(&mut self, connected: &mut Connected, jobs: Jobs, failure: Failure) -> bool {
        let (growing, others): (Jobs, Jobs) = jobs.into_iter().partition(|job| job.grows());
        let mut gave = self.bring_in(connected);
        self.keep_again(connected, &mut gave);
        answer(growing, Err(failure));
        self.make_do(connected, others)
    }

    /// Executes calls once more after a transaction of which nothing stayed: without the lease clock, then with the room
    /// that is kept for them, in ever smaller groups, at last without what they find on their way. Whether another
    /// connection is needed.
    fn make_do(&mut self, connected: &mut Connected, jobs: Jobs) -> bool {
        if !jobs.is_empty() {
            self.short = Some(Instant::now());
        }
        let (mut groups, mut tries) = (vec![(jobs, Thrift::Clock)], TRIES);
        let (mut gave, mut is_lost) = (false, false);
        while let Some((jobs, thrift)) = groups.pop() {
            let mut jobs = in_time(jobs);
            if jobs.is_empty() {
                continue;
            }
            let outcome = self.execute_again(connected, &mut jobs, thrift);
            if outcome.as_ref().is_err_and(|failure| failure.of_room) {
                gave |= self.bring_in(connected);
            }
            match outcome {
                Err(failure) if failure.of_room && tries > 0 => {
                    tries -= 1;
                    gave |= connected.give_room();
                    thread::sleep(LOCK_PAUSE);
                    groups.push((jobs, thrift));
                }
                Err(failure) if failure.of_room && jobs.len() > 1 => {
                    let others = jobs.split_off(jobs.len() / 2);
                    groups.extend([(others, thrift), (jobs, thrift)]);
                }
                Err(failure) if failure.of_room && thrift < Thrift::Findings => {
                    groups.push((jobs, Thrift::Findings));
                }
                outcome => {
                    // Before anybody is answered, who might take it for something else.
                    self.keep_again(connected, &mut gave);
                    tries = TRIES;
                    is_lost |= answer(jobs, outcome);
                }
            }
        }
        self.keep_again(connected, &mut gave);
        is_lost
    }

    /// Brings what is in the log into the file, so that there is room in it again; also with the room that is kept for
    /// that. Whether that was given up.
    fn bring_in(&self, connected: &Connected) -> bool {
        let is_stuck = connected.checkpoint().is_err_and(|error| is_full(&error));
        let gave = is_stuck && connected.give_room();
        if gave {
            let _ = connected.checkpoint();
        }
        gave
    }

    /// Keeps room again that was given up, as far as there is any. Nothing that stores more is committed before there is
    /// enough.
    fn keep_again(&self, connected: &Connected, gave: &mut bool) {
        if std::mem::take(gave) {
            let _ = connected.hold_room(&self.path);
        }
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
        self.commit(connected, before, false)
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
