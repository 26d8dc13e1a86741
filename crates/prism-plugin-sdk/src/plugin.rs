//! What a pattern implements to live under a proxy.

use std::{collections::BTreeMap, fmt};

use prism_core::lifecycle::{Drained, Health, Scope};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// A pattern.
///
/// The SDK calls in this order: [`initialize`](Self::initialize) for each namespace,
/// [`start`](Self::start) once, then [`health`](Self::health) at any time and `initialize` or
/// [`remove`](Self::remove) as configurations change, [`drain`](Self::drain) once and
/// [`stop`](Self::stop) once. What concerns one namespace is called one after the other; different
/// namespaces are called side by side.
///
/// Each future but `stop`'s may be dropped before it is done: at its time limit, or because the process
/// ends. It must then leave nothing behind that `stop` does not release.
pub trait Plugin: Send + Sync + 'static {
    /// What the pattern is and offers. Constant over its life.
    fn description(&self) -> Description;

    /// Adds a namespace, or changes one.
    ///
    /// # Errors
    /// When the configuration cannot be taken. The last good one must keep serving, untouched.
    fn initialize(&self, request: Initialize) -> impl Future<Output = Result<Initialized, Refusal>> + Send;

    /// Takes a namespace away.
    ///
    /// # Errors
    /// When it has to stay. An unknown namespace is no error.
    fn remove(&self, namespace: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The pattern's gRPC services. The SDK adds health, reflection and the lifecycle, and limits
    /// connections and streams; message sizes are the services' own.
    fn routes(&self) -> tonic::service::Routes;

    /// Begins serving. At least one namespace is configured.
    ///
    /// # Errors
    /// When it cannot. It may be called again.
    fn start(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// How the pattern does, now. Reports that take longer than a second count as degraded.
    fn health(&self) -> impl Future<Output = Health> + Send;

    /// Finishes what is under way, and ends long-lived streams so that their clients resume elsewhere.
    ///
    /// By then nobody sends calls here any more, and those on their way had time to arrive. One that
    /// comes nevertheless should be served, or refused as not applied.
    fn drain(&self, deadline: Instant) -> impl Future<Output = Drained> + Send;

    /// Releases everything.
    ///
    /// # Errors
    /// When something could not be released in order. The process ends with code 1.
    fn stop(&self, deadline: Instant) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Metrics as OpenMetrics or Prometheus text, for the health port.
    fn metrics(&self) -> String {
        String::new()
    }

    /// The encoded `FileDescriptorSet` of the pattern's services, for reflection.
    fn descriptors(&self) -> &'static [u8] {
        &[]
    }
}

/// What a pattern is and offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// The pattern's name, e.g. `multicast-registry`.
    pub name: String,
    /// The pattern's version.
    pub version: String,
    /// The services on the data endpoint.
    pub interfaces: Vec<Interface>,
    /// Open-ended properties. `prism.namespaces` = `many` says that more than one namespace is welcome.
    pub extra: BTreeMap<String, String>,
}

/// One gRPC service of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Fully qualified.
    pub name: String,
    /// Path of the proto file below the proto root.
    pub proto_file: String,
    /// The interface's version.
    pub version: String,
    /// SHA-256 of the proto file, lower-case hex.
    pub hash: String,
    /// `prism.idempotent` lists, comma separated, the methods that may be sent a second time.
    pub metadata: BTreeMap<String, String>,
}

/// A namespace's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Initialize {
    /// The namespace.
    pub namespace: String,
    /// The version of the pattern that the configuration is written for.
    pub version: String,
    /// `{slots: {...}, behavior: {...}, ...}`. Whole numbers are integers, whatever they were on the
    /// wire.
    pub config: Map<String, Value>,
    /// Orders the configurations of one namespace; 0 where the proxy does not count.
    pub config_version: i64,
    /// Identifies the content.
    pub config_digest: String,
}

/// What a namespace offers with the configuration that was just applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Initialized {
    /// How far the data of its weakest slot reaches.
    pub scope: Scope,
    /// Open-ended properties for the proxy.
    pub extra: BTreeMap<String, String>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusal {
    /// The slot at fault, e.g. `registry`.
    pub slot: Option<String>,
    /// The configuration key at fault, e.g. `config.address`.
    pub key: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal that is no slot's fault.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// Names the slot.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<String>) -> Self {
        self.slot = Some(slot.into());
        self
    }

    /// Names the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slot) = &self.slot {
            write!(f, "slot `{slot}`: ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "key `{key}`: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_slot_and_key() {
        let refusal = Refusal::new("`x` is no address")
            .slot("registry")
            .key("config.address");
        assert_eq!(
            refusal.to_string(),
            "slot `registry`: key `config.address`: `x` is no address"
        );
        assert_eq!(Refusal::new("no").to_string(), "no");
    }
}
