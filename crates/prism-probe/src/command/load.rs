//! `prism-probe load …`

use prism_core::shutdown::Signals;
use tokio_util::sync::CancellationToken;

use super::builder;
use crate::{
    cli::{
        Global,
        load::{Command, Mixed},
    },
    exit::Exit,
    fault::{Fault, Stop},
    load::{self, Lease, Ramp, Report, Stage, mixed, usage},
    output::{Output, Style},
};

/// The first signal ends the load early, and what there is is told; a second one ends everything.
pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let mut signals =
        Signals::install().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let stop = CancellationToken::new();
    let given_up = async {
        signals.next().await;
        stop.cancel();
        signals.next().await;
    };
    let report = tokio::select! {
        report = perform(command, global, output, &stop) => report?,
        () = given_up => {
            Style::talk("ended at once, what was registered is still there");
            return Ok(Exit::Interrupted);
        }
    };
    let written = output.answer(&report.shown()).and_then(|()| output.flush());
    let exit = report.verdict()?;
    written.map(|()| exit)
}

async fn perform(
    command: &Command,
    global: &Global,
    output: &Output,
    stop: &CancellationToken,
) -> Result<Report, Stop> {
    let set = async |common: &load::Common, lease| {
        Stage::set(common, &builder(global), lease, output.format(), stop.clone()).await
    };
    match command {
        Command::Mixed(asked) => {
            let plan = plan(asked)?;
            let lease = asked.ttl.map_or(Lease::Outlasting(asked.duration), Lease::Seconds);
            Ok(mixed::run(set(&asked.common, lease).await?, plan).await)
        }
    }
}

fn plan(asked: &Mixed) -> Result<mixed::Plan, Stop> {
    let pace = match asked.in_flight {
        Some(at_once) => mixed::Pace::Closed {
            at_once: at_once as usize,
            length: asked.duration,
        },
        None => mixed::Pace::Open {
            ramp: Ramp::new(&asked.ramp, asked.rate, asked.duration)
                .map_err(|message| usage("ramp", message))?,
            most: asked.max_in_flight as usize,
        },
    };
    Ok(mixed::Plan {
        mix: asked.mix,
        pace,
        status: asked.status.clone(),
        share: asked.share,
        subscribers: asked.subscribers,
    })
}
