//! What was found.

use serde_json::{Value, json};

use super::listing::Listing;
use crate::{
    exit::Exit,
    output::{Cell, Shown, Table, tidy},
};

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    /// What the admin API lists.
    listings: Vec<Listing>,
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

    pub(super) fn list(&mut self, listing: Listing) {
        self.listings.push(listing);
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
        let namespaces = self
            .listings
            .iter()
            .filter(|listing| listing.name() == "namespaces");
        Shown {
            tree: self.tree(),
            table: self.table(),
            names: namespaces.flat_map(Listing::names).map(str::to_owned).collect(),
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
        for listing in &self.listings {
            tree[listing.name()] = listing.items().into();
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
        for listing in &self.listings {
            table.below(listing.table());
        }
        table
    }
}

impl FromIterator<Report> for Report {
    /// What each has found, in turn.
    fn from_iter<I: IntoIterator<Item = Self>>(reports: I) -> Self {
        let mut all = Self::default();
        for report in reports {
            all.findings.extend(report.findings);
            all.listings.extend(report.listings);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
