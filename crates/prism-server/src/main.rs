//! The binary `prism-proxy`; with `--embedded`, the whole system in one process.

mod embedded;
mod options;
mod signals;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use prism_core::telemetry;
use prism_proxy::{Addresses, Listeners, Proxy, descriptors};

use embedded::Embedded;
use options::Options;
use signals::Signals;

/// How long the last traces may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// Something was still under way at its deadline and has been ended.
const INCOMPLETE: u8 = 2;

/// Most of what a message costs here is small allocations: see decision 0034.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = Options::from_command_line();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(run(options));
    // Nothing that is left may hold up the end.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| fail(&error))
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let telemetry = telemetry::init(&telemetry::Settings {
        service: "prism-proxy",
        verbosity: options.verbosity,
    })?;

    descriptors::raise();

    let (config, file) = options.configuration()?;
    let listeners = Listeners::bind(&options.listen(&config)).await?;
    let proxy = Proxy::builder(config)
        .follow(file)
        .known(options::known_plugins()?)
        .start(listeners)
        .await?;
    announce(proxy.addresses()).context("the addresses cannot be printed")?;
    let mut embedded = options.embedded.then(|| Embedded::start(&proxy)).transpose()?;

    let told = tokio::select! {
        signal = signals.until_told_to_end(&proxy) => Ok(signal),
        error = embedded::failure(embedded.as_mut()) => Err(error),
    };
    if let Ok(signal) = told {
        tracing::info!(signal, "told to end");
    }
    let end = async {
        let report = proxy.shutdown().await;
        let stopped = match embedded {
            Some(embedded) => embedded.stop().await,
            None => true,
        };
        report.is_clean() && stopped
    };
    let clean = tokio::select! {
        clean = end => clean,
        signal = signals.again() => {
            tracing::warn!(signal, "told to end a second time, and so at once");
            false
        }
    };
    telemetry.shutdown(FLUSH).await;
    told?;
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCOMPLETE)
    })
}

/// Says on standard output where the ports are: `data 127.0.0.1:8980`, one a line.
fn announce(addresses: Addresses) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (what, address) in [
        ("control", addresses.control),
        ("data", addresses.data),
        ("admin", addresses.admin),
    ] {
        writeln!(out, "{what} {address}")?;
    }
    out.flush()
}

#[allow(clippy::print_stderr)] // telemetry may not be set up
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("prism-proxy: {error:#}");
    ExitCode::FAILURE
}
