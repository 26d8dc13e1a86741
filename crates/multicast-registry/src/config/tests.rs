//! What loads, what does not, and what people are told.

use std::path::{Path as FilePath, PathBuf};

use serde_json::json;

use super::{Namespace, from_environment, load};

fn fixture(name: &str) -> PathBuf {
    FilePath::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn outcome(file: &FilePath) -> Result<Vec<Namespace>, String> {
    let file = load(file, None).map_err(|error| error.to_string())?;
    Ok(file
        .namespaces
        .into_iter()
        .map(|(namespace, _)| namespace)
        .collect())
}

/// Each configuration that the specification shows, and why it is refused where it is.
#[cfg(all(feature = "redis", feature = "nats"))]
#[test]
fn the_specifications_configurations_load_or_say_what_is_missing() {
    let cases = [
        ("rfc-presence", None),
        ("plan-presence", None),
        ("runner-device-fleet", None),
        ("readme-scalar", None),
        ("readme-kubernetes", None),
        ("rfc-long-schema", None),
        ("rfc-iot-devices", Some("needs a durability slot")),
        (
            "rfc-microservices",
            Some("`dynamodb` cannot fill the registry slot in this version"),
        ),
        ("rfc-agents", Some("a transactional outbox) is not available")),
        (
            "runner-device-fleet-durable",
            Some("no backend can fill the durability slot in this version"),
        ),
        ("rfc-use-case-services", Some("missing key `slots`")),
        ("rfc-use-case-devices", Some("missing key `slots`")),
        ("rfc-use-case-presence", Some("missing key `slots`")),
        ("rfc-use-case-agents", Some("missing key `slots`")),
    ];
    for (name, reason) in cases {
        match (outcome(&fixture(&format!("specification/{name}.yaml"))), reason) {
            (Ok(namespaces), None) => assert_eq!(namespaces.len(), 1, "{name}"),
            (Err(message), Some(reason)) => assert!(message.contains(reason), "{name}: {message}"),
            (outcome, reason) => panic!("{name}: {outcome:?} where {reason:?} was expected"),
        }
    }
    let files = std::fs::read_dir(fixture("specification")).unwrap().count();
    assert_eq!(files, cases.len(), "every fixture is a case");
}

/// The examples that the documentation points to.
#[cfg(all(feature = "redis", feature = "nats"))]
#[test]
fn the_examples_load() {
    let examples = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in [
        "redis-nats",
        "iot-device-management",
        "user-presence",
        "service-discovery",
    ] {
        let loaded = outcome(&examples.join(format!("{name}.yaml")));
        assert_eq!(loaded.map(|namespaces| namespaces.len()), Ok(1), "{name}");
    }
}

/// `<file>: <message>`: the whole text that the operator reads, without the file's directory.
#[test]
fn mistakes_are_placed_and_explained() {
    let cases = [
        (
            "unknown-key",
            "unknown-key.yaml:5:5: namespaces[0].behaviour: unknown key `behaviour`, did you mean `behavior`?",
        ),
        (
            "wrong-type",
            "wrong-type.yaml:9:23: namespaces[0].behavior.max_identities: expected a whole number that is not negative, found `many`",
        ),
        (
            "out-of-range",
            "out-of-range.yaml:9:25: namespaces[0].behavior.max_filter_depth: `0` is out of range, from `1` to `64` is possible",
        ),
        (
            "duplicate-namespace",
            "duplicate-namespace.yaml:7:11: namespaces[1].name: the namespace `one` is configured twice",
        ),
        (
            "wrong-pattern",
            "wrong-pattern.yaml:2:10: pattern: this runner serves the pattern `multicast-registry`, not `key-value`",
        ),
        (
            "no-registry",
            "no-registry.yaml:4:3: slots: missing key `registry`: name the backend that fills this slot",
        ),
        (
            "no-messaging",
            "no-messaging.yaml:4:3: slots: missing key `messaging`: name the backend that fills this slot",
        ),
        (
            "interface",
            "interface.yaml:6:17: slots.registry.interfaces: the backend `memory` does not offer `QueueInterface` in this slot, it offers `KeyValueBasicInterface`, `KeyValueScanInterface`, `KeyValueTTLInterface`",
        ),
        (
            "unknown-backend",
            "unknown-backend.yaml:4:13: slots.registry: unknown backend `memry` for the registry slot",
        ),
        (
            "backend-twice",
            "backend-twice.yaml:6:11: slots.registry.type: the backend is already named, it is `memory`",
        ),
        (
            "slot-key",
            "slot-key.yaml:8:7: slots.registry.config.feed_max_change: unknown key `feed_max_change`, did you mean `feed_max_changes`?",
        ),
        (
            "needs",
            "needs.yaml:7:10: needs.audit: no slot gives an audit log in this version",
        ),
        (
            "schema-type",
            "schema-type.yaml:7:11: identity_schema.status: unknown type `sting`, expected one of",
        ),
        (
            "schema-default",
            "schema-default.yaml:11:16: identity_schema.fields.level.default: the default is no int: `\"high\"`",
        ),
    ];
    for (name, expected) in cases {
        let message = outcome(&fixture(&format!("refused/{name}.yaml"))).expect_err(name);
        let message = message
            .rsplit_once('/')
            .map_or(message.as_str(), |(_, rest)| rest);
        assert!(
            message.starts_with(expected),
            "\n     got {message}\nexpected {expected}"
        );
    }
    let files = std::fs::read_dir(fixture("refused")).unwrap().count();
    assert_eq!(files, cases.len(), "every fixture is a case");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let memory = json!({ "slots": { "registry": "memory", "messaging": "memory" } });
    let behavior = Namespace::read(None, &memory).unwrap().behavior;
    assert_eq!(
        (behavior.max_identities, behavior.topic_prefix.as_str()),
        (10_000, "prism.multicast")
    );
    assert_eq!((behavior.retry_attempts, behavior.retry_delay_ms), (3, 100));
    assert_eq!((behavior.max_filter_depth, behavior.max_clauses), (5, 20));
    assert_eq!((behavior.ttl_default, behavior.ttl_max), (None, None));
}

#[test]
fn the_canonical_form_reads_back_the_same() {
    let tree = json!({
        "name": "n", "pattern": "multicast_registry", "description": "d", "on_move": "discard",
        "needs": { "consistency": "eventual", "scale": "20_000+ services" },
        "identity_schema": { "status": "enum[a, b]", "at": { "type": "timestamp", "auto": "now" } },
        "backend_slots": {
            "registry": { "type": "memstore", "ttl_default": 300.0, "feed_max_changes": 5.0 },
            "messaging": { "driver": "memory", "topic_prefix": "iot.commands." },
        },
    });
    let namespace = Namespace::read(None, &tree).unwrap();
    let behavior = &namespace.behavior;
    assert_eq!(
        behavior.ttl_default.map(|ttl| ttl.as_secs()),
        Some(300),
        "a slot's lease is in seconds"
    );
    assert_eq!(
        behavior.topic_prefix, "iot.commands",
        "a trailing dot is not doubled"
    );
    assert_eq!(behavior.max_identities, 20_000);
    let canonical = namespace.to_value();
    assert_eq!(Namespace::read(None, &canonical).unwrap().to_value(), canonical);
    assert_eq!(canonical["slots"]["registry"]["config"]["feed_max_changes"], 5);
}

#[test]
fn a_slots_topic_prefix_wins_over_the_behaviours() {
    let tree = json!({
        "slots": { "registry": "memory", "messaging": { "backend": "memory", "topic_prefix": "here" } },
        "behavior": { "topic_prefix": "there" },
    });
    assert_eq!(
        Namespace::read(None, &tree).unwrap().behavior.topic_prefix,
        "here"
    );
}

#[test]
fn every_need_is_honoured_or_refused() {
    let read = |needs: serde_json::Value| {
        let tree = json!({ "slots": { "registry": "memory", "messaging": "memory" }, "needs": needs });
        Namespace::read(None, &tree)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let honoured = [
        json!({ "latency": "<10ms" }),
        json!({ "consistency": "strong" }),
        json!({ "durability": "ephemeral" }),
        json!({ "audit": false }),
        json!({ "exactly_once": false }),
        json!({ "scale": "10000+ services" }),
        json!({ "region": "single-region" }),
        json!({ "cloud": "any" }),
    ];
    for needs in honoured {
        assert_eq!(read(needs.clone()), Ok(()), "{needs}");
    }
    let refused = [
        (
            json!({ "latency": "<1ms" }),
            "needs.latency: the registry slot on `memory` typically takes about 1 ms",
        ),
        (
            json!({ "latency": "soon" }),
            "needs.latency: `soon` is no duration",
        ),
        (
            json!({ "consistency": "linear" }),
            "needs.consistency: unknown value `linear`",
        ),
        (
            json!({ "durability": "persistent" }),
            "needs.durability: a registry slot on `memory` does not promise",
        ),
        (
            json!({ "audit": true }),
            "needs.audit: no slot gives an audit log",
        ),
        (
            json!({ "exactly_once": true }),
            "needs.exactly_once: no slot gives exactly-once delivery",
        ),
        (
            json!({ "scale": "many" }),
            "needs.scale: `many` does not begin with a number",
        ),
        (
            json!({ "region": "multi-region" }),
            "needs.region: no slot gives replication across regions",
        ),
        (
            json!({ "cloud": "aws" }),
            "needs.cloud: the backends of the cloud `aws` are not available",
        ),
        (json!({ "speed": 1 }), "needs.speed: unknown key `speed`"),
    ];
    for (needs, expected) in refused {
        let message = read(needs.clone()).expect_err(&needs.to_string());
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn the_environment_makes_one_namespace() {
    let environment = |pairs: &'static [(&str, &str)]| {
        move |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        }
    };
    assert!(from_environment(environment(&[])).unwrap().is_none());
    let named = from_environment(environment(&[
        ("REGISTRY_BACKEND", "memory"),
        ("NAMESPACE", "fleet"),
    ]));
    assert_eq!(named.unwrap().unwrap().0.name, "fleet");
    let unknown = from_environment(environment(&[("MESSAGING_BACKEND", "carrier-pigeon")]));
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("unknown backend `carrier-pigeon`")
    );
}

#[cfg(all(feature = "redis", feature = "nats"))]
#[test]
fn the_environment_names_addresses() {
    let variable = |name: &str| match name {
        "REGISTRY_BACKEND" => Some("redis".to_owned()),
        "REGISTRY_ADDR" => Some("redis:6379".to_owned()),
        "MESSAGING_BACKEND" => Some("nats".to_owned()),
        "MESSAGING_SERVERS" => Some("nats://one:4222, nats://two:4222".to_owned()),
        _ => None,
    };
    let (namespace, _) = from_environment(variable).unwrap().unwrap();
    assert_eq!(namespace.name, "default");
    let settings = namespace.to_value();
    assert_eq!(settings["slots"]["registry"]["config"]["address"], "redis:6379");
    assert_eq!(
        settings["slots"]["messaging"]["config"]["servers"],
        json!(["nats://one:4222", "nats://two:4222"])
    );
}
