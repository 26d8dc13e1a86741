//! What is told of a run.

mod table;
mod tree;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

pub(crate) use table::{COLUMNS, columns};
pub(crate) use tree::times;

use super::{
    ledger::Sums,
    listeners::Sessions,
    stamp::Run,
    tally::{Counts, Summary, Tally},
};
use crate::{
    exit::Exit,
    fault::Fault,
    output::{Shown, Table},
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
    pub(crate) fn verdict(&self) -> Result<Exit, Box<Fault>> {
        let (sums, errors) = (&self.delivery.sums, self.errors());
        if let Some(percent) = sums.percent().filter(|_| sums.missing > 0) {
            let message = format!(
                "{} of {} targets did not receive their message, {percent:.4} % did",
                sums.missing, sums.targets
            );
            let fault = Fault::partial(Exit::Partial, "PARTIAL_DELIVERY", message);
            return Err(Box::new(fault));
        }
        let bad = |reason: &str, message: String| {
            let fault = Fault::partial(Exit::Error, reason, message);
            Err(Box::new(fault))
        };
        if let Some((reason, message)) = &self.problem {
            return bad(reason, message.clone());
        }
        if self.interrupted {
            return Ok(Exit::Interrupted);
        }
        if let Some(first) = errors.keys().next() {
            let count: u64 = errors.values().sum();
            let mut said = self.calls.iter().map(|(_, tally)| tally.counts().said);
            let said = said.find_map(|mut said| said.remove(first)).unwrap_or_default();
            return bad(
                first,
                format!("{count} calls failed otherwise than by being shed, the first with: {said}"),
            );
        }
        if self.delivers && sums.targets == 0 {
            let message = "nothing was multicast to anybody, so nothing is known of delivery";
            return bad("NOTHING_DELIVERED", message.to_owned());
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
}

/// A time in milliseconds, as fine as it was measured.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prism_client::Reason;
    use prism_core::failure::Failure;
    use serde_json::json;

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
