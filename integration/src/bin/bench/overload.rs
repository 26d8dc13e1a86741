//! Four times of what the service can do: how much is still answered in time, how soon the rest is refused, and
//! whether memory stays where it is.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::{Proxy, System, shared_namespace};
use prism_testkit::{NatsServer, RedisServer};
use serde_json::{Value, json};

use crate::{
    mixed::MIX,
    probe::{Told, load},
    report::{Better, Report},
    usage::Both,
};

/// As it comes, and with a proxy that is told how many calls may be under way.
const ROWS: [(&str, Option<u32>); 2] = [("overload_4x", None), ("overload_4x_limited", Some(64))];
const TIMES: f64 = 4.0;
/// How many are multicast to and listed. The same all the time, so that the cost of an operation is.
const ONLINE: u32 = 50;
/// What is answered later is no good.
const DEADLINE: &str = "1s";
const STEP: &str = "5s";
/// Reached within two seconds, so that clients hear in time how much is too much.
const OVERLOAD: &str = "--ramp up:2s --duration 60s";
/// How often the peak and the overload are measured, in turn.
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(400);
/// By less it does not grow any more.
const GROWTH: f64 = 1.03;
/// So many at a time are tried in any case: a few may be slow for reasons of their own.
const ENOUGH: u32 = 64;
/// A larger share that is refused is no closed loop: whoever is refused calls again at once.
const FEW: f64 = 0.01;
const KINDS: [&str; 3] = ["register", "enumerate", "multicast"];

pub(crate) async fn run(report: &mut Report) {
    for (name, limit) in ROWS {
        report
            .attempt(name, async |report| measure(report, name, limit).await)
            .await;
    }
}

async fn system(limit: Option<u32>) -> Result<System> {
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let mut namespace = shared_namespace("test", &redis, &nats);
    namespace["behavior"] = json!({ "max_identities": 10_000_000 });
    let mut config = json!({ "namespaces": [namespace] });
    if let Some(limit) = limit {
        config["limits"] = json!({ "concurrent_calls": limit });
    }
    let proxy = Proxy::start_with(&config, &[]).await?;
    System::serve(proxy, 1, Some(redis), Some(nats)).await
}

/// One after the other, so that both have the same machine, which is not as fast at all times.
async fn measure(report: &mut Report, name: &str, limit: Option<u32>) -> Result<()> {
    let system = system(limit).await?;
    let (mut at_once, ramp) = most_useful(&system, limit).await?;
    let least = (at_once / 2).max(1);
    let (mut peaks, mut overloads) = (Vec::new(), Vec::new());
    let before = Both::begin(&system)?;
    for _ in 0..ROUNDS {
        let peak = peak(&system, &mut at_once, least).await?;
        let offered = (peak * TIMES).round();
        let line = format!("--rate {offered} --max-in-flight 100000 {OVERLOAD}");
        peaks.push(peak);
        overloads.push(mixed(&system, &line).await?);
    }
    let used = Both::now(&system)?.since(before);
    let goodputs = overloads.iter().map(goodput).collect::<Result<Vec<_>>>()?;
    let more = json!({
        "peak_ramp": ramp,
        "peak_in_flight": at_once,
        "concurrent_calls": limit,
        "deadline": DEADLINE,
        "peaks": peaks,
        "goodputs": goodputs,
        "overloads": overloads.iter().map(overload).collect::<Vec<_>>(),
        "used": used,
    });
    report.row(
        name,
        mean(&goodputs),
        "calls/s",
        mean(&peaks),
        Better::Higher,
        more,
    );
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

async fn mixed(system: &System, pace: &str) -> Result<Told> {
    let line =
        format!("mixed --deadline {DEADLINE} --connections 16 --mix {MIX} --subscribers {ONLINE} {pace}");
    let told = load(system, &line, PATIENCE).await?;
    told.was_truthful()?;
    let listening = told.count("/listening")?;
    ensure!(
        listening == u64::from(ONLINE),
        "{listening} listen, and not {ONLINE}"
    );
    Ok(told)
}

/// How many a second were answered in time. A multicast is not, of which a target was said not to be reached.
fn goodput(told: &Told) -> Result<f64> {
    let (in_time, incomplete) = (told.number("/in_time")?, told.number("/delivery/incomplete")?);
    let rate = told.number("/in_time_per_second")?;
    Ok(rate * (1.0 - incomplete / in_time.max(1.0)).max(0.0))
}

/// Which share of the calls was refused.
fn refused(told: &Told) -> Result<f64> {
    Ok(told.number("/shed")? / told.number("/begun")?.max(1.0))
}

async fn closed(system: &System, at_once: u32) -> Result<Told> {
    mixed(system, &format!("--in-flight {at_once} --duration {STEP}")).await
}

/// With fewer at a time where some are refused after all, but not so few that it would be no peak.
async fn peak(system: &System, at_once: &mut u32, least: u32) -> Result<f64> {
    loop {
        let told = closed(system, *at_once).await?;
        if refused(&told)? < FEW {
            return goodput(&told);
        }
        *at_once /= 2;
        ensure!(*at_once >= least, "calls were refused in the closed loop");
    }
}

/// More and more at a time, until twice in a row or more that brings nothing, or some are refused: the fewest at a time
/// that brought most, and the way there.
async fn most_useful(system: &System, limit: Option<u32>) -> Result<(u32, Vec<Value>)> {
    let (mut best, mut found, mut idle, mut ramp) = (0.0, 0, 0, Vec::new());
    let steps = (1..=10).map(|power| 1_u32 << power);
    for at_once in steps.take_while(|at_once| limit.is_none_or(|limit| *at_once <= limit)) {
        let told = closed(system, at_once).await?;
        let (rate, refused) = (goodput(&told)?, refused(&told)?);
        ramp.push(json!({ "in_flight": at_once, "goodput_per_second": rate, "refused": refused }));
        if refused > FEW {
            break;
        }
        if rate < best * GROWTH {
            idle += 1;
        } else {
            (best, found, idle) = (rate, at_once, 0);
        }
        if idle >= 2 && at_once >= ENOUGH {
            break;
        }
    }
    ensure!(best > 0.0, "nothing was answered");
    Ok((found, ramp))
}

fn overload(told: &Told) -> Value {
    let refused_p99 = KINDS.map(|kind| told.number(&format!("/operations/{kind}/shed_latency/p99_ms")));
    let refused_p99 = refused_p99.into_iter().flatten().fold(0.0, f64::max);
    json!({
        "begun_per_second": told.value("/begun_per_second"),
        "ok": told.value("/ok"),
        "in_time": told.value("/in_time"),
        "incomplete": told.value("/delivery/incomplete"),
        "refused": told.value("/shed"),
        // Of the kind that takes longest, from when a call was due.
        "refused_p99_ms": refused_p99,
        "timeouts": told.errors("DEADLINE_EXCEEDED"),
        "failed": told.value("/failed"),
        "connection_lost": told.errors("CONNECTION_LOST"),
        "never_begun": told.value("/missed"),
        "lateness": told.value("/lateness"),
        "operations": told.value("/operations"),
        "registered": told.value("/registered"),
        "received_percent": told.value("/delivery/percent"),
        "unanswered": told.value("/delivery/unanswered"),
    })
}
