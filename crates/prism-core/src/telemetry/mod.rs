//! Logs and traces of a process: set up once in `main`, flushed when it ends.
//!
//! Logs go to stderr, readable on a terminal and one JSON object a line elsewhere; each line written
//! inside a call carries its `trace_id`. Spans are exported over OTLP (gRPC) when the standard `OTEL_*`
//! variables ask for it. Whether or not they do, the W3C trace context of a call is passed on: see
//! [`TraceContext`].

mod collector;
mod context;
mod export;
mod format;
mod serve;
mod span;

use std::{io::IsTerminal, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt,
};

pub use context::{TRACEPARENT, TraceContext};
pub use export::{Export, ExportError};
pub use serve::{TraceLayer, Traced, TracedBody};
pub use span::{call_span, request_span};

/// The target of the spans that carry a call's trace context. They exist whatever the log level is.
pub(crate) const CALLS: &str = "prism::call";

/// Libraries that would drown our own words at debug level, and whose spans would follow each export.
const LIBRARIES: [&str; 10] = [
    "async_nats",
    "fred",
    "h2",
    "hyper",
    "hyper_util",
    "tower",
    "tonic",
    "rustls",
    "opentelemetry",
    "opentelemetry_sdk",
];

/// What `main` knows about its process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The service name in traces, unless `OTEL_SERVICE_NAME` gives another.
    pub service: &'static str,
    /// How often `-v` was given: 0 info, 1 debug, 2 trace. `RUST_LOG` wins.
    pub verbosity: u8,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` does not parse.
    #[error("`RUST_LOG` is no filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The `OTEL_*` variables ask for something that cannot be done.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Another subscriber was installed before.
    #[error("telemetry is already set up: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logs and traces for the whole process. Call it inside the runtime, once.
///
/// # Errors
/// See [`Error`].
pub fn init(settings: &Settings) -> Result<Guard, Error> {
    let export = Export::from_env(|name| std::env::var(name).ok())?;
    let provider = export
        .map(|export| export.provider(settings.service))
        .transpose()?;
    let terminal = std::io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());

    Registry::default()
        .with(log_layer(terminal, colour).with_filter(log_filter(settings.verbosity)?))
        .with(
            provider
                .as_ref()
                .map(|provider| span_layer(provider, settings.service)),
        )
        .try_init()?;
    Ok(Guard { provider })
}

/// Holds what must be flushed before the process ends.
#[derive(Debug)]
#[must_use = "spans that are not flushed are lost: call `shutdown`"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Guard {
    /// Sends what is left to the collector, for at most `limit`. Not cancellation safe: what has not
    /// been sent when it is dropped is lost.
    pub async fn shutdown(self, limit: Duration) {
        let Some(provider) = self.provider else { return };
        // It blocks, and the exporter needs the runtime's workers to make progress. The limit is for the
        // thread: one that was given up instead would hold up the end of the runtime.
        match tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans may not have been exported"),
            Err(error) => tracing::warn!(%error, "the last spans were not exported"),
        }
    }
}

fn log_filter(verbosity: u8) -> Result<EnvFilter, Error> {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    calls_too(EnvFilter::try_new(
        asked.unwrap_or_else(|| default_directives(verbosity)),
    )?)
}

/// Whatever is logged, the spans of calls are seen: they carry the trace context, and no words.
fn calls_too(filter: EnvFilter) -> Result<EnvFilter, Error> {
    Ok(filter.add_directive(format!("{CALLS}=error").parse()?))
}

fn default_directives(verbosity: u8) -> String {
    let (ours, theirs) = match verbosity {
        0 => ("info", "warn"),
        1 => ("debug", "info"),
        _ => ("trace", "debug"),
    };
    let quiet = LIBRARIES.map(|library| format!(",{library}={theirs}")).concat();
    format!("{ours}{quiet}")
}

fn log_layer<S>(terminal: bool, colour: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if terminal {
        layer.with_ansi(colour).event_format(format::Readable).boxed()
    } else {
        layer.with_ansi(false).event_format(format::Json).boxed()
    }
}

fn span_layer<S>(provider: &SdkTracerProvider, service: &'static str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    let targets = LIBRARIES.iter().fold(
        Targets::new().with_default(LevelFilter::INFO),
        |targets, library| targets.with_target(*library, LevelFilter::OFF),
    );
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_location(false)
        .with_threads(false)
        .with_filter(targets)
        .boxed()
}

#[cfg(test)]
mod tests;
