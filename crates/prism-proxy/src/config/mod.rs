//! The proxy's configuration: one YAML file, read strictly and checked whole before anything is bound or
//! changed.

mod manifest;
mod namespace;
mod reference;
mod schema;
mod versions;

use std::{
    collections::BTreeMap,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use prism_core::config::{Error, Path, Source, duration_ms, size};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    forward::{Bounds, Limits, lane},
    serve,
};

pub use manifest::Manifest;
pub use namespace::{Namespace, OnMove};
pub use reference::reference;
pub use versions::{Version, Versions};

/// A whole configuration, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Where to listen. Takes effect at the next start only.
    pub listen: Listen,
    /// What bounds calls.
    pub limits: CallLimits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Runners to start and supervise. Takes effect at the next start only.
    pub runners: Vec<Runner>,
    /// The namespaces, in the order of the file, each name once.
    pub namespaces: Vec<Namespace>,
}

/// Addresses, as `host:port`, `:port` for all interfaces; port 0 takes a free one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// For runners.
    pub control: String,
    /// For clients.
    pub data: String,
    /// For operators and probes.
    pub admin: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            control: ":9090".into(),
            data: ":8980".into(),
            admin: ":8981".into(),
        }
    }
}

/// Bounds of size and number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallLimits {
    /// Calls under way, streams not counted; more are refused with `OVERLOADED`.
    pub concurrent_calls: usize,
    /// Streams that are open; more are refused with `OVERLOADED`.
    pub concurrent_streams: usize,
    /// Connections to the data port; more wait. At the next start.
    pub connections: usize,
    /// Calls under way on one connection. At the next start.
    pub streams_per_connection: u32,
    /// Bytes of one request message.
    #[serde(deserialize_with = "size")]
    pub message_size: usize,
    /// Bytes of a request's headers.
    #[serde(deserialize_with = "size")]
    pub header_size: usize,
    /// Bytes of a request that are kept to be sent a second time.
    #[serde(deserialize_with = "size")]
    pub retry_buffer: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        let (calls, port) = (Limits::default(), serve::Settings::default());
        Self {
            concurrent_calls: calls.calls,
            concurrent_streams: calls.streams,
            connections: port.connections,
            streams_per_connection: port.streams,
            message_size: calls.message,
            header_size: calls.headers,
            retry_buffer: calls.replay,
        }
    }
}

/// Bounds of time; a bare number counts milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Of a unary call that brings no deadline.
    #[serde(deserialize_with = "duration_ms")]
    pub default_deadline: Duration,
    /// Of a unary call that brings a longer one.
    #[serde(deserialize_with = "duration_ms")]
    pub longest_deadline: Duration,
    /// To connect to a runner. At the next start.
    #[serde(deserialize_with = "duration_ms")]
    pub connect: Duration,
    /// How long a call waits while the runners of its namespace change over.
    #[serde(deserialize_with = "duration_ms")]
    pub hold: Duration,
    /// Until a client that connected has said something. At the next start.
    #[serde(deserialize_with = "duration_ms")]
    pub silence: Duration,
    /// At the end: from failing readiness to turning clients away, so that load balancers notice.
    #[serde(deserialize_with = "duration_ms")]
    pub readiness_grace: Duration,
    /// At the end: for calls under way; what is left then is ended.
    #[serde(deserialize_with = "duration_ms")]
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let calls = Limits::default();
        Self {
            default_deadline: calls.bounds.default,
            longest_deadline: calls.bounds.longest,
            connect: lane::Settings::default().connect_timeout,
            hold: calls.hold,
            silence: serve::Settings::default().silence,
            readiness_grace: Duration::from_millis(500),
            drain: Duration::from_secs(25),
        }
    }
}

/// Runners that the proxy starts and supervises itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// What they are.
    pub manifest: Manifest,
    /// How many of them.
    pub count: usize,
    /// In place of the manifest's `executable`.
    pub executable: Option<PathBuf>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Further environment.
    pub env: BTreeMap<String, String>,
}

