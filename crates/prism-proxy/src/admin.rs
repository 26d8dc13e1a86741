//! The admin port: probes, metrics, and what serves what.

use std::{fmt::Write, sync::Arc};

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prism_core::exposition;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    control::Snapshot,
    metrics::Metrics,
    readiness::Readiness,
    route::{Standing, Table},
};

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// Who serves which namespace.
    pub table: Arc<Table>,
    /// Whether to send traffic.
    pub readiness: Arc<Readiness>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where runners and namespaces stand.
    pub control: watch::Receiver<Arc<Snapshot>>,
}

impl Admin {
    /// All pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/healthz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/api/v1/namespaces", get(namespaces))
            .route("/api/v1/runners", get(runners))
            .with_state(self)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.control.borrow().clone()
    }
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let status = if admin.readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|part| part.split('=').next() == Some("verbose"))
    });
    let mut text = String::new();
    for check in admin.readiness.checks() {
        let line = match check.problem {
            Some(problem) => writeln!(text, "[-] {} failed: {problem}", check.name),
            None if verbose => writeln!(text, "[+] {} ok", check.name),
            None => Ok(()),
        };
        // Writing to a text does not fail.
        line.unwrap_or_default();
    }
    if verbose {
        describe_namespaces(&admin.table, &mut text);
    }
    text.push_str(if status.is_success() {
        "ok\n"
    } else {
        "not ready\n"
    });
    (status, text).into_response()
}

/// For information: a namespace without a runner does not make the proxy unready.
fn describe_namespaces(table: &Table, text: &mut String) {
    for (name, (standing, targets)) in table.snapshot() {
        let line = match standing {
            Standing::Served(_) => writeln!(text, "[i] namespace {name} served by {} runners", targets.len()),
            Standing::Held => writeln!(text, "[i] namespace {name} changes over"),
            Standing::Unserved => writeln!(text, "[i] namespace {name} has no runner"),
        };
        line.unwrap_or_default();
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let connected = admin
        .snapshot()
        .runners
        .iter()
        .filter(|runner| runner.connected)
        .count();
    admin
        .metrics
        .runners
        .set(i64::try_from(connected).unwrap_or(i64::MAX));
    match admin.metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn namespaces(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.snapshot();
    Json(json!({ "generation": snapshot.generation, "namespaces": snapshot.namespaces }))
}

async fn runners(State(admin): State<Admin>) -> Json<Value> {
    let snapshot = admin.snapshot();
    Json(json!({ "generation": snapshot.generation, "runners": snapshot.runners }))
}
