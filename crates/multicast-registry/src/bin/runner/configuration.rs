//! Where the runner's own namespaces come from, and a look at them.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use multicast_registry::config::{File, Namespace, from_environment, load};
use prism_plugin_sdk::Initialize;
use serde_json::{Value, json};

use crate::cli::{ConfigCommand, Options};

/// Read when nothing else says what to serve.
const DEFAULT_FILE: &str = "/etc/prism/config.yaml";

/// The namespaces to serve without being told by a proxy.
pub(crate) fn initial(options: &Options) -> anyhow::Result<Vec<Initialize>> {
    let Some(file) = chosen(options, None, Path::new(DEFAULT_FILE))? else {
        if options.proxies().is_empty() && !options.can_be_dialled() {
            bail!(
                "nothing to serve: give `-proxy-addr` or `-config`, or set `REGISTRY_BACKEND`; or give \
                 `-grpc-port` for a proxy that dials in"
            );
        }
        return Ok(Vec::new());
    };
    Ok(file
        .namespaces
        .into_iter()
        .map(|(namespace, tree)| initialize(namespace, tree))
        .collect())
}

fn initialize(namespace: Namespace, tree: Value) -> Initialize {
    tracing::info!(
        namespace = namespace.name,
        pattern = multicast_registry::config::PATTERN,
        version = namespace.pattern_version.as_deref().unwrap_or("v1"),
        "running multicast registry pattern"
    );
    let config = match tree {
        Value::Object(config) => config,
        _ => serde_json::Map::new(),
    };
    Initialize {
        version: namespace.pattern_version.unwrap_or_default(),
        namespace: namespace.name,
        config,
        config_version: 0,
        config_digest: String::new(),
    }
}

/// The configuration by precedence: a named file, the environment, the default file.
fn chosen(options: &Options, named: Option<&PathBuf>, default: &Path) -> anyhow::Result<Option<File>> {
    let fallback = options.namespace.as_deref();
    if let Some(path) = named.or(options.config.as_ref()) {
        tracing::info!(file = %path.display(), "loading configuration");
        return Ok(Some(load(path, fallback)?));
    }
    if let Some(made) = from_environment(|name| std::env::var(name).ok())? {
        return Ok(Some(File {
            namespaces: vec![made],
        }));
    }
    if options.proxies().is_empty() && default.exists() {
        tracing::info!(file = %default.display(), "loading configuration");
        return Ok(Some(load(default, fallback)?));
    }
    Ok(None)
}

/// `config print` and `config validate`.
#[allow(clippy::print_stderr)] // these commands talk to people, not to a log
pub(crate) fn show(command: &ConfigCommand, options: &Options) -> ExitCode {
    let (ConfigCommand::Print { file } | ConfigCommand::Validate { file }) = command;
    let loaded = match chosen(options, file.as_ref(), Path::new(DEFAULT_FILE)) {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            eprintln!("no configuration: name a file");
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let printed = match command {
        ConfigCommand::Print { .. } => print(&loaded),
        ConfigCommand::Validate { .. } => {
            let names: Vec<&str> = loaded
                .namespaces
                .iter()
                .map(|(namespace, _)| namespace.name.as_str())
                .collect();
            writeln!(io::stdout(), "valid: {}", names.join(", ")).map_err(Into::into)
        }
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(file: &File) -> anyhow::Result<()> {
    let namespaces: Vec<Value> = file
        .namespaces
        .iter()
        .map(|(namespace, _)| namespace.to_value())
        .collect();
    let text = serde_saphyr::to_string(&json!({ "namespaces": namespaces }))?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse;

    /// With no flag at all, the file of a container image is read; one that has a proxy is told by it.
    #[test]
    fn the_default_file_is_read_where_nothing_else_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        let chosen = |line| {
            let found = chosen(&parse(line), None, &file).unwrap();
            found.map(|file| file.namespaces[0].0.name.clone())
        };
        assert_eq!(chosen("-v"), None);
        std::fs::write(
            &file,
            "name: mounted\nslots: { registry: memory, messaging: memory }\n",
        )
        .unwrap();
        assert_eq!(chosen("-v").as_deref(), Some("mounted"));
        assert_eq!(chosen("-proxy-addr localhost:9090"), None);
    }
}
