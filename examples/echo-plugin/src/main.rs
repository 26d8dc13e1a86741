//! A pattern in fifty lines: it echoes.
//!
//! `echo-plugin PROXY…` registers with these proxies. Its one method, `/prism.examples.Echo/Say`,
//! returns whatever message it is sent.

use std::{env, process::ExitCode, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
    routing::post,
};
use http_body_util::BodyExt;
use prism_core::telemetry;
use prism_plugin_sdk::{
    Description, Drained, Health, Initialize, Initialized, Interface, Plugin, Refusal, Runner, Scope,
};
use tokio::time::Instant;
use tonic::service::Routes;

struct Echo;

impl Plugin for Echo {
    fn description(&self) -> Description {
        let name = "prism.examples.Echo".to_owned();
        Description {
            name: "echo".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interfaces: vec![Interface {
                name,
                ..Interface::default()
            }],
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
        }
    }

    async fn initialize(&self, request: Initialize) -> Result<Initialized, Refusal> {
        match request.config.keys().next() {
            Some(key) => Err(Refusal::new("an echo has nothing to configure, remove the key").key(key)),
            None => Ok(Initialized {
                scope: Scope::Shared,
                ..Initialized::default()
            }),
        }
    }

    async fn remove(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn routes(&self) -> Routes {
        Routes::from(Router::new().route("/prism.examples.Echo/Say", post(say)))
    }

    async fn start(&self) -> Result<(), Refusal> {
        Ok(())
    }

    async fn health(&self) -> Health {
        Health::healthy()
    }

    async fn drain(&self, _: Instant) -> Drained {
        Drained::default()
    }

    async fn stop(&self, _: Instant) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The body of a unary gRPC call goes back as it came: no need to know what it says.
async fn say(request: Request) -> Response {
    let done = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = request.into_body().with_trailers(async { Some(Ok(done)) });
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let shutdown = prism_core::shutdown::signals()?;
    let service = "echo-plugin";
    let telemetry = telemetry::init(&telemetry::Settings {
        service,
        verbosity: 0,
    })?;
    let runner = Runner::new(Echo).proxies(env::args().skip(1).collect());
    let status = runner.run(async { _ = shutdown.await }).await;
    telemetry.shutdown(Duration::from_secs(1)).await;
    Ok(ExitCode::from(status.code()))
}
