//! The names of a namespace's keys.

use std::fmt::Write;

use bytes::Bytes;
use fred::util::redis_keyslot;

/// In the order in which every function is given them.
const PARTS: [&str; 6] = ["head", "records", "terms", "leases", "feed", "marks"];

/// The keys of one namespace. They share one hash tag, so that a cluster keeps them on one node.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) names: [Bytes; 6],
    /// The slot of a cluster that they are in.
    pub(crate) slot: u16,
}

impl Keys {
    /// `prefix` has no braces.
    pub(crate) fn new(prefix: &str, namespace: &str) -> Self {
        let names = PARTS.map(|part| Bytes::from(key(prefix, namespace, &format!("registry:{part}"))));
        let slot = redis_keyslot(&names[0]);
        Self { names, slot }
    }

    /// The stream of changes.
    pub(crate) fn feed(&self) -> &Bytes {
        &self.names[4]
    }
}

/// A key of a namespace: what all of them have in common is their hash tag.
pub(crate) fn key(prefix: &str, namespace: &str, name: &str) -> String {
    format!("{{{prefix}{}}}:{name}", escaped(namespace))
}

/// A brace in the name would end the hash tag early.
fn escaped(namespace: &str) -> String {
    let mut text = String::with_capacity(namespace.len());
    for char in namespace.chars() {
        match char {
            '{' | '}' | '%' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{:02X}", u32::from(char));
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_namespace_are_in_one_slot() {
        for namespace in ["default", "a{b}c", "}", "{}", "100%"] {
            let keys = Keys::new("device:", namespace);
            assert!(
                keys.names.iter().all(|name| redis_keyslot(name) == keys.slot),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn what_slots_store_for_a_namespace_is_side_by_side_and_apart() {
        let (registry, inbox) = (Keys::new("p:", "a").names, key("p:", "a", "inbox:head"));
        assert_eq!(redis_keyslot(inbox.as_bytes()), redis_keyslot(&registry[0]));
        assert!(!registry.contains(&Bytes::from(inbox)));
    }

    #[test]
    fn the_feed_is_the_feed() {
        assert!(Keys::new("p:", "a").feed().ends_with(b":feed"));
    }

    #[test]
    fn no_two_namespaces_share_a_key() {
        let names = ["a", "a}", "a%7D", "a:registry:head", "{a"];
        for one in names {
            for other in names {
                let same = Keys::new("p", one).names[0] == Keys::new("p", other).names[0];
                assert_eq!(same, one == other, "`{one}` and `{other}`");
            }
        }
    }

    #[test]
    fn keys_are_named_after_prefix_and_namespace() {
        assert_eq!(
            Keys::new("device:", "fleet").names[0],
            "{device:fleet}:registry:head"
        );
    }
}
