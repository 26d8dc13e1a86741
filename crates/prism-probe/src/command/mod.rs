//! What each command does.

mod check;
mod load;
mod multicast;
mod pages;
mod scenario;
mod schema;

use std::time::Duration;

use prism_client::{Client, ClientBuilder};

use crate::{
    cli::{self, Cli, Command, Global},
    exit::Exit,
    fault::Stop,
    output::Output,
};

/// Carries out a command.
pub(crate) async fn run(cli: &Cli, output: &mut Output) -> Result<Exit, Stop> {
    match &cli.command {
        Command::Multicast(command) => multicast::run(command, &cli.global, output).await,
        Command::Schema(command) => schema::run(command, &cli.global, output).await,
        Command::Load(command) => load::run(command, &cli.global, output).await,
        Command::Scenario(command) => scenario::run(command, &cli.global, output).await,
        Command::Check(check) => check::run(check, &cli.global, output).await,
        Command::Completions { shell } => {
            output.raw(cli::completions(*shell).as_bytes())?;
            Ok(Exit::Ok)
        }
    }
}

/// A client as the command line says. It connects with the first call, within that call's deadline.
fn client(global: &Global) -> Result<Client, Stop> {
    Ok(builder(global).connect_lazy()?)
}

fn builder(global: &Global) -> ClientBuilder {
    let mut builder = Client::builder()
        .timeout(global.deadline)
        .connect_timeout(connect_timeout(global.deadline));
    // An empty variable in the environment is none.
    if !global.endpoint.is_empty() {
        builder = builder.endpoint(&global.endpoint);
    }
    if !global.namespace.is_empty() {
        builder = builder.namespace(&global.namespace);
    }
    builder
}

/// Short enough for another endpoint, or another attempt, to have its turn.
fn connect_timeout(deadline: Duration) -> Duration {
    Duration::from_secs(3).min(deadline / 2)
}
