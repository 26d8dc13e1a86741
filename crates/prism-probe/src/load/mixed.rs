//! Registrations, enumerations and multicasts at a rate, over a population that grows.
//!
//! An identity becomes a target only when its subscriber listens: it is registered as `joining`, its session is
//! opened, and only then its status is changed to the one that is multicast to. So whoever is listed by a multicast
//! had an open session before the multicast was resolved, and one that does not receive it has lost it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use prism_client::{EnumerateRequest, Filter, UpdateRequest};
use rand::{RngExt, rngs::StdRng};
use serde_json::json;
use tokio::time::interval;

use super::{
    mix::{Mix, Operation},
    pace::{ClosedLoop, Load, OpenLoop},
    ramp::Ramp,
    report::{Fact, Report, times},
    stage::{Ended, Stage, let_in},
    tally::{Tally, Times},
};

/// The status of an identity that does not listen yet.
const JOINING: &str = "joining";
/// The status of those that are not multicast to.
const OTHER: &str = "other";
/// How often the bar moves.
const GLANCE: Duration = Duration::from_millis(200);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) mix: Mix,
    pub(crate) pace: Pace,
    /// Who has it is multicast to.
    pub(crate) status: String,
    /// How many of those registered get it, from 0 to 1.
    pub(crate) share: f64,
    /// How many get it at most.
    pub(crate) subscribers: u32,
    /// An answer that comes later than this after it was due is of no use to anybody.
    pub(crate) deadline: Duration,
}

/// When operations begin.
#[derive(Debug, Clone)]
pub(crate) enum Pace {
    Open { ramp: Ramp, most: usize },
    Closed { at_once: usize, length: Duration },
}

impl Pace {
    fn length(&self) -> Duration {
        match self {
            Self::Open { ramp, .. } => ramp.length(),
            Self::Closed { length, .. } => *length,
        }
    }
}

/// Carries it out.
pub(crate) async fn run(stage: Stage, plan: Plan) -> Report {
    let work = Arc::new(Work {
        tallies: Operation::ALL.map(|operation| match operation {
            Operation::Multicast => stage.caster.tally.clone(),
            _ => Arc::default(),
        }),
        subscribes: Arc::default(),
        announces: Arc::default(),
        registered: AtomicU64::new(0),
        enumerated: AtomicU32::new(0),
        joins: AtomicU32::new(0),
        joined: AtomicU64::new(0),
        targets: stage.fleet.filter().eq("status", plan.status.as_str()),
        plan,
        stage,
    });
    let load = Mixed {
        random: work.stage.random(),
        work: work.clone(),
    };
    let lateness = Arc::new(Times::default());
    let stop = work.stage.stop.clone();
    let pacing = async {
        match work.plan.pace.clone() {
            Pace::Open { ramp, most } => {
                let open = OpenLoop {
                    ramp,
                    began: Instant::now(),
                    most,
                    stop,
                    lateness: lateness.clone(),
                };
                open.run(load).await
            }
            Pace::Closed { at_once, length } => {
                let closed = ClosedLoop {
                    at_once,
                    length,
                    stop,
                };
                closed.run(load).await
            }
        }
    };
    let elapsed = tokio::select! {
        elapsed = pacing => elapsed,
        () = work.watch() => Duration::ZERO,
    };
    let ended = work.ended(elapsed, &lateness);
    work.stage.clone().end(ended).await
}

/// The next operation, by chance.
struct Mixed {
    random: StdRng,
    work: Arc<Work>,
}

/// An operation, and whether what it registers is to listen.
struct Task {
    operation: Operation,
    listens: bool,
}

impl Load for Mixed {
    type Item = Task;

    fn next(&mut self) -> Task {
        Task {
            operation: self.work.plan.mix.pick(&mut self.random),
            // Always drawn, so that the order of operations does not depend on the share.
            listens: self.random.random::<f64>() < self.work.plan.share,
        }
    }

    fn perform(&self, task: Task, due: Instant) -> BoxFuture<'static, ()> {
        let work = self.work.clone();
        Box::pin(async move {
            match task.operation {
                Operation::Register => work.register(task.listens, due).await,
                Operation::Enumerate => work.enumerate(due).await,
                Operation::Multicast => drop(work.stage.caster.cast(work.targets.clone(), due).await),
            }
        })
    }

    fn miss(&self, task: Task) {
        self.work.tally(task.operation).miss();
    }
}

struct Work {
    stage: Stage,
    plan: Plan,
    /// Those that are multicast to, and are enumerated.
    targets: Filter,
    tallies: [Arc<Tally>; Operation::ALL.len()],
    subscribes: Arc<Tally>,
    announces: Arc<Tally>,
    registered: AtomicU64,
    /// How many enumerations were begun: they go over all connections in turn.
    enumerated: AtomicU32,
    /// How many were to listen, and how many do.
    joins: AtomicU32,
    joined: AtomicU64,
}

impl Work {
    fn tally(&self, operation: Operation) -> &Arc<Tally> {
        &self.tallies[operation as usize]
    }

