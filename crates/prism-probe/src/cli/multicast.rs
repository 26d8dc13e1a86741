//! `prism-probe multicast …`

mod delivery;

use std::{collections::HashMap, path::PathBuf};

use prism_client::SessionId;
use prism_proto::pattern::{Filter, Position};
use prost_types::Value;

use super::value;
pub(crate) use delivery::{Delivery, Dlq, DlqList, Publish, Receipts, Redrive, Stage, Subscribe};

pub(super) const EXAMPLES: &str = "\
Examples:
  prism-probe multicast register sensor-1 --metadata '{\"type\": \"sensor\", \"battery\": 0.15}' --ttl 60
  prism-probe multicast subscribe sensor-1 --count 1
  prism-probe multicast enumerate --filter '{\"type\": \"sensor\", \"battery.lt\": 0.2}'
  prism-probe multicast explain --filter '{\"type\": \"sensor\", \"battery.lt\": 0.2}' sensor-1
  prism-probe multicast publish --filter '{\"battery.lt\": 0.2}' --payload 'charge!'
  prism-probe multicast publish --payload 'update!' --delivery at-least-once --follow
  prism-probe multicast receipts MULTICAST_ID --only failed,timeout
  prism-probe multicast dlq redrive --identity sensor-1";

const AFTER_IMPORT: &str = "\
A line is {\"identity\": \"sensor-1\", \"metadata\": {\"type\": \"sensor\"}, \"ttl_seconds\": 60}. Only the identity has \
to be there; ttl_ms is for finer leases, 0 is no lease, and without any it is as the namespace is configured. A \
lease begins with the import. Blank lines are passed over; lines of the same identity are taken in their order.

Where the namespace limits its callers, the import is as fast as it may be. Every answer says which lines it is \
about, so an import that ended early says where to go on (--skip), and as whom (--session): what was registered \
as far as nobody knows is then no conflict, but registered once.";

const AFTER_EXPORT: &str = "\
All lines are of one position, which is told. Where writes are so many that the service cannot keep it for that \
long, and where the namespace keeps no view, they are of several, and that is told too. A file takes its name when it \
is complete, and is not touched before.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Register an identity
    Register(Register),
    /// Extend leases
    Renew {
        /// The identities
        #[arg(required = true, value_name = "ID")]
        identities: Vec<String>,
    },
    /// Change metadata
    Update {
        /// The identity
        #[arg(value_name = "ID")]
        identity: String,
        /// What to change, a JSON merge patch: null removes a field
        #[arg(long, value_name = "JSON", value_parser = value::object, allow_hyphen_values = true)]
        patch: Object,
    },
    /// Show one identity
    Get {
        /// The identity
        #[arg(value_name = "ID")]
        identity: String,
    },
    /// List the identities that match
    Enumerate(Enumerate),
    /// How a filter is answered, or why an identity matches it or does not
    Explain(Explain),
    /// Send a message to every identity that matches
    #[command(after_help = delivery::AFTER_PUBLISH)]
    Publish(Box<Publish>),
    /// What became of a message that was sent
    Receipts(Receipts),
    /// Stop what of a message has not been handed over
    Cancel {
        /// The multicast, as `publish` tells it
        #[arg(value_name = "MULTICAST_ID")]
        multicast_id: String,
    },
    /// Messages that could not be delivered
    #[command(subcommand, after_help = delivery::DLQ_EXAMPLES)]
    Dlq(Dlq),
    /// Remove an identity; one that is absent is no error
    Unregister {
        /// The identity
        #[arg(value_name = "ID")]
        identity: String,
    },
    /// Show the messages to an identity, which must be registered, as they arrive
    #[command(after_help = delivery::AFTER_SUBSCRIBE)]
    Subscribe(Subscribe),
    /// Show the identities that match, and then each change to that
    Watch(Watch),
    /// Register what a file holds, one JSON object a line
    #[command(after_help = AFTER_IMPORT)]
    Import(Import),
    /// Write what is registered as lines that `import` takes
    #[command(after_help = AFTER_EXPORT)]
    Export(Export),
}

