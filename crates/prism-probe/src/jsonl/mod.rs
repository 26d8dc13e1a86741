//! Registrations as lines of JSON: what `export` writes and `import` reads.
//!
//! ```json
//! {"identity": "sensor-1", "metadata": {"type": "sensor"}, "ttl_seconds": 60}
//! ```
//!
//! Only `identity` has to be there. `ttl_seconds`, or `ttl_ms` for finer ones, is the length of the lease: 0 for
//! none, absent for the namespace's default. What `export` says besides, and what `import` says of a line that
//! was refused, is read over; any other name is a mistake.

mod batch;
mod line;
mod lines;

#[cfg(test)]
mod tests;

pub(crate) use batch::{Batch, Batches, Entry};
pub(crate) use line::write;
