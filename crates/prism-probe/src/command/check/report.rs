//! What was found.

use serde_json::{Value, json};

use crate::{
    exit::Exit,
    output::{Cell, Shown, Table, tidy},
};

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    /// What the admin API lists, by what it is.
    listings: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
struct Finding {
    check: String,
    state: State,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    /// Not there, and nobody said that it should be.
    Absent,
    /// With what it does to the exit code.
    Bad(Exit),
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Absent => "absent",
            Self::Bad(_) => "failed",
        }
    }
}

impl Report {
    pub(super) fn fine(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.find(check, State::Fine, detail);
    }

    pub(super) fn absent(&mut self, check: impl Into<String>, detail: impl Into<String>) {
        self.find(check, State::Absent, detail);
    }

    pub(super) fn bad(&mut self, check: impl Into<String>, exit: Exit, detail: impl Into<String>) {
        self.find(check, State::Bad(exit), detail);
    }

    fn find(&mut self, check: impl Into<String>, state: State, detail: impl Into<String>) {
        self.findings.push(Finding {
            check: check.into(),
            state,
            detail: detail.into(),
        });
    }

    pub(super) fn list(&mut self, what: &'static str, listing: Value) {
        self.listings.push((what, tidy(listing)));
    }

    pub(super) fn len(&self) -> usize {
        self.findings.len()
    }

    /// The exit code of the first failure and how many there are, if there are any.
    pub(super) fn verdict(&self) -> Option<(Exit, usize)> {
        let bad = |finding: &Finding| match finding.state {
            State::Bad(exit) => Some(exit),
            _ => None,
        };
        let mut failures = self.findings.iter().filter_map(bad);
        let first = failures.next()?;
        Some((first, 1 + failures.count()))
    }

    pub(super) fn shown(&self) -> Shown {
        let namespaces = self.listings.iter().filter(|(what, _)| *what == "namespaces");
        let names = namespaces
            .flat_map(|(_, listing)| rows(listing))
            .filter_map(|row| row["name"].as_str());
        Shown {
            tree: self.tree(),
            table: self.table(),
            names: names.map(str::to_owned).collect(),
        }
    }

    fn tree(&self) -> Value {
        let check = |finding: &Finding| {
            json!({
                "check": finding.check,
                "state": finding.state.as_str(),
                "detail": finding.detail,
            })
        };
        let mut tree = json!({ "checks": self.findings.iter().map(check).collect::<Vec<_>>() });
        for (what, listing) in &self.listings {
            tree[*what] = listing.clone();
        }
        tidy(tree)
    }

    fn table(&self) -> Table {
        let mut table = Table::new(["CHECK", "STATE", "DETAIL"]);
        for finding in &self.findings {
            let text = finding.state.as_str();
            let state = match finding.state {
                State::Fine => Cell::good(text),
                State::Absent => Cell::doubtful(text),
                State::Bad(_) => Cell::bad(text),
            };
            table.row([
                finding.check.as_str().into(),
                state,
                finding.detail.as_str().into(),
            ]);
        }
        for (what, listing) in &self.listings {
            table.below(tabulate(what, rows(listing)));
        }
        table
    }
}

/// The items of a list, which may be the only list in an object.
fn rows(listing: &Value) -> &[Value] {
    let list = match listing {
        Value::Object(members) => members.values().find_map(Value::as_array),
        other => other.as_array(),
    };
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Whatever the items have, with the name of the first column saying what they are.
fn tabulate(what: &str, rows: &[Value]) -> Table {
    let mut keys: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        keys.extend(
            row.keys()
                .map(String::as_str)
                .filter(|key| !keys.contains(key))
                .collect::<Vec<_>>(),
        );
    }
    // What something is called comes first.
    keys.sort_by_key(|key| !matches!(*key, "name" | "instance" | "instance_id" | "id"));
    let heading = keys.iter().enumerate().map(|(index, key)| match index {
        0 => format!("{} ({key})", what.to_uppercase()),
        _ => key.to_uppercase().replace('_', " "),
    });
    let mut table = Table::new(heading);
    for row in rows {
        table.row(keys.iter().map(|key| Cell::from(brief(&row[*key]))));
    }
    table
}

fn brief(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(brief).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Style;

    #[test]
    fn the_first_failure_decides() {
        let mut report = Report::default();
        report.fine("a", "");
        report.absent("b", "");
        assert_eq!(report.verdict(), None);
        report.bad("c", Exit::NotFound, "");
        report.bad("d", Exit::Unavailable, "");
        assert_eq!(report.verdict(), Some((Exit::NotFound, 2)));
    }

    #[test]
    fn what_is_listed_is_tabulated_whatever_it_has() {
        let mut report = Report::default();
        report.fine("health", "serving");
        report.list(
            "namespaces",
            json!({"namespaces": [
                {"name": "presence", "state": "ready", "runners": ["r1", "r2"]},
                {"name": "iot", "error": "no runner"},
            ]}),
        );
        let shown = report.shown();
        assert_eq!(shown.names, ["presence", "iot"]);
        let expected = "\
CHECK   STATE  DETAIL
health  ok     serving

NAMESPACES (name)  RUNNERS  STATE  ERROR
presence           r1, r2   ready  -
iot                -        -      no runner
";
        assert_eq!(shown.table.render(&Style::plain()), expected);
    }
}
