//! `prism-probe scenario …`

use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "\
Examples:
  prism-probe scenario run examples/scenarios/presence.yaml
  prism-probe scenario run presence.yaml --junit report.xml
  prism-probe -n workshop scenario run examples/scenarios/delivery.yaml";

const AFTER_RUN: &str = "\
A file has `steps`, each with one thing to do and what is to come of it (`expect`): register, update, get, renew, \
unregister, enumerate, publish, receipts, cancel, dead_letters, redrive, subscribe, receive, silence, close, wait. The first step that fails ends it, with exit \
code 1; a file that is no scenario is told with line and column, with 2. Where the service is not there, has no such \
namespace, lets nobody in or does not answer in time, the exit code says so as that of any other command does, and \
the report has an error and no failure. In the end what the scenario registered is removed.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Do what a file says, and see whether what comes of it is what it says
    #[command(after_help = AFTER_RUN)]
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The file, in YAML
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write what became of each step to this file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Leave everything registered
    #[arg(long)]
    pub(crate) keep: bool,
}
