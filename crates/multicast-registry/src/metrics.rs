//! Every metric of this crate. All carry the label `namespace`.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The names, as they are exported.
pub const NAMES: [&str; 16] = [
    "multicast_registry_registered_identities",
    "multicast_registry_sessions",
    "multicast_registry_multicast_delivered_total",
    "multicast_registry_delivery_failures_total",
    "multicast_registry_enumerate_latency_seconds",
    "multicast_registry_ttl_expiration_total",
    "multicast_registry_session_dropped_total",
    "multicast_registry_rate_limited_total",
    "multicast_registry_schema_violations",
    "multicast_registry_watchers",
    "multicast_registry_watch_evaluations_total",
    "multicast_registry_receipts_dropped_total",
    "multicast_registry_overloaded_total",
    "multicast_registry_redeliveries_total",
    "multicast_registry_inbox_messages",
    "multicast_registry_dead_letters",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Namespace {
    namespace: String,
}

/// The metrics of all namespaces of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
}

#[derive(Debug, Clone)]
struct Families {
    registered: Family<Namespace, Gauge>,
    sessions: Family<Namespace, Gauge>,
    delivered: Family<Namespace, Histogram>,
    failures: Family<Namespace, Counter>,
    enumerate: Family<Namespace, Histogram>,
    expired: Family<Namespace, Counter>,
    dropped: Family<Namespace, Counter>,
    rate_limited: Family<Namespace, Counter>,
    schema_violations: Family<Namespace, Gauge>,
    watchers: Family<Namespace, Gauge>,
    watch_evaluations: Family<Namespace, Counter>,
    receipts_dropped: Family<Namespace, Counter>,
    overloaded: Family<Namespace, Counter>,
    redeliveries: Family<Namespace, Counter>,
    inbox_messages: Family<Namespace, Gauge>,
    dead_letters: Family<Namespace, Gauge>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            registered: Family::default(),
            sessions: Family::default(),
            delivered: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 10.0, 7))),
            failures: Family::default(),
            enumerate: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_05, 2.5, 14))
            }),
            expired: Family::default(),
            dropped: Family::default(),
            rate_limited: Family::default(),
            schema_violations: Family::default(),
            watchers: Family::default(),
            watch_evaluations: Family::default(),
            receipts_dropped: Family::default(),
            overloaded: Family::default(),
            redeliveries: Family::default(),
            inbox_messages: Family::default(),
            dead_letters: Family::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let (mut registry, families) = (Registry::with_prefix("multicast_registry"), Families::default());
        registry.register(
            "registered_identities",
            "Identities that are registered, as far as this process's view has followed",
            families.registered.clone(),
        );
        registry.register(
            "sessions",
            "Sessions that are open in this process",
            families.sessions.clone(),
        );
        registry.register(
            "multicast_delivered_total",
            "Targets delivered by each multicast",
            families.delivered.clone(),
        );
        registry.register(
            "delivery_failures",
            "Targets of multicasts that were not delivered, or not known to be",
            families.failures.clone(),
        );
        registry.register(
            "enumerate_latency_seconds",
            "Time that enumerations took, without the network",
            families.enumerate.clone(),
        );
        registry.register(
            "ttl_expiration",
            "Leases that ended, as far as this process's view has followed",
            families.expired.clone(),
        );
        registry.register(
            "session_dropped",
            "Messages that sessions did not read in time and that were dropped",
            families.dropped.clone(),
        );
        registry.register(
            "rate_limited",
            "Calls that were refused because their caller called too often",
            families.rate_limited.clone(),
        );
        registry.register(
            "schema_violations",
            "Registrations that violate the schema, as last counted in this process",
            families.schema_violations.clone(),
        );
        registry.register(
            "watchers",
            "Watches that are open in this process",
            families.watchers.clone(),
        );
        registry.register(
            "watch_evaluations",
            "Comparisons of a watched filter with a change",
            families.watch_evaluations.clone(),
        );
        registry.register(
            "receipts_dropped",
            "Receipts that there was no room for; they leave lower stages",
            families.receipts_dropped.clone(),
        );
        registry.register(
            "overloaded",
            "Calls that were refused because there was too much to do",
            families.overloaded.clone(),
        );
        registry.register(
            "redeliveries",
            "Stored messages that were handed to sessions here, and not for the first time, as far as is known",
            families.redeliveries.clone(),
        );
        registry.register(
            "inbox_messages",
            "Messages that wait in the namespace's inboxes, or are out with consumers",
            families.inbox_messages.clone(),
        );
        registry.register(
            "dead_letters",
            "Messages that could not be delivered",
            families.dead_letters.clone(),
        );
        Self { registry, families }
    }
}

impl Metrics {
    /// The metrics of one namespace.
    pub fn namespace(&self, name: &str) -> NamespaceMetrics {
        NamespaceMetrics::new(&self.families, name)
    }

    /// The metrics of a namespace that no view is kept of: what only a view can count is not exported.
    pub fn without_view(&self, name: &str) -> NamespaceMetrics {
        let metrics = self.namespace(name);
        let label = Namespace {
            namespace: name.to_owned(),
        };
        self.families.registered.remove(&label);
        self.families.schema_violations.remove(&label);
        metrics
    }

    /// Forgets a namespace that was taken away.
    pub fn forget(&self, name: &str) {
        let label = Namespace {
            namespace: name.to_owned(),
        };
        let families = &self.families;
        families.registered.remove(&label);
        families.sessions.remove(&label);
        families.delivered.remove(&label);
        families.failures.remove(&label);
        families.enumerate.remove(&label);
        families.expired.remove(&label);
        families.dropped.remove(&label);
        families.rate_limited.remove(&label);
        families.schema_violations.remove(&label);
        families.watchers.remove(&label);
        families.watch_evaluations.remove(&label);
        families.receipts_dropped.remove(&label);
        families.overloaded.remove(&label);
        families.redeliveries.remove(&label);
        families.inbox_messages.remove(&label);
        families.dead_letters.remove(&label);
    }

