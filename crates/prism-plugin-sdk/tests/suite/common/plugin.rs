//! A plugin that does as its configuration says, and remembers what it was asked.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
    routing::post,
};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use prism_core::caller::{PEER, PRINCIPAL, PROOF};
use prism_plugin_sdk::{
    Description, Drained, Health, HealthStatus, Initialize, Initialized, Interface, Plugin, Refusal, Scope,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tonic::{Code, Status, codegen::http::uri::PathAndQuery, service::Routes, transport::Channel};

use super::SOON;

pub(crate) const SERVICE: &str = "prism.test.Echo";

/// What the plugin was asked, in order.
#[derive(Clone)]
pub(crate) struct Calls(Arc<watch::Sender<Vec<String>>>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Calls {
    fn note(&self, call: impl Into<String>) {
        self.0.send_modify(|calls| calls.push(call.into()));
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub(crate) fn count(&self, call: &str) -> usize {
        self.0.borrow().iter().filter(|noted| *noted == call).count()
    }

    /// Waits until the plugin was asked this.
    pub(crate) async fn noted(&self, call: &str) {
        let mut calls = self.0.subscribe();
        let noted = calls.wait_for(|calls| calls.iter().any(|noted| noted == call));
        timeout(SOON, noted)
            .await
            .unwrap_or_else(|_| panic!("no {call}"))
            .unwrap();
    }
}

/// `{"refuse": …}`, `{"hang": true}`, `{"panic": true}` and `{"wait": true}` make `initialize` do so;
/// `{"drain": "hang"}` and `{"stop": "refuse"}` are remembered for the end.
pub(crate) struct TestPlugin {
    pub(crate) calls: Calls,
    /// Lets those `initialize` calls end that wait.
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) sick: bool,
    end: Mutex<(bool, bool)>,
}

impl Default for TestPlugin {
    fn default() -> Self {
        Self {
            calls: Calls::default(),
            gate: Arc::new(Semaphore::new(0)),
            sick: false,
            end: Mutex::default(),
        }
    }
}

impl Plugin for TestPlugin {
    fn description(&self) -> Description {
        let interface = Interface {
            name: SERVICE.to_owned(),
            proto_file: "prism/test/echo.proto".to_owned(),
            version: "v1".to_owned(),
            hash: "00".to_owned(),
            metadata: [("prism.idempotent".to_owned(), "Say".to_owned())].into(),
        };
        Description {
            name: "test-pattern".to_owned(),
            version: "1.2.3".to_owned(),
            interfaces: vec![interface],
            extra: [("prism.namespaces".to_owned(), "many".to_owned())].into(),
        }
    }

    async fn initialize(&self, request: Initialize) -> Result<Initialized, Refusal> {
        self.calls.note(format!("initialize {}", request.namespace));
        let says = |key: &str| request.config.get(key).is_some();
        if says("wait") {
            self.gate.acquire().await.unwrap().forget();
        }
        if says("hang") {
            std::future::pending::<()>().await;
        }
        assert!(!says("panic"), "as configured");
        if let Some(message) = request.config.get("refuse") {
            let message = message.as_str().unwrap();
            return Err(Refusal::new(message).slot("registry").key("config.address"));
        }
        let mut end = self.end.lock();
        end.0 |= says("drain");
        end.1 |= says("stop");
        Ok(Initialized {
            scope: Scope::Shared,
            extra: [("test.extra".to_owned(), "yes".to_owned())].into(),
        })
    }

    async fn remove(&self, namespace: &str) -> Result<(), Refusal> {
        self.calls.note(format!("remove {namespace}"));
        Ok(())
    }

    fn routes(&self) -> Routes {
        let calls = self.calls.clone();
        let router = Router::new()
            .route("/prism.test.Echo/Say", post(say))
            .route("/prism.test.Echo/Hold", post(hold))
            .route("/prism.test.Echo/Keep", post(move |request| keep(request, calls)));
        Routes::from(router)
    }

    async fn start(&self) -> Result<(), Refusal> {
        self.calls.note("start");
        Ok(())
    }

    async fn health(&self) -> Health {
        match self.sick {
            false => Health::healthy(),
            true => Health::new(HealthStatus::Degraded, "a little sick"),
        }
    }

    async fn drain(&self, _: Instant) -> Drained {
        self.calls.note("drain");
        if self.end.lock().0 {
            std::future::pending::<()>().await;
        }
        Drained {
            drained: 3,
            aborted: 0,
        }
    }

    async fn stop(&self, _: Instant) -> Result<(), Refusal> {
        self.calls.note("stop");
        match self.end.lock().1 {
            true => Err(Refusal::new("cannot stop")),
            false => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        "test_metric 1\n".to_owned()
    }
}

fn answered(body: Body) -> Response {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// Sends the message back, and what was said of the caller.
async fn say(request: Request) -> Response {
    let heard = [PRINCIPAL, PEER, PROOF].map(|name| request.headers().get(name).cloned());
    let done = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = request.into_body().with_trailers(async { Some(Ok(done)) });
    let mut response = answered(Body::new(body));
    for (name, value) in ["heard-principal", "heard-peer", "heard-proof"]
        .into_iter()
        .zip(heard)
    {
        let name = HeaderName::from_static(name);
        response.headers_mut().extend(value.map(|value| (name, value)));
    }
    response
}

/// Begins an answer that never ends.
async fn hold(_: Request) -> Response {
    let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, axum::Error>>();
    answered(Body::new(StreamBody::new(silence)))
}

/// Neither reads nor answers.
async fn keep(request: Request, calls: Calls) -> Response {
    calls.note("keep");
    std::future::pending::<()>().await;
    answered(request.into_body())
}

/// A client of the plugin's service.
pub(crate) struct Client(tonic::client::Grpc<Channel>);

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self(tonic::client::Grpc::new(channel))
    }

    pub(crate) async fn say(&mut self, text: &str) -> Result<String, Status> {
        let codec = tonic_prost::ProstCodec::<String, String>::default();
        let path = PathAndQuery::from_static("/prism.test.Echo/Say");
        self.ready().await?;
        let answer = self
            .0
            .unary(tonic::Request::new(text.to_owned()), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    /// What of this metadata the plugin heard: the principal, the peer, the proof.
    pub(crate) async fn heard(&mut self, said: &[(&'static str, &str)]) -> [Option<String>; 3] {
        let codec = tonic_prost::ProstCodec::<String, String>::default();
        let path = PathAndQuery::from_static("/prism.test.Echo/Say");
        self.ready().await.unwrap();
        let mut request = tonic::Request::new(String::new());
        for (name, value) in said {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let answer = self.0.unary(request, path, codec).await.unwrap();
        let heard = |name| {
            answer
                .metadata()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        ["heard-principal", "heard-peer", "heard-proof"].map(heard)
    }

    pub(crate) async fn hold(&mut self) -> tonic::Streaming<String> {
        let codec = tonic_prost::ProstCodec::<String, String>::default();
        let path = PathAndQuery::from_static("/prism.test.Echo/Hold");
        self.ready().await.unwrap();
        let request = tonic::Request::new(String::new());
        self.0
            .server_streaming(request, path, codec)
            .await
            .unwrap()
            .into_inner()
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0
            .ready()
            .await
            .map_err(|error| Status::new(Code::Unavailable, error.to_string()))
    }
}
