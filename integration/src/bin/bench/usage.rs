//! What a process takes: processor time and memory, as the kernel counts them.

use anyhow::{Context, Result};
use integration::System;
use serde_json::{Value, json};

/// The kernel tells processor times in hundredths of a second, whatever its own clock.
const TICKS: f64 = 100.0;

/// What a process has taken so far.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident: u64,
    /// Since its beginning, or since [`forget_peak`].
    pub(crate) peak: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = read(pid, "stat")?;
        // The name before it, in brackets, may have spaces in it.
        let (_, after) = stat.rsplit_once(')').context("no name in `stat`")?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("`stat` is short")?.parse()?) };
        let status = read(pid, "status")?;
        Ok(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS,
            resident: bytes(&status, "VmRSS:")?,
            peak: bytes(&status, "VmHWM:")?,
        })
    }

    /// What it has taken since, for a row.
    pub(crate) fn since(self, before: Self) -> Value {
        json!({
            "cpu_seconds": ((self.cpu_seconds - before.cpu_seconds) * 100.0).round() / 100.0,
            "rss_before_mib": mebibytes(before.resident),
            "rss_after_mib": mebibytes(self.resident),
            "rss_peak_mib": mebibytes(self.peak),
        })
    }
}

/// The proxy and its first runner.
#[derive(Clone, Copy)]
pub(crate) struct Both {
    proxy: Usage,
    runner: Usage,
}

impl Both {
    /// What both have taken so far, and from now on only new peaks count.
    pub(crate) fn begin(system: &System) -> Result<Self> {
        let [proxy, runner] = pids(system)?;
        forget_peak(proxy)?;
        forget_peak(runner)?;
        Self::now(system)
    }

    pub(crate) fn now(system: &System) -> Result<Self> {
        let [proxy, runner] = pids(system)?;
        Ok(Self {
            proxy: Usage::of(proxy)?,
            runner: Usage::of(runner)?,
        })
    }

    pub(crate) fn since(self, before: Self) -> Value {
        json!({ "proxy": self.proxy.since(before.proxy), "runner": self.runner.since(before.runner) })
    }
}

fn pids(system: &System) -> Result<[u32; 2]> {
    let runner = system.runners.first().context("no runner")?;
    Ok([system.proxy.process.pid(), runner.process.pid()])
}

/// Lets the peak begin anew at what there is now.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak of a process")
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))
}

fn bytes(status: &str, key: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let line = line.with_context(|| format!("no `{key}` in the status"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}
