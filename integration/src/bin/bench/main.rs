//! `make bench`: measures beside the raw floors and writes `target/bench/report.json`.
//!
//! `make bench` runs everything; arguments select rows by the beginning of their names, `=NAME` one row by all of it.

mod fleet;
mod growth;
mod grpc;
mod inboxes;
mod leases;
mod memory;
mod mixed;
mod nats;
mod overload;
mod presence;
mod probe;
mod proxied;
mod redis;
mod report;
mod restart;
mod scale;
mod sessions;
mod stored;
mod stuck;
mod system;
mod usage;

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
    runtime.block_on(fleet::run(&mut report));
    runtime.block_on(stuck::run(&mut report));
    runtime.block_on(restart::run(&mut report));
    runtime.block_on(growth::run(&mut report))?;
    runtime.block_on(mixed::run(&mut report));
    runtime.block_on(overload::run(&mut report));
    runtime.block_on(presence::run(&mut report));
    report.write()
}
