//! The health port: `/health` and `/metrics` over HTTP/1.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State as Shared,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prism_core::exposition;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{Plugin, engine::State};

/// Open connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// For the head of a request to arrive.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// For a connection to live, whatever it asks.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);

/// Serves until it is dropped.
pub(crate) async fn run<P: Plugin>(listener: TcpListener, plugin: Arc<P>, state: watch::Receiver<State>) {
    let router = Router::new()
        .route("/health", get(health))
        .with_state(state)
        .merge(
            Router::new()
                .route("/metrics", get(metrics::<P>))
                .with_state(plugin),
        );
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, router.clone()))),
                Err(error) => {
                    tracing::debug!(%error, "a connection to the health port was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whether it ended well or not concerns the other side only.
    let _ = timeout(CONNECTION_WITHIN, connection).await;
}

/// 200 while the process is alive and not about to end. How well it does is in the body: restarting a
/// runner because its broker is away would help nobody.
async fn health(Shared(state): Shared<watch::Receiver<State>>) -> impl IntoResponse {
    let state = state.borrow().clone();
    let code = match state.is_draining() {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::OK,
    };
    let body = serde_json::json!({
        "status": state.health.status.as_str(),
        "stage": state.stage.as_str(),
        "message": state.health.message,
        "details": state.health.details,
    });
    (code, Json(body))
}

async fn metrics<P: Plugin>(Shared(plugin): Shared<Arc<P>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, exposition::CONTENT_TYPE)],
        exposition::prometheus_text(&plugin.metrics()),
    )
}
