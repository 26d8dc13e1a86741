//! The command line of the multicast registry: one call, one answer, one exit code.

mod cli;
mod command;
mod exit;
mod fault;
mod jsonl;
mod load;
mod migration;
mod output;
mod scenario;

use std::{env, io, process::ExitCode, time::Duration};

use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::{Cli, Command},
    exit::Exit,
    fault::{Fault, Stop},
    output::Output,
};

/// How long the last spans may take to a collector that is not there.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Most of what a message costs here is small allocations: see decision 0034.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => return usage.report().into(),
    };
    match runtime(&cli) {
        Ok(runtime) => runtime.block_on(work(&cli)),
        Err(error) => {
            let fault = Fault::internal(format!("cannot start: {error}"));
            fault.report(cli.global.output).into()
        }
    }
}

/// One thread for one call; all of them for thousands at a time.
fn runtime(cli: &Cli) -> io::Result<Runtime> {
    let mut builder = match cli.command {
        Command::Load(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()
}

async fn work(cli: &Cli) -> ExitCode {
    let telemetry = match cli.telemetry() {
        Ok(guard) => guard,
        Err(fault) => return fault.report(cli.global.output).into(),
    };
    let exit = match run(cli).await {
        Ok(exit) => exit,
        Err(Stop::Fault(fault)) => fault.report(cli.global.output),
        // Whoever read our output has seen enough.
        Err(Stop::NobodyReads) => Exit::Ok,
    };
    if let Some(guard) = telemetry {
        guard.shutdown(LAST_SPANS).await;
    }
    exit.into()
}

async fn run(cli: &Cli) -> Result<Exit, Stop> {
    let mut output = Output::to_stdout(cli.global.output);
    let exit = command::run(cli, &mut output).await?;
    output.flush()?;
    Ok(exit)
}
