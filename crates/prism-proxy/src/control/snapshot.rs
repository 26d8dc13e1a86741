//! What the admin endpoint shows of the control plane.

use std::collections::BTreeMap;

use prism_core::{
    id::{Digest, InstanceId},
    lifecycle::{HealthStatus, Scope, Stage},
};
use serde::Serialize;

/// Where everything stood at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// Rises with each change.
    pub generation: u64,
    /// In the order of their arrival.
    pub runners: Vec<RunnerView>,
    /// By name.
    pub namespaces: Vec<NamespaceView>,
}

impl Snapshot {
    /// Whether they show the same, apart from when heartbeats came.
    pub(super) fn shows_the_same_as(&self, other: &Self) -> bool {
        let same = |(one, two): (&RunnerView, &RunnerView)| {
            let seen = one.last_heartbeat_unix_ms;
            *one == RunnerView {
                last_heartbeat_unix_ms: seen,
                ..two.clone()
            }
        };
        self.namespaces == other.namespaces
            && self.runners.len() == other.runners.len()
            && self.runners.iter().zip(&other.runners).all(same)
    }
}

/// One runner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunnerView {
    /// Its name.
    pub instance_id: InstanceId,
    /// The pattern that it serves.
    pub pattern: String,
    /// The pattern's version.
    pub pattern_version: String,
    /// As it said.
    pub process_id: i32,
    /// Where its control stream comes from.
    pub peer_address: Option<String>,
    /// Where calls are sent.
    pub data_endpoint: Option<String>,
    /// How far it is.
    pub state: Stage,
    /// Whether it has a control stream.
    pub connected: bool,
    /// Whether it said that it is about to end.
    pub draining: bool,
    /// Whether it is of another make, and knows only the protocol's common part.
    pub foreign: bool,
    /// When its last heartbeat came; `None` from those that send none.
    pub last_heartbeat_unix_ms: Option<u64>,
    /// How it does.
    pub health: HealthStatus,
    /// What it says about that.
    pub health_message: String,
    /// What it says about its namespaces and slots.
    pub health_details: BTreeMap<String, String>,
    /// Why it was not started or cannot be reached.
    pub error: Option<String>,
    /// What it runs, is meant to run, or refused.
    pub namespaces: Vec<RunnerNamespaceView>,
}

/// One namespace at one runner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunnerNamespaceView {
    /// Which.
    pub namespace: String,
    /// What the runner is to it.
    pub role: RoleView,
    /// Of the configuration that serves.
    pub applied_digest: Option<Digest>,
    /// Its version; 0 when a reconnecting runner told only the digest.
    pub applied_version: Option<i64>,
    /// Of the configuration that was refused last.
    pub rejected_digest: Option<Digest>,
    /// Its version.
    pub rejected_version: Option<i64>,
    /// Why.
    pub error: Option<String>,
    /// How far the data reaches.
    pub scope: Scope,
}

/// What a runner is to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleView {
    /// Calls are sent there.
    Serving,
    /// It is being configured.
    Configuring,
    /// It refused the configuration and serves no other.
    Refusing,
    /// It could take over.
    Standby,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// The pattern that serves it.
    pub pattern: String,
    /// The version that is wanted.
    pub version: i64,
    /// Of the configuration that is wanted.
    pub digest: Digest,
    /// How it stands.
    pub standing: Standing,
    /// How far its data reaches; `None` while nobody has said.
    pub scope: Option<Scope>,
    /// Where calls are sent.
    pub serving: Vec<InstanceId>,
    /// Who could take over.
    pub standby: Vec<InstanceId>,
    /// The last refusal among its runners.
    pub error: Option<String>,
}

/// How a namespace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Somebody serves it.
    Served,
    /// Nobody does.
    Unserved,
    /// Its runners change over.
    Held,
}