    /// In the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut exposition = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut exposition, &self.registry);
        exposition
    }
}

/// The metrics of one namespace. Clones share them.
#[derive(Debug, Clone)]
pub struct NamespaceMetrics(Arc<Resolved>);

#[derive(Debug)]
struct Resolved {
    registered: Gauge,
    sessions: Gauge,
    delivered: Histogram,
    failures: Counter,
    enumerate: Histogram,
    expired: Counter,
    dropped: Counter,
    rate_limited: Counter,
    schema_violations: Gauge,
    watchers: Gauge,
    watch_evaluations: Counter,
    receipts_dropped: Counter,
    overloaded: Counter,
    redeliveries: Counter,
    inbox_messages: Gauge,
    dead_letters: Gauge,
}

impl NamespaceMetrics {
    /// Metrics that nobody exports.
    pub fn unregistered() -> Self {
        Self::new(&Families::default(), "")
    }

    fn new(families: &Families, name: &str) -> Self {
        let label = Namespace {
            namespace: name.to_owned(),
        };
        Self(Arc::new(Resolved {
            registered: families.registered.get_or_create_owned(&label),
            sessions: families.sessions.get_or_create_owned(&label),
            delivered: families.delivered.get_or_create_owned(&label),
            failures: families.failures.get_or_create_owned(&label),
            enumerate: families.enumerate.get_or_create_owned(&label),
            expired: families.expired.get_or_create_owned(&label),
            dropped: families.dropped.get_or_create_owned(&label),
            rate_limited: families.rate_limited.get_or_create_owned(&label),
            schema_violations: families.schema_violations.get_or_create_owned(&label),
            watchers: families.watchers.get_or_create_owned(&label),
            watch_evaluations: families.watch_evaluations.get_or_create_owned(&label),
            receipts_dropped: families.receipts_dropped.get_or_create_owned(&label),
            overloaded: families.overloaded.get_or_create_owned(&label),
            redeliveries: families.redeliveries.get_or_create_owned(&label),
            inbox_messages: families.inbox_messages.get_or_create_owned(&label),
            dead_letters: families.dead_letters.get_or_create_owned(&label),
        }))
    }

    pub(crate) fn registrations(&self, count: usize) {
        self.0.registered.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn registrations_changed(&self, by: i64) {
        self.0.registered.inc_by(by);
    }

    pub(crate) fn sessions_changed(&self, by: i64) {
        self.0.sessions.inc_by(by);
    }

    pub(crate) fn multicast(&self, delivered: usize, others: usize) {
        self.0.delivered.observe(delivered as f64);
        self.0.failures.inc_by(others as u64);
    }

    pub(crate) fn enumerated(&self, took: Duration) {
        self.0.enumerate.observe(took.as_secs_f64());
    }

    pub(crate) fn receipts_dropped(&self, receipts: u64) {
        self.0.receipts_dropped.inc_by(receipts);
    }

    pub(crate) fn overloaded(&self) {
        self.0.overloaded.inc();
    }

    pub(crate) fn redelivered(&self) {
        self.0.redeliveries.inc();
    }

    pub(crate) fn inbox(&self, messages: u64, dead: u64) {
        self.0
            .inbox_messages
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
        self.0.dead_letters.set(i64::try_from(dead).unwrap_or(i64::MAX));
    }

    pub(crate) fn expired(&self) {
        self.0.expired.inc();
    }

    pub(crate) fn schema_violations(&self, count: u64) {
        self.0
            .schema_violations
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn rate_limited(&self) {
        self.0.rate_limited.inc();
    }

    pub(crate) fn watchers_changed(&self, by: i64) {
        self.0.watchers.inc_by(by);
    }

    pub(crate) fn watch_evaluated(&self, times: u64) {
        self.0.watch_evaluations.inc_by(times);
    }

    #[cfg(test)]
    pub(crate) fn watch_evaluations(&self) -> u64 {
        self.0.watch_evaluations.get()
    }

    pub(crate) fn dropped(&self, messages: u64) {
        self.0.dropped.inc_by(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_and_every_listed_name_is_exported() {
        let metrics = Metrics::default();
        metrics.namespace("one");
        let text = metrics.encode();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut exported: Vec<String> = types
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| {
                if kind == "counter" {
                    format!("{name}_total")
                } else {
                    name.to_owned()
                }
            })
            .collect();
        let mut listed = NAMES.to_vec();
        exported.sort();
        listed.sort_unstable();
        assert_eq!(exported, listed);
    }

    #[test]
    fn without_a_view_nothing_is_said_of_how_many_there_are() {
        let metrics = Metrics::default();
        metrics.without_view("bare").sessions_changed(1);
        let text = metrics.encode();
        assert!(
            text.contains("multicast_registry_sessions{namespace=\"bare\"} 1"),
            "{text}"
        );
        for counted in ["registered_identities{", "schema_violations{"] {
            assert!(!text.contains(counted), "{text}");
        }
    }

    #[test]
    fn a_forgotten_namespace_is_not_exported() {
        let metrics = Metrics::default();
        metrics.namespace("gone").registrations(3);
        assert!(
            metrics
                .encode()
                .contains("multicast_registry_registered_identities{namespace=\"gone\"} 3")
        );
        metrics.forget("gone");
        assert!(!metrics.encode().contains("gone"));
    }
}
