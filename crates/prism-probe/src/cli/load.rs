//! `prism-probe load …`

use std::time::Duration;

use super::value;
use crate::load::{Common, Mix, Shape, rate};

pub(super) const EXAMPLES: &str = "\
Examples:
  prism-probe load mixed --rate 100 --duration 60s --mix register=50,enumerate=30,multicast=20 --status online
  prism-probe load mixed --ramp linear:10..1000 --duration 5m -o json
  prism-probe load mixed --in-flight 64 --duration 30s --share 1
  prism-probe load fanout --subscribers 1000 --targets 10,100,1000
  prism-probe load presence --users 100000 --ttl 60 --duration 5m
  prism-probe load storm --users 10000

Everything is registered with the field `load`, and every filter asks for it, so that nobody else in the namespace \
gets a message. At the end it is unregistered (--keep leaves it); what a run that was killed leaves expires.

What is received is counted by subscribers in this process, one session for each target. Exit code 4 says that \
one target or more did not receive its message, 1 that calls failed otherwise than by being shed.";

const AFTER_MIXED: &str = "\
The loop is open: operation i is due at a time that was known before the run, latencies count from then, and what \
is due while --max-in-flight are under way is counted as missed. With --in-flight it is closed: so many at a \
time, as fast as they are answered, which finds the peak.

Ramps: `constant` is --rate all the time; `up:10s` reaches --rate in that time; `linear:10..1000` goes evenly from \
one rate to the other; `steps:100,200,400` gives each of them an equal part of the duration.

An identity is registered as `joining`, its session is opened, and then its status is changed to --status; only \
from then on it is a target. `subscribe` and `announce` are these two steps; they come on top of the rate.";

const AFTER_PRESENCE: &str = "\
Many leases are renewed in one call, each when the service has said. Nobody who expires is registered again, so \
how many are missing at the end is how many have expired (exit code 1).";

const AFTER_STORM: &str = "\
Each user is a client of its own: one call for one lease, one session. Who is refused or gets no answer in time \
comes again after the pause that the service asks for and a jittered backoff; what is told is how long it takes \
until all are back (exit code 1 where not all are). In the end one message goes to all.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Register, enumerate and multicast at a rate, with a population that grows
    #[command(after_help = AFTER_MIXED)]
    Mixed(Mixed),
    /// Multicast to some of many subscribers, one after the other: what a target costs
    Fanout(Fanout),
    /// Keep many registrations renewed, and speak to rooms
    #[command(after_help = AFTER_PRESENCE)]
    Presence(Presence),
    /// Let everybody renew at once, and then reconnect at once
    #[command(after_help = AFTER_STORM)]
    Storm(Storm),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Fanout {
    /// How many listen
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) subscribers: u32,
    /// To how many of them to multicast; several, separated by commas, one after the other
    #[arg(long, value_name = "M", value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) targets: Vec<u32>,
    /// How often each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// The lease in seconds, 0 for none
    #[arg(long, value_name = "S", default_value_t = 3_600)]
    pub(crate) ttl: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Presence {
    /// How many are registered
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) users: u32,
    /// Their lease in seconds, renewed when the service says so
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) ttl: u64,
    /// How many rooms they are in, each in one
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rooms: u32,
    /// How many of them listen, about
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) listeners: u32,
    /// How many multicasts a second are due, each to one of the rooms that are listened to; without it, 10
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How the rate changes, as for `mixed`
    #[arg(
        long,
        value_name = "SHAPE",
        default_value = "constant",
        hide_default_value = true
    )]
    pub(crate) ramp: Shape,
    /// For how long
    #[arg(long, value_name = "TIME", value_parser = value::length, default_value = "60s")]
    pub(crate) duration: Duration,
    /// How many multicasts may be under way
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_in_flight: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Storm {
    /// How many are registered and listen
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) users: u32,
    /// How long all of them may take to be back
    #[arg(long, value_name = "TIME", value_parser = value::length, default_value = "60s")]
    pub(crate) patience: Duration,
    /// The lease in seconds, 0 for none
    #[arg(long, value_name = "S", default_value_t = 3_600)]
    pub(crate) ttl: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Mixed {
    /// How many operations a second are due
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// How the rate changes: constant, up:TIME, linear:FROM..TO, steps:RATE,RATE,...
    #[arg(
        long,
        value_name = "SHAPE",
        default_value = "constant",
        hide_default_value = true,
        conflicts_with = "in_flight"
    )]
    pub(crate) ramp: Shape,
    /// For how long
    #[arg(long, value_name = "TIME", value_parser = value::length, default_value = "60s")]
    pub(crate) duration: Duration,
    /// Of what, in parts
    #[arg(
        long,
        value_name = "PARTS",
        default_value = "register=50,enumerate=30,multicast=20"
    )]
    pub(crate) mix: Mix,
    /// Multicast to, and enumerate, those of this status
    #[arg(long, value_name = "S", default_value = "online")]
    pub(crate) status: String,
    /// How many of those registered get that status and a subscriber, in percent
    #[arg(long, value_name = "PERCENT", value_parser = value::percent, default_value = "100")]
    pub(crate) share: f64,
    /// How many get it at most
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true)]
    pub(crate) subscribers: u32,
    /// How many operations may be under way
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_in_flight: u32,
    /// Keep so many operations under way all the time, instead of a rate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: Option<u32>,
    /// The lease in seconds, 0 for none; without it, an hour longer than the run
    #[arg(long, value_name = "S")]
    pub(crate) ttl: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}
