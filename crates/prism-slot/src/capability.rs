//! What a slot can do, as plain data.
//!
//! The same value is declared to the proxy at registration, chooses the conformance cases that apply,
//! and is enforced in one place: the boxed twin of each trait (`DynRegistryStore`, `DynMessaging`,
//! `DynDurableInbox`, `DynLedger`).

/// How far a slot's data reaches, and so who may serve the same namespace at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One process: another one would see other data.
    Process,
    /// All processes of one host.
    Host,
    /// Every process that is configured alike.
    Shared,
}

impl Scope {
    /// As in `extra["prism.scope.<namespace>"]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Host => "host",
            Self::Shared => "shared",
        }
    }
}

/// What an acknowledged write outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survives {
    /// Nothing: it is gone with the process that holds it.
    Nothing,
    /// The end of every runner, as long as the backend runs.
    RunnerRestart,
    /// A restart of the backend as well.
    BackendRestart,
}

/// What a registry slot can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RegistryCapability {
    /// The backend's name in configurations.
    pub backend: &'static str,
    /// The interface names of RFC-017's neighbours that a configuration may ask of this slot.
    pub interfaces: &'static [&'static str],
    /// How far its data reaches.
    pub scope: Scope,
    /// What an acknowledged write outlives.
    pub survives: Survives,
    /// How many writes one call takes; longer batches are split.
    pub max_batch: usize,
    /// Whether it finds the records that may match a filter by itself, without sending all of them.
    pub query: bool,
}

/// What "accepted" stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptedBy {
    /// It lies in the queue of a listener in this process.
    ListenerQueue,
    /// The broker has processed it and knew of at least one listener.
    Broker,
}

/// What a messaging slot can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MessagingCapability {
    /// The backend's name in configurations.
    pub backend: &'static str,
    /// The interface names of RFC-017's neighbours that a configuration may ask of this slot.
    pub interfaces: &'static [&'static str],
    /// How far its messages reach.
    pub scope: Scope,
    /// What an accepted outcome stands on.
    pub accepted_by: AcceptedBy,
    /// The largest payload in bytes, headers excluded.
    pub max_payload: usize,
}

/// What a durability slot can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InboxCapability {
    /// The backend's name in configurations.
    pub backend: &'static str,
    /// The interface names of RFC-017's neighbours that a configuration may ask of this slot.
    pub interfaces: &'static [&'static str],
    /// How far its data reaches.
    pub scope: Scope,
    /// What a stored message outlives.
    pub survives: Survives,
    /// The largest payload in bytes, headers excluded.
    pub max_payload: usize,
    /// What the largest number of messages counts.
    pub room: Room,
    /// Whether it says which messages expired, or made room for others.
    pub tells_losses: bool,
}

/// What the largest number of messages of an inbox counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Room {
    /// All of them.
    Inbox,
    /// Those of each priority by themselves.
    Priority,
}

/// What a ledger can do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LedgerCapability {
    /// The backend's name in configurations.
    pub backend: &'static str,
    /// How far its entries reach.
    pub scope: Scope,
    /// What an acknowledged write outlives.
    pub survives: Survives,
    /// The largest entry in bytes.
    pub max_body: usize,
}
