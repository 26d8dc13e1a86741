//! The registry slot, the durability slot and the ledger on SQLite: durable without any server.
//!
//! All of them may share one file, and so may namespaces and the processes of one host. In each process one thread owns
//! the connection to a file; what waits for it is executed in one transaction after the other (`worker.rs`), and
//! answered when its commit has been brought to the disk.
//!
//! What a caller can rely on beyond the traits of [`prism_slot`]:
//!
//! - What was answered outlives the process, the machine and a loss of power, as far as the disk keeps what it has
//!   acknowledged (`journal_mode=WAL`, `synchronous=FULL`; a file system that cannot is refused).
//! - A call is executed once or not at all, whole, and never after its deadline. One that fails leaves nothing behind.
//!   Where a commit fails, as on a full disk, all of its calls fail, as `Applied::No` unless it may have reached the
//!   disk; the slots go on by themselves when there is room again. What only looks is answered meanwhile, and what makes
//!   room has some that was kept for it (`<path>-spare`).
//! - A restart loses nothing, so the epoch stays. A file that is behind what was acknowledged, such as a backup that was
//!   put back, is told by its mark (`<path>-mark`), and every namespace in it begins a new epoch: records and messages
//!   are those of the backup.
//! - Tidying is bounded in each call: what a call costs depends on what it asks for and on the inbox that it is about,
//!   and not on how much there is.
//!
//! What an operator should know:
//!
//! - The file belongs on a disk of this host. Processes on several hosts must not share it.
//! - Beside it lie `-wal` and `-shm`, which are SQLite's, `-mark`, and `-spare`, which is room and nothing else: it has
//!   some MiB, and as much again as waits in the log. Copy the file with `sqlite3 <path> "VACUUM INTO
//!   …"` while it is in use. To put a backup back, stop what uses the file, and remove `-wal` and `-shm` with the old
//!   one. Where a whole file system is rolled back, remove `-mark` as well: nothing else tells.
//! - Acknowledged messages make room within the file; the file itself does not shrink. `VACUUM` it to have it shrink.
//! - Several processes take turns, each waiting for the other's commits. One is faster.

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
mod spare;
mod step;
mod worker;

pub use config::{Config, InboxConfig, InvalidConfig};
pub use inbox::SqliteInbox;
pub use ledger::SqliteLedger;
pub use registry::SqliteRegistry;
