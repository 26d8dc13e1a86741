//! `prism-probe load …`

use std::time::Duration;

use prism_core::shutdown::Signals;
use tokio_util::sync::CancellationToken;

use super::builder;
use crate::{
    cli::{
        Global,
        load::{Command, Fanout, Mixed, Presence},
    },
    exit::Exit,
    fault::{Fault, Stop},
    load::{self, Lease, Ramp, Report, Shape, Stage, fanout, mixed, presence, storm, usage},
    output::{Output, Style},
};

/// How many rooms are spoken to in a second where nothing is said.
const ROOM_RATE: f64 = 10.0;

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
    let exit = report.verdict().map_err(Stop::Fault)?;
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
            let plan = mixed_plan(asked, global)?;
            let lease = asked
                .ttl
                .map_or(Lease::Outlasting(asked.duration), Lease::Seconds);
            Ok(mixed::run(set(&asked.common, lease).await?, plan).await)
        }
        Command::Fanout(asked) => {
            let plan = fanout_plan(asked)?;
            fanout::run(set(&asked.common, Lease::Seconds(asked.ttl)).await?, plan).await
        }
        Command::Presence(asked) => {
            let plan = presence_plan(asked)?;
            presence::run(set(&asked.common, Lease::Seconds(asked.ttl)).await?, plan).await
        }
        Command::Storm(asked) => {
            let plan = storm::Plan {
                users: asked.users,
                patience: asked.patience,
            };
            storm::run(set(&asked.common, Lease::Seconds(asked.ttl)).await?, plan).await
        }
    }
}

fn fanout_plan(asked: &Fanout) -> Result<fanout::Plan, Stop> {
    if let Some(many) = asked.targets.iter().find(|targets| **targets > asked.subscribers) {
        let message = format!("`{many}` are more than the {} --subscribers", asked.subscribers);
        return Err(usage("targets", message));
    }
    Ok(fanout::Plan {
        subscribers: asked.subscribers,
        targets: asked.targets.clone(),
        rounds: asked.rounds,
        patience: asked.common.settle,
    })
}

fn presence_plan(asked: &Presence) -> Result<presence::Plan, Stop> {
    let rate = asked.rate.or(needs_rate(&asked.ramp).then_some(ROOM_RATE));
    let ramp = ramp(&asked.ramp, rate, asked.duration)?;
    Ok(presence::Plan {
        users: asked.users,
        rooms: asked.rooms.min(asked.users),
        listeners: asked.listeners,
        ramp,
        most: asked.max_in_flight as usize,
    })
}

/// Whether a shape says nothing of how fast.
fn needs_rate(shape: &Shape) -> bool {
    matches!(shape, Shape::Constant | Shape::Up(_))
}

fn ramp(shape: &Shape, rate: Option<f64>, length: Duration) -> Result<Ramp, Stop> {
    let field = match rate {
        None if needs_rate(shape) => "rate",
        _ => "ramp",
    };
    Ramp::new(shape, rate, length).map_err(|message| usage(field, message))
}

fn mixed_plan(asked: &Mixed, global: &Global) -> Result<mixed::Plan, Stop> {
    let pace = match asked.in_flight {
        Some(at_once) => mixed::Pace::Closed {
            at_once: at_once as usize,
            length: asked.duration,
        },
        None => mixed::Pace::Open {
            ramp: ramp(&asked.ramp, asked.rate, asked.duration)?,
            most: asked.max_in_flight as usize,
        },
    };
    Ok(mixed::Plan {
        mix: asked.mix,
        pace,
        status: asked.status.clone(),
        share: asked.share,
        subscribers: asked.subscribers,
        deadline: global.deadline,
    })
}
