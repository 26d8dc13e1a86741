//! Showing who matches, and then each change to that.

use prism_client::raw::{Raw, Watched};
use prism_core::shutdown;
use prism_proto::pattern::{
    WatchRequest, WatchResponse,
    watch_response::{Cause, Kind},
};
use serde_json::json;

use super::write::position;
use crate::{
    cli::multicast::Watch,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Shown, Style, Table, metadata_text, tree},
};

pub(super) async fn watch(raw: &Raw, watch: &Watch, output: &mut Output) -> Result<Exit, Stop> {
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let request = WatchRequest {
        filter: watch.filter.clone(),
        resume_from: watch.resume_from,
        include_metadata: Some(output.format() != Format::Name),
    };
    tokio::select! {
        shown = show(raw, request, watch.count, output) => shown.map(|()| Exit::Ok),
        // The only end there is without a count, and an early one with it.
        _ = interrupted => Ok(if watch.count.is_some() { Exit::Interrupted } else { Exit::Ok }),
    }
}

async fn show(
    raw: &Raw,
    request: WatchRequest,
    mut left: Option<u64>,
    output: &mut Output,
) -> Result<(), Stop> {
    let mut events = raw.watch(request).await?;
    while left != Some(0) {
        let Some(event) = events.next().await else { break };
        let told = match event? {
            Watched::Told(told) => told,
            Watched::Restarted => {
                restarted(output)?;
                continue;
            }
        };
        if told.kind == i32::from(Kind::Bookmark) {
            bookmark(&told, output)?;
        } else {
            output.event(&shown(&told)?)?;
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

fn is_machine(output: &Output) -> bool {
    matches!(output.format(), Format::Json | Format::Yaml)
}

/// For people, and for those who want to go on from here, it is talk.
fn bookmark(told: &WatchResponse, output: &mut Output) -> Result<(), Stop> {
    if is_machine(output) {
        return output.event(&shown(told)?);
    }
    let at = position(told.position);
    Style::talk(&format!(
        "that is all up to {at}, go on from there with --resume-from {at}"
    ));
    Ok(())
}

fn restarted(output: &mut Output) -> Result<(), Stop> {
    if is_machine(output) {
        return output.event(&Shown {
            tree: json!({ "restarted": true }),
            table: Table::default(),
            names: Vec::new(),
        });
    }
    Style::talk("what happened meanwhile is not known any more, everything that matches follows anew");
    Ok(())
}

fn shown(told: &WatchResponse) -> Result<Shown, Stop> {
    let nobody = Default::default();
    let identity = told.identity.as_ref().unwrap_or(&nobody);
    let kind = match (Kind::try_from(told.kind), told.position) {
        (Ok(Kind::Enter), None) => "PRESENT",
        (Ok(kind), _) => kind.as_str_name(),
        (Err(_), _) => "UNKNOWN",
    };
    let cause = match Cause::try_from(told.cause) {
        Ok(Cause::Unspecified) | Err(_) => "",
        Ok(cause) => cause.as_str_name().trim_start_matches("CAUSE_"),
    };
    let mut table = Table::default();
    let metadata = metadata_text(&identity.metadata)?;
    let revision = told
        .position
        .map(|at| at.revision.to_string())
        .unwrap_or_default();
    let columns = [
        kind.to_owned(),
        identity.identity.clone(),
        cause.to_owned(),
        revision,
        metadata,
    ];
    table.row(columns.map(Into::into));
    Ok(Shown {
        tree: tree(told)?,
        table,
        names: vec![identity.identity.clone()],
    })
}
