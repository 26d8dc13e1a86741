//! Scenarios: what is done, and what is to come of it, as a file without code.

mod expect;
mod file;
mod junit;
mod play;
mod sessions;
mod step;

#[cfg(test)]
mod tests;

pub(crate) use expect::Problem;
pub(crate) use file::Scenario;
pub(crate) use junit::junit;
pub(crate) use play::{Outcome, Played, Player};
