//! The command line and the environment.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, builder::Resettable};
use prism_core::args;

/// Serves the multicast registry pattern.
///
/// Under a proxy (-proxy-addr) it is told which namespaces to serve. With -config it serves those of a
/// file, also without a proxy. With neither, the environment (REGISTRY_BACKEND, REGISTRY_ADDR,
/// MESSAGING_BACKEND, MESSAGING_SERVERS, NAMESPACE) can configure one namespace, and otherwise
/// /etc/prism/config.yaml is read. Every long option can be written with one dash.
#[derive(Debug, Parser)]
#[command(name = "multicast-registry-runner", version, max_term_width = 100)]
pub(crate) struct Options {
    /// Read namespaces from this file.
    #[arg(long, value_name = "FILE", env = "PRISM_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// Control addresses of the proxies to register with, separated by commas.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PRISM_PROXY_ADDR",
        value_delimiter = ','
    )]
    proxy_addr: Vec<String>,

    /// Where to serve the pattern [default: any free port of all addresses].
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PRISM_DATA_ADDR",
        conflicts_with = "grpc_port"
    )]
    data_addr: Option<String>,

    /// The port to serve the pattern on, on all addresses.
    #[arg(long, value_name = "PORT", env = "GRPC_PORT")]
    grpc_port: Option<u16>,

    /// The data endpoint as the proxy reaches it, where that differs from the address served on.
    #[arg(long, value_name = "HOST:PORT", env = "PRISM_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    /// The port for /health and /metrics over HTTP, on all addresses. 0 takes a free one.
    #[arg(long, value_name = "PORT", env = "HEALTH_PORT")]
    health_port: Option<u16>,

    /// The id to register under, if it is a number [default: the process's own].
    #[arg(long, value_name = "ID", env = "PROCESS_ID")]
    process_id: Option<String>,

    /// The pattern name to register under.
    #[arg(long, value_name = "NAME", env = "PATTERN_NAME")]
    pub(crate) pattern_name: Option<String>,

    /// The namespace's name, where its configuration has none.
    #[arg(long, value_name = "NAME", env = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// Log more: once for debug, twice for everything.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    pub(crate) verbosity: u8,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Looks at a configuration without serving it.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Shows the canonical form, with every default.
    Print {
        /// The file [default: as for serving].
        file: Option<PathBuf>,
    },
    /// Says whether it can be used.
    Validate {
        /// The file [default: as for serving].
        file: Option<PathBuf>,
    },
}

impl Options {
    /// Ends the process on a command line that makes no sense.
    pub(crate) fn from_command_line() -> Self {
        let command = Self::command().mut_args(without_empty_variable);
        let matches = command.get_matches_from(args::normalize(&Self::command(), std::env::args_os()));
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    pub(crate) fn proxies(&self) -> Vec<String> {
        self.proxy_addr
            .iter()
            .filter(|address| !address.is_empty())
            .cloned()
            .collect()
    }

    /// Whoever starts runners may name them by more than a number.
    pub(crate) fn process_id(&self) -> Option<i32> {
        self.process_id.as_deref()?.parse().ok()
    }

    /// Whether it was said where it serves, so that a proxy of the older style can dial in.
    pub(crate) fn can_be_dialled(&self) -> bool {
        self.data_addr.is_some() || self.grpc_port.is_some()
    }

    pub(crate) fn data_addr(&self) -> String {
        match (&self.data_addr, self.grpc_port) {
            (Some(address), _) => on_all_addresses(address),
            (None, port) => format!("0.0.0.0:{}", port.unwrap_or(0)),
        }
    }

    pub(crate) fn health_addr(&self) -> Option<String> {
        self.health_port.map(|port| format!("0.0.0.0:{port}"))
    }
}

/// Set-ups that template their environment leave variables empty rather than out.
fn without_empty_variable(argument: Arg) -> Arg {
    let variable = argument.get_env().and_then(std::env::var_os);
    if variable.is_some_and(|value| value.is_empty()) {
        argument.env(Resettable::Reset)
    } else {
        argument
    }
}

/// `:9000` means port 9000 of all addresses.
fn on_all_addresses(address: &str) -> String {
    if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address.to_owned()
    }
}

/// Says on standard output where something is served: `data 127.0.0.1:50051`.
pub(crate) fn announce(what: &str, address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what} {address}")?;
    out.flush()
}

/// Reads a command line without the program's name.
#[cfg(test)]
pub(crate) fn parse(line: &str) -> Options {
    let words = std::iter::once("runner").chain(line.split(' '));
    let words = words.map(std::ffi::OsString::from);
    Options::try_parse_from(args::normalize(&Options::command(), words)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_dash_styles_are_understood() {
        for line in [
            "-proxy-addr localhost:9090 -v",
            "--proxy-addr=localhost:9090 -v",
            "-proxy-addr=localhost:9090 -v",
        ] {
            let options = parse(line);
            assert_eq!(
                (options.proxies(), options.verbosity),
                (vec!["localhost:9090".to_owned()], 1),
                "{line}"
            );
        }
        assert_eq!(parse("-proxy-addr a:1,b:2").proxies(), ["a:1", "b:2"]);
        assert_eq!(parse("-config file.yaml -vv").config, Some("file.yaml".into()));
    }

    #[test]
    fn ports_and_addresses_say_where_to_serve() {
        assert_eq!(parse("-grpc-port 50051").data_addr(), "0.0.0.0:50051");
        assert_eq!(parse("-data-addr :50051").data_addr(), "0.0.0.0:50051");
        assert_eq!(parse("-data-addr 127.0.0.1:0").data_addr(), "127.0.0.1:0");
        assert_eq!(
            parse("-health-port 8080").health_addr().as_deref(),
            Some("0.0.0.0:8080")
        );
        assert_eq!(parse("-v").health_addr(), None);
    }

    #[test]
    fn a_name_in_place_of_a_process_id_is_no_mistake() {
        assert_eq!(parse("-process-id 42").process_id(), Some(42));
        assert_eq!(parse("-process-id shared:registry").process_id(), None);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
