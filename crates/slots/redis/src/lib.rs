//! The registry slot, the durability slot and a ledger on Redis.
//!
//! Each is opened for one namespace, keeps all of its keys under the namespace's hash tag, and changes them by
//! server-side functions of a library of its own, so that every call is one atomic step. They may share a server and
//! a `prefix`, and work on any topology that runs functions: one server, a replicated pair behind a name or address
//! that moves, a cluster. Redis 7.0 or later with `maxmemory-policy noeviction` is required. A call is sent at most
//! once, and never after its deadline; a timeout or a broken connection leaves its outcome unknown and says so. What
//! outlives a restart of Redis is up to its persistence: with `appendfsync always` nothing that was acknowledged is
//! lost. A slot whose Redis is out of memory goes on handing out and removing, and refuses what would store more.
//!
//! # The registry
//!
//! [`RedisRegistry`]: a namespace's records, leases and history live under six keys, see `functions/`. Writes that
//! come at the same time share calls ([`Config`]: `group_*`). Beyond [`prism_slot::RegistryStore`]:
//!
//! - A write that is repeated with the same request id is applied at most once.
//! - Nothing that Redis lost is served. A flush, a restart and a fail-over each begin a new epoch; even with
//!   `appendfsync always` records stay over a restart, and their history does not.
//!
//! A user of its own needs the keys `~{prefix*`, and `+fcall +function|load +info +ping +client|id
//! +cluster|info +get +set +unlink +time +@hash +@sortedset +@stream +@list`: functions run with the
//! permissions of their caller.
//!
//! # The inboxes
//!
//! [`RedisInbox`]: an inbox is a stream for each priority that it has messages of, with neither groups nor consumers;
//! `XLEN {prism:fleet}:inbox:normal:device-7` is how many wait. Beyond [`prism_slot::DurableInbox`]:
//!
//! - It costs by messages. An identity has keys only while it has some; what stays of a session is one field of a hash
//!   that all share, some 100 bytes. A message is stored once, however many inboxes hold it, and freed with the last of
//!   them. That it was stored is known for `dedupe`, at some 100 bytes an inbox.
//! - A stream takes a block of memory ahead, of 4 KiB unless `stream-node-max-bytes` is less: 512 suits inboxes that
//!   are mostly empty or short.
//! - Whether Redis lost data is not noticed by itself: a session whose record is gone is fenced, and opens again. Until
//!   the latest session of an identity has done so, an earlier one may take the inbox.
//! - Time is the server's, but never goes back. A step ahead is taken for time that has passed.
//! - What expired or made room is told by one answer. If that one is lost, so is the word.
//! - No call looks at more than some hundred messages; opening, dropping and sweeping go on in further calls. Who opens an
//!   inbox is its consumer after the last of them.
//!
//! Its user needs `+mget +getrange +exists` as well.
//!
//! # The ledger
//!
//! [`RedisLedger`]: one string an entry, which Redis ends by itself, and two sorted sets by which they are listed and
//! tidied. It is opened with the [`connection`](Config::connection) of the slot beside it; beside a registry its user
//! needs `+getrange +exists` as well.

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
