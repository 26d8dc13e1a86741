//! The plugin's description and register message as they go over the wire.

use std::collections::HashMap;

use prism_core::lifecycle::{NamespaceReport, wire};
use prism_proto::interfaces::{AppliedConfig, InterfaceDeclaration, PatternMetadata, RegisterRequest};

use crate::{Description, Interface, engine::State};

/// What the plugin is and offers. `prism.sdk` tells a proxy that this plugin knows what this project
/// added to the protocol; `prism.process` names a process that serves several proxies in the same way to each.
pub(crate) fn metadata(description: &Description) -> PatternMetadata {
    let mut extra: HashMap<_, _> = description.extra.clone().into_iter().collect();
    extra.insert("prism.sdk".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    PatternMetadata {
        name: description.name.clone(),
        version: description.version.clone(),
        interfaces: description.interfaces.iter().map(interface).collect(),
        extra,
    }
}

fn interface(interface: &Interface) -> InterfaceDeclaration {
    InterfaceDeclaration {
        name: interface.name.clone(),
        proto_file: interface.proto_file.clone(),
        version: interface.version.clone(),
        proto_hash: interface.hash.clone(),
        metadata: interface.metadata.clone().into_iter().collect(),
    }
}

/// The first message on a control stream.
pub(crate) fn register(
    metadata: &PatternMetadata,
    process_id: i32,
    session_token: Vec<u8>,
    state: &State,
) -> RegisterRequest {
    let mut metadata = metadata.clone();
    let scopes = state
        .reports
        .iter()
        .filter_map(|report| Some((report.namespace.as_str(), report.scope?)));
    metadata.extra.extend(wire::scope_entries(scopes));
    RegisterRequest {
        pattern_name: metadata.name.clone(),
        pattern_version: metadata.version.clone(),
        process_id,
        metadata: Some(metadata),
        session_token,
        applied: state.reports.iter().map(applied).collect(),
    }
}

fn applied(report: &NamespaceReport) -> AppliedConfig {
    let text = |digest: &Option<prism_core::id::Digest>| {
        digest.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    AppliedConfig {
        namespace: report.namespace.clone(),
        applied_digest: text(&report.applied),
        rejected_digest: text(&report.refused),
    }
}
