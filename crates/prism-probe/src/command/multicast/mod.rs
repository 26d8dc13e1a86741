//! `prism-probe multicast …`

mod publish;
mod read;
mod subscribe;
mod write;

use prism_client::raw::Raw;
use prost_types::Timestamp;

use super::connect;
use crate::{
    cli::{Global, multicast::Command},
    exit::Exit,
    fault::{Fault, Stop},
    output::{Output, Shown},
};

pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    match command {
        Command::Register(register) => write::register(&raw(global).await?, register, output).await,
        Command::Renew { identities } => write::renew(&raw(global).await?, identities, output).await,
        Command::Update { identity, patch } => {
            write::update(&raw(global).await?, identity, patch, output).await
        }
        Command::Unregister { identity } => write::unregister(&raw(global).await?, identity, output).await,
        Command::Get { identity } => read::get(&raw(global).await?, identity, output).await,
        Command::Enumerate(enumerate) => read::enumerate(&raw(global).await?, enumerate, output).await,
        Command::Publish(publish) => publish::publish(global, publish, output).await,
        Command::Subscribe(subscribe) => subscribe::subscribe(&raw(global).await?, subscribe, output).await,
    }
}

async fn raw(global: &Global) -> Result<Raw, Stop> {
    Ok(connect(global).await?.registry.raw().clone())
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
