//! The data endpoint and the health port.

use std::time::Duration;

use crate::common::{
    Running, SOON, good, initial,
    plugin::{Client, SERVICE},
    proxy::ScriptedProxy,
    push, quick,
};
use prism_core::{
    caller::{PEER, PRINCIPAL, PROOF, Proof},
    id::SessionToken,
};
use prism_plugin_sdk::{ExitStatus, Limits, Settings};
use prism_proto::interfaces::{
    DrainRequest, HealthCheckRequest, HealthStatus, InitializeRequest, StartRequest, StopRequest,
    lifecycle_interface_client::LifecycleInterfaceClient,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest as Probe, health_check_response::ServingStatus, health_client::HealthClient,
};

async fn channel(runner: &Running) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", runner.data)).unwrap();
    endpoint.connect().await.unwrap()
}

async fn standalone(settings: Settings) -> Running {
    let runner = Running::start_with(Vec::new(), |runner| {
        runner
            .settings(settings)
            .initial(vec![initial("presence", good())])
    })
    .await;
    runner.calls.noted("start").await;
    runner
}

async fn serving_status(runner: &Running, service: &str) -> ServingStatus {
    let probe = Probe {
        service: service.to_owned(),
    };
    HealthClient::new(channel(runner).await)
        .check(probe)
        .await
        .unwrap()
        .into_inner()
        .status()
}

#[tokio::test]
async fn without_a_proxy_it_starts_by_itself_and_ends_when_told() {
    let mut runner = standalone(quick()).await;
    assert_eq!(
        Client::connect(runner.data).await.say("hello").await.unwrap(),
        "hello"
    );
    runner.leave();
    let began = Instant::now();
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert!(began.elapsed() < SOON);
    assert_eq!(
        runner.calls.all(),
        ["initialize presence", "start", "drain", "stop"]
    );
}

/// Whoever reaches the data endpoint can say anything; only a proxy that it is registered with is believed.
#[tokio::test]
async fn what_is_said_of_a_caller_is_believed_of_proxies_only() {
    let mut proxy = ScriptedProxy::start().await;
    let runner = Running::start(vec![proxy.address()]).await;
    let mut client = Client::connect(runner.data).await;
    let said = [(PRINCIPAL, "root"), (PEER, "192.0.2.7")];
    let silence = [None, None, None];
    assert_eq!(client.heard(&said).await, silence, "before there is a proxy");

    let mut stream = proxy.registered().await;
    // The answer shows that the registration is done with.
    stream.initialize(push("presence", 1, good())).await.unwrap();
    let token = |bytes: &[u8]| SessionToken::from_wire(bytes.to_vec()).unwrap();
    let proof = Proof::of(&token(b"0123456789abcdef"));
    let proven = [said[0], said[1], (PROOF, proof.as_str())];
    let believed = [Some("root".to_owned()), Some("192.0.2.7".to_owned()), None];
    assert_eq!(client.heard(&proven).await, believed, "and the proof stays here");
    assert_eq!(client.heard(&said).await, silence);
    let other = Proof::of(&token(b"another"));
    assert_eq!(
        client.heard(&[said[0], said[1], (PROOF, other.as_str())]).await,
        silence
    );

    // The proxy goes on forwarding when only the stream is gone.
    drop(stream);
    assert_eq!(client.heard(&proven).await, believed);
    // One that was started again has another proof.
    let mut stream = proxy.stream().await;
    stream.register().await;
    stream.acknowledge(b"another").await;
    stream.initialize(push("presence", 1, good())).await.unwrap();
    assert_eq!(client.heard(&proven).await, silence);
    let proven = [said[0], said[1], (PROOF, other.as_str())];
    assert_eq!(client.heard(&proven).await, believed);
}

#[tokio::test]
async fn a_bad_configuration_of_its_own_ends_it_with_1() {
    let mut runner = Running::start_with(Vec::new(), |runner| {
        runner.initial(vec![initial("a", good()), initial("b", json!({"refuse": "no"}))])
    })
    .await;
    assert_eq!(runner.exit().await, ExitStatus::Failed);
    assert_eq!(runner.calls.count("start"), 0);
}

#[tokio::test]
async fn grpc_health_follows_the_life() {
    let mut runner = Running::start(Vec::new()).await;
    assert_eq!(serving_status(&runner, "").await, ServingStatus::NotServing);
    let mut lifecycle = LifecycleInterfaceClient::new(channel(&runner).await);
    lifecycle.initialize(initialize("presence")).await.unwrap();
    lifecycle.start(StartRequest {}).await.unwrap();
    let probe = Probe {
        service: SERVICE.to_owned(),
    };
    let mut health = HealthClient::new(channel(&runner).await);
    let mut watch = health.watch(probe).await.unwrap().into_inner();
    let mut status = watch.message().await.unwrap().unwrap().status();
    if status != ServingStatus::Serving {
        status = watch.message().await.unwrap().unwrap().status();
    }
    assert_eq!(status, ServingStatus::Serving);
    runner.leave();
    let next = timeout(SOON, watch.message())
        .await
        .expect("readiness does not fail")
        .unwrap()
        .unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let runner = Running::start(Vec::new()).await;
    let mut reflection = ServerReflectionClient::new(channel(&runner).await);
    let request = |message| {
        tokio_stream::once(ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        })
    };
    let list = request(MessageRequest::ListServices(String::new()));
    let answer = reflection
        .server_reflection_info(list)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.unwrap().message_response else {
        panic!("no list");
    };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == SERVICE), "{names:?}");
    assert!(
        names
            .iter()
            .any(|name| name == "prism.interfaces.LifecycleInterface"),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|name| name.contains("MulticastRegistry")),
        "{names:?}"
    );
    let symbol = "prism.interfaces.LifecycleInterface".to_owned();
    let find = request(MessageRequest::FileContainingSymbol(symbol));
    let answer = reflection
        .server_reflection_info(find)
        .await
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap();
    let found = answer.unwrap().message_response;
    assert!(
        matches!(found, Some(MessageResponse::FileDescriptorResponse(_))),
        "{found:?}"
    );
}

