//! A whole proxy, from its first to its last answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

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

use crate::data::support::{Client, Reply, message, soon};

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

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Probes are answered whatever there is to do, and what stays open is a stream like any other.
#[tokio::test]
async fn watches_have_places_among_the_streams_and_probes_their_own() {
    let proxy = start("limits: {concurrent_calls: 1, concurrent_streams: 2}").await;
    let address = proxy.addresses().data;
    let mut health = HealthClient::new(channel(address).await);
    let ask = HealthCheckRequest::default;
    let watching = health.watch(ask()).await.unwrap();
    let client = Client::connect(address).await;
    let asking = client.open(REFLECTION).await;
    assert_eq!(
        health.watch(ask()).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let reply = client.unary(REFLECTION, b"").await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("OVERLOADED", Some(false))
    );
    let probed = health.check(ask()).await.unwrap().into_inner();
    assert_eq!(probed.status(), ServingStatus::Serving);

    drop((watching, asking));
    let watch = async || health.clone().watch(ask()).await.is_ok();
    prism_testkit::eventually(LONG, "the places are free again", watch).await;
}

#[tokio::test]
async fn what_the_proxy_is_not_asked_after_all_ends_in_time() {
    let proxy = start("timeouts: {default_deadline: 100ms}").await;
    let client = Client::connect(proxy.addresses().data).await;
    for path in [CHECK, WATCH] {
        let (response, _up) = client.open(path).await;
        let reply = Reply::read(soon(response).await.unwrap()).await;
        assert_eq!(reply.grpc().code(), Code::DeadlineExceeded);
    }
    let check = Client::request(WATCH).header("grpc-timeout", "100m");
    let reply = client.send(check, &message(b"")).await;
    assert_eq!(
        (reply.grpc().code(), reply.body),
        (Code::DeadlineExceeded, message(&[8, 1]).into())
    );
}

#[tokio::test]
async fn what_the_proxy_is_not_asked_after_all_does_not_hold_up_its_end() {
    let proxy = start("timeouts: {readiness_grace: 0s, drain: 20s}").await;
    let client = Client::connect(proxy.addresses().data).await;
    let mut asked = Vec::new();
    for path in [CHECK, WATCH, REFLECTION] {
        asked.push(client.open(path).await);
    }
    // Looked at in their order.
    assert_eq!(client.unary(CHECK, b"").await.grpc().code(), Code::Ok);
    let began = Instant::now();
    let ending = tokio::spawn(proxy.shutdown());
    let mut kept = Vec::new();
    for (response, up) in asked {
        let reply = Reply::read(soon(response).await.unwrap()).await;
        assert_eq!(
            (reply.reason(), reply.failure().applied),
            ("DRAINING", Some(false))
        );
        kept.push(up);
    }
    drop(client);
    let report = soon(ending).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
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
