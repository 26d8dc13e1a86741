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
    let file = chosen(options, None)?;
    let Some(file) = file else {
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
fn chosen(options: &Options, named: Option<&PathBuf>) -> anyhow::Result<Option<File>> {
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
    let default = Path::new(DEFAULT_FILE);
    if options.proxies().is_empty() && default.exists() {
        tracing::info!(file = DEFAULT_FILE, "loading configuration");
        return Ok(Some(load(default, fallback)?));
    }
    Ok(None)
}

/// `config print` and `config validate`.
#[allow(clippy::print_stderr)] // these commands talk to people, not to a log
pub(crate) fn show(command: &ConfigCommand, options: &Options) -> ExitCode {
    let (ConfigCommand::Print { file } | ConfigCommand::Validate { file }) = command;
    let loaded = match chosen(options, file.as_ref()) {
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