fn initialize(namespace: &str) -> InitializeRequest {
    InitializeRequest {
        name: namespace.to_owned(),
        version: "v1".to_owned(),
        ..InitializeRequest::default()
    }
}

#[tokio::test]
async fn a_proxy_of_the_older_style_dials_and_steers() {
    let mut runner = Running::start(Vec::new()).await;
    let mut lifecycle = LifecycleInterfaceClient::new(channel(&runner).await);
    let early = lifecycle.start(StartRequest {}).await.unwrap().into_inner();
    assert!(!early.success && early.error.contains("initialize"));
    let configured = lifecycle
        .initialize(initialize("presence"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        configured.metadata.unwrap().extra["prism.scope.presence"],
        "shared"
    );
    let started = lifecycle.start(StartRequest {}).await.unwrap().into_inner();
    assert_eq!(started.data_endpoint, runner.data.to_string());
    let health = lifecycle
        .health_check(HealthCheckRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(health.status(), HealthStatus::Healthy);

    // All on the one connection that a proxy of this style has.
    let drain = DrainRequest {
        timeout_seconds: 5,
        reason: "test".to_owned(),
    };
    let drained = lifecycle.drain(drain).await.unwrap().into_inner();
    assert!(drained.success);
    let health = lifecycle
        .health_check(HealthCheckRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (health.status(), health.message.as_str()),
        (HealthStatus::Unhealthy, "drained")
    );
    let stopped = lifecycle
        .stop(StopRequest { timeout_seconds: 5 })
        .await
        .unwrap()
        .into_inner();
    assert!(stopped.success);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert_eq!(
        runner.calls.all(),
        ["initialize presence", "start", "drain", "stop"]
    );
}

#[tokio::test]
async fn a_client_that_never_speaks_delays_no_end() {
    let mut runner = standalone(quick()).await;
    let _mute = TcpStream::connect(runner.data).await.unwrap();
    let mut client = Client::connect(runner.data).await;
    client
        .say("so that the mute one was accepted before")
        .await
        .unwrap();
    let began = Instant::now();
    runner.leave();
    assert_eq!(runner.exit().await, ExitStatus::Clean);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_never_speaks_is_closed() {
    let limits = Limits {
        handshake_within: Duration::from_millis(200),
        ..Limits::default()
    };
    let runner = standalone(Settings { limits, ..quick() }).await;
    let mut mute = TcpStream::connect(runner.data).await.unwrap();
    let mut buffer = Vec::new();
    let closed = timeout(SOON, mute.read_to_end(&mut buffer)).await;
    assert!(closed.is_ok(), "the connection is kept");
}

#[tokio::test]
async fn an_open_stream_is_cut_at_the_deadline_and_counted() {
    let settings = Settings {
        drain_within: Duration::from_millis(500),
        ..quick()
    };
    let mut runner = standalone(settings).await;
    let mut client = Client::connect(runner.data).await;
    let mut held = client.hold().await;
    let began = Instant::now();
    runner.leave();
    assert_eq!(runner.exit().await, ExitStatus::DrainOverran);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let cut = timeout(SOON, held.message())
        .await
        .expect("the stream outlives the process");
    assert!(cut.is_err(), "{cut:?}");
}

#[tokio::test]
async fn a_call_under_way_ends_well() {
    let mut runner = standalone(quick()).await;
    let mut client = Client::connect(runner.data).await;
    let held = client.hold().await;
    runner.leave();
    runner.calls.noted("drain").await;
    assert!(!runner.has_ended());
    drop(held);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let runner = standalone(quick()).await;
    let mut unknown =
        prism_proto::pattern::multicast_registry_pattern_client::MulticastRegistryPatternClient::new(
            channel(&runner).await,
        );
    let status = unknown
        .get(prism_proto::pattern::GetRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// One HTTP/1 request, as a probe sends it: the status line's code, and the body.
async fn http_get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn the_health_port_answers_before_during_and_after_serving() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = listener.local_addr().unwrap();
    let mut runner = Running::start_with(Vec::new(), |runner| {
        runner.health_listener(Some(listener)).settings(Settings {
            drain_within: Duration::from_secs(60),
            ..quick()
        })
    })
    .await;
    let (code, body) = http_get(health, "/health").await;
    assert_eq!(code, 200, "alive, though not configured: {body}");
    assert!(body.contains(r#""stage":"idle""#), "{body}");
    assert_eq!(
        http_get(health, "/metrics").await,
        (200, "test_metric 1\n".to_owned())
    );
    assert_eq!(http_get(health, "/other").await.0, 404);

    let mut client = Client::connect(runner.data).await;
    let held = client.hold().await;
    runner.leave();
    runner.calls.noted("drain").await;
    assert_eq!(http_get(health, "/health").await.0, 503);
    drop(held);
    assert_eq!(runner.exit().await, ExitStatus::Clean);
}
