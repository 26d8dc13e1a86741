//! The life of a plugin under a proxy, as both ends of the control stream see it (DESIGN §8).
//!
//! Everything here is pure: commands, answers and events go in, decisions come out; no clock is read
//! and nothing is sent. The plugin's end drives a [`Machine`], the proxy's end keeps a [`Peer`] for each
//! runner, and both stand on the same two tables: what a [`Stage`] admits, and by which rule a
//! [`Standing`] takes or refuses a configuration. The conversions to and from the wire are in
//! [`wire`].

mod answer;
mod command;
mod machine;
mod peer;
#[cfg(test)]
mod properties;
mod stage;
mod standing;
pub mod wire;

pub use answer::{Answer, Drained, Health, HealthStatus, Initialized, Scope, UnknownScope};
pub use command::{Command, Configuration, Kind};
pub use machine::{Decision, Event, ExitStatus, Machine, NamespaceReport};
pub use peer::{Assignment, Peer, Progress, Request, Sent, Space};
pub use stage::Stage;
pub use standing::{Conflict, Mark, Refused, Standing, Verdict};
