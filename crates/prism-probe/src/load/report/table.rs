//! A report for people.

use std::{collections::BTreeMap, time::Duration};

use super::{Counts, Delivery, Report, Sessions, Summary, millis};
use crate::output::{Cell, Table};

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

impl Report {
    pub(super) fn table(&self) -> Table {
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
            ("INCOMPLETE", some(sums.incomplete)),
            ("UNANSWERED", some(sums.unanswered)),
        ]
    }
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
