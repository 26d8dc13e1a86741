//! One namespace: what the proxy reads of it, and what it only passes on.

use std::collections::HashSet;

use prism_core::{
    config::{Error, Path, decode_value, nearest},
    id::Digest,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Manifest, schema};

/// The keys that are the proxy's own and are not passed on.
const OWN: [&str; 3] = ["name", "pattern", "pattern_version"];

/// Longest name of a namespace, in bytes.
const MAX_NAME: usize = 128;

/// What to do with the data of a namespace whose slots move elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnMove {
    /// Refuse the change.
    #[default]
    Refuse,
    /// Begin anew without it.
    Discard,
}

/// A namespace as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    /// Unique among all.
    pub name: String,
    /// The pattern that serves it, e.g. `multicast-registry`.
    pub pattern: String,
    /// Of the pattern; may be empty.
    pub pattern_version: String,
    /// Read here and by the runner.
    pub on_move: OnMove,
    /// What the runner is given: slots, behavior and whatever else its pattern reads.
    pub config: Map<String, Value>,
    /// Of `config`.
    pub digest: Digest,
}

/// Reads the list of namespaces. Paths in errors begin at the document's root.
pub(super) fn read_all(entries: &[Value], manifests: &[Manifest]) -> Result<Vec<Namespace>, Error> {
    let mut seen = HashSet::new();
    let mut namespaces = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = Path::root().key("namespaces").index(index);
        let namespace = read(entry, &at, manifests)?;
        if !seen.insert(namespace.name.clone()) {
            let message = format!("the namespace `{}` is declared twice", namespace.name);
            return Err(Error::new(at.key("name"), message));
        }
        namespaces.push(namespace);
    }
    Ok(namespaces)
}

fn read(entry: &Value, at: &Path, manifests: &[Manifest]) -> Result<Namespace, Error> {
    let Value::Object(entry) = entry else {
        return Err(Error::new(
            at.clone(),
            "expected a mapping with `name` and `pattern`",
        ));
    };
    let name: String = required(entry, "name", at)?;
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_plain) {
        let message = format!("`{name}` is no name, use 1 to {MAX_NAME} of `a-z A-Z 0-9 - _ .`");
        return Err(Error::new(at.clone().key("name"), message));
    }
    let pattern = match (required(entry, "pattern", at), manifests) {
        // Only one thing can be meant.
        (Err(error), [only]) if error.suggestion.is_none() && !entry.contains_key("pattern") => {
            only.name.clone()
        }
        (pattern, _) => pattern?,
    };
    let manifest = manifest_of(&pattern, manifests, at)?;
    let config: Map<_, _> = entry
        .iter()
        .filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let Some(schema) = manifest.and_then(|manifest| manifest.config_schema.as_ref()) {
        schema::check(schema, &config, at, &OWN)?;
    }
    Ok(Namespace {
        name,
        pattern,
        pattern_version: optional(entry, "pattern_version", at)?.unwrap_or_default(),
        on_move: optional(entry, "on_move", at)?.unwrap_or_default(),
        digest: Digest::of(&config),
        config,
    })
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

/// The manifest of a pattern. A pattern that no known plugin serves is somebody else's, unless it is
/// nearly the name of one.
fn manifest_of<'a>(
    pattern: &str,
    manifests: &'a [Manifest],
    at: &Path,
) -> Result<Option<&'a Manifest>, Error> {
    let found = manifests.iter().find(|manifest| manifest.serves(pattern));
    let names = manifests.iter().map(|manifest| manifest.name.as_str());
    match nearest(pattern, names) {
        Some(near) if found.is_none() => {
            let message = format!("no plugin serves the pattern `{pattern}`");
            Err(Error::new(at.clone().key("pattern"), message).suggest(Some(near)))
        }
        _ => Ok(found),
    }
}

fn required<T: serde::de::DeserializeOwned>(
    entry: &Map<String, Value>,
    key: &str,
    at: &Path,
) -> Result<T, Error> {
    optional(entry, key, at)?.ok_or_else(|| {
        let close = nearest(key, entry.keys().map(String::as_str))
            .filter(|close| !entry.contains_key(key) && *close != key);
        match close {
            Some(close) if close.len().abs_diff(key.len()) <= 2 => {
                Error::new(at.clone().key(close), format!("unknown key `{close}`")).suggest(Some(key))
            }
            _ => Error::new(at.clone(), format!("missing key `{key}`")),
        }
    })
}

fn optional<T: serde::de::DeserializeOwned>(
    entry: &Map<String, Value>,
    key: &str,
    at: &Path,
) -> Result<Option<T>, Error> {
    let value = entry.get(key).filter(|value| !value.is_null());
    value
        .map(|value| decode_value(value).map_err(|error| error.within(&at.clone().key(key))))
        .transpose()
}
