//! What a person sees who mistypes a configuration.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default, deserialize_with = "optional_duration_ms")]
    timeout: Option<Duration>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Namespace {
    name: String,
    #[serde(default)]
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Slot {
    backend: Backend,
    #[serde(default)]
    port: u16,
    #[serde(default, deserialize_with = "one_or_many")]
    servers: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Backend {
    Redis,
    Nats,
}

fn refusal(text: &str) -> String {
    let source = match Source::parse("test.yaml", text) {
        Ok(source) => source,
        Err(error) => return error.to_string(),
    };
    source.decode::<Config>().unwrap_err().to_string()
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
    let text =
        "namespaces:\n  - name: a\n    slots:\n      registry:\n        backend: redis\n        sevrers: x\n";
    assert_eq!(
        refusal(text),
        "test.yaml:6:9: namespaces[0].slots.registry.sevrers: unknown key `sevrers`, did you mean `servers`?"
    );
}

#[test]
fn an_unknown_key_far_from_all_lists_them() {
    assert_eq!(
        refusal("qqq: 1\n"),
        "test.yaml:1:1: qqq: unknown key `qqq`, expected `namespaces` or `timeout`"
    );
}

#[test]
fn a_wrong_type_points_at_the_value() {
    assert_eq!(
        refusal("namespaces:\n  - name: a\n    slots: {registry: {backend: redis, port: many}}\n"),
        "test.yaml:3:46: namespaces[0].slots.registry.port: expected an integer from `0` to `65535`, found `many`"
    );
    assert_eq!(
        refusal("namespaces: 5\n"),
        "test.yaml:1:13: namespaces: expected a list, found `5`"
    );
}

#[test]
fn a_value_out_of_range_says_the_range() {
    assert_eq!(
        refusal("namespaces:\n  - name: a\n    slots:\n      registry: {backend: nats, port: 65536}\n"),
        "test.yaml:4:39: namespaces[0].slots.registry.port: expected an integer from `0` to `65535`, found `65536`"
    );
    assert_eq!(
        refusal("timeout: -5\n"),
        "test.yaml:1:10: timeout: expected a duration like `500ms` or `5s`, or a number of milliseconds, found `-5`"
    );
}

#[test]
fn an_unknown_value_of_an_enumeration_suggests_one() {
    let text = "namespaces: [{name: a, slots: {registry: {backend: rediss}}}]";
    assert_eq!(
        refusal(text),
        "test.yaml:1:52: namespaces[0].slots.registry.backend: unknown value `rediss`, expected `redis` or `nats`, \
         did you mean `redis`?"
    );
}

#[test]
fn a_missing_key_points_at_its_mapping() {
    assert_eq!(
        refusal("namespaces:\n  - slots: {}\n"),
        "test.yaml:2:5: namespaces[0]: missing key `name`"
    );
}

#[test]
fn a_duplicate_key_is_refused_where_it_repeats() {
    let text = refusal("timeout: 5s\nnamespaces: []\ntimeout: 6s\n");
    assert!(
        text.starts_with("test.yaml:3:1: ") && text.contains("duplicate") && text.contains("timeout"),
        "{text}"
    );
}

#[test]
fn broken_yaml_is_refused_with_its_place() {
    for text in [
        "namespaces:\n\t- name: a\n",
        "namespaces: [\n",
        "a: b: c\n",
        "a: 1\n---\nb: 2\n",
        "a: *nowhere\n",
    ] {
        let error = Source::parse("test.yaml", text).unwrap_err();
        assert!(error.line.is_some() && error.column.is_some(), "{error}");
        assert!(
            !error.message.contains('\n') && !error.message.contains(" at line "),
            "{error}"
        );
    }
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let above = level - 1;
        let list = vec![format!("*a{above}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    let error = Source::parse("test.yaml", &text).unwrap_err();
    assert!(error.line.is_some(), "{error}");
}

#[test]
fn deep_nesting_and_large_texts_are_refused() {
    assert!(Source::parse("test.yaml", &"[".repeat(10_000)).is_err());
    let large = format!("a: {}", "x".repeat(MAX_SOURCE_BYTES));
    let error = Source::parse("test.yaml", &large).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn anchors_and_merge_keys_expand() {
    let text = "base: &base {backend: redis, port: 6379}\nslot:\n  <<: *base\n  port: 6380\n";
    let source = Source::parse("test.yaml", text).unwrap();
    let slot: Slot = source.decode_at(&Path::root().key("slot")).unwrap();
    assert_eq!((slot.backend, slot.port), (Backend::Redis, 6380));
}

#[test]
fn an_empty_text_is_an_empty_mapping() {
    for text in ["", "# nothing\n", "---\n", "null\n"] {
        let source = Source::parse("test.yaml", text).unwrap();
        assert_eq!(
            source.decode::<Config>().unwrap(),
            Config {
                namespaces: Vec::new(),
                timeout: None
            },
            "{text:?}"
        );
    }
}

#[test]
fn seeds_of_yaml_that_look_like_something_else_stay_texts() {
    let source = Source::parse(
        "t",
        "a: <10ms\nb: enum[online, away]\nc: on\nd: 10000+ services\n",
    )
    .unwrap();
    assert_eq!(
        *source.value(),
        json!({"a": "<10ms", "b": "enum[online, away]", "c": "on", "d": "10000+ services"})
    );
}

#[test]
fn a_tree_from_the_wire_decodes_with_doubles() {
    let tree = json!({"name": "a", "slots": {"registry": {"backend": "redis", "port": 6379.0}}});
    let namespace: Namespace = decode_value(&tree).unwrap();
    assert_eq!(namespace.slots["registry"].port, 6379);

    let tree = json!({"name": "a", "slots": {"registry": {"backend": "redis", "port": 6379.5}}});
    let error = decode_value::<Namespace>(&tree).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slots.registry.port: expected an integer from `0` to `65535`, found `6379.5`"
    );
}

#[test]
fn an_error_about_a_subtree_finds_its_place_in_the_file() {
    let text = "namespaces:\n  - name: a\n    slots:\n      registry: {backend: redis, port: 70000}\n";
    let source = Source::parse("test.yaml", text).unwrap();
    let path = Path::root()
        .key("namespaces")
        .index(0)
        .key("slots")
        .key("registry");
    let error = decode_value::<Slot>(source.at(&path).unwrap()).unwrap_err();
    let error = source.place(error.within(&path));
    assert_eq!((error.line, error.column), (Some(4), Some(40)));
    assert_eq!(source.locate_key(&path), Some((4, 7)));
    assert_eq!(source.locate(&path), Some((4, 17)));
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let error = Source::load(std::path::Path::new("/nonexistent/prism.yaml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/prism.yaml: the file cannot be read: "),
        "{error}"
    );
}
