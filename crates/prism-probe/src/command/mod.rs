//! What each command does.

mod check;
mod multicast;

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
        Command::Check(check) => check::run(check, &cli.global, output).await,
        Command::Completions { shell } => {
            output.raw(&cli::completions(*shell))?;
            Ok(Exit::Ok)
        }
    }
}

/// Connects as the command line says.
async fn connect(global: &Global) -> Result<Client, Stop> {
    Ok(builder(global).connect().await?)
}

fn builder(global: &Global) -> ClientBuilder {
    let mut builder = Client::builder()
        .timeout(global.deadline)
        .connect_timeout(global.deadline);
    // An empty variable in the environment is none.
    if !global.endpoint.is_empty() {
        builder = builder.endpoint(&global.endpoint);
    }
    if !global.namespace.is_empty() {
        builder = builder.namespace(&global.namespace);
    }
    builder
}
