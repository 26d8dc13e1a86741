//! What a plugin says about itself: `plugin-manifest.yaml`.

use std::path::{Path as FilePath, PathBuf};

use prism_core::config::{Error, Path, Source, decode_value};
use serde::Deserialize;
use serde_json::Value;

/// The parts of a plugin manifest that the proxy uses; the rest is for people and packagers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The pattern, e.g. `multicast-registry`.
    pub name: String,
    /// Of the plugin.
    pub version: String,
    /// The program: a path relative to the manifest, or a bare name to be found beside this program or on
    /// the search path.
    pub executable: PathBuf,
    /// JSON Schema of one namespace's configuration, without `name`, `pattern` and `pattern_version`.
    pub config_schema: Option<Value>,
}

#[derive(Deserialize)]
struct Document {
    name: String,
    version: String,
    executable: PathBuf,
    #[serde(default)]
    config_schema: Option<Value>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// A file that cannot be read or lacks a key that is needed, with line and column.
    pub fn load(file: &FilePath) -> Result<Self, Error> {
        let source = Source::load(file)?;
        let manifest = Self::read(source.value()).map_err(|error| source.place(error))?;
        let relative = manifest.executable.components().count() > 1;
        let base = file.parent().unwrap_or(FilePath::new(""));
        let executable = if relative {
            base.join(&manifest.executable)
        } else {
            manifest.executable
        };
        Ok(Self {
            executable,
            ..manifest
        })
    }

    /// Takes a manifest from a tree.
    ///
    /// # Errors
    /// As [`Self::load`], without positions.
    pub fn read(tree: &Value) -> Result<Self, Error> {
        let Document {
            name,
            version,
            executable,
            config_schema,
        } = decode_value(tree)?;
        if !matches!(config_schema, None | Some(Value::Object(_))) {
            return Err(Error::new(
                Path::root().key("config_schema"),
                "expected a JSON Schema, a mapping",
            ));
        }
        Ok(Self {
            name,
            version,
            executable,
            config_schema,
        })
    }

    /// Whether a namespace of this pattern is for this plugin. Dashes and underscores are the same.
    pub fn serves(&self, pattern: &str) -> bool {
        let plain = |name: &str| name.replace('_', "-");
        plain(&self.name) == plain(pattern)
    }
}
