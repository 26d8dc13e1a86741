//! The command line and the environment, laid over the configuration file.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use prism_core::{args, config::Source};
use prism_proxy::{
    config::{Config, Listen, Manifest},
    watch::FileWatch,
};
use serde_json::json;

/// Routes calls to the runners that serve their namespaces.
///
/// Runners dial the control port (multicast-registry-runner -proxy-addr HOST:PORT) or are started from
/// the file. An address is `host:port`, or `:port` for all interfaces; port 0 takes a free one. The bound
/// addresses are printed on standard output. Every long option can be written with one dash.
#[derive(Debug, Parser)]
#[command(name = "prism-proxy", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Read namespaces, limits and runners from this file, and again when it changes or on SIGHUP.
    #[arg(long, value_name = "FILE", env = "PRISM_CONFIG")]
    config: Option<PathBuf>,

    /// Where runners dial in [default: :9090].
    #[arg(long, value_name = "ADDRESS", env = "PRISM_CONTROL_ADDR")]
    control_addr: Option<String>,

    /// Where clients call [default: :8980].
    #[arg(long, value_name = "ADDRESS", env = "PRISM_DATA_ADDR")]
    data_addr: Option<String>,

    /// Where probes, metrics and the state of everything are [default: :8981].
    #[arg(long, value_name = "ADDRESS", env = "PRISM_ADMIN_ADDR")]
    admin_addr: Option<String>,

    /// Run the multicast registry in this process, by default on memory slots as the namespace `default`.
    #[arg(long, env = "PRISM_EMBEDDED")]
    pub(crate) embedded: bool,

    /// Log more: once for debug, twice for everything.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    pub(crate) verbosity: u8,
}

impl Options {
    /// Ends the process on a command line that makes no sense.
    pub(crate) fn from_command_line() -> Self {
        Self::parse_from(args::normalize(&Self::command(), std::env::args_os()))
    }

    /// The configuration, checked whole, and the file to follow.
    pub(crate) fn configuration(&self) -> anyhow::Result<(Config, Option<FileWatch>)> {
        // Looked at before it is read, so that no change is missed.
        let watch = self.config.as_ref().map(FileWatch::new);
        let config = match &self.config {
            Some(file) => {
                let base = file.parent().unwrap_or(Path::new(""));
                Config::check(&Source::load(file)?, base, &known_plugins()?)?
            }
            None if self.embedded => in_memory()?,
            None => Config::default(),
        };
        if config.namespaces.is_empty() {
            tracing::warn!("no namespace is configured, every call will be refused: add some with --config");
        }
        Ok((config, watch))
    }

    /// Where to listen: what the command line says wins over the file. Apart from the configuration, which
    /// is compared with the file again when that is read anew.
    pub(crate) fn listen(&self, config: &Config) -> Listen {
        let either = |given: &Option<String>, address: &String| given.as_ref().unwrap_or(address).clone();
        Listen {
            control: either(&self.control_addr, &config.listen.control),
            data: either(&self.data_addr, &config.listen.data),
            admin: either(&self.admin_addr, &config.listen.admin),
        }
    }
}

/// The plugins that this binary knows without being shown a manifest.
pub(crate) fn known_plugins() -> anyhow::Result<Vec<Manifest>> {
    Ok(vec![Manifest::read(&multicast_registry::plugin::manifest())?])
}

/// One namespace that needs nothing but this process.
fn in_memory() -> anyhow::Result<Config> {
    let document = json!({
        "namespaces": [{
            "name": "default",
            "pattern": "multicast-registry",
            "description": "in the memory of this process",
            "slots": { "registry": "memory", "messaging": "memory" },
        }],
    });
    // JSON is YAML.
    let source = Source::parse("--embedded", &document.to_string())?;
    Ok(Config::check(&source, Path::new(""), &known_plugins()?)?)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn parse(line: &str) -> Options {
        let words = std::iter::once("prism-proxy")
            .chain(line.split_whitespace())
            .map(OsString::from);
        Options::try_parse_from(args::normalize(&Options::command(), words)).unwrap()
    }

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_take_one_dash_or_two_and_win_over_the_file() {
        let file = written("listen: {control: ':1', data: ':2', admin: ':3'}");
        let file = file.path().display();
        for dashes in ["-", "--"] {
            let line =
                format!("{dashes}config {file} {dashes}data-addr localhost:8 {dashes}admin-addr=:9 -v -v");
            let options = parse(&line);
            let (config, watch) = options.configuration().unwrap();
            let listen = options.listen(&config);
            assert_eq!(
                [listen.control, listen.data, listen.admin],
                [":1", "localhost:8", ":9"]
            );
            assert_eq!((options.verbosity, watch.is_some()), (2, true));
        }
    }

    #[test]
    fn embedded_alone_has_one_namespace_in_memory() {
        let (config, watch) = parse("-embedded").configuration().unwrap();
        let names: Vec<_> = config
            .namespaces
            .iter()
            .map(|namespace| namespace.name.as_str())
            .collect();
        assert_eq!((names, watch.is_none()), (vec!["default"], true));
        assert_eq!(config.listen.data, ":8980");
    }

    #[test]
    fn embedded_with_a_file_has_the_namespaces_of_the_file() {
        let file = written(
            "namespaces: [{name: mine, pattern: multicast-registry, slots: {registry: memory, messaging: memory}}]",
        );
        let line = format!("--embedded --config {}", file.path().display());
        let (config, _) = parse(&line).configuration().unwrap();
        assert_eq!(config.namespaces[0].name, "mine");
    }

    #[test]
    fn a_slip_in_a_slot_is_found_before_anything_starts() {
        let text =
            "namespaces:\n  - name: a\n    pattern: multicast-registry\n    slots:\n      regsitry: memory\n";
        let file = written(text);
        let error = parse(&format!("--config {}", file.path().display()))
            .configuration()
            .unwrap_err()
            .to_string();
        let told = ":5:7: namespaces[0].slots.regsitry: unknown key `regsitry`, did you mean `registry`?";
        assert!(error.ends_with(told), "{error}");
    }
}
