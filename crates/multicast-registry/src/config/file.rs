//! A file of namespaces, as `-config` takes it.

use std::path::Path as FilePath;

use prism_core::config::{Error, Path, Source};
use serde_json::Value;

use super::Namespace;

/// What a configuration file holds.
#[derive(Debug, Clone)]
pub struct File {
    /// The namespaces in the order of the file, with the tree that each was read from.
    pub namespaces: Vec<(Namespace, Value)>,
}

/// Reads a file: either `namespaces: [...]` or one namespace by itself, which takes the name
/// `fallback_name` if it has none.
///
/// # Errors
/// The first thing that is not understood, with line and column.
pub fn load(path: &FilePath, fallback_name: Option<&str>) -> Result<File, Error> {
    read(&Source::load(path)?, fallback_name)
}

fn read(source: &Source, fallback_name: Option<&str>) -> Result<File, Error> {
    let namespaces = Path::root().key("namespaces");
    let Some(listed) = source.at(&namespaces) else {
        let one = Namespace::read(fallback_name, source.value()).map_err(|error| source.place(error))?;
        return Ok(File {
            namespaces: vec![(one, source.value().clone())],
        });
    };
    if let Some(stray) = source
        .value()
        .as_object()
        .and_then(|map| map.keys().find(|key| *key != "namespaces"))
    {
        let message = format!("unknown key `{stray}`, a runner's configuration has only `namespaces`");
        return Err(source.place(Error::new(Path::root().key(stray.clone()), message)));
    }
    let Some(listed) = listed.as_array().filter(|list| !list.is_empty()) else {
        let error = Error::new(namespaces, "expected a list with at least one namespace");
        return Err(source.place(error));
    };
    let mut file = File {
        namespaces: Vec::new(),
    };
    for (index, tree) in listed.iter().enumerate() {
        let at = namespaces.clone().index(index);
        let fallback = fallback_name.filter(|_| listed.len() == 1);
        let namespace = Namespace::read(fallback, tree).map_err(|error| source.place(error.within(&at)))?;
        if file
            .namespaces
            .iter()
            .any(|(other, _)| other.name == namespace.name)
        {
            let message = format!("the namespace `{}` is configured twice", namespace.name);
            return Err(source.place(Error::new(at.key("name"), message)));
        }
        file.namespaces.push((namespace, tree.clone()));
    }
    Ok(file)
}
