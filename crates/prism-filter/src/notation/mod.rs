//! What texts and objects say beyond themselves: versions, addresses, places and times.
//!
//! A filter's operand is read once, when it is compiled; a record's value each time it is asked, where it
//! lies and without an allocation. What cannot be read is of another kind, and no comparison with it holds.
//! Views read the same way what they index by.

mod network;
mod place;
mod time;
mod version;

pub use network::{Network, address};
pub use place::{Area, Point};
pub use time::{RelativeTime, instant};
pub use version::Version;

pub(crate) use network::EXPECTED as EXPECTED_NETWORK;
pub(crate) use place::EXPECTED as EXPECTED_AREA;
pub(crate) use time::{EXPECTED as EXPECTED_TIME, from_millis, is_malformed, nanoseconds};
