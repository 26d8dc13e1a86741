//! What a migration has done.

use serde_json::{Value, json};

use super::Outcome;
use crate::{
    exit::Exit,
    fault::{Fault, Stop},
    output::{Cell, Format, Output, Shown, Style, Table, printable},
};

/// Counts, and tells what somebody has to look at.
pub(super) struct Report {
    dry: bool,
    fine: u64,
    changed: u64,
    left: u64,
    gone: u64,
}

impl Report {
    pub(super) fn new(dry: bool) -> Self {
        Self {
            dry,
            fine: 0,
            changed: 0,
            left: 0,
            gone: 0,
        }
    }

    /// Counts an outcome; what to show of it, if anything.
    pub(super) fn note(&mut self, name: &str, outcome: &Outcome) -> Option<Shown> {
        match outcome {
            Outcome::Fine => self.fine += 1,
            Outcome::Gone => self.gone += 1,
            Outcome::Left(_) => self.left += 1,
            Outcome::Changed(_) => self.changed += 1,
        }
        match outcome {
            Outcome::Left(why) => Some(shown(name, "problem", json!(why), Cell::bad(why))),
            Outcome::Changed(patch) if self.dry => {
                Some(shown(name, "patch", patch.clone(), patch.to_string().into()))
            }
            _ => None,
        }
    }

    pub(super) fn looked_at(&self) -> u64 {
        self.fine + self.changed + self.left + self.gone
    }

    /// For beside the bar.
    pub(super) fn short(&self) -> String {
        format!("{} {}, {} left", self.changed, self.verb(), self.left)
    }

    /// Tells the outcome as a whole.
    pub(super) fn conclude(
        &self,
        ended: Result<Exit, Stop>,
        through: Option<&str>,
        output: &mut Output,
    ) -> Result<Exit, Stop> {
        match output.format() {
            Format::Json | Format::Yaml => output.event(&self.summary(through))?,
            Format::Table | Format::Name => Style::talk(&self.text()),
        }
        let is_whole = matches!(ended, Ok(Exit::Ok));
        if let (false, Some(last)) = (is_whole, through) {
            let last = printable(last);
            Style::talk(&format!(
                "everything up to `{last}` is done; run it again, or with --after `{last}`"
            ));
        }
        if is_whole && self.left > 0 {
            let message = format!("{} registrations stay as they are", self.left);
            return Err(Fault::partial(Exit::Error, "PARTLY_MIGRATED", message).into());
        }
        ended
    }

    fn verb(&self) -> &'static str {
        if self.dry { "would change" } else { "changed" }
    }

    fn text(&self) -> String {
        let others = [(self.left, "stay as they are"), (self.gone, "are gone meanwhile")];
        let others = others.into_iter().filter(|(count, _)| *count > 0);
        let others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
        format!("{} of {} {}{others}", self.changed, self.looked_at(), self.verb())
    }

    fn summary(&self, through: Option<&str>) -> Shown {
        let summary = json!({
            "looked_at": self.looked_at(),
            "changed": self.changed,
            "dry_run": self.dry,
            "gone": self.gone,
            "left": self.left,
            "through": through,
        });
        Shown {
            tree: json!({ "summary": summary }),
            table: Table::default(),
            names: Vec::new(),
        }
    }
}

fn shown(name: &str, what: &str, value: Value, cell: Cell) -> Shown {
    let mut table = Table::default();
    table.row([name.into(), cell]);
    Shown {
        tree: json!({ "identity": name, what: value }),
        table,
        names: vec![name.to_owned()],
    }
}
