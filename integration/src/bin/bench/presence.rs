//! A hundred thousand users whose leases of a minute are renewed, and rooms that are spoken to meanwhile. The floor is
//! the same rate of multicasts to rooms of the same size where there are no others.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::System;
use serde_json::json;

use crate::{
    probe::{Told, load},
    report::{Better, Report},
    usage::Both,
};

const NAME: &str = "presence_100k";
const USERS: u64 = 100_000;
const IN_A_ROOM: u64 = 100;
/// How many of the users listen, and are all the users of the floor.
const LISTENERS: u64 = 1_000;
/// Longer than a lease, so that each was renewed.
const SECONDS: u64 = 80;
const PATIENCE: Duration = Duration::from_secs(500);

pub(crate) async fn run(report: &mut Report) {
    report.attempt(NAME, measure).await;
}

async fn measure(report: &mut Report) -> Result<()> {
    let system = System::on_redis_and_nats_with(1, json!({ "max_identities": 1_000_000 })).await?;
    let alone = presence(&system, LISTENERS, 20).await?;
    let before = Both::begin(&system)?;
    let told = presence(&system, USERS, SECONDS).await?;
    let used = Both::now(&system)?.since(before);
    let renewed = told.count("/renewed")?;
    ensure!(renewed >= USERS, "only {renewed} renewals");
    let p99 = |told: &Told| told.number("/operations/multicast/latency/p99_ms");
    let more = json!({
        "statistic": "p99", "users": USERS, "listeners": told.value("/sessions/open"), "renewed": renewed,
        "expired": told.value("/expired"), "renewals_refused": told.value("/renewals_refused"),
        "renewal_lateness": told.value("/renewal_lateness"), "renew": told.value("/operations/renew/latency"),
        "multicast": told.value("/operations/multicast/latency"),
        "sent": told.value("/delivery/targets"), "received": told.value("/delivery/received"),
        "received_percent": told.value("/delivery/percent"), "received_latency": told.value("/delivery/latency"),
        "lateness_p99_ms": told.value("/lateness/p99_ms"), "used": used,
    });
    report.row(
        NAME,
        p99(&told)? * 1e3,
        "us",
        p99(&alone)? * 1e3,
        Better::Lower,
        more,
    );
    Ok(())
}

/// Nobody expired, and everybody received everything.
async fn presence(system: &System, users: u64, seconds: u64) -> Result<Told> {
    let rooms = users / IN_A_ROOM;
    let line = format!(
        "presence --users {users} --ttl 60 --rooms {rooms} --listeners {LISTENERS} --rate 20 --duration {seconds}s"
    );
    let told = load(system, &line, PATIENCE).await?;
    told.was_complete()?;
    let expired = told.count("/expired")?;
    ensure!(expired == 0, "{expired} users expired");
    ensure!(
        told.value("/renewals_refused") == json!({}),
        "renewals were refused"
    );
    let missed = told.count("/operations/multicast/missed")?;
    ensure!(missed == 0, "{missed} multicasts had no room");
    Ok(told)
}
