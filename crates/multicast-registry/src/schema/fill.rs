//! Writes in what is missing: defaults, automatic values, the primary key.

use prism_filter::{Document, ObjectRef, ValueRef};
use serde_json::{Map, Value, json};

use super::{
    Field, Fields, Occasion, Schema, Violation,
    check::{Step, Trail, lookup},
};

/// A document with everything written in. One that lacks nothing is returned as it is.
pub(super) fn complete(
    schema: &Schema,
    identity: &str,
    document: Document,
    now: i64,
    occasion: Occasion,
) -> Result<Document, Violation> {
    let key = schema
        .primary_key
        .as_ref()
        .filter(|key| document.get(key).is_none());
    if key.is_none() && !lacks(&schema.inside, document.root(), occasion) {
        return Ok(document);
    }
    let Value::Object(mut tree) = document.to_value() else {
        return Ok(document);
    };
    let root = Trail::root();
    Filling { now, occasion }.inside(&schema.inside, &mut tree, &root)?;
    if let Some(key) = key {
        insert(&mut tree, key.keys(), json!(identity), &root)?;
    }
    Document::from_value(&Value::Object(tree)).map_err(|error| Violation {
        field: error.path().unwrap_or_default().to_owned(),
        problem: error.to_string(),
    })
}

fn lacks(inside: &Fields, object: ObjectRef<'_>, occasion: Occasion) -> bool {
    let lacking = |field: &Field| match lookup(object, &field.keys) {
        None => field.auto_now || field.default.is_some(),
        Some(_) if field.auto_now => occasion == Occasion::Registered,
        Some(ValueRef::Object(found)) => field
            .inside()
            .is_some_and(|inside| lacks(inside, found, occasion)),
        Some(_) => false,
    };
    inside.fills && inside.fields.iter().filter(|field| field.fills()).any(lacking)
}

struct Filling {
    now: i64,
    occasion: Occasion,
}

impl Filling {
    fn inside(
        &self,
        inside: &Fields,
        tree: &mut Map<String, Value>,
        trail: &Trail<'_>,
    ) -> Result<(), Violation> {
        for field in inside.fields.iter().filter(|field| field.fills()) {
            let is_absent = find(tree, &field.keys).is_none();
            if let Some(value) = self.value(field, is_absent) {
                insert(tree, &field.keys, value, trail)?;
            }
            if let (Some(inside), Some(Value::Object(found))) = (field.inside(), find(tree, &field.keys)) {
                self.inside(inside, found, &trail.then(Step::Keys(&field.keys)))?;
            }
        }
        Ok(())
    }

    fn value(&self, field: &Field, is_absent: bool) -> Option<Value> {
        if field.auto_now && (is_absent || self.occasion == Occasion::Registered) {
            return Some(json!(self.now));
        }
        field.default.clone().filter(|_| is_absent)
    }
}

fn find<'a>(tree: &'a mut Map<String, Value>, keys: &[Box<str>]) -> Option<&'a mut Value> {
    let (last, parents) = keys.split_last()?;
    let mut at = tree;
    for parent in parents {
        at = at.get_mut(&**parent)?.as_object_mut()?;
    }
    at.get_mut(&**last)
}

fn insert(
    tree: &mut Map<String, Value>,
    keys: &[Box<str>],
    value: Value,
    trail: &Trail<'_>,
) -> Result<(), Violation> {
    let Some((last, parents)) = keys.split_last() else {
        return Ok(());
    };
    let mut at = tree;
    for parent in parents {
        let below = at
            .entry(parent.to_string())
            .or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(below) = below else {
            let problem = "cannot be filled in, what holds it is no object";
            return Err(trail.then(Step::Keys(keys)).violation(problem));
        };
        at = below;
    }
    at.insert(last.to_string(), value);
    Ok(())
}
