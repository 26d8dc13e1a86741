//! One namespace from the environment alone, the way container set-ups of the field start it.

use prism_core::config::Error;
use serde_json::{Map, Value, json};

use super::Namespace;

/// Makes a namespace of `REGISTRY_BACKEND REGISTRY_ADDR MESSAGING_BACKEND MESSAGING_SERVERS` and
/// `NAMESPACE`, if at least one of the two backends is named, and the tree that it was read from. A slot
/// without a backend is on memory.
///
/// # Errors
/// As [`Namespace::read`], with the environment's variables read as the corresponding keys.
pub fn from_environment(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<(Namespace, Value)>, Error> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let (registry, messaging) = (set("REGISTRY_BACKEND"), set("MESSAGING_BACKEND"));
    if registry.is_none() && messaging.is_none() {
        return Ok(None);
    }
    let servers = set("MESSAGING_SERVERS").map(|list| {
        list.split(',')
            .map(|server| json!(server.trim()))
            .collect::<Vec<Value>>()
    });
    let tree = json!({
        "slots": {
            "registry": slot(registry, "address", set("REGISTRY_ADDR").map(Value::String)),
            "messaging": slot(messaging, "servers", servers.map(Value::Array)),
        }
    });
    let namespace = Namespace::read(set("NAMESPACE").as_deref(), &tree)?;
    Ok(Some((namespace, tree)))
}

fn slot(backend: Option<String>, key: &str, address: Option<Value>) -> Value {
    let config: Map<String, Value> = address.map(|value| (key.to_owned(), value)).into_iter().collect();
    json!({ "backend": backend.unwrap_or_else(|| "memory".to_owned()), "config": config })
}
