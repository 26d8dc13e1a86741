//! `prism-probe load`, run as its users run it, and what it tells.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::System;
use prism_testkit::Process;
use serde_json::Value;

/// What was told of a load.
pub(crate) struct Told(Value);

/// Runs a load, given as on the command line, on the namespace `test` through the proxy, to its end.
pub(crate) async fn load(system: &System, line: &str, within: Duration) -> Result<Told> {
    let endpoint = system.proxy.data.to_string();
    let mut all = vec![
        "--endpoint",
        &endpoint,
        "--namespace",
        "test",
        "-o",
        "json",
        "load",
    ];
    all.extend(line.split_whitespace());
    let mut process = Process::spawn("prism-probe", &all, &[])?;
    let status = process.wait(within).await?;
    let text = process.stdout().join("\n");
    let said = || {
        format!(
            "`{}` ended with {status}: {}",
            all.join(" "),
            process.stderr().join("; ")
        )
    };
    let told = serde_json::from_str(&text).with_context(said)?;
    Ok(Told(told))
}

impl Told {
    /// A number at a JSON pointer.
    pub(crate) fn number(&self, pointer: &str) -> Result<f64> {
        let found = self.0.pointer(pointer).and_then(Value::as_f64);
        found.with_context(|| format!("nothing is told of `{pointer}`"))
    }

    pub(crate) fn count(&self, pointer: &str) -> Result<u64> {
        Ok(self.number(pointer)? as u64)
    }

    pub(crate) fn value(&self, pointer: &str) -> Value {
        self.0.pointer(pointer).cloned().unwrap_or_default()
    }

    /// How many calls failed for a reason, of all kinds.
    pub(crate) fn errors(&self, reason: &str) -> u64 {
        let kinds = self.0["operations"].as_object().into_iter().flatten();
        kinds
            .filter_map(|(_, kind)| kind["errors"][reason].as_u64())
            .sum()
    }

    /// Fails unless everything that was said of targets is true: who is said to have received a message has, who is
    /// said not to has not, and nobody else did. Whatever is missing was said to be.
    pub(crate) fn was_truthful(&self) -> Result<()> {
        ensure!(self.count("/delivery/targets")? > 0, "nobody was multicast to");
        for key in ["duplicates", "unlisted", "false_claims", "false_failures"] {
            self.has_no("/delivery", key)?;
        }
        let told = self.count("/delivery/claimed/failed")? + self.count("/delivery/claimed/timeout")?;
        let missing = self.count("/delivery/missing")?;
        ensure!(
            missing <= told,
            "{missing} missing, {told} said to be: {}",
            self.value("/delivery")
        );
        Ok(())
    }

    /// Fails unless it was truthful, and every multicast was answered and received by all of its targets.
    pub(crate) fn was_complete(&self) -> Result<()> {
        self.was_truthful()?;
        self.has_no("/delivery", "missing")?;
        self.has_no("/delivery/unanswered", "multicasts")
    }

    fn has_no(&self, section: &str, key: &str) -> Result<()> {
        let count = self.count(&format!("{section}/{key}"))?;
        ensure!(
            count == 0,
            "{count} {key}: {}, and sessions were told: {}",
            self.value(section),
            self.value("/sessions/gaps")
        );
        Ok(())
    }

    /// Fails unless all that was due was done.
    pub(crate) fn was_done(&self, due: u64) -> Result<()> {
        for key in ["shed", "failed", "missed"] {
            let count = self.count(&format!("/{key}"))?;
            ensure!(count == 0, "{count} {key} of {due}: {}", self.0["operations"]);
        }
        let done = self.count("/ok")?;
        ensure!(done == due, "{done} of {due} were done");
        Ok(())
    }
}
