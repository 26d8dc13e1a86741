//! What a backend must promise to fill a slot.
//!
//! A namespace is served by a *registry slot* ([`RegistryStore`]), which holds its records and their
//! history, a *messaging slot* ([`Messaging`]), which carries messages to identities, and perhaps a
//! *durability slot* ([`DurableInbox`]), where messages wait until they are acknowledged; beside one of
//! them is the [`Ledger`] of what became of multicasts. A backend
//! crate implements some of these against the real thing; this crate holds the traits, the plain-data
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
mod ledger;
mod listener;
pub mod memory;
mod messaging;
mod post;
mod query;
mod record;
mod registry;
pub mod settings;

pub use capability::{InboxCapability, LedgerCapability, MessagingCapability, RegistryCapability, Scope};
pub use error::{Applied, Error, Result};
pub use inbox::{
    Address, Consumer, DeadId, DeadLetter, DeadPage, DeadQuery, DeadReason, Delivery, Depth, Discarded,
    DurableInbox, DynDurableInbox, Enqueued, Fetch, Fetched, Holder, InboxLimits, Overflow, Priority,
    Redriven, Settled, Swept, Terms, Ticket, Verdict,
};
pub use ledger::{DynLedger, Entry, Expect, Ledger, Listed, Write, Wrote};
pub use listener::{GapReason, Listener, ListenerSink, Received, Room, listener};
pub use messaging::{
    DEFAULT_CONTENT_TYPE, DynMessaging, EVERY_POST, Kind, Message, Messaging, MulticastId, Outcome,
};
pub use post::{Arrival, Post, PostSink, post};
pub use query::{Query, QueryPage};
pub use record::{
    Cause, Change, Epoch, Identity, InvalidIdentity, Owner, Position, Record, RequestId, Revision, SessionId,
    Timestamp, Ttl,
};
pub use registry::{
    Call, Claim, DynRegistryStore, Mode, Put, Read, Register, Registered, RegistryStore, Renew, Renewed,
    Scan, ScanPage, Sync, Unregister, Unregistered, Written,
};
