//! Registrations that stay: renewed in time, many in one call, and registered again when they were
//! lost.
//!
//! Three parts: the *schedule* knows what is due and what an answer means, without any I/O; the *keeper*
//! is the one task of a client and namespace that makes the calls; the *handle* is what a caller holds.

mod fate;
mod handle;
mod keeper;
mod schedule;

pub use handle::RegistrationHandle;
pub(crate) use keeper::Keepers;
pub use schedule::State;
