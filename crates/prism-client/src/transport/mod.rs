//! Connections to the proxy: where it is, how it is dialled, and which connection carries what.

mod dial;
mod endpoint;
mod lanes;

pub(crate) use dial::{DialError, Dialer};
pub(crate) use endpoint::Endpoint;
pub(crate) use lanes::{Connections, Lane, Settings};
