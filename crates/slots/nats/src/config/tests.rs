//! What an operator may write, and what is refused.

use prism_core::config::decode_value;
use serde_json::{Value, json};

use super::*;

fn decode(value: &Value) -> Result<Config, String> {
    decode_value::<Config>(value).map_err(|error| error.to_string())
}

fn refusal(value: &Value) -> String {
    match decode(value) {
        Ok(config) => config.validate().unwrap_err().to_string(),
        Err(error) => error,
    }
}

#[test]
fn servers_come_as_a_list_a_text_or_a_url() {
    for value in [
        json!({"servers": ["nats://a:1", "b"]}),
        json!({"servers": "nats://a:1, b:4222"}),
        json!({"url": "nats://a:1,b"}),
    ] {
        let config = decode(&value).unwrap();
        config.validate().unwrap();
        let texts: Vec<String> = config
            .addresses()
            .unwrap()
            .into_iter()
            .map(|address| address.text)
            .collect();
        assert_eq!(texts, ["nats://a:1", "nats://b:4222"]);
    }
}

#[test]
fn numbers_may_be_doubles_and_durations_texts() {
    let config = decode(&json!({
        "servers": "a", "connections": 2.0, "max_reconnects": 10.0, "timeout": 1500.0,
        "reconnect_wait": "2s", "ping_interval": 250, "publish_window": 64.0, "listener_queue": 8.0,
        "listener_queue_bytes": "1KiB",
        "enable_jetstream": false, "queue_prefix": "",
    }))
    .unwrap();
    config.validate().unwrap();
    assert_eq!((config.connections, config.most_reconnects()), (2, Some(10)));
    assert_eq!(config.timeout, Duration::from_millis(1_500));
    assert_eq!(config.reconnect_wait, Duration::from_secs(2));
    assert_eq!(config.ping_interval, Duration::from_millis(250));
    assert_eq!((config.publish_window, config.listener_queue), (64, 8));
    assert_eq!(config.listener_queue_bytes, 1_024);
    assert_eq!(
        decode(&json!({"url": "a", "max_reconnects": -1}))
            .unwrap()
            .most_reconnects(),
        None
    );
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    for (value, words) in [
        (json!({ "servers": [] }), "`servers`: name at least one"),
        (json!({"url": "a", "servers": "b"}), "servers"),
        (
            json!({"url": "http://a"}),
            "an address is no URL like `nats://host:4222`",
        ),
        (
            json!({"url": "ws://a"}),
            "begins with `ws://`; use `nats://` or `tls://`",
        ),
        (json!({"url": "nats://"}), "`servers`: an address"),
        (json!({"url": "nats://user@a"}), "without a password"),
        (json!({"url": "a", "usrname": "x"}), "did you mean `username`?"),
        (json!({"url": "a", "username": "x"}), "go together"),
        (
            json!({"url": "a", "token": "x", "nkey": "y"}),
            "`nkey`: give one way to log in",
        ),
        (
            json!({"url": "nats://u:p@a", "token": "x"}),
            "`token`: give one way",
        ),
        (json!({"url": "nats://u:p@a,nats://v:p@b"}), "different users"),
        (json!({"url": "a", "ca_file": "x"}), "`ca_file`: has no effect"),
        (
            json!({"url": "a", "connections": 0}),
            "`connections`: `0` is not between 1 and 64",
        ),
        (json!({"url": "a", "publish_window": 10_000}), "`publish_window`"),
        (json!({"url": "a", "listener_queue": 0}), "`listener_queue`"),
        (json!({"url": "a", "timeout": 0}), "`timeout`: must not be zero"),
        (json!({"url": "a", "timeout": "soon"}), "`soon` is no duration"),
        (json!({"url": "a", "max_reconnects": 0}), "`max_reconnects`"),
        (
            json!({"url": "a", "enable_jetstream": true}),
            "`enable_jetstream` belongs to the durability slot",
        ),
        (
            json!({"url": "a", "queue_prefix": "q."}),
            "`queue_prefix` belongs to the durability slot",
        ),
    ] {
        let refusal = refusal(&value);
        assert!(refusal.contains(words), "{value}: {refusal}");
    }
}

#[test]
fn secrets_do_not_show() {
    let config = decode(&json!({
        "servers": ["nats://user:hush@a"], "password": "hush", "token": "hush", "nkey": "hush",
    }))
    .unwrap();
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(
        !shown.contains("hush") && shown.contains("nats://***@a:4222"),
        "{shown}"
    );
    let refusal = refusal(&json!({"servers": ["nats://user:hush@:x"]}));
    assert!(!refusal.contains("hush"), "{refusal}");
}

#[test]
fn the_schema_has_every_key() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let keys = schema["properties"].as_object().unwrap();
    for (key, value) in keys {
        assert!(value["description"].is_string(), "`{key}` is not described");
    }
    assert_eq!(keys.len(), 18);
}
