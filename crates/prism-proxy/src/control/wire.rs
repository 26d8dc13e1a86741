//! What a register message says.

use std::{collections::HashSet, sync::Arc};

use prism_core::{
    id::{Digest, SessionToken},
    lifecycle::{NamespaceReport, Scope, wire},
};
use prism_proto::interfaces::{InterfaceDeclaration, RegisterRequest};

/// How many namespaces one register message may report.
const MAX_REPORTS: usize = 4_096;

/// A runner that registers.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    /// In its canonical spelling.
    pub(super) pattern: String,
    pub(super) version: String,
    pub(super) process_id: i32,
    /// What it is called at every proxy; absent where it serves only this one.
    pub(super) everywhere: Option<String>,
    /// Whether it takes more than one namespace.
    pub(super) many: bool,
    /// Whether it knows what this project added to the protocol.
    pub(super) extended: bool,
    /// Paths of the methods that may be called twice.
    pub(super) idempotent: Arc<HashSet<String>>,
    pub(super) token: Option<SessionToken>,
    pub(super) reports: Vec<NamespaceReport>,
}

/// Reads a register message.
///
/// # Errors
/// Why it is refused.
pub(super) fn registration(request: RegisterRequest) -> Result<Registration, String> {
    if request.pattern_name.is_empty() {
        return Err("the registration names no pattern, set `pattern_name`".to_owned());
    }
    if request.applied.len() > MAX_REPORTS {
        return Err(format!(
            "the registration reports more than {MAX_REPORTS} namespaces"
        ));
    }
    let metadata = request.metadata.unwrap_or_default();
    let ours = metadata.extra.keys().any(|key| key.starts_with("prism."));
    let scope = |namespace: &str| -> Option<Scope> {
        let scope = metadata.extra.get(&wire::scope_key(namespace))?;
        scope.parse().ok()
    };
    let reports = request.applied.into_iter().map(|applied| NamespaceReport {
        scope: scope(&applied.namespace),
        applied: Digest::from_wire(&applied.applied_digest),
        refused: Digest::from_wire(&applied.rejected_digest),
        namespace: applied.namespace,
    });
    Ok(Registration {
        reports: reports.collect(),
        pattern: wire::canonical_pattern(&request.pattern_name),
        version: request.pattern_version,
        process_id: request.process_id,
        everywhere: metadata.extra.get("prism.process").cloned(),
        many: metadata
            .extra
            .get("prism.namespaces")
            .is_some_and(|value| value == "many"),
        extended: ours || !request.session_token.is_empty(),
        idempotent: Arc::new(metadata.interfaces.iter().flat_map(idempotent).collect()),
        token: SessionToken::from_wire(request.session_token),
    })
}

fn idempotent(interface: &InterfaceDeclaration) -> impl Iterator<Item = String> {
    let methods = interface
        .metadata
        .get("prism.idempotent")
        .map(String::as_str)
        .unwrap_or_default();
    let methods = methods
        .split(',')
        .map(str::trim)
        .filter(|method| !method.is_empty());
    methods.map(|method| format!("/{}/{method}", interface.name))
}

#[cfg(test)]
mod tests {
    use prism_proto::interfaces::{AppliedConfig, PatternMetadata};

    use super::*;

    #[test]
    fn a_foreign_registration_is_read_as_it_is() {
        let request = RegisterRequest {
            pattern_name: "multicast_registry".to_owned(),
            process_id: 1,
            ..RegisterRequest::default()
        };
        let registration = registration(request).unwrap();
        assert_eq!(registration.pattern, "multicast-registry");
        assert!(!registration.many && !registration.extended);
        assert!(registration.token.is_none());
    }

    #[test]
    fn our_additions_are_read() {
        let extra = [("prism.namespaces", "many"), ("prism.scope.presence", "shared")];
        let interface = InterfaceDeclaration {
            name: "prism.test.Echo".to_owned(),
            metadata: [("prism.idempotent".to_owned(), "Say, Hear,".to_owned())].into(),
            ..InterfaceDeclaration::default()
        };
        let request = RegisterRequest {
            pattern_name: "test".to_owned(),
            metadata: Some(PatternMetadata {
                interfaces: vec![interface],
                extra: extra
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
                ..PatternMetadata::default()
            }),
            session_token: b"token".to_vec(),
            applied: vec![AppliedConfig {
                namespace: "presence".to_owned(),
                applied_digest: "a".to_owned(),
                rejected_digest: String::new(),
            }],
            ..RegisterRequest::default()
        };
        let registration = registration(request).unwrap();
        assert!(registration.many && registration.extended);
        let paths = [
            "/prism.test.Echo/Say".to_owned(),
            "/prism.test.Echo/Hear".to_owned(),
        ];
        assert_eq!(*registration.idempotent, HashSet::from(paths));
        let report = &registration.reports[0];
        assert_eq!(report.scope, Some(Scope::Shared));
        assert!(report.applied.is_some() && report.refused.is_none());
    }

    #[test]
    fn a_runner_with_as_many_namespaces_as_there_may_be_can_come_back() {
        let names = (0..MAX_REPORTS).map(|number| format!("{number:0>128}"));
        let digest = Digest::of(&serde_json::Map::new()).to_string();
        let request = RegisterRequest {
            pattern_name: "test".to_owned(),
            metadata: Some(PatternMetadata {
                extra: names
                    .clone()
                    .map(|name| (wire::scope_key(&name), "process".to_owned()))
                    .collect(),
                ..PatternMetadata::default()
            }),
            applied: names
                .map(|namespace| AppliedConfig {
                    namespace,
                    applied_digest: digest.clone(),
                    rejected_digest: digest.clone(),
                })
                .collect(),
            ..RegisterRequest::default()
        };
        assert!(prost::Message::encoded_len(&request) < crate::control::MAX_MESSAGE);
        assert_eq!(registration(request).unwrap().reports.len(), MAX_REPORTS);
    }

    #[test]
    fn a_registration_without_a_pattern_is_refused() {
        assert!(
            registration(RegisterRequest::default())
                .unwrap_err()
                .contains("pattern_name")
        );
    }
}
