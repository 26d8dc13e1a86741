//! A whole proxy, from its first to its last answer.

use std::{net::SocketAddr, time::Duration};

use prism_core::config::Source;
use prism_proxy::{Listeners, Proxy, config::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const LONG: Duration = Duration::from_secs(20);

async fn start(text: &str) -> Proxy {
    let source = Source::parse("test", text).unwrap();
    let mut config = Config::check(&source, "".as_ref(), &[]).unwrap();
    let free = || "127.0.0.1:0".to_owned();
    (config.listen.control, config.listen.data, config.listen.admin) = (free(), free(), free());
    let listeners = Listeners::bind(&config.listen).await.unwrap();
    Proxy::builder(config).start(listeners).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_proxy_is_ready_when_it_has_started() {
    let proxy = start("namespaces: [{name: a, pattern: mine}]").await;
    let addresses = proxy.addresses();
    assert!(get(addresses.admin, "/readyz").await.starts_with("HTTP/1.1 200 "));
    assert!(
        get(addresses.admin, "/readyz?verbose")
            .await
            .contains("namespace a has no runner")
    );
    assert!(
        get(addresses.admin, "/metrics")
            .await
            .contains("prism_proxy_runners_connected 0")
    );
    let mut health = HealthClient::new(channel(addresses.data).await);
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    assert_eq!(
        health.check(ask("")).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    assert_eq!(
        health.check(ask("a")).await.unwrap().into_inner().status(),
        ServingStatus::NotServing
    );
    assert_eq!(health.check(ask("b")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_lists_what_clients_may_call() {
    let proxy = start("").await;
    let mut client = ServerReflectionClient::new(channel(proxy.addresses().data).await);
    let ask = |message| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "prism.pattern.MulticastRegistryPattern".to_owned(),
        )),
    ];
    let answers = client
        .server_reflection_info(futures::stream::iter(questions))
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    let mut next = async || {
        answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = next().await else {
        panic!("no list")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        ["grpc.health.v1.Health", "prism.pattern.MulticastRegistryPattern"]
    );
    assert!(matches!(next().await, MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn at_the_end_readiness_fails_first_and_then_the_ports_close() {
    let proxy = start("timeouts: {readiness_grace: 400ms, drain: 5s}").await;
    let addresses = proxy.addresses();
    let mut health = HealthClient::new(channel(addresses.data).await);
    let watch = HealthCheckRequest::default();
    let mut watching = health.watch(watch.clone()).await.unwrap().into_inner();
    let next = watching.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::Serving);

    let ending = tokio::spawn(proxy.shutdown());
    let next = tokio::time::timeout(LONG, watching.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    // Not ready, and yet serving whoever comes in the grace.
    assert!(get(addresses.admin, "/readyz").await.starts_with("HTTP/1.1 503 "));
    let late = health.check(watch).await.unwrap().into_inner();
    assert_eq!(late.status(), ServingStatus::NotServing);
    assert!(TcpStream::connect(addresses.data).await.is_ok());

    // The watch is cut, and so nothing holds the end up.
    assert!(
        tokio::time::timeout(LONG, watching.message())
            .await
            .unwrap()
            .unwrap()
            .is_none()
    );
    let report = tokio::time::timeout(LONG, ending).await.unwrap().unwrap();
    assert!(report.is_clean(), "{report:?}");
    for address in [addresses.control, addresses.data, addresses.admin] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_before_anything_is_served() {
    let proxy = start("").await;
    let mut listen = Config::default().listen;
    listen.control = "127.0.0.1:0".into();
    listen.data = proxy.addresses().data.to_string();
    let error = Listeners::bind(&listen).await.unwrap_err().to_string();
    assert!(
        error.contains(&listen.data) && error.contains("in use"),
        "{error}"
    );
}
