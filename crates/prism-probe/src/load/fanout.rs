//! Multicasts to some of many subscribers, one after the other: what a target costs.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use super::{
    report::{Fact, Report, columns, times},
    stage::{Ended, Stage},
    tally::Times,
};
use crate::{fault::Stop, output::Table};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) subscribers: u32,
    /// To how many of them, one after the other.
    pub(crate) targets: Vec<u32>,
    /// How often each.
    pub(crate) rounds: u32,
    /// How long a round may take after its answer.
    pub(crate) patience: Duration,
}

/// What came of one number of targets.
struct Point {
    targets: u32,
    /// Until the answer, and until the last subscriber had it.
    answer: Times,
    last: Times,
}

/// Carries it out.
pub(crate) async fn run(stage: Stage, plan: Plan) -> Result<Report, Stop> {
    let metadata = |number: u32| json!({ "status": "online", "number": number });
    let filled = stage.fill(plan.subscribers, metadata, |_, _| {}).await;
    let filled = match filled {
        Ok(()) => stage.listen(0..plan.subscribers).await,
        refused => refused,
    };
    if let Err(error) = filled {
        return Err(stage.abandon(error).await);
    }
    let began = Instant::now();
    let mut points = Vec::new();
    for &targets in &plan.targets {
        if let Some(point) = stage.unless_stopped(point(&stage, &plan, targets)).await {
            points.push(point);
        }
    }
    let ended = ended(&stage, &plan, began.elapsed(), &points);
    Ok(stage.end(ended).await)
}

async fn point(stage: &Stage, plan: &Plan, targets: u32) -> Point {
    let point = Point {
        targets,
        answer: Times::default(),
        last: Times::default(),
    };
    for round in 0..plan.rounds {
        stage.bar.at(round.into(), plan.rounds.into());
        stage.bar.say(format!("to {targets}, {}", stage.short()));
        let filter = stage.fleet.filter().lt("number", targets);
        let begun = Instant::now();
        let cast = stage.caster.cast(filter, begun).await;
        if cast.answer.is_err() {
            continue;
        }
        point.answer.record(begun.elapsed());
        // Who comes later is counted in the end; the round after this one is not to wait for ever.
        if let Ok(Ok(last)) = timeout(plan.patience, cast.through).await {
            point.last.record(last.saturating_duration_since(begun));
        }
    }
    point
}

fn ended(stage: &Stage, plan: &Plan, elapsed: Duration, points: &[Point]) -> Ended {
    let mut table = Table::new(["TARGETS", "UNTIL", "P50", "P90", "P99", "P99.9", "MAX"]);
    for point in points {
        for (what, times) in [("answered", &point.answer), ("all received", &point.last)] {
            let mut cells = vec![point.targets.to_string().into(), what.into()];
            cells.extend(columns(&times.summary()));
            table.row(cells);
        }
    }
    let curve = points.iter().map(|point| {
        json!({
            "targets": point.targets,
            "rounds": plan.rounds,
            "answered": times(&point.answer.summary()),
            "all_received": times(&point.last.summary()),
        })
    });
    Ended {
        command: "fanout",
        elapsed,
        facts: vec![
            Fact::new("subscribers", "SUBSCRIBERS", plan.subscribers),
            Fact::new("rounds", "ROUNDS", plan.rounds),
            Fact::silent("curve", curve.collect()),
        ],
        tables: vec![table],
        calls: vec![("multicast", stage.caster.tally.clone())],
        delivers: true,
        problem: None,
    }
}
