//! A mixed load through the proxy over Redis and NATS: half registrations, three tenths enumerations, a fifth
//! multicasts to those who are online, over a population that grows to thousands. Every one who is online has a
//! session, at whose end is counted what arrives.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::System;
use serde_json::json;

use crate::{
    probe::{Told, load},
    report::{Better, Report},
    usage::Both,
};

pub(crate) const MIX: &str = "register=50,enumerate=30,multicast=20";
/// A little more than a minute, so that half of a hundred a second are three thousand and more.
const SECONDS: u64 = 62;
/// To how many identities it grows.
const LEAST: u64 = 3_000;
/// The load, what is missing at its end, and removing what was registered.
const PATIENCE: Duration = Duration::from_secs(SECONDS + 240);

struct Row {
    name: &'static str,
    /// Operations a second.
    rate: u64,
    /// How many of those registered are online, in percent, and how many at most: each multicast goes to all of
    /// them, so that this decides how many messages a second there are.
    share: u32,
    online: u32,
    /// In milliseconds.
    aim: f64,
}

const ROWS: [Row; 2] = [
    Row {
        name: "mixed_100",
        rate: 100,
        share: 10,
        online: 1_000,
        aim: 20.0,
    },
    Row {
        name: "mixed_1000",
        rate: 1_000,
        share: 10,
        online: 50,
        aim: 50.0,
    },
];

pub(crate) async fn run(report: &mut Report) {
    for row in &ROWS {
        report
            .attempt(row.name, async |report| row.measure(report).await)
            .await;
    }
}

impl Row {
    async fn measure(&self, report: &mut Report) -> Result<()> {
        let system = System::on_redis_and_nats_with(1, json!({ "max_identities": 1_000_000 })).await?;
        let before = Both::begin(&system)?;
        let told = load(&system, &self.line(), PATIENCE).await?;
        told.was_complete()?;
        told.was_done(self.rate * SECONDS)?;
        let registered = told.count("/registered")?;
        ensure!(registered >= LEAST, "only {registered} were registered");
        let used = Both::now(&system)?.since(before);
        let p99 = told.number("/operations/multicast/latency/p99_ms")?;
        let more = self.more(&told, used);
        report.row(self.name, p99 * 1e3, "us", self.aim * 1e3, Better::Lower, more);
        Ok(())
    }

    fn line(&self) -> String {
        let Self {
            rate, share, online, ..
        } = self;
        format!(
            "mixed --rate {rate} --duration {SECONDS}s --mix {MIX} --share {share} --subscribers {online}"
        )
    }

    fn more(&self, told: &Told, used: serde_json::Value) -> serde_json::Value {
        let mut more = json!({
            "statistic": "p99",
            "rate": self.rate,
            "seconds": SECONDS,
            "share_online_percent": told.count("/listening").unwrap_or(0) as f64 * 100.0
                / told.count("/registered").unwrap_or(1).max(1) as f64,
            "registered": told.value("/registered"),
            "online": told.value("/listening"),
            "sent": told.value("/delivery/targets"),
            "received": told.value("/delivery/received"),
            "received_percent": told.value("/delivery/percent"),
            "shed": told.value("/shed"),
            "errors": told.value("/failed"),
            "lateness_p99_ms": told.value("/lateness/p99_ms"),
            "received_latency": told.value("/delivery/latency"),
            "used": used,
        });
        for kind in ["register", "enumerate", "multicast"] {
            more[kind] = told.value(&format!("/operations/{kind}/latency"));
        }
        more
    }
}
