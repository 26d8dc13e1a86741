//! Truth under fire: while brokers fail, and runners and brokers are killed, nobody is told what is not so.
//!
//! Callers note every answer, consumers log every message, and the broker itself says what it had. In the end the three
//! are held against each other ([`check`]). What goes wrong and when comes from a seed that is printed; the machine still
//! decides how calls and faults interleave. `PRISM_TRUTH=full` makes the stories as large as they get.

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
use check::{Counts, check};
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

/// Waits until everything has come, and holds what was told against what happened.
async fn hold(
    client: &Client,
    mut calls: Vec<Call>,
    mut consumers: Consumers,
    broker: &Broker,
) -> Result<Counts> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let outstanding = consumers.settle(&calls, ASK).await?;
        if outstanding.is_empty() || Instant::now() >= deadline {
            break;
        }
        let open = calls.iter_mut().filter(|call| outstanding.contains(&call.number));
        read_receipts(client, open).await;
    }
    read_receipts(client, calls.iter_mut()).await;
    let history = History {
        calls,
        diaries: consumers.stop().await?,
        tap: broker.tap()?,
    };
    let (counts, findings) = check(&history);
    let shown: Vec<String> = findings.iter().take(10).map(ToString::to_string).collect();
    ensure!(
        findings.is_empty(),
        "{} findings, {counts:?}:\n{}",
        findings.len(),
        shown.join("\n")
    );
    Ok(counts)
}
