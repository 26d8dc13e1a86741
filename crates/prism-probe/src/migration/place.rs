//! Places in metadata, and the difference between two states of it.

use prism_filter::Path;
use serde_json::{Map, Value};

use super::{Problem, problem};

/// The value that keys lead to.
pub(super) fn get<'a>(tree: &'a Map<String, Value>, keys: &[Box<str>]) -> Option<&'a Value> {
    let (last, parents) = keys.split_last()?;
    let mut at = tree;
    for parent in parents {
        at = at.get(&**parent)?.as_object()?;
    }
    at.get(&**last)
}

/// Puts a value in its place, with the objects that lead there.
pub(super) fn put(tree: &mut Map<String, Value>, path: &Path, value: Value) -> Result<(), Problem> {
    let Some((last, parents)) = path.keys().split_last() else {
        return Ok(());
    };
    let mut at = tree;
    for parent in parents {
        let below = at
            .entry(parent.to_string())
            .or_insert_with(|| Value::Object(Map::new()));
        at = below
            .as_object_mut()
            .ok_or_else(|| problem(path, "cannot be written, what holds it is no object"))?;
    }
    at.insert(last.to_string(), value);
    Ok(())
}

/// Takes a value away, and the objects that held nothing else.
pub(super) fn take(tree: &mut Map<String, Value>, keys: &[Box<str>]) {
    let Some((first, rest)) = keys.split_first() else {
        return;
    };
    if rest.is_empty() {
        tree.remove(&**first);
        return;
    }
    if let Some(Value::Object(below)) = tree.get_mut(&**first) {
        take(below, rest);
        if below.is_empty() {
            tree.remove(&**first);
        }
    }
}

/// The merge patch (RFC 7396) from one state to another, as far as one can say it.
pub(super) fn diff(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match (before.get(key), value) {
            (Some(same), value) if same == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(key.clone(), Value::Object(diff(before, after)));
            }
            (_, value) => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}
