//! `make load`: what reads cost by the number of identities, and multicasts by the number of targets.
//!
//! Prints tables and draws `docs/scale.svg` and `docs/multicast-cost.svg`. An argument, `reads` or `multicasts`, selects
//! one of the two.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod backends;
mod chart;
mod multicasts;
mod reads;

use std::path::Path;

use anyhow::{Result, ensure};

#[tokio::main]
async fn main() -> Result<()> {
    let asked = std::env::args().nth(1);
    let wants = |what: &str| asked.as_deref().is_none_or(|asked| asked == what);
    ensure!(
        wants("reads") || wants("multicasts"),
        "expected `reads` or `multicasts`"
    );
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    if wants("reads") {
        reads::run(&docs.join("scale.svg")).await?;
    }
    if wants("multicasts") {
        multicasts::run(&docs.join("multicast-cost.svg")).await?;
    }
    Ok(())
}

/// The heading of a table, whose last column is the slow end.
fn heading(size: &str, slow: &str) {
    println!("{size:>10}  {:26}  {:>12}  {slow:>12}", "", "p50 us");
}

/// A line of it.
fn told(size: usize, name: &str, median: f64, slow: f64) {
    println!("{size:>10}  {name:26}  {median:>12.1}  {slow:>12.1}");
}
