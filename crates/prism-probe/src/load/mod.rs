//! Load, and what became of it at the far end.

mod cast;
mod fleet;
mod ledger;
mod listeners;
mod mix;
mod pace;
mod ramp;
mod renewing;
mod report;
mod stage;
mod stamp;
mod tally;

pub(crate) mod fanout;
pub(crate) mod mixed;
pub(crate) mod presence;
pub(crate) mod storm;

pub(crate) use mix::Mix;
pub(crate) use ramp::{Ramp, Shape, rate};
pub(crate) use report::Report;
pub(crate) use stage::{Common, Lease, Stage, usage};
pub(crate) use tally::reason;
