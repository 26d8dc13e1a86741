//! What is told of a run.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    ledger::Sums,
    listeners::Sessions,
    stamp::Run,
    tally::{Counts, Summary, Tally},
};
use crate::{
    exit::Exit,
    fault::Fault,
    output::{Cell, Shown, Table},
};

/// What is told of a run.
pub(crate) struct Report {
    pub(crate) command: &'static str,
    pub(crate) run: Run,
    pub(crate) seed: u64,
    pub(crate) interrupted: bool,
    pub(crate) elapsed: Duration,
    /// What only this command has to say: its name in JSON, what people call it, and its value.
    pub(crate) facts: Vec<Fact>,
    /// Further tables for people.
    pub(crate) tables: Vec<Table>,
    pub(crate) calls: Vec<(&'static str, Arc<Tally>)>,
    pub(crate) delivery: Delivery,
    /// Whether there was to be something to receive.
    pub(crate) delivers: bool,
    /// What is wrong beside deliveries and calls: a reason for programs, and the same for people.
    pub(crate) problem: Option<(&'static str, String)>,
    pub(crate) sessions: Sessions,
    /// How many registrations could not be removed; `None` where they were to be kept.
    pub(crate) left: Option<u64>,
}

/// One thing that a command has to say.
pub(crate) struct Fact {
    pub(crate) key: &'static str,
    pub(crate) value: Value,
    /// For people; nothing for what only programs want.
    pub(crate) shown: Option<(&'static str, String)>,
}

/// Who was to receive what, who did, and how long that took.
pub(crate) struct Delivery {
    pub(crate) sums: Sums,
    /// From when a multicast was due until a target had it.
    pub(crate) times: Summary,
}

impl Fact {
    /// For people and for programs.
    pub(crate) fn new(key: &'static str, name: &'static str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Self {
            key,
            value,
            shown: Some((name, text)),
        }
    }

    /// For programs only.
    pub(crate) fn silent(key: &'static str, value: Value) -> Self {
        Self {
            key,
            value,
            shown: None,
        }
    }

    /// For people in their own words.
    pub(crate) fn worded(key: &'static str, name: &'static str, value: Value, text: String) -> Self {
        Self {
            key,
            value,
            shown: Some((name, text)),
        }
    }
}

impl Report {
    /// How the process is to end.
    pub(crate) fn verdict(&self) -> Result<Exit, Fault> {
        let sums = &self.delivery.sums;
        if let Some(percent) = sums.percent().filter(|_| sums.missing > 0) {
            let message = format!(
                "{} of {} targets did not receive their message, {percent:.4} % did",
                sums.missing, sums.targets
            );
            return Err(Fault::partial(Exit::Partial, "PARTIAL_DELIVERY", message));
        }
        if let Some((reason, message)) = &self.problem {
            return Err(Fault::partial(Exit::Error, reason, message.clone()));
        }
        if self.interrupted {
            return Ok(Exit::Interrupted);
        }
        let errors = self.errors();
        if let Some((first, _)) = errors.first_key_value() {
            let count: u64 = errors.values().sum();
            let message = format!("{count} calls failed otherwise than by being shed");
            return Err(Fault::partial(Exit::Error, first, message));
        }
        if self.delivers && sums.targets == 0 {
            let message = "nothing was multicast to anybody, so nothing is known of delivery".to_owned();
            return Err(Fault::partial(Exit::Error, "NOTHING_DELIVERED", message));
        }
        Ok(Exit::Ok)
    }

    fn errors(&self) -> BTreeMap<String, u64> {
        let mut errors = BTreeMap::new();
        for (_, tally) in &self.calls {
            for (reason, count) in tally.counts().errors {
                *errors.entry(reason).or_default() += count;
            }
        }
        errors
    }

    pub(crate) fn shown(&self) -> Shown {
        Shown {
            tree: self.tree(),
            table: self.table(),
            names: Vec::new(),
        }
    }

    fn tree(&self) -> Value {
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

    fn table(&self) -> Table {
        let mut all = vec![
            ("RUN", self.run.to_string()),
            ("SEED", self.seed.to_string()),
            ("TOOK", format!("{:.1} s", self.elapsed.as_secs_f64())),
        ];
        let own = self.facts.iter().filter_map(|fact| fact.shown.clone());
        all.extend(own);
        all.extend(self.delivery.facts());
        all.extend(session_facts(&self.sessions));
        if let Some(left) = self.left.filter(|left| *left > 0) {
            all.push(("LEFT BEHIND", left.to_string()));
        }
        let mut table = Table::default();
        for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
            table.row([Cell::from(name), value.into()]);
        }
        table.below(self.calls_table());
        for further in &self.tables {
            table.below(further.clone());
        }
        table.below(self.errors_table());
        table
    }

    fn calls_table(&self) -> Table {
        let heading = ["CALL", "OK", "SHED", "FAILED", "MISSED"];
        let mut table = Table::new(heading.into_iter().chain(COLUMNS));
        let mut row = |name: &str, counts: &Counts, times: &Summary| {
            let bad = |count: u64| match count {
                0 => Cell::from("0"),
                some => Cell::bad(some.to_string()),
            };
            let mut cells = vec![
                Cell::from(name),
                counts.ok.to_string().into(),
                bad(counts.shed),
                bad(counts.failed()),
                bad(counts.missed),
            ];
            cells.extend(columns(times));
            table.row(cells);
        };
        for (name, tally) in &self.calls {
            row(name, &tally.counts(), &tally.times.summary());
        }
        if self.delivery.times.count > 0 {
            let counts = Counts {
                ok: self.delivery.times.count,
                ..Counts::default()
            };
            row("(received)", &counts, &self.delivery.times);
        }
        table
    }

    fn errors_table(&self) -> Table {
        let mut table = Table::new(["REASON", "COUNT"]);
        let targets = &self.delivery.sums.reasons;
        for (reason, count) in self.errors().iter().chain(targets) {
            table.row([Cell::bad(reason), count.to_string().into()]);
        }
        table
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

    fn facts(&self) -> Vec<(&'static str, String)> {
        let sums = &self.sums;
        let percent = sums
            .percent()
            .map(|percent| format!("{percent:.4} %"))
            .unwrap_or_default();
        let claimed = format!(
            "{} delivered, {} pending, {} failed, {} unknown",
            sums.claimed.delivered, sums.claimed.pending, sums.claimed.failed, sums.claimed.timeout
        );
        vec![
            ("MULTICASTS", sums.multicasts.to_string()),
            (
                "RECEIVED",
                format!("{} of {} targets", sums.received(), sums.targets),
            ),
            ("DELIVERY", percent),
            ("CLAIMED", claimed),
            ("FALSE CLAIMS", some(sums.false_claims)),
            ("FALSE FAILURES", some(sums.false_failures)),
            ("DUPLICATES", some(sums.duplicates)),
            ("UNLISTED", some(sums.unlisted)),
            ("UNANSWERED", some(sums.unanswered)),
        ]
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

/// The names of [`columns`].
pub(crate) const COLUMNS: [&str; 5] = ["P50", "P90", "P99", "P99.9", "MAX"];

/// Times for people: the columns from the median to the longest.
pub(crate) fn columns(times: &Summary) -> Vec<Cell> {
    let all = [times.p50, times.p90, times.p99, times.p999, times.max];
    let text = |time: Duration| match times.count {
        0 => String::new(),
        _ => format!("{:.2} ms", millis(time)),
    };
    all.into_iter().map(|time| Cell::from(text(time))).collect()
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
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

fn session_facts(sessions: &Sessions) -> Vec<(&'static str, String)> {
    let reasons = |counts: &BTreeMap<String, u64>| {
        let each = counts.iter().map(|(reason, count)| format!("{count} {reason}"));
        each.collect::<Vec<_>>().join(", ")
    };
    vec![
        ("SESSIONS", sessions.open.to_string()),
        ("REOPENED", some(sessions.reopened)),
        ("GAPS", reasons(&sessions.gaps)),
        ("SESSIONS LOST", reasons(&sessions.lost)),
        ("STRAY MESSAGES", some(sessions.strays)),
    ]
}

/// Nothing for nothing.
fn some(count: u64) -> String {
    if count == 0 {
        String::new()
    } else {
        count.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prism_client::Reason;
    use prism_core::failure::Failure;

    use super::*;

    fn report(targets: u64, missing: u64) -> Report {
        Report {
            command: "mixed",
            run: Run::random(),
            seed: 1,
            interrupted: false,
            elapsed: Duration::from_secs(1),
            facts: Vec::new(),
            tables: Vec::new(),
            calls: vec![("multicast", Arc::default())],
            delivery: Delivery {
                sums: Sums {
                    targets,
                    missing,
                    ..Sums::default()
                },
                times: Summary::default(),
            },
            delivers: true,
            problem: None,
            sessions: Sessions::default(),
            left: None,
        }
    }

    fn failing(report: &Report, reason: Reason) {
        let answer: Result<(), _> = Err(Failure::new(reason, "x").into());
        report.calls[0].1.note(Instant::now(), &answer);
    }

    #[test]
    fn only_what_everybody_received_is_well() {
        assert_eq!(report(10, 0).verdict().unwrap(), Exit::Ok);
        let fault = report(10, 1).verdict().unwrap_err();
        assert_eq!(
            (fault.exit, fault.reason.as_str()),
            (Exit::Partial, "PARTIAL_DELIVERY")
        );
        let fault = report(0, 0).verdict().unwrap_err();
        assert_eq!(
            (fault.exit, fault.reason.as_str()),
            (Exit::Error, "NOTHING_DELIVERED")
        );
        let expired = Report {
            problem: Some(("EXPIRED", "x".to_owned())),
            ..report(10, 0)
        };
        assert_eq!(expired.verdict().unwrap_err().reason, "EXPIRED");
        let silent = Report {
            delivers: false,
            ..report(0, 0)
        };
        assert_eq!(silent.verdict().unwrap(), Exit::Ok);
    }

    #[test]
    fn to_be_shed_is_no_failure_and_to_fail_is_one() {
        let shed = report(10, 0);
        failing(&shed, Reason::Overloaded);
        assert_eq!(shed.verdict().unwrap(), Exit::Ok);
        let failed = report(10, 0);
        failing(&failed, Reason::RunnerLost);
        let fault = failed.verdict().unwrap_err();
        assert_eq!((fault.exit, fault.reason.as_str()), (Exit::Error, "RUNNER_LOST"));
    }

    #[test]
    fn an_interrupted_run_says_so_unless_something_is_missing() {
        let interrupted = |missing| Report {
            interrupted: true,
            ..report(10, missing)
        };
        assert_eq!(interrupted(0).verdict().unwrap(), Exit::Interrupted);
        assert_eq!(interrupted(1).verdict().unwrap_err().exit, Exit::Partial);
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let report = report(4, 1);
        let shown = report.shown();
        assert_eq!(shown.tree["delivery"]["percent"], json!(75.0));
        assert_eq!(
            shown.tree["operations"]["multicast"]["latency"]["p99_9_ms"],
            json!(0.0)
        );
        let text = shown.table.render(&crate::output::Style::plain());
        assert!(
            text.contains("3 of 4 targets") && text.contains("75.0000 %"),
            "{text}"
        );
    }
}
