//! Names that both ends of the control stream use for processes, sessions, commands and contents.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use rand::Rng;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The name under which a proxy knows one runner process: `<pattern>-<process id>-<random>`.
///
/// The random part is there because pattern and process id alone collide between containers, where
/// every process has the id 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct InstanceId(String);

impl InstanceId {
    /// A name that no other process has.
    pub fn generate(pattern: &str, process_id: i32) -> Self {
        Self(format!("{pattern}-{process_id}-{}", hex::encode(random::<4>())))
    }

    /// As it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a reconnecting runner shows to be recognised. Whoever holds it can take the runner's place, so
/// it is unguessable and its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionToken(Vec<u8>);

impl SessionToken {
    /// A new token of 16 random bytes.
    pub fn generate() -> Self {
        Self(random::<16>().to_vec())
    }

    /// A token as received; `None` when the peer sent none.
    pub fn from_wire(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// As it goes over the wire.
    pub fn to_wire(&self) -> Vec<u8> {
        self.0.clone()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(hidden)")
    }
}

/// Makes correlation ids: `<random prefix>-<number>`, unique for the life of the maker and, by the
/// prefix, between makers.
#[derive(Debug)]
pub struct CorrelationIds {
    prefix: String,
    next: AtomicU64,
}

impl CorrelationIds {
    /// A maker with a random prefix.
    pub fn new() -> Self {
        Self::with_prefix(hex::encode(random::<4>()))
    }

    /// A maker with a given prefix, for reproducible runs.
    pub fn with_prefix(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            next: AtomicU64::new(1),
        }
    }

    /// The next id.
    pub fn next(&self) -> String {
        format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for CorrelationIds {
    fn default() -> Self {
        Self::new()
    }
}

/// Identifies the content of a configuration: lower-case hex SHA-256 of its canonical form.
///
/// A foreign proxy may name contents in its own way, so a received digest can be any text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of a configuration.
    ///
    /// The order of keys does not matter, and numbers count as the doubles that they become on the
    /// wire, so that both ends compute the same digest of the same content.
    pub fn of(config: &Map<String, Value>) -> Self {
        let mut hasher = Sha256::new();
        hash_object(&mut hasher, config);
        Self(hex::encode(hasher.finalize()))
    }

    /// A digest as received; `None` when the peer sent none.
    pub fn from_wire(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// As it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every value starts with a tag of its type and, where it has one, its length: without them
/// `["ab"]` and `["a", "b"]` would run together.
fn hash_value(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hasher.update(b"z"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Number(number) => {
            // Adding zero turns -0 into 0, which the wire does not tell apart either.
            let number = number.as_f64().unwrap_or_default() + 0.0;
            hasher.update(b"n");
            hasher.update(number.to_be_bytes());
        }
        Value::String(text) => hash_text(hasher, text),
        Value::Array(items) => {
            hasher.update(b"a");
            hash_length(hasher, items.len());
            items.iter().for_each(|item| hash_value(hasher, item));
        }
        Value::Object(object) => hash_object(hasher, object),
    }
}

fn hash_object(hasher: &mut Sha256, object: &Map<String, Value>) {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    hasher.update(b"o");
    hash_length(hasher, entries.len());
    for (key, value) in entries {
        hash_text(hasher, key);
        hash_value(hasher, value);
    }
}

fn hash_text(hasher: &mut Sha256, text: &str) {
    hasher.update(b"s");
    hash_length(hasher, text.len());
    hasher.update(text.as_bytes());
}

fn hash_length(hasher: &mut Sha256, length: usize) {
    hasher.update((length as u64).to_be_bytes());
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(value: Value) -> Digest {
        let Value::Object(object) = value else {
            panic!("not an object: {value}")
        };
        Digest::of(&object)
    }

    #[test]
    fn two_processes_with_the_same_id_get_different_names() {
        let first = InstanceId::generate("multicast-registry", 1);
        assert!(first.as_str().starts_with("multicast-registry-1-"));
        assert_ne!(first, InstanceId::generate("multicast-registry", 1));
    }

    #[test]
    fn a_token_is_long_and_hides_itself() {
        let token = SessionToken::generate();
        assert!(token.to_wire().len() >= 16);
        assert_ne!(token, SessionToken::generate());
        assert_eq!(format!("{token:?}"), "SessionToken(hidden)");
        assert_eq!(SessionToken::from_wire(token.to_wire()), Some(token));
        assert_eq!(SessionToken::from_wire(Vec::new()), None);
    }

    #[test]
    fn correlation_ids_never_repeat() {
        let (ids, others) = (CorrelationIds::new(), CorrelationIds::new());
        let drawn: std::collections::HashSet<_> =
            (0..100).flat_map(|_| [ids.next(), others.next()]).collect();
        assert_eq!(drawn.len(), 200);
    }

    #[test]
    fn a_digest_ignores_the_order_of_keys_and_the_spelling_of_numbers() {
        let one: Map<String, Value> =
            serde_json::from_str(r#"{"a": 1, "b": {"c": -0.0, "d": 6379}}"#).unwrap();
        let two: Map<String, Value> =
            serde_json::from_str(r#"{"b": {"d": 6379.0, "c": 0}, "a": 1e0}"#).unwrap();
        assert_eq!(Digest::of(&one), Digest::of(&two));
    }

    #[test]
    fn a_digest_tells_contents_apart() {
        let contents = [
            json!({}),
            json!({"a": null}),
            json!({"a": false}),
            json!({"a": 0}),
            json!({"a": "0"}),
            json!({"a": []}),
            json!({"a": {}}),
            json!({"a": ["ab"]}),
            json!({"a": ["a", "b"]}),
            json!({"a": [["a"], "b"]}),
            json!({"a": {"b": 1}}),
            json!({"a": {}, "b": 1}),
        ];
        let digests: std::collections::HashSet<_> = contents.iter().cloned().map(digest).collect();
        assert_eq!(digests.len(), contents.len());
    }
}
