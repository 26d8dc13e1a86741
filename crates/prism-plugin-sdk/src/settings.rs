//! How long things may take, and how much is let in.

use std::time::Duration;

use prism_core::backoff;

/// The limits of a runner. The defaults are meant to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How often each proxy is sent a heartbeat and the plugin asked for its health.
    pub heartbeat: Duration,
    /// For one namespace to be configured or taken away.
    pub initialize_within: Duration,
    /// For the plugin to start.
    pub start_within: Duration,
    /// For one health report.
    pub health_within: Duration,
    /// How long new calls are still served after the proxies were told that the process ends, unless
    /// all of them acknowledge sooner.
    pub announce_within: Duration,
    /// For a drain whose sender sets no limit.
    pub drain_within: Duration,
    /// For the plugin to stop.
    pub stop_within: Duration,
    /// To reach a proxy, and again to be registered by it.
    pub connect_within: Duration,
    /// The pauses between attempts to reach a proxy.
    pub reconnect: backoff::Policy,
    /// How long a proxy of this project may stay silent. It sends health checks every few seconds. A
    /// foreign one may stay silent for ever.
    pub silence: Duration,
    /// How long what was sent to a proxy may stay unacknowledged by its host.
    pub unacknowledged: Duration,
    /// What the data endpoint lets in.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            initialize_within: Duration::from_secs(25),
            start_within: Duration::from_secs(10),
            health_within: Duration::from_secs(1),
            announce_within: Duration::from_secs(1),
            drain_within: Duration::from_secs(25),
            stop_within: Duration::from_secs(5),
            connect_within: Duration::from_secs(1),
            // A cap below a second is what brings a runner back within two seconds of its proxy.
            reconnect: backoff::Policy {
                base: Duration::from_millis(50),
                cap: Duration::from_millis(800),
            },
            silence: Duration::from_secs(12),
            unacknowledged: Duration::from_secs(8),
            limits: Limits::default(),
        }
    }
}

/// What the data endpoint lets in. Message sizes are set by the pattern's services themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; the next one waits to be accepted.
    pub connections: usize,
    /// Open streams a connection.
    pub streams: u32,
    /// Calls a connection that wait for their first answer; beyond, calls are refused.
    pub calls: usize,
    /// Bytes of headers a call. More than any proxy lets pass: a runner cannot say no to one call in
    /// words that a gRPC client understands.
    pub header_bytes: u32,
    /// For a connection to say its first byte.
    pub handshake_within: Duration,
    /// For a call to answer its first byte, whatever deadline it carries.
    pub call_within: Duration,
    /// How long what was sent may stay unacknowledged by the peer's host.
    pub unacknowledged: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4_096,
            streams: 65_536,
            calls: 16_384,
            header_bytes: 128 * 1024,
            handshake_within: Duration::from_secs(10),
            call_within: Duration::from_secs(120),
            unacknowledged: Duration::from_secs(30),
        }
    }
}
