//! Every metric of the proxy. All names begin with `prism_proxy_`.
//!
//! Labels are bounded: `namespace` is a declared one or `-`, `method` one of the interfaces that are
//! compiled in or `other`, `code` one of gRPC's seventeen.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use prism_core::exposition::prometheus_text;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use tonic::Code;

use crate::forward::method;

/// The label of calls whose namespace is not declared.
pub const NO_NAMESPACE: &str = "-";

const CODES: usize = 17;

/// What a retry was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
#[allow(non_camel_case_types)] // as they are exported
pub enum RetryCause {
    /// Nothing had reached the runner.
    unsent,
    /// The runner said that it had changed nothing.
    not_applied,
    /// The runner was lost, and the method may be called twice.
    idempotent,
}

/// How the reading of a changed configuration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue)]
#[allow(non_camel_case_types)] // as they are exported
pub enum ReloadResult {
    /// It is in effect.
    applied,
    /// It says what was in effect already.
    unchanged,
    /// It is wrong; the one before stays.
    refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    namespace: String,
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    namespace: String,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: RetryCause,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: ReloadResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PatternLabels {
    pattern: String,
}

/// The metrics of one proxy.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    durations: Family<MethodLabels, Histogram, fn() -> Histogram>,
    retries: Family<CauseLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    serving: Family<NamespaceLabels, Gauge>,
    restarts: Family<PatternLabels, Counter>,
    /// Calls under way.
    pub calls_in_flight: Gauge,
    /// Calls refused because this process had too much to do.
    pub calls_shed: Counter,
    /// Connections to the data port.
    pub connections: Gauge,
    /// Runners on the control port.
    pub runners: Gauge,
    series: Mutex<HashMap<String, Arc<Series>>>,
    beside: OnceLock<Beside>,
}

/// Writes what else there is, in the Prometheus text format.
struct Beside(Box<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Beside").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("prism_proxy"),
            calls: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            retries: Family::default(),
            reloads: Family::default(),
            serving: Family::default(),
            restarts: Family::default(),
            calls_in_flight: Gauge::default(),
            calls_shed: Counter::default(),
            connections: Gauge::default(),
            runners: Gauge::default(),
            series: Mutex::default(),
            beside: OnceLock::new(),
        };
        metrics.register();
        for cause in [
            RetryCause::unsent,
            RetryCause::not_applied,
            RetryCause::idempotent,
        ] {
            metrics.retries.get_or_create_owned(&CauseLabels { cause });
        }
        for result in [
            ReloadResult::applied,
            ReloadResult::unchanged,
            ReloadResult::refused,
        ] {
            metrics.reloads.get_or_create_owned(&ResultLabels { result });
        }
        metrics
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let registry = &mut self.registry;
        registry.register("build", "What is running", build);
        registry.register("calls", "Calls answered", self.calls.clone());
        registry.register(
            "call_duration_seconds",
            "From request to last trailer",
            self.durations.clone(),
        );
        registry.register("calls_in_flight", "Calls under way", self.calls_in_flight.clone());
        registry.register(
            "calls_shed",
            "Calls that were refused because the proxy had too much to do",
            self.calls_shed.clone(),
        );
        registry.register("retries", "Second attempts", self.retries.clone());
        registry.register(
            "connections",
            "Connections to the data port",
            self.connections.clone(),
        );
        registry.register(
            "runners_connected",
            "Runners on the control port",
            self.runners.clone(),
        );
        registry.register(
            "runner_restarts",
            "Supervised runners started again",
            self.restarts.clone(),
        );
        registry.register(
            "namespace_targets",
            "Runners that serve a namespace",
            self.serving.clone(),
        );
        registry.register(
            "config_reloads",
            "Configurations read again",
            self.reloads.clone(),
        );
    }

    /// The series of one namespace, kept by whoever routes to it so that a call does no look-up.
    pub fn namespace(self: &Arc<Self>, namespace: &str) -> Arc<Series> {
        let mut series = self.series.lock();
        if let Some(series) = series.get(namespace) {
            return series.clone();
        }
        let created = Arc::new(Series {
            metrics: self.clone(),
            namespace: namespace.to_owned(),
            methods: (0..=method::known().len()).map(|_| OnceLock::new()).collect(),
        });
        series.insert(namespace.to_owned(), created.clone());
        created
    }

    /// How many runners serve a namespace; `None` when it is not declared any more.
    pub fn set_targets(&self, namespace: &str, count: Option<usize>) {
        let labels = NamespaceLabels {
            namespace: namespace.to_owned(),
        };
        match count {
            Some(count) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.serving.get_or_create_owned(&labels).set(count);
            }
            None => {
                self.serving.remove(&labels);
            }
        }
    }

    /// A second attempt is made.
    pub fn retried(&self, cause: RetryCause) {
        self.retries.get_or_create_owned(&CauseLabels { cause }).inc();
    }

    /// A changed configuration was read.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.get_or_create_owned(&ResultLabels { result }).inc();
    }

    /// A supervised runner was started again.
    pub fn restarted(&self, pattern: &str) {
        let labels = PatternLabels {
            pattern: pattern.to_owned(),
        };
        self.restarts.get_or_create_owned(&labels).inc();
    }

    /// Shows what another part of the process measures as well, in the Prometheus text format. The first one counts.
    pub fn show_beside(&self, text: impl Fn() -> String + Send + Sync + 'static) {
        let _ = self.beside.set(Beside(Box::new(text)));
    }

    /// The Prometheus text exposition.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        let mut text = prometheus_text(&text);
        if let Some(Beside(beside)) = self.beside.get() {
            text += &beside();
        }
        Ok(text)
    }
}

