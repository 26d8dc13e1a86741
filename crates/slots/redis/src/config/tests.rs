use prism_core::config::decode_value;
use serde_json::{Value, json};

use super::{target::Target, *};

fn config(value: Value) -> Config {
    decode_value(&value).unwrap()
}

fn target(value: Value) -> Target {
    config(value).target().unwrap()
}

fn refusal(value: Value) -> String {
    match decode_value::<Config>(&value) {
        Ok(config) => config.target().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_way_to_write_the_same_server() {
    for way in [
        json!({}),
        json!({ "address": "localhost:6379" }),
        json!({ "addr": "localhost:6379" }),
        json!({ "address": "localhost" }),
        json!({ "address": "redis://localhost:6379" }),
        json!({ "address": "redis://localhost/0" }),
        json!({ "host": "localhost:6379" }),
        json!({ "host": "localhost", "port": 6379.0 }),
        json!({ "host": "localhost:6379", "port": 6379 }),
        json!({ "address": "localhost:6379", "password": "", "username": "", "db": 0.0 }),
        json!({ "addresses": ["localhost:6379"] }),
    ] {
        let found = target(way.clone());
        assert_eq!(found.to_string(), "redis://localhost:6379/0", "{way}");
        assert_eq!((found.username, found.password.is_empty()), (None, true), "{way}");
    }
}

#[test]
fn a_url_says_it_all() {
    let found = target(json!({ "address": "rediss://us%40er:p%2Fss%3A@redis.example:7000/3" }));
    assert_eq!(found.to_string(), "rediss://redis.example:7000/3");
    assert_eq!(found.username.as_deref(), Some("us@er"));
    assert_eq!(found.password.expose(), "p/ss:");
    assert!(found.tls);
    let v6 = target(json!({ "address": "[::1]:7000" }));
    assert_eq!(v6.nodes, [("::1".to_owned(), 7000)]);
    assert_eq!(target(json!({ "host": "::1" })).nodes, [("::1".to_owned(), 6379)]);
}

#[test]
fn a_cluster_is_a_list_of_nodes() {
    let found = target(json!({ "cluster": true, "addresses": ["a:1", "b"] }));
    assert_eq!(found.to_string(), "redis://a:1,b:6379/0");
}

#[test]
fn a_port_of_the_address_and_a_port_must_agree() {
    let text = refusal(json!({ "host": "a:1", "port": 2 }));
    assert!(text.contains("`port` contradicts"), "{text}");
}

#[test]
fn numbers_arrive_as_doubles() {
    let found = config(json!({
        "db": 5.0, "pool_size": 8.0, "max_retries": 0.0, "feed_max_changes": 1e6, "read_timeout": 250.0,
        "dial_timeout": "2s", "feed_max_bytes": "1MiB", "group_max_writes": 64.0,
    }));
    assert_eq!((found.db, found.pool_size, found.max_retries), (Some(5), 8, 0));
    assert_eq!(
        (found.feed_max_changes, found.feed_max_bytes),
        (1_000_000, 1 << 20)
    );
    assert_eq!(found.read_timeout, Duration::from_millis(250));
    assert_eq!(found.dial_timeout, Duration::from_secs(2));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (value, named) in [
        (json!({ "pool_sise": 1 }), "pool_sise"),
        (json!({ "pool_size": 1.5 }), "whole number"),
        (json!({ "pool_size": -1 }), "whole number"),
        (json!({ "pool_size": 0 }), "`pool_size` must be from `1`"),
        (json!({ "db": 256 }), "from `0` to `255`"),
        (json!({ "db": 1, "cluster": true }), "`db` must be 0"),
        (json!({ "address": "a/1", "db": 2 }), "`db` contradicts"),
        (
            json!({ "address": "redis://:a@b", "password": "c" }),
            "`password` contradicts",
        ),
        (json!({ "address": "a", "host": "a" }), "`host` contradicts"),
        (
            json!({ "address": "a", "addresses": ["b"] }),
            "`addresses` contradicts",
        ),
        (json!({ "addresses": ["a", "b"] }), "need `cluster: true`"),
        (json!({ "address": "http://a" }), "`http` is not `redis`"),
        (json!({ "address": "a:port" }), "port is not a number"),
        (json!({ "address": ":6379" }), "no host"),
        (json!({ "address": "a/first" }), "number of a database"),
        (json!({ "address": "redis://a%zz@b" }), "percent-encoded"),
        (json!({ "prefix": "{a" }), "`prefix` must not contain braces"),
        (json!({ "ca_file": "/ca.pem" }), "`ca_file` has no effect"),
        // The nanoseconds in which some peers print durations.
        (
            json!({ "read_timeout": 5e9 }),
            "`read_timeout` must be from `10ms` to `600s`",
        ),
        (json!({ "read_timeout": "5 parsecs" }), "is no duration"),
        (json!({ "feed_max_changes": 0 }), "`feed_max_changes`"),
        (json!({ "group_max_writes": 129 }), "`group_max_writes`"),
    ] {
        let text = refusal(value.clone());
        assert!(text.contains(named), "{value}: {text}");
    }
}

#[test]
fn secrets_do_not_show() {
    let secret = "swordfish";
    let configured = config(json!({
        "address": format!("redis://user:{secret}@host"), "password": secret,
    }));
    let shown = format!(
        "{configured:?} {:?} {}",
        configured.target().unwrap(),
        configured.target().unwrap()
    );
    assert!(!shown.contains(secret), "{shown}");
    assert!(shown.contains("redis://***@host"), "{shown}");
    let written = serde_json::to_string(&configured).unwrap();
    assert!(!written.contains(secret), "{written}");
    let identity = configured.identity().unwrap();
    assert!(!identity.contains(secret), "{identity}");
    let refused = refusal(json!({ "address": format!("redis://user:{secret}@host:port") }));
    assert!(!refused.contains(secret), "{refused}");
}

#[test]
fn the_schemas_document_every_key() {
    let schemas = [
        schemars::schema_for!(Config),
        schemars::schema_for!(InboxConfig),
        schemars::schema_for!(ConnectionConfig),
    ];
    for schema in schemas {
        let schema = serde_json::to_value(schema).unwrap();
        let keys = schema["properties"].as_object().unwrap();
        assert!(keys.len() >= 17);
        for (key, schema) in keys {
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.contains("Default"), "`{key}` says no default: {text}");
        }
    }
}

#[test]
fn an_inbox_has_no_keys_that_do_nothing() {
    let refusal = |value: Value| match decode_value::<InboxConfig>(&value) {
        Ok(config) => config.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for (value, named) in [
        (json!({ "feed_max_changes": 1 }), "feed_max_changes"),
        (json!({ "group_calls": 1 }), "group_calls"),
        (
            json!({ "store_max_inboxes": 0 }),
            "`store_max_inboxes` must be from `1` to `128`",
        ),
        (json!({ "store_max_inboxes": 129 }), "`store_max_inboxes`"),
        (json!({ "store_calls": 65 }), "`store_calls`"),
        (json!({ "pool_size": 0 }), "`pool_size`"),
        (json!({ "address": "a", "host": "a" }), "`host` contradicts"),
    ] {
        let text = refusal(value.clone());
        assert!(text.contains(named), "{value}: {text}");
    }
}

/// A slot and the ledger beside it are at the same place.
#[test]
fn what_slots_share_is_handed_on() {
    let settings = json!({
        "address": "a:1/2", "prefix": "x:", "username": "u", "password": "p", "tls": true, "ca_file": "/ca.pem",
        "max_retries": 7, "pool_size": 9, "dial_timeout": 11, "read_timeout": 12, "write_timeout": 13, "pool_timeout": 14,
    });
    let whole: ConnectionConfig = decode_value(&settings).unwrap();
    let inbox: InboxConfig = decode_value(&settings).unwrap();
    assert_eq!(config(settings).connection(), whole);
    assert_eq!(inbox.connection(), whole);
    assert_eq!(inbox.identity().unwrap(), "rediss://a:1/2 x:");
}

#[test]
fn what_is_written_is_read_back() {
    let settings =
        json!({ "address": "a:1", "prefix": "x:", "read_timeout": 1_234, "feed_max_bytes": 5_000 });
    for configured in [Config::default(), config(settings)] {
        let written = serde_json::to_value(&configured).unwrap();
        assert_eq!(config(written), configured);
    }
}

#[test]
fn data_is_told_apart_by_where_it_is() {
    let identity = |value| config(value).identity().unwrap();
    let here = identity(json!({ "address": "localhost" }));
    assert_eq!(
        here,
        identity(json!({ "host": "localhost", "port": 6379, "pool_size": 9, "password": "x" }))
    );
    for elsewhere in [
        json!({ "address": "localhost:6380" }),
        json!({ "address": "localhost/1" }),
        json!({ "address": "localhost", "prefix": "other:" }),
    ] {
        assert_ne!(here, identity(elsewhere));
    }
}
