//! `prism-probe check`: is everything reachable, and what serves what?

mod admin;
mod data;
mod listing;
mod report;

use futures::future::join_all;
use tokio::time::Instant;

use super::client;
use crate::{
    cli::{Check, Global},
    exit::Exit,
    fault::{Fault, Stop},
    output::Output,
};

use report::Report;

pub(super) async fn run(check: &Check, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let client = client(global)?;
    let raw = client.registry.raw();
    let endpoints = raw.endpoints();
    let admin = admin::Address::of(check.admin.as_deref(), endpoints.first().map(String::as_str))?;
    let direct = data::direct(endpoints, global.deadline)?;
    let until = Instant::now() + global.deadline;
    // At a time, so that whatever hangs costs the deadline once.
    let (each, through, admin) = tokio::join!(
        join_all(direct.iter().map(data::look_at)),
        data::look_through(raw),
        admin::look(&admin, until),
    );
    let report: Report = each.into_iter().chain([through, admin]).collect();

    let written = output.answer(&report.shown()).and_then(|()| output.flush());
    if let Some((exit, failed)) = report.verdict() {
        let message = format!("{failed} of {} checks failed", report.len());
        return Err(Fault::partial(exit, "CHECK_FAILED", message).into());
    }
    written.map(|()| Exit::Ok)
}