/// The file, as far as its shape goes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    listen: Listen,
    limits: CallLimits,
    timeouts: Timeouts,
    manifests: Vec<PathBuf>,
    runners: Vec<RunnerEntry>,
    namespaces: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunnerEntry {
    manifest: PathBuf,
    #[serde(default = "one")]
    count: usize,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

fn one() -> usize {
    1
}

/// More runners of one kind than this are a slip of the finger.
const MAX_RUNNERS: usize = 64;

impl Config {
    /// Reads and checks a file. Manifests that it names are read as well; their paths are relative to
    /// the file.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and column.
    pub fn load(file: &FilePath) -> Result<Self, Error> {
        let source = Source::load(file)?;
        Self::check(&source, file.parent().unwrap_or(FilePath::new("")), &[])
    }

    /// Checks a source. Relative paths begin at `base`; `known` are manifests that are there without
    /// being named.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn check(source: &Source, base: &FilePath, known: &[Manifest]) -> Result<Self, Error> {
        let document: Document = source.decode()?;
        check_ranges(&document).map_err(|error| source.place(error))?;
        let mut manifests = known.to_vec();
        for (index, path) in document.manifests.iter().enumerate() {
            let at = Path::root().key("manifests").index(index);
            manifests.push(read_manifest(source, at, &base.join(path))?);
        }
        let mut runners = Vec::with_capacity(document.runners.len());
        for (index, entry) in document.runners.into_iter().enumerate() {
            let at = Path::root().key("runners").index(index).key("manifest");
            let manifest = read_manifest(source, at, &base.join(&entry.manifest))?;
            manifests.push(manifest.clone());
            let RunnerEntry {
                count,
                executable,
                args,
                env,
                ..
            } = entry;
            let executable = executable.map(|path| base.join(path));
            runners.push(Runner {
                manifest,
                count,
                executable,
                args,
                env,
            });
        }
        let namespaces =
            namespace::read_all(&document.namespaces, &manifests).map_err(|error| source.place(error))?;
        let Document {
            listen,
            limits,
            timeouts,
            ..
        } = document;
        Ok(Self {
            listen,
            limits,
            timeouts,
            runners,
            namespaces,
        })
    }

    /// The bounds of calls.
    pub fn call_limits(&self) -> Limits {
        Limits {
            calls: self.limits.concurrent_calls,
            streams: self.limits.concurrent_streams,
            headers: self.limits.header_size,
            message: self.limits.message_size,
            replay: self.limits.retry_buffer,
            bounds: Bounds {
                default: self.timeouts.default_deadline,
                longest: self.timeouts.longest_deadline,
            },
            hold: self.timeouts.hold,
        }
    }

    /// The bounds of the data port.
    pub fn port_settings(&self) -> serve::Settings {
        serve::Settings {
            connections: self.limits.connections,
            streams: self.limits.streams_per_connection,
            silence: self.timeouts.silence,
            ..serve::Settings::default()
        }
    }

    /// How runners are connected to.
    pub fn lane_settings(&self) -> lane::Settings {
        lane::Settings {
            connect_timeout: self.timeouts.connect,
            ..lane::Settings::default()
        }
    }
}

fn read_manifest(source: &Source, at: Path, file: &FilePath) -> Result<Manifest, Error> {
    // A manifest that is not there is the fault of the line that names it; one that is wrong has
    // lines of its own.
    if !file.is_file() {
        let message = format!("the manifest `{}` is not there", file.display());
        return Err(source.place(Error::new(at, message)));
    }
    Manifest::load(file)
}

fn check_ranges(document: &Document) -> Result<(), Error> {
    let Document {
        limits,
        timeouts,
        runners,
        ..
    } = document;
    let at = |section: &str, key: &str| Path::root().key(section).key(key);
    for (key, value) in [
        ("concurrent_calls", limits.concurrent_calls),
        ("concurrent_streams", limits.concurrent_streams),
        ("connections", limits.connections),
        ("streams_per_connection", limits.streams_per_connection as usize),
        ("message_size", limits.message_size),
    ] {
        if value == 0 {
            return Err(Error::new(at("limits", key), "expected at least `1`, found `0`"));
        }
    }
    // Runners take twice as much, with what is added on the way.
    if !(1_024..=64 << 10).contains(&limits.header_size) {
        let message = format!("expected `1KiB` to `64KiB`, found `{}` bytes", limits.header_size);
        return Err(Error::new(at("limits", "header_size"), message));
    }
    for (key, value) in [
        ("default_deadline", timeouts.default_deadline),
        ("longest_deadline", timeouts.longest_deadline),
        ("connect", timeouts.connect),
        ("silence", timeouts.silence),
    ] {
        if value.is_zero() {
            return Err(Error::new(
                at("timeouts", key),
                "expected more than no time at all",
            ));
        }
    }
    if timeouts.default_deadline > timeouts.longest_deadline {
        let message = format!(
            "expected at most the `longest_deadline` of `{:?}`",
            timeouts.longest_deadline
        );
        return Err(Error::new(at("timeouts", "default_deadline"), message));
    }
    for (index, runner) in runners.iter().enumerate() {
        if !(1..=MAX_RUNNERS).contains(&runner.count) {
            let message = format!(
                "expected `1` to `{MAX_RUNNERS}` runners, found `{}`",
                runner.count
            );
            return Err(Error::new(
                Path::root().key("runners").index(index).key("count"),
                message,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
