//! `prism-probe schema …`

mod check;
mod migrate;

use crate::{
    cli::{Global, schema::Command},
    exit::Exit,
    fault::Stop,
    output::Output,
};

pub(super) async fn run(command: &Command, global: &Global, output: &mut Output) -> Result<Exit, Stop> {
    match command {
        Command::Check(check) => check::check(check, global, output).await.map_err(Stop::of_a_read),
        Command::Migrate(migrate) => migrate::migrate(migrate, global, output).await,
    }
}
