//! What a namespace is configured with (DESIGN §10).
//!
//! One namespace arrives as a tree, from a file or pushed by the proxy, in either of two dialects:
//! `slots: {registry: {backend, interfaces, config}}` with `behavior`, or
//! `backend_slots: {registry: {type, host, …}}` with `identity_schema` and `needs`. Both become one
//! [`Namespace`], whose tree form ([`Namespace::to_value`]) is what `config print` shows.
//!
//! A key that is not understood, or that asks for what cannot be given, is an error with its path.

mod behavior;
mod document;
mod durability;
mod environment;
mod file;
mod guarantees;
mod index;
mod needs;
mod rate;
mod slot;

#[cfg(test)]
mod tests;

pub use behavior::{
    Behavior, KeepReceipts, LongTtl, MAX_CALL_TIMEOUT, ReadConsistency, SchemaChange, Semantics, StoreLoss,
    ViewKind,
};
pub use document::{Backend, backend_schemas, manifest_schema, reference};
pub use durability::DurabilitySlot;
pub use environment::from_environment;
pub use file::{File, load};
pub use guarantees::{brokers, guarantees, inboxes, ledgers, registries};
pub use needs::Needs;
pub use rate::Rate;
pub use slot::{MessagingSlot, RegistrySlot, Slots};

use prism_core::config::{Error, Path, decode_value};
use prism_filter::Path as MetadataPath;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::schema::Schema;

/// The pattern's name. `multicast_registry` is accepted as the same.
pub const PATTERN: &str = "multicast-registry";

/// One namespace, understood and checked.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The version of the pattern that it is written for.
    pub pattern_version: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// For people: what each operation is used for.
    pub operations: Option<Value>,
    /// Which backends fill its slots.
    pub slots: Slots,
    /// How it behaves.
    pub behavior: Behavior,
    /// What metadata must look like.
    pub schema: Option<Schema>,
    /// The fields that are indexed because the registry slot says so.
    pub indexes: Vec<MetadataPath>,
    /// What it asks of its slots as a whole.
    pub needs: Needs,
    /// What happens when its data is to live somewhere else.
    pub on_move: OnMove,
}

/// What happens when a changed configuration points a slot at other data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMove {
    /// The change is refused.
    #[default]
    Refuse,
    /// The namespace starts over on the new data; sessions are closed and clients register again.
    Discard,
}

/// A namespace as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    pattern: Option<String>,
    pattern_version: Option<String>,
    description: Option<String>,
    operations: Option<Value>,
    slots: Option<Value>,
    backend_slots: Option<Value>,
    #[serde(default)]
    behavior: Behavior,
    identity_schema: Option<Value>,
    #[serde(default)]
    needs: Needs,
    #[serde(default)]
    on_move: OnMove,
}

