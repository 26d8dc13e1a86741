//! Showing the messages to an identity as they arrive.

use std::str;

use prism_client::raw::{self, Raw};
use prism_core::shutdown;
use prism_proto::pattern::{
    SubscribeResponse, subscribe_request,
    subscribe_response::{Delivery, Gap, Message},
};

use super::time;
use crate::{
    cli::multicast::Subscribe,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Shown, Style, Table, printable, tree},
};

pub(super) async fn subscribe(raw: &Raw, subscribe: &Subscribe, output: &mut Output) -> Result<Exit, Stop> {
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    let open = subscribe_request::Open {
        credits: None,
        confirm: false,
        identity: subscribe.identity.clone(),
        generation: None,
    };
    let show = async {
        let session = raw.subscribe(open).await?;
        show(session, subscribe, output).await
    };
    tokio::select! {
        shown = show => shown.map(|()| Exit::Ok),
        // The only end there is without a count, and an early one with it.
        _ = interrupted => Ok(if subscribe.count.is_some() { Exit::Interrupted } else { Exit::Ok }),
    }
}

async fn show(
    mut session: raw::Subscription,
    subscribe: &Subscribe,
    output: &mut Output,
) -> Result<(), Stop> {
    let mut left = subscribe.count;
    while left != Some(0) {
        let Some(answer) = session.next().await else { break };
        let answer = answer?;
        let delivered = matches!(answer.message, Some(Message::Delivery(_)));
        event(&answer, &subscribe.identity, output)?;
        if delivered {
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

fn event(answer: &SubscribeResponse, identity: &str, output: &mut Output) -> Result<(), Stop> {
    let machine = matches!(output.format(), Format::Json | Format::Yaml);
    match &answer.message {
        Some(Message::Opened(opened)) if !machine => {
            Style::talk(&format!(
                "listening as `{}`, session {}",
                printable(identity),
                opened.session_seq
            ));
            return Ok(());
        }
        Some(Message::Gap(gap)) if !machine => {
            Style::talk(&missing(gap));
            return Ok(());
        }
        _ => {}
    }
    output.event(&Shown {
        tree: tree(answer)?,
        table: table(answer),
        names: vec![identity.to_owned()],
    })
}

fn missing(gap: &Gap) -> String {
    let reason = printable(&gap.reason);
    match gap.dropped {
        0 => format!("messages may be missing here: {reason}"),
        dropped => format!("{dropped} or more messages are missing here: {reason}"),
    }
}

fn table(answer: &SubscribeResponse) -> Table {
    let mut table = Table::default();
    if let Some(Message::Delivery(delivery)) = &answer.message {
        let published = time(delivery.published_at.as_ref());
        table.row([published, delivery.multicast_id.clone(), content(delivery)].map(Into::into));
    }
    table
}

/// Text as it is, anything else by its size.
fn content(delivery: &Delivery) -> String {
    match str::from_utf8(&delivery.payload) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("<{} bytes of {}>", delivery.payload.len(), delivery.content_type),
    }
}