/// The series of one namespace.
#[derive(Debug)]
pub struct Series {
    metrics: Arc<Metrics>,
    namespace: String,
    /// By [`method::Method::index`].
    methods: Box<[OnceLock<MethodSeries>]>,
}

#[derive(Debug)]
struct MethodSeries {
    codes: [OnceLock<Counter>; CODES],
    duration: Histogram,
}

impl Series {
    /// The metrics that these series belong to.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A call has been answered.
    pub fn answered(&self, method: method::Method, code: Code, duration: Duration) {
        let Some(cell) = self.methods.get(method.index()) else {
            return;
        };
        let series = cell.get_or_init(|| self.method_series(method));
        series.duration.observe(duration.as_secs_f64());
        if let Some(counter) = series.codes.get(code as usize) {
            counter.get_or_init(|| self.counter(method, code)).inc();
        }
    }

    fn method_series(&self, method: method::Method) -> MethodSeries {
        let labels = MethodLabels {
            namespace: self.namespace.clone(),
            method: method.label(),
        };
        MethodSeries {
            codes: [const { OnceLock::new() }; CODES],
            duration: self.metrics.durations.get_or_create_owned(&labels),
        }
    }

    fn counter(&self, method: method::Method, code: Code) -> Counter {
        let labels = CallLabels {
            namespace: self.namespace.clone(),
            method: method.label(),
            code: code_name(code),
        };
        self.metrics.calls.get_or_create_owned(&labels)
    }
}

fn duration_histogram() -> Histogram {
    // 100 µs to 105 s, doubling.
    Histogram::new(exponential_buckets(0.0001, 2.0, 21))
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn these_are_all_exported_names() {
        let metrics = Arc::new(Metrics::new());
        metrics
            .namespace("a")
            .answered(method::find("/x.Y/Z"), Code::NotFound, Duration::from_millis(1));
        metrics.set_targets("a", Some(2));
        metrics.restarted("multicast-registry");
        let text = metrics.encode().unwrap();
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "prism_proxy_build_info",
                "prism_proxy_call_duration_seconds",
                "prism_proxy_calls_in_flight",
                "prism_proxy_calls_shed_total",
                "prism_proxy_calls_total",
                "prism_proxy_config_reloads_total",
                "prism_proxy_connections",
                "prism_proxy_namespace_targets",
                "prism_proxy_retries_total",
                "prism_proxy_runner_restarts_total",
                "prism_proxy_runners_connected",
            ]
        );
        for line in [
            "prism_proxy_calls_total{namespace=\"a\",method=\"other\",code=\"NOT_FOUND\"} 1",
            "prism_proxy_retries_total{cause=\"not_applied\"} 0",
            "prism_proxy_config_reloads_total{result=\"refused\"} 0",
            "prism_proxy_namespace_targets{namespace=\"a\"} 2",
            concat!(
                "prism_proxy_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.contains(line), "{line} is missing from\n{text}");
        }
    }

    #[test]
    fn a_namespace_that_is_gone_is_not_exported() {
        let metrics = Metrics::new();
        metrics.set_targets("a", Some(1));
        metrics.set_targets("a", None);
        assert!(!metrics.encode().unwrap().contains("namespace=\"a\""));
    }
}
