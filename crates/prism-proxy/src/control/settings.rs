//! How long the control plane waits for what.

use std::time::Duration;

/// The limits of the control plane. The defaults are meant to be kept: health checks every three
/// seconds with four for the answer notice a half-open link within eleven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many runners may be connected.
    pub runners: usize,
    /// For a stream to register.
    pub register_within: Duration,
    /// How often a runner is asked for its health.
    pub health_interval: Duration,
    /// For its answer. Two that stay out in a row, with nothing else answered, break the link.
    pub health_within: Duration,
    /// For one namespace to be configured.
    pub initialize_within: Duration,
    /// For a runner to start.
    pub start_within: Duration,
    /// Before a failed start is tried again.
    pub start_pause: Duration,
    /// For a runner to drain.
    pub drain_within: Duration,
    /// How long a runner whose stream broke keeps its routes while its data endpoint answers.
    pub reconnect_within: Duration,
    /// For a data endpoint to answer whether it still serves.
    pub probe_within: Duration,
    /// How long after the beginning a runner that comes back without data waits for one that has some.
    pub settle_within: Duration,
    /// How long a runner that leaves is kept while another takes over; a runner serves no longer than a
    /// second after it said so.
    pub handover_within: Duration,
    /// How long the only owner of a namespace may be unhealthy before another takes over, without its
    /// data.
    pub unhealthy_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runners: 1_024,
            register_within: Duration::from_secs(10),
            health_interval: Duration::from_secs(3),
            health_within: Duration::from_secs(4),
            initialize_within: Duration::from_secs(30),
            start_within: Duration::from_secs(15),
            start_pause: Duration::from_secs(5),
            drain_within: Duration::from_secs(25),
            reconnect_within: Duration::from_secs(10),
            probe_within: Duration::from_secs(1),
            settle_within: Duration::from_secs(3),
            handover_within: Duration::from_millis(800),
            unhealthy_within: Duration::from_secs(15),
        }
    }
}
