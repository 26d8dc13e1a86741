//! What a backend must promise to fill a slot.
//!
//! A namespace is served by a *registry slot* ([`RegistryStore`]), which holds its records and their
//! history, and a *messaging slot* ([`Messaging`]), which carries messages to identities. A backend
//! crate implements one or both against the real thing; this crate holds the traits, the plain-data
//! [`capability`] that each declares, memory implementations that are also the semantic oracle, and
//! the conformance suite that every implementation passes.
//!
//! Metadata is opaque bytes here: merging, defaults, schema and validation belong to the coordinator.

pub mod capability;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod inbox;
pub mod lease;
mod listener;
pub mod memory;
mod messaging;
mod query;
mod record;
mod registry;

pub use capability::{InboxCapability, MessagingCapability, RegistryCapability, Scope};
pub use error::{Applied, Error, Result};
pub use inbox::{
    Address, Consumer, DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, Delivery, Depth, DurableInbox,
    DynDurableInbox, Enqueued, Fetch, Fetched, Holder, Overflow, Priority, Redriven, Settled, Swept, Terms,
    Verdict,
};
pub use listener::{GapReason, Listener, ListenerSink, Received, listener};
pub use messaging::{DynMessaging, Kind, Message, Messaging, MulticastId, Outcome};
pub use query::{Query, QueryPage};
pub use record::{
    Cause, Change, Epoch, Identity, InvalidIdentity, Owner, Position, Record, RequestId, Revision, SessionId,
    Timestamp, Ttl,
};
pub use registry::{
    Call, Claim, DynRegistryStore, Mode, Put, Read, Register, Registered, RegistryStore, Renew, Renewed,
    Scan, ScanPage, Sync, Unregister, Unregistered, Written,
};

/// The type of a durability slot. No backend fills one yet, and so no value of it exists: a
/// configuration that names a durability slot is refused rather than ignored.
#[derive(Debug, Clone, Copy)]
pub enum Durability {}
