//! What the durability slot and the ledger on JetStream are made of.

pub(crate) mod api;
pub(crate) mod client;
mod config;
mod dead;
mod enqueue;
mod fetch;
pub(crate) mod inboxes;
mod intents;
pub(crate) mod layout;
mod letter;
mod plan;
pub(crate) mod read;
pub(crate) mod requests;
mod state;
pub(crate) mod streams;
mod time;
mod withdraw;

pub use config::{JetStreamConfig, Storage};

use std::time::Duration;

use async_nats::HeaderValue;

/// The longest time that is told to a server, which counts nanoseconds: a hundred years.
const LONGEST: u64 = 100 * 365 * 24 * 3_600;

/// How long a message is kept, as the server wants to be told: in whole seconds, at least one. With their unit: a server
/// that misses it makes an error first, and then tries again.
pub(crate) fn ttl(ttl: Duration) -> HeaderValue {
    let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    HeaderValue::from(format!("{}s", seconds.clamp(1, LONGEST)))
}

/// What was told so.
pub(crate) fn read_ttl(text: &str) -> Option<Duration> {
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_whole_seconds_that_a_server_can_count() {
        for (given, told) in [
            (Duration::ZERO, "1s"),
            (Duration::from_millis(1), "1s"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_millis(1_001), "2s"),
            (Duration::from_secs(7_200), "7200s"),
            (Duration::MAX, "3153600000s"),
        ] {
            assert_eq!(ttl(given).as_str(), told);
        }
    }
}
