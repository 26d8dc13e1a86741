//! What an import has done.

use prism_client::{Outcome, SessionId};
use serde_json::json;

use super::Problem;
use crate::{
    cli::multicast::Import,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Output, Shown, Style, Table},
};

/// Counts what became of the lines.
pub(super) struct Report {
    dry: bool,
    session: SessionId,
    registered: u64,
    replaced: u64,
    updated: u64,
    renewed: u64,
    /// Of a dry run: those that would be sent.
    pub(super) valid: u64,
    refused: u64,
    unknown: u64,
    /// Everything up to this line is decided.
    pub(super) through: u64,
    /// Whether that is all.
    pub(super) is_whole: bool,
    /// Of those that were not registered, as far as is known, the one that comes first.
    first: Option<(u64, Problem)>,
}

impl Report {
    pub(super) fn new(import: &Import, session: SessionId) -> Self {
        Self {
            dry: import.dry_run,
            session,
            registered: 0,
            replaced: 0,
            updated: 0,
            renewed: 0,
            valid: 0,
            refused: 0,
            unknown: 0,
            through: import.skip,
            is_whole: false,
            first: None,
        }
    }

    pub(super) fn done(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Registered => &mut self.registered,
            Outcome::Replaced => &mut self.replaced,
            Outcome::Updated => &mut self.updated,
            Outcome::Renewed => &mut self.renewed,
        } += 1;
    }

    pub(super) fn refuse(&mut self, number: u64, problem: &Problem) {
        if problem.is_unknown {
            self.unknown += 1;
        } else {
            self.refused += 1;
        }
        if self.first.as_ref().is_none_or(|(first, _)| number < *first) {
            self.first = Some((number, problem.clone()));
        }
    }

    /// A line that was not registered has ended it: what goes on begins with that line.
    pub(super) fn stopped(&mut self) {
        if let Some((first, _)) = &self.first {
            self.through = self.through.min(first - 1);
        }
    }

    /// So many lines may have been registered.
    pub(super) fn unknown(&mut self, lines: u64) {
        self.unknown += lines;
    }

    /// Whether a line was not registered, as far as is known.
    pub(super) fn is_bad(&self) -> bool {
        self.first.is_some()
    }

    /// For beside the bar.
    pub(super) fn short(&self) -> String {
        let done = self.registered + self.replaced + self.updated + self.renewed + self.valid;
        let what = if self.dry { "fine" } else { "registered" };
        match self.refused + self.unknown {
            0 => format!("{done} {what}"),
            bad => format!("{done} {what}, {bad} not"),
        }
    }

    /// Tells the outcome as a whole.
    pub(super) fn conclude(&self, ended: Result<Exit, Stop>, output: &mut Output) -> Result<Exit, Stop> {
        output.event(&self.summary())?;
        if !self.is_whole && !self.dry {
            Style::talk(&self.how_to_go_on());
        }
        if let (Ok(Exit::Ok), Some((line, problem))) = (&ended, &self.first) {
            return Err(self.fault(*line, problem).into());
        }
        ended
    }

    fn how_to_go_on(&self) -> String {
        let (through, session) = (self.through, self.session());
        let first = match &self.first {
            // Again as it is it would be refused again.
            Some((line, problem)) if *line == through + 1 && !problem.is_unknown => {
                format!(", once line {line} is mended or with --continue-on-error")
            }
            _ => String::new(),
        };
        format!(
            "everything through line {through} is decided, go on with --skip {through} --session {session}{first}"
        )
    }

    fn fault(&self, line: u64, problem: &Problem) -> Fault {
        let unknown = match self.unknown {
            0 => String::new(),
            count => format!(", {count} more may have been registered or not"),
        };
        let message = format!(
            "{} lines were refused{unknown}; the first is line {line}: {}",
            self.refused, problem.message
        );
        let exit = if self.dry { Exit::Usage } else { problem.exit };
        Fault::partial(exit, &problem.reason, message)
    }

    fn session(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.session.0))
    }

    fn summary(&self) -> Shown {
        let mut summary = json!({
            "dry_run": self.dry,
            "registered": self.registered,
            "replaced": self.replaced,
            "updated": self.updated,
            "renewed": self.renewed,
            "refused": self.refused,
            "unknown": self.unknown,
            "through": self.through,
            "session": self.session(),
        });
        if self.dry {
            summary = json!({
                "dry_run": true,
                "valid": self.valid,
                "refused": self.refused,
                "through": self.through,
            });
        }
        let some = |count: u64| {
            if count == 0 {
                String::new()
            } else {
                count.to_string()
            }
        };
        let registered = if self.dry {
            String::new()
        } else {
            self.registered.to_string()
        };
        let valid = if self.dry {
            self.valid.to_string()
        } else {
            String::new()
        };
        Shown {
            tree: json!({ "summary": summary }),
            table: Table::facts([
                ("FINE", valid),
                ("REGISTERED", registered),
                ("REPLACED", some(self.replaced)),
                ("UPDATED", some(self.updated)),
                ("RENEWED", some(self.renewed)),
                ("REFUSED", some(self.refused)),
                ("UNKNOWN", some(self.unknown)),
                ("THROUGH LINE", self.through.to_string()),
            ]),
            names: Vec::new(),
        }
    }
}
