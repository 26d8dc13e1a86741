//! An exporter that says so when its collector stops taking spans, and when it takes them again. The
//! one that it wraps loses them in silence.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

/// Reports changes, not each batch: a collector that is away for a day is one line of the log.
#[derive(Debug)]
pub(super) struct Reported<E> {
    inner: E,
    endpoint: String,
    losing: AtomicBool,
}

impl<E> Reported<E> {
    pub(super) fn new(inner: E, endpoint: String) -> Self {
        Self {
            inner,
            endpoint,
            losing: AtomicBool::new(false),
        }
    }

    fn report(&self, result: &OTelSdkResult, spans: usize) {
        let collector = &self.endpoint;
        let was_losing = self.losing.swap(result.is_err(), Ordering::Relaxed);
        match result {
            Err(error) if !was_losing => tracing::warn!(
                collector,
                spans,
                %error,
                "the collector does not take spans, they are lost until it does"
            ),
            Ok(()) if was_losing => tracing::info!(collector, "the collector takes spans again"),
            _ => {}
        }
    }
}

impl<E: SpanExporter> SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.report(&result, spans);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
