//! Rows of a report, and the arithmetic behind them.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// The rows so far.
pub(crate) struct Report {
    rows: Vec<Value>,
    selected: Vec<String>,
    refused: Vec<String>,
}

impl Report {
    pub(crate) fn from_arguments(selected: Vec<String>) -> Self {
        Self {
            rows: Vec::new(),
            selected,
            refused: Vec::new(),
        }
    }

    /// Whether a row is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.selected.is_empty()
            || self.selected.iter().any(|asked| match asked.strip_prefix('=') {
                Some(whole) => name == whole,
                None => name.starts_with(asked.as_str()),
            })
    }

    /// Adds a row: the value, the floor that it is held against, and what they say together.
    #[allow(clippy::print_stderr)] // progress, for whoever waits
    pub(crate) fn row(
        &mut self,
        name: &str,
        value: f64,
        unit: &str,
        floor: f64,
        better: Better,
        more: Value,
    ) {
        let ratio = value / floor;
        let word = if better == Better::Lower {
            "lower"
        } else {
            "higher"
        };
        let mut row = json!({
            "name": name, "value": round(value), "unit": unit, "floor": round(floor), "ratio": round(ratio),
            "better": word,
        });
        if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
            row.extend(more);
        }
        eprintln!(
            "{name:36} {:>12} {unit:10} floor {:>12}  ratio {ratio:.3} ({word} is better)",
            round(value),
            round(floor)
        );
        self.rows.push(row);
    }

    /// Measures a row that is asked for. One of which nothing can be said is left out: not all was delivered, or the load
    /// was none. The others are measured and written all the same; the run fails in the end.
    pub(crate) async fn attempt(
        &mut self,
        name: &str,
        measure: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>,
    ) {
        if self.wants(name)
            && let Err(error) = measure(self).await
        {
            self.refuse(name, &error);
        }
    }

    /// Leaves a row out, see [`Self::attempt`].
    #[allow(clippy::print_stderr)] // as for a row
    pub(crate) fn refuse(&mut self, name: &str, error: &anyhow::Error) {
        eprintln!("{name:36} not reported: {error:#}");
        self.refused.push(format!("`{name}`: {error:#}"));
    }

    pub(crate) fn write(self) -> anyhow::Result<()> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        std::fs::create_dir_all(&directory)?;
        let text = serde_json::to_string_pretty(&Value::Array(self.rows))?;
        std::fs::write(directory.join("report.json"), text)?;
        anyhow::ensure!(
            self.refused.is_empty(),
            "not reported: {}",
            self.refused.join("; ")
        );
        Ok(())
    }
}

fn round(value: f64) -> f64 {
    let scale = if value.abs() >= 100.0 { 10.0 } else { 1_000.0 };
    (value * scale).round() / scale
}

/// The value below which a share of the samples lies, in microseconds.
pub(crate) fn percentile(samples: &mut [Duration], share: f64) -> f64 {
    samples.sort_unstable();
    let at = ((samples.len() - 1) as f64 * share).round() as usize;
    samples[at].as_secs_f64() * 1e6
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