    async fn register(&self, listens: bool, due: Instant) {
        let one_more = |joins| (joins < self.plan.subscribers).then_some(joins + 1);
        let listens = listens && self.joins.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        let number = self.stage.fleet.next();
        let status = if listens { JOINING } else { OTHER };
        let request = self.stage.fleet.request(number, json!({ "status": status }));
        let answer = self.stage.fleet.registry(number).register(request).await;
        self.tally(Operation::Register).note(due, &answer);
        if answer.is_err() {
            // Somebody else will listen.
            self.joins.fetch_sub(u32::from(listens), Relaxed);
        } else {
            self.registered.fetch_add(1, Relaxed);
            if listens {
                // Few do, and the way is long: it takes no room in the others.
                Box::pin(self.join(number)).await;
            }
        }
    }

    /// Makes a target of it, in this order. A service that has too much to do is asked again: whom it refuses does not
    /// listen, and what is sent to them is what is measured.
    async fn join(&self, number: u32) {
        let registry = self.stage.fleet.registry(number);
        let begun = Instant::now();
        let opened = let_in(|| self.stage.listeners.open(registry, number)).await;
        self.subscribes.note(begun, &opened);
        if opened.is_err() {
            return;
        }
        let begun = Instant::now();
        let request = UpdateRequest {
            identity: self.stage.fleet.run.name(number),
            patch: json!({ "status": self.plan.status }),
            ..UpdateRequest::default()
        };
        let announced = let_in(|| registry.update(request.clone())).await;
        self.announces.note(begun, &announced);
        self.joined.fetch_add(u64::from(announced.is_ok()), Relaxed);
    }

    async fn enumerate(&self, due: Instant) {
        let request = EnumerateRequest {
            filter: Some(self.targets.clone()),
            ..EnumerateRequest::default()
        };
        let registry = self.stage.fleet.registry(self.enumerated.fetch_add(1, Relaxed));
        let page = registry.enumerate(request).await;
        self.tally(Operation::Enumerate).note(due, &page);
    }

    /// Moves the bar, for ever.
    async fn watch(&self) {
        let began = Instant::now();
        let length = self.plan.pace.length().as_secs();
        let mut ticks = interval(GLANCE);
        loop {
            ticks.tick().await;
            let [done, shed, failed, missed] = self.sums();
            let mut text = format!(
                "s, {done} done, {} listen, {}",
                self.joined.load(Relaxed),
                self.stage.short()
            );
            for (count, what) in [(shed, "shed"), (failed, "failed"), (missed, "missed")] {
                if count > 0 {
                    text += &format!(", {count} {what}");
                }
            }
            self.stage.bar.at(began.elapsed().as_secs().min(length), length);
            self.stage.bar.say(text);
        }
    }

    /// Done, shed, failed and missed, of all operations.
    fn sums(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for counts in self.tallies.iter().map(|tally| tally.counts()) {
            let each = [counts.ok, counts.shed, counts.failed(), counts.missed];
            sums.iter_mut().zip(each).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// How many succeeded within the deadline, counted from when they were due.
    fn in_time(&self) -> u64 {
        let each = self.tallies.iter();
        each.map(|tally| tally.times.within(self.plan.deadline)).sum()
    }

    fn ended(&self, elapsed: Duration, lateness: &Times) -> Ended {
        let [done, shed, failed, missed] = self.sums();
        let begun = done + shed + failed;
        let rate = |count: u64| (count as f64 / elapsed.as_secs_f64() * 100.0).round() / 100.0;
        let (loop_kind, late) = match self.plan.pace {
            Pace::Open { .. } => ("open", times(&lateness.summary())),
            Pace::Closed { .. } => ("closed", json!(null)),
        };
        let slow = lateness.summary();
        let slow_text = match slow.count {
            0 => String::new(),
            _ => format!("{:?} at the median, {:?} at most", slow.p50, slow.max),
        };
        let (registered, listening) = (self.registered.load(Relaxed), self.joined.load(Relaxed));
        let in_time = self.in_time();
        let per_second = |count| format!("{count}, {} a second", rate(count));
        let facts = vec![
            Fact::new("loop", "LOOP", loop_kind),
            Fact::worded("begun", "BEGUN", json!(begun), per_second(begun)),
            Fact::worded("ok", "DONE", json!(done), per_second(done)),
            Fact::silent("begun_per_second", json!(rate(begun))),
            Fact::silent("ok_per_second", json!(rate(done))),
            Fact::worded("in_time", "IN TIME", json!(in_time), per_second(in_time)),
            Fact::silent("in_time_per_second", json!(rate(in_time))),
            Fact::new("shed", "SHED", shed),
            Fact::new("failed", "FAILED", failed),
            Fact::new("missed", "MISSED", missed),
            Fact::worded("lateness", "BEGUN LATE BY", late, slow_text),
            Fact::new("registered", "REGISTERED", registered),
            Fact::new("listening", "LISTENING", listening),
        ];
        let own = Operation::ALL.map(|operation| (operation.name(), self.tally(operation).clone()));
        let joining = [
            ("subscribe", self.subscribes.clone()),
            ("announce", self.announces.clone()),
        ];
        Ended {
            command: "mixed",
            elapsed,
            facts,
            tables: Vec::new(),
            problem: None,
            delivers: self.plan.mix.has(Operation::Multicast),
            calls: own.into_iter().chain(joining).collect(),
        }
    }
}
