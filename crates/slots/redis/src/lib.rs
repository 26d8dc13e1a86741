//! The registry slot on Redis.
//!
//! A namespace's records, leases and history live under six keys of one hash tag. Every call is one
//! server-side function, and so one atomic step; see `functions/` for what is stored and why it
//! cannot be left half done. Writes that come at the same time share calls ([`Config`]: `group_*`).
//!
//! What a caller can rely on beyond [`prism_slot::RegistryStore`]:
//!
//! - A write is sent at most once, and never after its deadline. A timeout or a broken connection leaves
//!   its outcome unknown and says so; repeat it with the same request id and it is applied at most once.
//! - Nothing that Redis lost is served. A flush, a restart and a fail-over each begin a new epoch.
//! - It works on any topology that runs functions: one server, a replicated pair behind a name or address
//!   that moves, a cluster. Redis 7.0 or later with `maxmemory-policy noeviction` is required.
//! - It goes on serving, renewing and removing when Redis is out of memory, and refuses what would store
//!   more.
//!
//! A user of its own needs the keys `~{prefix*`, and `+fcall +function|load +info +ping +client|id
//! +cluster|info +get +set +unlink +time +@hash +@sortedset +@stream +@list`: functions run with the
//! permissions of their caller.
//!
//! What outlives a restart of Redis is up to its persistence. Even with `appendfsync always` a restart
//! is a new epoch: records stay, their history does not.

mod answer;
mod calls;
mod codec;
mod config;
mod connect;
mod error;
mod group;
mod inbox;
mod keys;
mod ledger;
mod library;
mod link;
#[cfg(feature = "raw")]
pub mod raw;
mod registry;
mod server;
mod silence;
mod tls;

pub use config::{Address, Config, ConnectionConfig, InboxConfig, InvalidConfig};
pub use inbox::RedisInbox;
pub use ledger::RedisLedger;
pub use registry::RedisRegistry;
