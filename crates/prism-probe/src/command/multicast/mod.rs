//! `prism-probe multicast …`

mod dead;
mod explain;
mod export;
mod import;
mod publish;
mod read;
mod receipts;
mod subscribe;
mod watch;
mod write;

use std::str;

use prism_client::{
    Error,
    raw::{Line, Raw},
};
use prost_types::Timestamp;

use super::client;
use crate::{
    cli::{Global, multicast::Command},
    exit::Exit,
    fault::{Fault, Stop},
    output::{Output, Shown, Style, printable},
};

pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    match command {
        Command::Register(register) => write::register(&raw(global)?, register, output).await,
        Command::Renew { identities } => write::renew(&raw(global)?, identities, output).await,
        Command::Update { identity, patch } => write::update(&raw(global)?, identity, patch, output).await,
        Command::Unregister { identity } => write::unregister(&raw(global)?, identity, output).await,
        Command::Get { identity } => read::get(&raw(global)?, identity, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Enumerate(enumerate) => read::enumerate(&raw(global)?, enumerate, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Explain(asked) => explain::explain(&raw(global)?, asked, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Publish(publish) => publish::publish(global, publish, output).await,
        Command::Receipts(receipts) => receipts::receipts(&raw(global)?, receipts, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Cancel { multicast_id } => receipts::cancel(&raw(global)?, multicast_id, output).await,
        Command::Dlq(command) => dead::run(&raw(global)?, command, output).await,
        Command::Subscribe(subscribe) => subscribe::subscribe(&lasting(global)?, subscribe, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Watch(watch) => watch::watch(&lasting(global)?, watch, output)
            .await
            .map_err(Stop::of_a_read),
        Command::Import(import) => import::import(client(global)?.registry, import, output).await,
        Command::Export(export) => export::export(&client(global)?.registry, export, output)
            .await
            .map_err(Stop::of_a_read),
    }
}

fn raw(global: &Global) -> Result<Raw, Stop> {
    Ok(client(global)?.registry.raw().clone())
}

/// For what goes on by itself when its connection is lost, and says so: silence would look as if nothing happened.
fn lasting(global: &Global) -> Result<Raw, Stop> {
    Ok(raw(global)?.observed(|line| match line {
        Line::Lost(error) => {
            let why = match error {
                Error::ConnectionLost { message, .. } => message.clone(),
                other => other.to_string(),
            };
            let why = printable(&why);
            Style::talk(&format!("the connection was lost and is being made again: {why}"));
        }
        Line::Regained => Style::talk("the connection is there again"),
        _ => {}
    }))
}

/// Shows an answer of which a part may be bad news. Bad news counts more than that nobody reads it.
fn conclude(output: &mut Output, shown: &Shown, bad: Option<Fault>) -> Result<Exit, Stop> {
    let written = output.answer(shown).and_then(|()| output.flush());
    if let Some(bad) = bad {
        return Err(bad.into());
    }
    written.map(|()| Exit::Ok)
}

/// A time as it is shown; nothing for none.
fn time(time: Option<&Timestamp>) -> String {
    time.map(ToString::to_string).unwrap_or_default()
}

/// Text as it is, anything else by its size.
fn content(payload: &[u8], content_type: &str) -> String {
    match str::from_utf8(payload) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("<{} bytes of {content_type}>", payload.len()),
    }
}