impl Namespace {
    /// Reads one namespace. `name` is used when the tree carries none.
    ///
    /// # Errors
    /// The first thing that is not understood or cannot be given; its path begins at the namespace.
    pub fn read(name: Option<&str>, tree: &Value) -> Result<Self, Error> {
        let written: Written = decode_value(tree)?;
        let at = |key: &str| Path::root().key(key);
        check_pattern(written.pattern.as_deref()).map_err(|message| Error::new(at("pattern"), message))?;
        check_version(written.pattern_version.as_deref())
            .map_err(|message| Error::new(at("pattern_version"), message))?;
        let name = written.name.as_deref().or(name).unwrap_or("default");
        check_name(name).map_err(|message| Error::new(at("name"), message))?;
        let (key, slots) = match (written.slots, written.backend_slots) {
            (Some(slots), None) => ("slots", slots),
            (None, Some(slots)) => ("backend_slots", slots),
            (Some(_), Some(_)) => {
                let message = "`slots` and `backend_slots` say the same in two ways, keep one";
                return Err(Error::new(at("backend_slots"), message));
            }
            (None, None) => {
                let message =
                    "missing key `slots`: name a backend for `slots.registry` and `slots.messaging`";
                return Err(Error::new(Path::root(), message));
            }
        };
        let (slots, from_slots) = Slots::read(&slots).map_err(|error| error.within(&at(key)))?;
        let schema = written.identity_schema.as_ref().map(Schema::read).transpose();
        let mut namespace = Self {
            name: name.to_owned(),
            pattern_version: written.pattern_version,
            description: written.description,
            operations: written.operations,
            slots,
            behavior: written.behavior,
            schema: schema.map_err(|error| error.within(&at("identity_schema")))?,
            indexes: Vec::new(),
            needs: written.needs,
            on_move: written.on_move,
        };
        namespace
            .behavior
            .take(&from_slots)
            .and_then(|()| index::read(&from_slots.indexes, namespace.schema.as_ref()))
            .map(|indexes| namespace.indexes = indexes)
            .map_err(|error| error.within(&at(key)))?;
        namespace
            .behavior
            .check()
            .map_err(|error| error.within(&at("behavior")))?;
        let sets = |key: &str| {
            tree.get("behavior")
                .is_some_and(|behavior| behavior.get(key).is_some())
        };
        if namespace.behavior.view == ViewKind::None {
            let unkept = |path: &MetadataPath, key| {
                let message = format!("`{path}` is to be indexed, and `behavior.view: none` keeps no index");
                Error::new(at(key), message)
            };
            if let Some(path) = namespace.indexes.first() {
                return Err(unkept(path, key));
            }
            if let Some(path) = namespace.schema.iter().flat_map(Schema::indexed).next() {
                return Err(unkept(&path, "identity_schema"));
            }
        }
        let at_least_once = namespace.behavior.delivery != Semantics::AtMostOnce;
        if at_least_once && namespace.slots.durability.is_none() {
            let message =
                "all but `at-most-once` needs a durability slot, name a backend for `slots.durability`";
            return Err(Error::new(at("behavior").key("delivery"), message));
        }
        needs::apply(&mut namespace, sets).map_err(|error| error.within(&at("needs")))?;
        Ok(namespace)
    }

    /// The canonical tree, from which [`Self::read`] makes an equal namespace.
    pub fn to_value(&self) -> Value {
        let mut tree = Map::new();
        tree.insert("name".into(), json!(self.name));
        tree.insert("pattern".into(), json!(PATTERN));
        let optional = [
            (
                "pattern_version",
                self.pattern_version.as_ref().map(|text| json!(text)),
            ),
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("operations", self.operations.clone()),
            ("identity_schema", self.schema.as_ref().map(Schema::to_value)),
        ];
        tree.extend(
            optional
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?))),
        );
        tree.insert("slots".into(), self.slots.to_value());
        if !self.indexes.is_empty() {
            tree["slots"]["registry"]["indexes"] = index::to_value(&self.indexes);
        }
        tree.insert("behavior".into(), json!(self.behavior));
        tree.insert("needs".into(), json!(self.needs));
        tree.insert("on_move".into(), json!(self.on_move));
        Value::Object(tree)
    }
}

fn check_pattern(pattern: Option<&str>) -> Result<(), String> {
    match pattern {
        None | Some(PATTERN | "multicast_registry") => Ok(()),
        Some(other) => Err(format!(
            "this runner serves the pattern `{PATTERN}`, not `{other}`"
        )),
    }
}

/// `v1`, `1`, `1.2.0`: within a major version everything that was valid stays valid.
fn check_version(version: Option<&str>) -> Result<(), String> {
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return Ok(());
    };
    let major = version.trim_start_matches('v').split('.').next();
    if major != Some("1") {
        return Err(format!(
            "this runner serves version `v1` of the pattern, not `{version}`"
        ));
    }
    Ok(())
}

/// A namespace travels in request metadata and metric labels, so its alphabet is small.
fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
        return Err(format!(
            "`{name}` is no namespace name, use 1 to 128 of the characters `a-z A-Z 0-9 - _ .`"
        ));
    }
    Ok(())
}
