//! Truth under fire: while brokers fail, and runners and brokers are killed, nobody is told what is not so.
//!
//! Callers note every answer, consumers log every message, and the broker itself says what it had. In the end the three
//! are held against each other ([`check`]). What goes wrong and when comes from a seed that is printed; the machine still
//! decides how calls and faults interleave. `PRISM_TRUTH=full` makes the stories as large as they get (`make truth`).

mod callers;
mod check;
mod check_tests;
mod consumers;
mod doorbells;
mod faults;
mod history;
mod kills;
mod tap;
mod under_faults;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prism_client::Client;

use callers::read_receipts;
use check::{Counts, Finding, check};
use consumers::Consumers;
use history::{Call, History};
use world::Broker;

/// How long consumers have for what is still to come once nothing goes wrong any more.
const SETTLING: Duration = Duration::from_secs(90);
/// How often it is asked meanwhile whether that is still to come.
const ASK: Duration = Duration::from_secs(3);

/// As many of something as there are to be.
fn size(usual: u64, full: u64) -> u64 {
    match std::env::var("PRISM_TRUTH") {
        Ok(wanted) if wanted == "full" => full,
        _ => usual,
    }
}

/// Shows what a run came to.
#[allow(
    clippy::print_stdout,
    reason = "the harness shows it with a failure, and `make truth` always"
)]
fn say(what: std::fmt::Arguments<'_>) {
    println!("{what}");
}

/// Waits until everything has come, and holds what was told against what happened.
async fn hold(
    client: &Client,
    mut calls: Vec<Call>,
    mut consumers: Consumers,
    broker: &Broker,
) -> Result<Counts> {
    settle(client, &mut calls, &mut consumers).await?;
    read_receipts(client, calls.iter_mut()).await;
    let history = History {
        calls,
        diaries: consumers.stop().await?,
        tap: broker.tap()?,
    };
    let (counts, findings) = check(&history);
    nothing_wrong(&findings)?;
    Ok(counts)
}

fn nothing_wrong(findings: &[Finding]) -> Result<()> {
    let shown: Vec<String> = findings.iter().take(10).map(ToString::to_string).collect();
    ensure!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        shown.join("\n")
    );
    Ok(())
}

/// Waits until nothing more is to come. What has not when the time is over is for the check to find.
async fn settle(client: &Client, calls: &mut [Call], consumers: &mut Consumers) -> Result<()> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let outstanding = consumers.settle(calls, ASK).await?;
        if outstanding.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        let open = calls.iter_mut().filter(|call| outstanding.contains(&call.number));
        read_receipts(client, open).await;
    }
}
