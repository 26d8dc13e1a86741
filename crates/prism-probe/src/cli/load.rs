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

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Register, enumerate and multicast at a rate, with a population that grows
    #[command(after_help = AFTER_MIXED)]
    Mixed(Mixed),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Mixed {
    /// How many operations a second are due
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "in_flight")]
    pub(crate) rate: Option<f64>,
    /// How the rate changes: constant, up:TIME, linear:FROM..TO, steps:RATE,RATE,...
    #[arg(long, value_name = "SHAPE", default_value = "constant", hide_default_value = true, conflicts_with = "in_flight")]
    pub(crate) ramp: Shape,
    /// For how long
    #[arg(long, value_name = "TIME", value_parser = value::length, default_value = "60s")]
    pub(crate) duration: Duration,
    /// Of what, in parts
    #[arg(long, value_name = "PARTS", default_value = "register=50,enumerate=30,multicast=20")]
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
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
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
