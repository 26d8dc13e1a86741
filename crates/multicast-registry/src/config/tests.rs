//! What loads, what does not, and what people are told.

#![cfg_attr(
    not(all(feature = "redis", feature = "nats")),
    allow(dead_code, unused_imports, reason = "some cases need every backend")
)]

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
        ("wire-known-keys", None),
        ("rfc-slots", Some("missing key `backend`")),
        (
            "rfc-iot-devices",
            Some("`postgres` cannot fill the registry slot in this version"),
        ),
        (
            "rfc-microservices",
            Some("`dynamodb` cannot fill the registry slot in this version"),
        ),
        ("rfc-agents", Some("a transactional outbox) is not available")),
        ("runner-device-fleet-durable", None),
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
        "redis-nats-with-durability",
        "single-box",
        "iot-device-management",
        "user-presence",
        "service-discovery",
    ] {
        let loaded = outcome(&examples.join(format!("{name}.yaml")));
        assert_eq!(loaded.map(|namespaces| namespaces.len()), Ok(1), "{name}");
    }
}

/// `<file>: <message>`: the whole text that the operator reads, without the file's directory.
#[cfg(all(feature = "redis", feature = "nats"))]
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
            "slot-value",
            "slot-value.yaml:7:18: slots.registry.config.pool_size: `pool_size` must be from `1` to `256`, not `0`",
        ),
        (
            "slot-value-alias",
            "slot-value-alias.yaml:7:12: slots.messaging.config.url: ",
        ),
        (
            "slot-value-memory",
            "slot-value-memory.yaml:6:21: slots.messaging.listener_queue: `0` is out of range, at least `1` is possible",
        ),
        (
            "slot-value-memory-most",
            "slot-value-memory-most.yaml:6:21: slots.messaging.listener_queue: `1000001` is out of range, at most `1000000` is possible",
        ),
        (
            "slot-says-twice",
            "slot-says-twice.yaml:8:21: slots.messaging.config.topic_prefix: already said at `messaging.topic_prefix`, keep one",
        ),
        (
            "slot-of-the-other",
            "slot-of-the-other.yaml:3:29: backend_slots.registry.topic_prefix: unknown key `topic_prefix`",
        ),
        (
            "needs-contradict",
            "needs-contradict.yaml:6:16: needs.consistency: `eventual` contradicts `behavior.consistency`, keep one of them",
        ),
        (
            "needs-scale",
            "needs-scale.yaml:6:10: needs.scale: `behavior.max_identities` is `10000`, raise it to at least `20000`",
        ),
        (
            "version",
            "version.yaml:2:18: pattern_version: this runner serves version `v1` of the pattern, not `v2`",
        ),
        (
            "lease-too-short",
            "lease-too-short.yaml:3:26: behavior.ttl_default: a lease has at least `1ms`; for none, leave the key out",
        ),
        (
            "call-too-long",
            "call-too-long.yaml:3:27: behavior.call_timeout: `10m` is out of range, from `1ms` to `100s` is possible",
        ),
        (
            "rate",
            "rate.yaml:3:18: behavior.caller_writes: `often` is no rate, write it like `100/s`, `30/m` or `5/h`",
        ),
        (
            "caller-burst",
            "caller-burst.yaml:3:17: behavior.caller_burst: `2h` is out of range, from `1ms` to `1h` is possible",
        ),
        (
            "long-ttl",
            "long-ttl.yaml:3:16: behavior.on_long_ttl: unknown value `cut`",
        ),
        (
            "schema-nested",
            "schema-nested.yaml:9:23: identity_schema.fields.place.fields.floor.max_length: only a `string` or `array` has a length",
        ),
        (
            "slot-index",
            "slot-index.yaml:7:15: slots.registry.indexes[1].type: does not suit `place`, which is `string`; leave it out",
        ),
        (
            "view-stale",
            "view-stale.yaml:3:40: behavior.on_store_loss: `stale` answers from a view, and `view: none` keeps none",
        ),
        (
            "view-schema",
            "view-schema.yaml:3:43: behavior.on_schema_change: `refuse` checks what is registered in a view, and `view: none` keeps none",
        ),
        (
            "view-slot-index",
            "view-slot-index.yaml:3:3: slots: `status` is to be indexed, and `behavior.view: none` keeps no index",
        ),
        (
            "view-index",
            "view-index.yaml:6:3: identity_schema: `status` is to be indexed, and `behavior.view: none` keeps no index",
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
            .split_once("refused/")
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

/// An index that a slot names is one that the schema could have named.
#[test]
fn a_slots_indexes_are_those_of_the_schema() {
    let read = |indexes: serde_json::Value, schema: serde_json::Value| {
        let tree = json!({
            "slots": {
                "registry": { "backend": "memory", "indexes": indexes },
                "messaging": "memory",
            },
            "identity_schema": schema,
        });
        Namespace::read(None, &tree).map_err(|error| error.to_string())
    };
    let schema =
        json!({ "kind": "string", "at": "geo_point", "tags": "array[string]", "place.floor": "int" });
    let named = json!([
        { "field": "kind" }, { "field": "kind" }, { "field": "place.floor", "type": "btree" },
        { "field": "at", "type": "gist" }, { "field": "tags", "type": "gin" }, { "field": "elsewhere", "type": "hash" },
    ]);
    let namespace = read(named, schema.clone()).unwrap();
    let names: Vec<_> = namespace.indexes.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["kind", "place.floor", "at", "tags", "elsewhere"]);
    let canonical = namespace.to_value();
    let again = Namespace::read(None, &canonical).unwrap();
    assert_eq!((again.to_value(), again.indexes), (canonical, namespace.indexes));
    for (index, expected) in [
        (
            json!({ "field": "kind", "type": "gist" }),
            "slots.registry.indexes[0].type: does not suit `kind`",
        ),
        (
            json!({ "field": "kind", "type": "tree" }),
            "slots.registry.indexes[0].type: ",
        ),
        (
            json!({ "field": "$identity" }),
            "slots.registry.indexes[0].field: `$identity` is a system field",
        ),
        (json!({ "field": "a..b" }), "slots.registry.indexes[0].field: "),
        (
            json!({ "fields": "kind" }),
            "slots.registry.indexes[0].fields: unknown key `fields`",
        ),
    ] {
        let message = read(json!([index]), schema.clone()).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
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

/// The same namespace in all the ways in which it can be written.
#[cfg(all(feature = "redis", feature = "nats"))]
#[test]
fn every_spelling_means_the_same() {
    let read = |tree: &serde_json::Value| {
        let namespace = Namespace::read(Some("n"), tree).unwrap_or_else(|error| panic!("{tree}: {error}"));
        let slots = (&namespace.slots.registry, &namespace.slots.messaging);
        let prefix = &namespace.behavior.topic_prefix;
        let registry = crate::slots::registry_identity(slots.0);
        let messaging = crate::slots::messaging_identity(slots.1, prefix);
        (registry, messaging, namespace.behavior)
    };
    let config = json!({ "ttl_default": 300, "topic_prefix": "iot.commands" });
    let canonical = read(&json!({
        "slots": {
            "registry": { "backend": "redis", "config": { "address": "localhost:6379" } },
            "messaging": { "backend": "nats", "config": { "servers": ["nats://localhost:4222"] } },
        },
        "behavior": config,
    }));
    let registries = [
        json!({ "type": "redis", "host": "localhost", "port": 6379.0, "ttl_default": 300.0 }),
        json!({ "type": "redis", "host": "localhost:6379", "ttl_default": "5m" }),
        json!({ "driver": "redis", "addr": "localhost:6379", "ttl_default": 300 }),
        json!({ "backend": "redis", "ttl_default": 300 }),
        json!({ "backend": "redis", "config": { "addr": "localhost", "ttl_default": "300s" } }),
    ];
    let messagings = [
        json!({ "type": "nats", "topic_prefix": "iot.commands." }),
        json!({ "driver": "nats", "url": "nats://localhost:4222", "topic_prefix": "iot.commands" }),
        json!({ "backend": "nats", "servers": ["nats://localhost:4222"], "topic_prefix": "iot.commands" }),
        json!({ "backend": "nats", "config": { "delivery": "at-most-once", "topic_prefix": "iot.commands" } }),
        json!({ "backend": "nats", "delivery": "at-most-once", "topic_prefix": "iot.commands", "config": {} }),
    ];
    for key in ["slots", "backend_slots"] {
        for (registry, messaging) in registries.iter().zip(&messagings) {
            let tree = json!({ key: { "registry": registry, "messaging": messaging } });
            assert_eq!(read(&tree), canonical, "{tree}");
        }
    }
    let scalars = json!({ "slots": { "registry": "redis", "messaging": "nats" }, "behavior": config });
    assert_eq!(read(&scalars), canonical);
    let file = json!({ "slots": { "registry": "redis", "messaging": "nats" } });
    for (version, pattern) in [
        ("v1", "multicast-registry"),
        ("1.4.2", "multicast_registry"),
        ("", "multicast-registry"),
    ] {
        let mut tree = file.clone();
        tree["pattern_version"] = json!(version);
        tree["pattern"] = json!(pattern);
        assert!(Namespace::read(None, &tree).is_ok(), "{tree}");
    }
}

/// What the manifest tells proxies about configurations knows every key that is read here.
#[test]
fn the_manifest_allows_the_keys_of_slots_wherever_they_are_read() {
    let schema = super::manifest_schema();
    for dialect in ["slots", "backend_slots"] {
        for (slot, keys) in [
            ("registry", vec!["ttl_default", "indexes"]),
            ("messaging", vec!["topic_prefix", "delivery"]),
        ] {
            let forms = schema["properties"][dialect]["properties"][slot]["anyOf"]
                .as_array()
                .unwrap();
            for form in forms.iter().filter(|form| form["type"] == "object") {
                for key in &keys {
                    assert!(form["properties"][key].is_object(), "{slot}: {key}");
                    assert!(
                        form["properties"]["config"]["properties"][key].is_object(),
                        "{slot}: {key}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_need_does_not_change_what_is_written() {
    let read = |behavior: serde_json::Value, needs: serde_json::Value| {
        let slots = json!({ "registry": "memory", "messaging": "memory" });
        let tree = json!({ "slots": slots, "behavior": behavior, "needs": needs });
        Namespace::read(None, &tree).map(|namespace| namespace.behavior)
    };
    let eventual = json!({ "consistency": "eventual" });
    let strong = json!({ "consistency": "strong" });
    let stale = crate::config::ReadConsistency::Stale;
    assert_eq!(read(json!({}), eventual.clone()).unwrap().consistency, stale);
    assert_eq!(
        read(json!({ "consistency": "stale" }), eventual)
            .unwrap()
            .consistency,
        stale
    );
    assert!(read(json!({ "consistency": "stale" }), strong).is_err());
    let scale =
        |behavior| read(behavior, json!({ "scale": "20000+ services" })).map(|found| found.max_identities);
    assert_eq!(scale(json!({})).unwrap(), 20_000);
    assert_eq!(scale(json!({ "max_identities": 50_000 })).unwrap(), 50_000);
    assert!(scale(json!({ "max_identities": 10_000 })).is_err());
}

/// A scale is what it says, with its separators and its multiplier, or it is refused.
#[test]
fn a_scale_is_the_whole_number_or_refused() {
    let read = |scale: &str| {
        let slots = json!({ "registry": "memory", "messaging": "memory" });
        let tree = json!({ "slots": slots, "needs": { "scale": scale } });
        Namespace::read(None, &tree).map(|namespace| namespace.behavior.max_identities)
    };
    for (scale, identities) in [
        ("20000", 20_000),
        ("20_000+ services", 20_000),
        ("20,000+", 20_000),
        ("1,200,000 devices in all", 1_200_000),
        (" 100k devices", 100_000),
        ("100K+", 100_000),
        ("1M", 1_000_000),
    ] {
        assert_eq!(read(scale).unwrap(), identities, "{scale}");
    }
    for scale in [
        "",
        "+",
        "k",
        "1.5M",
        "20.000",
        "20 000",
        "2,0000",
        ",000",
        "20,",
        "1m",
        "1 million devices",
        "10 K",
        "10k-20k",
        "10k to 20k",
        "20000devices",
        "<20000",
        "-1",
        "99999999999999999999",
        "18446744073709551615k",
    ] {
        let refused = read(scale).expect_err(scale).to_string();
        assert!(refused.contains("is not plainly a number"), "{refused}");
    }
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
            "needs.exactly_once: exactly-once delivery needs a durability slot",
        ),
        (
            json!({ "scale": "many" }),
            "needs.scale: `many` is not plainly a number of identities; write it like `10000`",
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
