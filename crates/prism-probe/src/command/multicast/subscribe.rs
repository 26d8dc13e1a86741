//! Showing the messages to an identity as they arrive.

use std::time::Duration;

use prism_client::{
    Credits, Result as Answered,
    raw::{self, Listen, Raw, Said},
};
use prism_core::shutdown;
use prism_proto::pattern::{
    SubscribeResponse,
    subscribe_request::{Answer, Open},
    subscribe_response::{Delivery, Gap, Message},
};
use tokio::time::timeout;

use super::{content, time};
use crate::{
    cli::multicast::Subscribe,
    exit::Exit,
    fault::{Fault, Stop},
    output::{Format, Output, Shown, Style, Table, printable, tree},
};

/// How long an interrupted run waits for its acknowledgements to arrive.
const PARTING: Duration = Duration::from_secs(2);

pub(super) async fn subscribe(raw: &Raw, subscribe: &Subscribe, output: &mut Output) -> Result<Exit, Stop> {
    let interrupted =
        shutdown::signals().map_err(|error| Fault::internal(format!("cannot take signals: {error}")))?;
    tokio::pin!(interrupted);
    // The only end there is without a count, and an early one with it.
    let early = match subscribe.count {
        Some(_) => Exit::Interrupted,
        None => Exit::Ok,
    };
    let mut session = tokio::select! {
        session = raw.subscribe(listen(subscribe)) => session?,
        _ = &mut interrupted => return Ok(early),
    };
    let shown = tokio::select! {
        shown = show(&mut session, subscribe, output) => Some(shown),
        _ = &mut interrupted => None,
    };
    match shown {
        Some(shown) => {
            let comes_again = shown?;
            match session.close().await {
                Err(error) if comes_again => Err(error.into()),
                // At worst the sender does not learn of an acknowledgement.
                _ => Ok(Exit::Ok),
            }
        }
        None => {
            let _ = timeout(PARTING, session.close()).await;
            Ok(early)
        }
    }
}

fn listen(subscribe: &Subscribe) -> Listen {
    let open = Open {
        identity: subscribe.identity.clone(),
        ..Default::default()
    };
    Listen {
        credits: credits(subscribe).0,
        ..open.into()
    }
}

/// What the session may send at once, and how many messages it may send after that, each when another one was shown.
/// Where it ends by itself that is no more than is shown: whatever is sent uses up one of its attempts.
fn credits(subscribe: &Subscribe) -> (Credits, u64) {
    let window = subscribe.credits.map(Credits::Window).unwrap_or_default();
    let (Some(count), Credits::Window(most)) = (subscribe.count, window) else {
        return (window, 0);
    };
    let first = u32::try_from(count).map_or(most, |count| count.min(most));
    (Credits::Manual(first), count - u64::from(first))
}

/// Shows what comes; returns whether some of it comes again if what was said about it is not heard.
async fn show(
    session: &mut raw::Subscription,
    subscribe: &Subscribe,
    output: &mut Output,
) -> Result<bool, Stop> {
    let (mut left, (_, mut withheld)) = (subscribe.count, credits(subscribe));
    let mut comes_again = false;
    while left != Some(0) {
        let Some(answer) = session.next().await else { break };
        let answer = answer?;
        event(&answer, &subscribe.identity, output)?;
        if let Some(Message::Delivery(delivery)) = &answer.message {
            acknowledge(session, subscribe, delivery).await?;
            comes_again |= delivery.stored;
            left = left.map(|left| left - 1);
            if withheld > 0 {
                session.grant(1);
                withheld -= 1;
            }
        }
    }
    Ok(comes_again)
}

/// Says what is to become of a message that has been shown. That it is heard, the end waits for.
async fn acknowledge(
    session: &raw::Subscription,
    subscribe: &Subscribe,
    delivery: &Delivery,
) -> Answered<Option<Said>> {
    let acks = session.acks();
    let id = delivery.delivery_id.as_str();
    if subscribe.no_ack {
        return Ok(None);
    }
    if let Some(delay) = subscribe.nack {
        return acks.nack(id, delay).await.map(Some);
    }
    match &subscribe.answer {
        Some(text) if delivery.expects_reply => {
            let answer = Answer {
                delivery_id: id.to_owned(),
                payload: text.clone().into(),
                content_type: Some("text/plain; charset=utf-8".to_owned()),
                ..Default::default()
            };
            acks.answer(answer).await.map(Some)
        }
        _ => acks.ack(id).await.map(Some),
    }
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
        let text = content(&delivery.payload, &delivery.content_type);
        table.row([published, delivery.multicast_id.clone(), kind(delivery), text].map(Into::into));
    }
    table
}

/// Whether it comes again, and whether it has come before.
fn kind(delivery: &Delivery) -> String {
    match (delivery.stored, delivery.attempt) {
        (false, _) => "once".to_owned(),
        (true, attempt) if attempt > 1 => format!("stored,attempt={attempt}"),
        (true, _) => "stored".to_owned(),
    }
}