/// Fields of a JSON object.
pub(crate) type Object = HashMap<String, Value>;

#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// The identity: 1 to 256 bytes without control characters
    #[arg(value_name = "ID")]
    pub(crate) identity: String,
    /// What is to be known of it, a JSON object
    #[arg(long, value_name = "JSON", value_parser = value::object, default_value = "{}", allow_hyphen_values = true)]
    pub(crate) metadata: Object,
    /// The lease in seconds, 0 for none; without it, as the namespace is configured
    #[arg(long, value_name = "S", value_parser = value::seconds, allow_negative_numbers = true)]
    pub(crate) ttl: Option<i64>,
    /// Take the identity over from whoever holds it
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Enumerate {
    /// Which, for example {"status": "online", "battery.lt": 0.2}; without it, all
    #[arg(long, value_name = "JSON", value_parser = value::filter, allow_hyphen_values = true)]
    pub(crate) filter: Option<Filter>,
    /// Sort by a field: PATH or "PATH desc"; may be given several times
    #[arg(long, value_name = "F")]
    pub(crate) sort: Vec<String>,
    /// How many to show, at most 1000; without it, 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000), allow_negative_numbers = true)]
    pub(crate) limit: Option<i32>,
    /// Continue where the page before ended
    #[arg(long, value_name = "C")]
    pub(crate) cursor: Option<String>,
    /// Show only this field of the metadata; may be given several times
    #[arg(long, value_name = "F")]
    pub(crate) field: Vec<String>,
    /// Show how many match, and none of them
    #[arg(long)]
    pub(crate) count: bool,
    /// Count how often each value of a field occurs; may be given several times
    #[arg(long, value_name = "F")]
    pub(crate) facet: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// Which filter, as for `enumerate`; without it, one that matches all
    #[arg(long, value_name = "JSON", value_parser = value::filter, allow_hyphen_values = true)]
    pub(crate) filter: Option<Filter>,
    /// Say of each part of the filter whether it holds for this identity; without it, say how the filter is
    /// answered
    #[arg(value_name = "ID")]
    pub(crate) identity: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Which, as for `enumerate`; without it, all
    #[arg(long, value_name = "JSON", value_parser = value::filter, allow_hyphen_values = true)]
    pub(crate) filter: Option<Filter>,
    /// Show what happened after this position, EPOCH/REVISION as it was shown, instead of who matches now
    #[arg(long, value_name = "P", value_parser = value::position)]
    pub(crate) resume_from: Option<Position>,
    /// End after this many lines; without it, at an interrupt (then with exit code 0)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The file, - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Take identities over from whoever holds them
    #[arg(long)]
    pub(crate) replace: bool,
    /// This lease in seconds for all, whatever the lines say; 0 for none
    #[arg(long, value_name = "S", value_parser = value::seconds, allow_negative_numbers = true)]
    pub(crate) ttl: Option<i64>,
    /// Pass over so many lines, where an import before this one ended
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) skip: u64,
    /// Go on as the import that told this, 32 hexadecimal digits
    #[arg(long, value_name = "ID", value_parser = value::session)]
    pub(crate) session: Option<SessionId>,
    /// Look at every line, and send nothing
    #[arg(long, conflicts_with = "session")]
    pub(crate) dry_run: bool,
    /// Go on with the lines after one that was refused
    #[arg(long)]
    pub(crate) continue_on_error: bool,
    /// Write the lines that were refused to this file, each with the reason, and go on; it can be imported
    #[arg(long, value_name = "FILE")]
    pub(crate) errors: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// The file, - for stdout
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Which, as for `enumerate`; without it, all
    #[arg(long, value_name = "JSON", value_parser = value::selection, allow_hyphen_values = true)]
    pub(crate) filter: Option<prism_filter::Filter>,
}
