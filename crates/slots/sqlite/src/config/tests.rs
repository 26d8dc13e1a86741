use prism_core::config::decode_value;
use serde_json::{Value, json};

use super::*;

fn refusal(value: Value) -> String {
    match decode_value::<Config>(&value) {
        Ok(config) => config.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn numbers_arrive_as_doubles() {
    let found: Config = decode_value(&json!({
        "path": "x.db", "cache_size": "1MiB", "max_size": "1MiB", "feed_max_changes": 1e6, "feed_max_age": "2m",
    }))
    .unwrap();
    assert_eq!((found.cache_size, found.max_size), (1 << 20, Some(1 << 20)));
    assert_eq!(
        (found.feed_max_changes, found.feed_max_age.as_secs()),
        (1_000_000, 120)
    );
    found.validate().unwrap();
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let with = |key: &str, value: Value| json!({ "path": "x.db", key: value });
    for (value, named) in [
        (json!({}), "`path` is required"),
        (json!({ "path": "/" }), "`path` must name a file"),
        (json!({ "path": "here/" }), "`path` must name a file"),
        (json!({ "path": ":memory:" }), "backend `memory`"),
        (with("file", json!(1)), "unknown key `file`"),
        (with("cache_size", json!(1)), "`cache_size` must be at least"),
        (with("max_size", json!("1KiB")), "`max_size` must be at least"),
        (
            with("feed_max_changes", json!(0)),
            "`feed_max_changes` must be at least",
        ),
        (with("feed_max_changes", json!(1.5)), "whole number"),
        (with("feed_max_bytes", json!(0)), "feed_max_bytes"),
        (
            with("feed_max_age", json!("1ms")),
            "`feed_max_age` must be at least",
        ),
    ] {
        let told = refusal(value.clone());
        assert!(told.contains(named), "{value}: {told}");
    }
}

#[test]
fn what_was_written_is_read_back() {
    let config = Config {
        path: "x.db".into(),
        max_size: Some(1 << 20),
        ..Config::default()
    };
    let again: Config = decode_value(&json!(config)).unwrap();
    assert_eq!(again, config);
    let inbox = InboxConfig::from(&config);
    let again: InboxConfig = decode_value(&json!(inbox)).unwrap();
    assert_eq!(again, inbox);
}

#[test]
fn a_file_has_one_identity_whatever_leads_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: PathBuf| {
        InboxConfig {
            path,
            ..InboxConfig::default()
        }
        .identity()
    };
    let plain = at(directory.path().join("x.db"));
    assert_eq!(at(directory.path().join("./x.db")), plain);
    assert_ne!(at(directory.path().join("y.db")), plain);
    std::fs::write(directory.path().join("x.db"), "").unwrap();
    std::os::unix::fs::symlink(directory.path().join("x.db"), directory.path().join("link.db")).unwrap();
    assert_eq!(at(directory.path().join("link.db")), plain);
}
