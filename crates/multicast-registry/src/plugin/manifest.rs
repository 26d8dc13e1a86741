//! `plugin-manifest.yaml`: what the plugin says about itself to proxies, packagers and people. Written
//! by `make generate` from the code, and held against it by a test.

use serde_json::{Map, Value, json};

use super::{IDEMPOTENT, INTERFACE, PROTO_FILE};
use crate::config::{PATTERN, backend_schemas, manifest_schema};

/// The manifest as a tree.
pub fn manifest() -> Value {
    json!({
        "name": PATTERN,
        "version": env!("CARGO_PKG_VERSION"),
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "license": env!("CARGO_PKG_LICENSE"),
        "executable": "multicast-registry-runner",
        "namespaces": "many",
        "interfaces": [{
            "name": INTERFACE,
            "proto_file": PROTO_FILE,
            "version": "v1",
            "proto_hash": prism_proto::file_hash(PROTO_FILE),
            "idempotent": IDEMPOTENT,
        }],
        "slots": {
            "registry": { "required": true, "purpose": "where records live", "backends": backends("registry") },
            "messaging": { "required": true, "purpose": "how messages travel", "backends": backends("messaging") },
        },
        "health": {
            "grpc": "grpc.health.v1.Health on the data endpoint",
            "http": "/health on HEALTH_PORT",
            "metrics": "/metrics on HEALTH_PORT",
        },
        "resources": {
            "cpu": "100m",
            "memory": "64Mi",
            "memory_per_identity_bytes": 1024,
        },
        "config_schema": manifest_schema(),
    })
}

fn backends(slot: &str) -> Map<String, Value> {
    let of_slot = backend_schemas()
        .into_iter()
        .filter(|described| described.slot == slot);
    of_slot
        .map(|described| (described.backend.to_owned(), described.to_value()))
        .collect()
}
