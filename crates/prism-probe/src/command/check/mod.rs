//! `prism-probe check`: is everything reachable, and what serves what?

mod admin;
mod data;
mod listing;
mod report;

use crate::{
    cli::{Check, Global},
    exit::Exit,
    fault::{Fault, Stop},
    output::Output,
};

use report::Report;

pub(super) async fn run(check: &Check, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    let mut report = Report::default();
    let endpoints = data::look(global, &mut report).await?;
    let admin = admin::Address::of(check.admin.as_deref(), endpoints.first().map(String::as_str))?;
    admin::look(&admin, global.deadline, &mut report).await;

    let written = output.answer(&report.shown()).and_then(|()| output.flush());
    if let Some((exit, failed)) = report.verdict() {
        let message = format!("{failed} of {} checks failed", report.len());
        return Err(Fault::partial(exit, "CHECK_FAILED", message).into());
    }
    written.map(|()| Exit::Ok)
}
