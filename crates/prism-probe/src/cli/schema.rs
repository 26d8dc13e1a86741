//! `prism-probe schema …`

use std::path::PathBuf;

use prism_filter::Filter;

use super::value;
use crate::migration::{Fill, Rename, Retype};

pub(super) const EXAMPLES: &str = "\
Examples:
  prism-probe schema check
  prism-probe schema check --schema next.yaml
  prism-probe schema migrate --rename firmware=firmware_version --dry-run
  prism-probe schema migrate --retype battery=string:number --default 'status=\"offline\"'";

const AFTER_MIGRATE: &str = "\
Of one registration, fields are first renamed, then retyped, then filled in, in one update; where a step cannot \
be done exactly, the registration is left as it is and told. Whoever writes at the same time is not overwritten: \
the registration is read again. What is done is not done twice, so a migration that was broken off is \
simply run again, or with --after.

Types are string, integer, number, boolean and timestamp (Unix milliseconds; as a string, RFC 3339); a string \
becomes another type, or another type a string, where the way back leads to the same.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Which registrations violate the schema, or one that is to come?
    Check(Check),
    /// Change the metadata of all registrations
    #[command(after_help = AFTER_MIGRATE)]
    Migrate(Migrate),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Check by the schema in this file, YAML or JSON, instead of the namespace's own: a schema, or a
    /// configuration that has one
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<PathBuf>,
    /// Show at most so many violations; all are counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Migrate {
    /// Give a field another name; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = str::parse::<Rename>)]
    pub(crate) rename: Vec<Rename>,
    /// Give a field another type; may be given several times
    #[arg(long, value_name = "FIELD=FROM:TO", value_parser = str::parse::<Retype>)]
    pub(crate) retype: Vec<Retype>,
    /// Write a field where it is missing; may be given several times
    #[arg(long = "default", value_name = "FIELD=JSON", value_parser = str::parse::<Fill>)]
    pub(crate) fill: Vec<Fill>,
    /// Only those that match, as for `multicast enumerate`
    #[arg(long, value_name = "JSON", value_parser = value::selection, allow_hyphen_values = true)]
    pub(crate) filter: Option<Filter>,
    /// Only identities after this one, where a migration before this one was broken off
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
