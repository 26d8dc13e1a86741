//! Sending lines, and what becomes of them.

use std::time::Duration;

use futures::future::{self, Either};
use prism_client::{Applied, Error, Reason, Registration, Result as Answer};
use prism_core::backoff::{Backoff, Policy};
use tokio::{
    pin, select,
    time::{sleep, timeout},
};

use super::{Line, Problem, Work};
use crate::{exit::Exit, fault::Stop, output::Output};

/// How long an answer that is under way is waited for when the import is interrupted.
const GRACE: Duration = Duration::from_secs(2);

/// What goes on top of the pause that a service asks for: all its callers were told the same.
const JITTER: Policy = Policy {
    base: Duration::from_millis(10),
    cap: Duration::from_millis(250),
};

impl Work<'_> {
    /// Registers lines, as fast as the service lets us. `Ok` with 0 means that each of them is decided, unless
    /// one was refused and that ends the import.
    pub(super) async fn send(&mut self, mut open: Vec<Line>, output: &mut Output) -> Result<Exit, Stop> {
        let last = open.last().map(|last| last.number);
        let mut jitter = Backoff::new(JITTER);
        while let Some(first) = open.first() {
            self.report.through = first.number - 1;
            let Some(answer) = self.ask(&open).await else {
                self.unknown(&open, &Problem::interrupted(), output)?;
                return Ok(Exit::Interrupted);
            };
            let pause = match answer {
                Ok(results) => {
                    let (rest, pause) = self.decide(open, results, output)?;
                    open = rest;
                    pause
                }
                Err(error) if let Some(pause) = limited(&error) => Some(pause),
                Err(error) => {
                    if error.applied() == Applied::Unknown {
                        self.unknown(&open, &Problem::of(&error), output)?;
                    }
                    return Err(error.into());
                }
            };
            let Some(pause) = pause.filter(|_| !self.is_to_stop()) else {
                break;
            };
            self.bar.say(format!(
                "{}, waiting {:.1} s as the namespace limits its callers",
                self.report.short(),
                pause.as_secs_f64()
            ));
            select! {
                () = sleep(pause + jitter.pause()) => {}
                () = self.interrupted.clone() => break,
            }
        }
        // What is still open was not registered, and nothing after it was begun.
        let next = open.first().map(|first| first.number - 1);
        self.report.through = next.or(last).unwrap_or(self.report.through);
        Ok(if next.is_some() && !self.is_to_stop() {
            Exit::Interrupted
        } else {
            Exit::Ok
        })
    }

    /// `None` where we are interrupted, and no answer comes soon.
    async fn ask(&self, open: &[Line]) -> Option<Answer<Vec<Answer<Registration>>>> {
        let requests = open.iter().map(|line| line.request.clone());
        let answer = self.registry.register_many(requests);
        pin!(answer);
        match future::select(answer, self.interrupted.clone()).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(((), answer)) => timeout(GRACE, answer).await.ok(),
        }
    }

    /// Notes what became of each line; those that came too soon are still open, and how long they have to wait.
    fn decide(
        &mut self,
        lines: Vec<Line>,
        results: Vec<Answer<Registration>>,
        output: &mut Output,
    ) -> Result<(Vec<Line>, Option<Duration>), Stop> {
        let (mut open, mut least) = (Vec::new(), None);
        for (line, result) in lines.into_iter().zip(results) {
            match result {
                Ok(registered) => self.report.done(registered.outcome),
                Err(error) if let Some(pause) = limited(&error) => {
                    least = least.map(|least: Duration| least.min(pause)).or(Some(pause));
                    open.push(line);
                }
                Err(error) => self.refuse(line.number, &line.text, &Problem::of(&error), output)?,
            }
        }
        Ok((open, least))
    }

    /// Lines of which nobody knows whether they were registered. Who asks for a list gets one.
    fn unknown(&mut self, lines: &[Line], problem: &Problem, output: &mut Output) -> Result<(), Stop> {
        self.report.unknown(lines.len() as u64);
        if self.refused.is_file() {
            for line in lines {
                self.refused.note(line.number, &line.text, problem, output)?;
            }
        }
        Ok(())
    }
}

/// How long to wait where we come too often, and are told when to come again.
fn limited(error: &Error) -> Option<Duration> {
    let limited = error.reason() == Some(Reason::RateLimited) && error.applied() == Applied::No;
    error.retry_after().filter(|_| limited)
}
