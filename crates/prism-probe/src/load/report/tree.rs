//! A report for programs.

use serde_json::{Map, Value, json};

use super::{Delivery, Report, Sessions, Summary, Tally, millis};

impl Report {
    /// One object, whose keys are those of the operations page.
    pub(super) fn tree(&self) -> Value {
        let mut tree = Map::new();
        let mut put = |key: &str, value: Value| tree.insert(key.to_owned(), value);
        put("command", json!(self.command));
        put("run", json!(self.run.to_string()));
        put("seed", json!(self.seed));
        put("interrupted", json!(self.interrupted));
        put("seconds", json!(self.elapsed.as_secs_f64()));
        for fact in &self.facts {
            put(fact.key, fact.value.clone());
        }
        let calls = self
            .calls
            .iter()
            .map(|(name, tally)| ((*name).to_owned(), calls(tally)));
        put("operations", Value::Object(calls.collect()));
        put("delivery", self.delivery.tree());
        put("sessions", sessions(&self.sessions));
        put("left", json!(self.left));
        Value::Object(tree)
    }
}

impl Delivery {
    fn tree(&self) -> Value {
        let sums = &self.sums;
        json!({
            "multicasts": sums.multicasts,
            "targets": sums.targets,
            "received": sums.received(),
            "missing": sums.missing,
            "percent": sums.percent(),
            "duplicates": sums.duplicates,
            "unlisted": sums.unlisted,
            "incomplete": sums.incomplete,
            "claimed": {
                "delivered": sums.claimed.delivered,
                "pending": sums.claimed.pending,
                "failed": sums.claimed.failed,
                "timeout": sums.claimed.timeout,
            },
            "reasons": sums.reasons,
            "false_claims": sums.false_claims,
            "false_failures": sums.false_failures,
            "unanswered": { "multicasts": sums.unanswered, "received": sums.unanswered_receipts },
            "latency": times(&self.times),
        })
    }
}

/// The calls of one kind, for programs.
fn calls(tally: &Tally) -> Value {
    let counts = tally.counts();
    json!({
        "begun": counts.begun(),
        "ok": counts.ok,
        "shed": counts.shed,
        "missed": counts.missed,
        "errors": counts.errors,
        "latency": times(&tally.times.summary()),
        "shed_latency": times(&tally.shed_times.summary()),
    })
}

/// Times in milliseconds, for programs.
pub(crate) fn times(times: &Summary) -> Value {
    json!({
        "count": times.count,
        "mean_ms": millis(times.mean),
        "p50_ms": millis(times.p50),
        "p90_ms": millis(times.p90),
        "p99_ms": millis(times.p99),
        "p99_9_ms": millis(times.p999),
        "max_ms": millis(times.max),
    })
}

fn sessions(sessions: &Sessions) -> Value {
    json!({
        "open": sessions.open,
        "opened": sessions.opened,
        "reopened": sessions.reopened,
        "strays": sessions.strays,
        "gaps": sessions.gaps,
        "lost": sessions.lost,
    })
}
