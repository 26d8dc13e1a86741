//! `multicast-registry-runner`: the multicast registry as a process, under a Prism proxy or alone.

mod cli;
mod configuration;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use multicast_registry::MulticastRegistry;
use prism_core::{
    shutdown::Signals,
    telemetry::{self, Settings as Telemetry},
};
use prism_plugin_sdk::{ExitStatus, Runner};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use cli::{Command, Options};

/// Most of what a message costs here is small allocations: see decision 0034.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = Options::from_command_line();
    if let Some(Command::Config { command }) = &options.command {
        return configuration::show(command, &options);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(options)) {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => fail(&error),
    }
}

/// How long the last traces may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

async fn run(options: Options) -> anyhow::Result<ExitStatus> {
    let signals = Signals::install().context("signal handlers cannot be installed")?;
    let telemetry = Telemetry {
        service: "multicast-registry-runner",
        verbosity: options.verbosity,
    };
    let telemetry = telemetry::init(&telemetry)?;
    let initial = configuration::initial(&options)?;
    let data = listen(&options.data_addr()).await?;
    let health = match options.health_addr() {
        Some(address) => Some(listen(&address).await?),
        None => None,
    };
    cli::announce("data", data.local_addr()?)?;
    if let Some(health) = &health {
        cli::announce("health", health.local_addr()?)?;
    }

    let mut runner = Runner::new(MulticastRegistry::default())
        .proxies(options.proxies())
        .data_listener(data)
        .advertise(options.advertise.clone())
        .health_listener(health)
        .initial(initial);
    if let Some(id) = options.process_id() {
        runner = runner.process_id(id);
    }
    if let Some(pattern) = &options.pattern_name {
        runner = runner.pattern(pattern);
    }
    let status = run_until_told(runner, signals).await;
    telemetry.shutdown(FLUSH).await;
    Ok(status)
}

async fn run_until_told(runner: Runner<MulticastRegistry>, mut signals: Signals) -> ExitStatus {
    let told = CancellationToken::new();
    let mut running = std::pin::pin!(runner.run(told.cancelled()));
    tokio::select! {
        status = &mut running => return status,
        signal = signals.next() => tracing::info!(signal, "told to end"),
    }
    told.cancel();
    tokio::select! {
        status = running => status,
        signal = signals.next() => {
            tracing::warn!(signal, "told to end a second time, and so at once");
            ExitStatus::DrainOverran
        }
    }
}

async fn listen(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on `{address}`"))
}

#[allow(clippy::print_stderr)] // telemetry may not be set up
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("multicast-registry-runner: {error:#}");
    ExitCode::FAILURE
}
