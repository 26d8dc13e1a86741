//! The command line of the multicast registry: one call, one answer, one exit code.

mod cli;
mod command;
mod exit;
mod fault;
mod jsonl;
mod migration;
mod output;

use std::{env, process::ExitCode, time::Duration};

use crate::{cli::Cli, exit::Exit, fault::Stop, output::Output};

/// How long the last spans may take to a collector that is not there.
const LAST_SPANS: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match cli::parse(env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => return usage.report().into(),
    };
    let telemetry = match cli.telemetry() {
        Ok(guard) => guard,
        Err(fault) => return fault.report(cli.global.output).into(),
    };
    let exit = match run(&cli).await {
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
