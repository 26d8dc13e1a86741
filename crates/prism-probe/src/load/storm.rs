//! Everybody at once: all renew, and all sessions are opened again.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use prism_client::{Error, Lease, Result as Answer};
use prism_core::backoff::{Backoff, Policy};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{
    report::{COLUMNS, Fact, Report, columns, times},
    stage::{Ended, Stage},
    tally::{Tally, Times},
};
use crate::{
    fault::Stop,
    output::{Cell, Table},
};

/// Between the attempts of one user, on top of what the service asks for.
const PAUSES: Policy = Policy {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) users: u32,
    /// How long all of them may take to be back.
    pub(crate) patience: Duration,
}

/// What came of one storm.
struct Storm {
    name: &'static str,
    /// Every attempt.
    attempts: Arc<Tally>,
    /// From the beginning until somebody was through, attempts that failed and pauses included.
    until: Arc<Times>,
    back: u32,
    took: Duration,
}

/// Carries it out.
pub(crate) async fn run(stage: Stage, plan: Plan) -> Result<Report, Stop> {
    let filled = stage
        .fill(plan.users, |_| json!({ "status": "online" }), |_, _| {})
        .await;
    let filled = match filled {
        Ok(()) => stage.listen(0..plan.users).await,
        refused => refused,
    };
    if let Err(error) = filled {
        return Err(stage.abandon(error).await);
    }
    let began = Instant::now();
    let renewals = storm(&stage, &plan, "renew", async |number| renew(&stage, number).await).await;
    stage.listeners.close().await;
    let reconnects = storm(&stage, &plan, "reconnect", async |number| {
        stage.listeners.open(stage.fleet.registry(number), number).await
    })
    .await;
    // Who interrupts it does not wait until all are back, and who is not back would not get it.
    if !stage.stop.is_cancelled() {
        stage.bar.say("one message to all".to_owned());
        let last = stage.caster.cast(stage.fleet.filter(), Instant::now()).await;
        // Who has not got it by then is counted as missing in the end.
        let _ = stage.unless_stopped(timeout(plan.patience, last.through)).await;
    }
    let ended = ended(&stage, &plan, began.elapsed(), &[renewals, reconnects]);
    Ok(stage.end(ended).await)
}

async fn renew(stage: &Stage, number: u32) -> Answer<()> {
    let lease = Lease::from(stage.fleet.run.name(number));
    let renewals = stage.fleet.registry(number).renew([lease]).await?;
    renewals
        .into_iter()
        .try_for_each(|renewal| renewal.result.map(drop))
}

/// Everybody does it at once, each until it succeeds.
async fn storm<F>(stage: &Stage, plan: &Plan, name: &'static str, attempt: impl Fn(u32) -> F) -> Storm
where
    F: Future<Output = Answer<()>>,
{
    let (attempts, until) = (Arc::new(Tally::default()), Arc::new(Times::default()));
    let began = Instant::now();
    let all = (0..plan.users).map(|number| until_through(number, &attempt, &attempts, &until, began));
    let mut all: FuturesUnordered<_> = all.collect();
    let mut back = 0;
    stage.bar.say(name.to_owned());
    let work = async {
        while let Some(through) = all.next().await {
            back += u32::from(through);
            stage.bar.at(back.into(), plan.users.into());
        }
    };
    // Who is not back by then is counted as such.
    let _ = stage.unless_stopped(timeout(plan.patience, work)).await;
    drop(all);
    Storm {
        name,
        attempts,
        until,
        back,
        took: began.elapsed(),
    }
}

/// As a client does it: again after a pause where that may help. Whether it succeeded.
async fn until_through<F>(
    number: u32,
    attempt: impl Fn(u32) -> F,
    attempts: &Tally,
    until: &Times,
    began: Instant,
) -> bool
where
    F: Future<Output = Answer<()>>,
{
    let mut backoff = Backoff::new(PAUSES);
    loop {
        let begun = Instant::now();
        let answer = attempt(number).await;
        attempts.note(begun, &answer);
        match answer {
            Ok(()) => {
                until.record(began.elapsed());
                return true;
            }
            Err(error) if may_pass(&error) => {
                sleep(error.retry_after().unwrap_or_default() + backoff.pause()).await;
            }
            Err(_) => return false,
        }
    }
}

/// Whether the same again may well succeed: it was too much, or took too long, or somebody was away.
fn may_pass(error: &Error) -> bool {
    use prism_client::Code::{DeadlineExceeded, ResourceExhausted};
    error.is_transient() || matches!(error.code(), ResourceExhausted | DeadlineExceeded)
}

fn ended(stage: &Stage, plan: &Plan, elapsed: Duration, storms: &[Storm; 2]) -> Ended {
    let heading = ["STORM", "BACK", "OF", "TOOK", "ATTEMPTS", "SHED", "FAILED"];
    let mut table = Table::new(heading.into_iter().chain(COLUMNS));
    for storm in storms {
        table.row(storm.row(plan.users));
    }
    // Who interrupts it does not wait for them.
    let waited = !stage.stop.is_cancelled();
    let absent = storms.iter().find(|storm| waited && storm.back < plan.users);
    let trees = storms.iter().map(|storm| (storm.name.to_owned(), storm.tree()));
    Ended {
        command: "storm",
        elapsed,
        facts: vec![
            Fact::new("users", "USERS", plan.users),
            Fact::silent("storms", Value::Object(trees.collect())),
        ],
        tables: vec![table],
        calls: vec![("multicast", stage.caster.tally.clone())],
        delivers: true,
        problem: absent.map(|storm| {
            let away = plan.users - storm.back;
            let message = format!("{away} users did not come through the {} storm", storm.name);
            ("NOT_BACK", message)
        }),
    }
}

impl Storm {
    fn row(&self, users: u32) -> Vec<Cell> {
        let counts = self.attempts.counts();
        let told = [
            self.name.to_owned(),
            self.back.to_string(),
            users.to_string(),
            format!("{:.2} s", self.took.as_secs_f64()),
            counts.begun().to_string(),
            counts.shed.to_string(),
            counts.failed().to_string(),
        ];
        let cells = told.into_iter().map(Cell::from);
        cells.chain(columns(&self.until.summary())).collect()
    }

    fn tree(&self) -> Value {
        let counts = self.attempts.counts();
        json!({
            "back": self.back,
            "seconds": self.took.as_secs_f64(),
            "attempts": counts.begun(),
            "shed": counts.shed,
            "errors": counts.errors,
            "attempt": times(&self.attempts.times.summary()),
            "until_back": times(&self.until.summary()),
        })
    }
}
