//! The registry slot, the durability slot and the ledger on SQLite: durable without any server.
//!
//! All of them may share one file, and so may namespaces.

mod call;
mod codec;
mod config;
mod connect;
mod error;
mod file;
mod history;
mod inbox;
mod ledger;
mod mark;
mod opening;
mod queue;
mod registry;
mod schema;
mod seat;
mod signals;
mod step;
mod worker;

pub use config::{Config, InboxConfig, InvalidConfig};
pub use inbox::SqliteInbox;
pub use ledger::SqliteLedger;
pub use registry::SqliteRegistry;
