//! Load, and what became of it at the far end.

mod cast;
mod fleet;
mod ledger;
mod listeners;
mod mix;
mod pace;
mod ramp;
mod report;
mod stage;
mod stamp;
mod tally;

pub(crate) mod mixed;

pub(crate) use cast::Casting;
pub(crate) use mix::{Mix, Operation};
pub(crate) use ramp::{Ramp, Shape, rate};
pub(crate) use report::Report;
pub(crate) use stage::{Common, Lease, Stage, usage};
