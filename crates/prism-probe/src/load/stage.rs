//! What every load stands on: the fleet, its subscribers, the ledger, and how a run begins and ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use prism_client::{ClientBuilder, Registration, Result as Answer};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    cast::{Caster, Casting},
    fleet::Fleet,
    ledger::Ledger,
    listeners::Listeners,
    report::{Delivery, Fact, Report},
    tally::{Tally, is_shed},
};
use crate::{
    fault::{Fault, Stop},
    output::{Format, Progress, Style, Table},
};

/// What is left after a run that was killed goes away by itself after its length and this.
const AFTERLIFE: Duration = Duration::from_secs(3_600);

/// For how long what a load depends on is tried where there is too much to do.
const LET_IN: Duration = Duration::from_secs(10);
/// How long to wait where it is not said.
const AGAIN: Duration = Duration::from_millis(200);

/// How many sessions are opened at a time before a load begins.
const OPENING: usize = 64;

/// What every load can be told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Do the same in the same order as the run that told this seed
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Spread the calls over so many connections; sessions have their own, a hundred each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) connections: u16,
    /// How long to wait at the end for messages that are still missing
    #[arg(long, value_name = "TIME", value_parser = prism_core::config::parse_duration, default_value = "5s")]
    pub(crate) settle: Duration,
    /// Leave everything registered
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) casting: Casting,
}

/// A run: what it works with.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) listeners: Arc<Listeners>,
    pub(crate) caster: Caster,
    pub(crate) bar: Arc<Progress>,
    pub(crate) stop: CancellationToken,
    seed: u64,
    common: Common,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) command: &'static str,
    pub(crate) elapsed: Duration,
    pub(crate) facts: Vec<Fact>,
    pub(crate) tables: Vec<Table>,
    pub(crate) calls: Vec<(&'static str, Arc<Tally>)>,
    /// Whether there was to be something to receive.
    pub(crate) delivers: bool,
    /// What is wrong beside deliveries and calls: a reason for programs, and the same for people.
    pub(crate) problem: Option<(&'static str, String)>,
}

impl Stage {
    /// Says the seed, and looks whether anybody is there to be loaded.
    ///
    /// # Errors
    /// For settings that cannot be, and when the namespace does not answer.
    pub(crate) async fn set(
        common: &Common,
        builder: &ClientBuilder,
        ttl: Lease,
        format: Format,
        stop: CancellationToken,
    ) -> Result<Self, Stop> {
        let seed = common.seed.unwrap_or_else(rand::random);
        let fleet = Arc::new(Fleet::new(builder, common.connections.into(), ttl.seconds())?);
        Style::talk(&format!("run {}, to have it again: --seed {seed}", fleet.run));
        let_in(|| fleet.count())
            .await
            .map_err(|error| Stop::from(error).of_a_read())?;
        let began = Instant::now();
        let ledger = Arc::new(Ledger::new(fleet.run));
        Ok(Self {
            listeners: Arc::new(Listeners::new(fleet.run, began, ledger.clone())),
            caster: Caster::new(fleet.clone(), ledger.clone(), common.casting.clone(), began),
            bar: Arc::new(Progress::new(format, "load")),
            fleet,
            ledger,
            stop,
            seed,
            common: common.clone(),
        })
    }

    /// What decides by chance, from the run's seed.
    pub(crate) fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// Registers so many, while the bar moves.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn fill(
        &self,
        count: u32,
        metadata: impl Fn(u32) -> Value,
        mut portion: impl FnMut(u32, Vec<Registration>),
    ) -> Answer<()> {
        self.bar.say("registered".to_owned());
        let filling = self.fleet.fill(count, metadata, |first, registrations| {
            portion(first, registrations);
            self.bar.at(self.fleet.given().into(), count.into());
        });
        self.unless_stopped(filling).await.unwrap_or(Ok(()))
    }

    /// Opens the sessions of these, a few at a time, while the bar moves.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub(crate) async fn listen(&self, numbers: impl Iterator<Item = u32>) -> Answer<()> {
        self.bar.say("sessions".to_owned());
        let numbers: Vec<_> = numbers.collect();
        let all = numbers.len() as u64;
        let each = stream::iter(numbers)
            .map(Ok)
            .try_for_each_concurrent(OPENING, async |number| {
                self.listeners.open(self.fleet.registry(number), number).await?;
                self.bar.at(self.listeners.sessions().open, all);
                Ok(())
            });
        self.unless_stopped(each).await.unwrap_or(Ok(()))
    }

    /// `None` when somebody said to stop.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    /// How much has been received, for beside the bar.
    pub(crate) fn short(&self) -> String {
        let (targets, received) = self.ledger.at();
        match targets - received {
            0 => format!("{received} received"),
            missing => format!("{received} received, {missing} missing"),
        }
    }

    /// Waits for what is missing, counts, and tidies up.
    pub(crate) async fn end(self, ended: Ended) -> Report {
        self.bar.say("waiting for what is missing".to_owned());
        self.ledger.settle(self.common.settle).await;
        // As they are at the end of the load, before they are ended.
        let sessions = self.listeners.sessions();
        self.listeners.close().await;
        let left = match self.common.keep {
            true => None,
            false => Some(self.tidy().await),
        };
        self.bar.end();
        Report {
            command: ended.command,
            run: self.fleet.run,
            seed: self.seed,
            interrupted: self.stop.is_cancelled(),
            elapsed: ended.elapsed,
            facts: ended.facts,
            tables: ended.tables,
            calls: ended.calls,
            delivery: Delivery {
                sums: self.ledger.sums(),
                times: self.listeners.times().summary(),
            },
            delivers: ended.delivers,
            problem: ended.problem,
            sessions,
            left,
        }
    }

    async fn tidy(&self) -> u64 {
        self.bar.say("removing what was registered".to_owned());
        let all = u64::from(self.fleet.given());
        self.fleet.tidy(|done| self.bar.at(done.into(), all)).await
    }

    /// After a failure before anything was measured: nothing is left, and the failure is told.
    pub(crate) async fn abandon(self, fault: impl Into<Stop>) -> Stop {
        self.listeners.close().await;
        if !self.common.keep {
            self.tidy().await;
        }
        self.bar.end();
        fault.into()
    }
}

/// Calls until it is not refused for want of capacity, or has been for too long.
pub(crate) async fn let_in<T, F: Future<Output = Answer<T>>>(mut call: impl FnMut() -> F) -> Answer<T> {
    let until = Instant::now() + LET_IN;
    loop {
        match call().await {
            Err(error) if is_shed(&error) && Instant::now() < until => {
                tokio::time::sleep(error.retry_after().unwrap_or(AGAIN)).await;
            }
            answer => return answer,
        }
    }
}

/// How long what a run registers is to last.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lease {
    /// At least as long as a run of that length, which does not renew.
    Outlasting(Duration),
    /// So many seconds, 0 for no end.
    Seconds(u64),
}

impl Lease {
    fn seconds(self) -> u64 {
        match self {
            Self::Outlasting(length) => (length + AFTERLIFE).as_secs(),
            Self::Seconds(seconds) => seconds,
        }
    }
}

/// A fault of the command line.
pub(crate) fn usage(field: &str, message: impl Into<String>) -> Stop {
    Fault::usage(field, message).into()
}
