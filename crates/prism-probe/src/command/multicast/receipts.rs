//! What became of a multicast, and stopping it.

use prism_client::raw::Raw;
use prism_proto::pattern::{
    CancelMulticastRequest, GetMulticastRequest, MulticastResponse, Pagination, delivery_status::Status,
    multicast_response::State,
};

use super::{conclude, publish};
use crate::{
    cli::multicast::Receipts,
    exit::Exit,
    fault::Stop,
    output::{Format, Output, Shown, Style, printable},
};

pub(super) async fn receipts(raw: &Raw, receipts: &Receipts, output: &mut Output) -> Result<Exit, Stop> {
    let request = GetMulticastRequest {
        multicast_id: receipts.multicast_id.clone(),
        pagination: Some(Pagination {
            limit: receipts.limit.unwrap_or_default(),
            offset: 0,
            cursor: receipts.cursor.clone().unwrap_or_default(),
        }),
        only: receipts
            .only
            .iter()
            .map(|status| Status::from(*status).into())
            .collect(),
    };
    let answer = raw.get_multicast(request).await?;
    let mut shown = shown(&answer, output)?;
    if !receipts.only.is_empty() {
        // Those that were asked for, whatever became of them.
        let names = answer.statuses.iter().map(|status| status.identity.clone());
        shown.names = names.collect();
    }
    let exit = conclude(output, &shown, None)?;
    if matches!(output.format(), Format::Table | Format::Name)
        && let Some(cursor) = answer.next_cursor.as_deref().filter(|cursor| !cursor.is_empty())
    {
        Style::talk(&format!("continue with --cursor {}", printable(cursor)));
    }
    Ok(exit)
}

pub(super) async fn cancel(raw: &Raw, multicast_id: &str, output: &mut Output) -> Result<Exit, Stop> {
    let request = CancelMulticastRequest {
        multicast_id: multicast_id.to_owned(),
    };
    let answer = raw.cancel_multicast(request).await?;
    let shown = shown(&answer, output)?;
    let exit = conclude(output, &shown, None)?;
    if output.format() == Format::Table && answer.next_cursor.is_some() {
        publish::receipts_hint(&answer);
    }
    Ok(exit)
}

/// What is known of each target on the page, after the totals of all.
fn shown(answer: &MulticastResponse, output: &Output) -> Result<Shown, Stop> {
    if output.format() == Format::Table {
        talk(answer);
    }
    publish::answer(answer)
}

/// The totals of all targets, of which the table has some.
fn talk(answer: &MulticastResponse) {
    let state = match answer.state() {
        State::Running => "being sent",
        State::Sent => "sent",
        State::Cancelled => "cancelled",
        State::Unspecified => "of unknown state",
    };
    Style::talk(&format!(
        "{state}: {} of {} delivered, {} failed, {} pending, {} unknown",
        answer.delivered_count,
        answer.target_count,
        answer.failed_count,
        answer.pending_count,
        answer.timeout_count
    ));
}
