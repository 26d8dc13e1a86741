//! `indexes` beside a registry slot's backend: the same as `index: true` in the schema.

use prism_core::config::{Error, Path as At};
use prism_filter::Path;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::schema::{Schema, Type};

/// One index as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    field: String,
    /// The kind of index, as some backends call it. What a field holds decides that here, so it must suit.
    #[serde(rename = "type")]
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// For values with an order.
    Btree,
    /// For values that are equal or not.
    Hash,
    /// For what is in arrays and objects.
    Gin,
    /// For places.
    Gist,
}

impl Kind {
    fn suits(self, kind: &Type) -> bool {
        let compound = matches!(kind, Type::Array(_) | Type::Object(_));
        match self {
            Self::Btree | Self::Hash => !compound && *kind != Type::GeoPoint,
            Self::Gin => compound,
            Self::Gist => *kind == Type::GeoPoint,
        }
    }
}

/// The indexed paths, each once; errors are at the slots.
pub(super) fn read(written: &Option<(At, Vec<Index>)>, schema: Option<&Schema>) -> Result<Vec<Path>, Error> {
    let Some((at, written)) = written else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::with_capacity(written.len());
    for (number, index) in written.iter().enumerate() {
        let at = |key: &str| at.clone().index(number).key(key);
        let path = Path::parse(&index.field).map_err(|error| Error::new(at("field"), error.to_string()))?;
        if path.system().is_some() {
            let message = format!("`{path}` is a system field, which needs no index");
            return Err(Error::new(at("field"), message));
        }
        let declared = schema.and_then(|schema| schema.type_at(&path));
        if let (Some(kind), Some(declared)) = (index.kind, declared)
            && !kind.suits(declared)
        {
            let message = format!("does not suit `{path}`, which is `{declared}`; leave it out");
            return Err(Error::new(at("type"), message));
        }
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    Ok(paths)
}

pub(super) fn to_value(paths: &[Path]) -> Value {
    let index = |path: &Path| json!({ "field": path.to_string() });
    Value::Array(paths.iter().map(index).collect())
}
