//! `make bench`: measures beside the raw floors and writes `target/bench/report.json`.
//!
//! `make bench` runs everything; arguments select rows by the beginning of their names.

mod grpc;
mod leases;
mod memory;
mod nats;
mod proxied;
mod redis;
mod report;
mod scale;
mod stored;
mod system;

use report::Report;

fn main() -> anyhow::Result<()> {
    let mut report = Report::from_arguments(std::env::args().skip(1).collect());
    memory::run(&mut report)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(redis::run(&mut report))?;
    runtime.block_on(grpc::run(&mut report))?;
    runtime.block_on(scale::run(&mut report))?;
    runtime.block_on(nats::run(&mut report))?;
    runtime.block_on(stored::run(&mut report))?;
    runtime.block_on(proxied::run(&mut report))?;
    runtime.block_on(system::run(&mut report))?;
    runtime.block_on(leases::run(&mut report))?;
    report.write()
}
