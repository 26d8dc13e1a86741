//! The multicast registry pattern.
//!
//! A [`Coordinator`] is one namespace at work over its slots: a registry slot that holds the records,
//! and a messaging slot that carries messages. Its [`directory`] is the indexed view that reads are
//! answered from. The [`service`] puts coordinators behind gRPC, and [`MulticastRegistry`] is all of
//! it as a plugin under a Prism proxy.

pub mod config;
pub mod coordinator;
pub mod delivery;
pub mod directory;
mod late;
pub mod limits;
pub mod metrics;
pub mod namespaces;
pub mod plugin;
pub mod schema;
pub mod service;
pub mod slots;
#[cfg(test)]
mod testing;
pub mod watch;

/// The filter language: what [`Register`] takes as metadata, and how [`Enumerate`] and [`Multicast`] select.
pub use prism_filter as filter;
/// The slots: the traits to implement for a backend, and the ones in memory.
pub use prism_slot as slot;

pub use coordinator::{
    Closed, Config, Coordinator, Durability, Enumerate, Error, Explanation, Extended, Following, Multicast,
    MulticastEvent, Page, Register, Session, SessionEvent, Update, Updated, Verdict, Why,
};
pub use delivery::{Delivery, Pace, Report, Stage, Status, Target, Targets};
pub use plugin::MulticastRegistry;
