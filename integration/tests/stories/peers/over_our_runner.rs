//! A foreign proxy over our runner, on a stream and by calls.

use std::time::Duration;

use anyhow::Result;
use integration::{PATIENCE, Runner, START_LIMIT, http_get};
use prism_client::RegisterRequest;
use prism_proto::interfaces::{
    DrainRequest, HealthCheckRequest, HealthStatus, InitializeRequest, ShutdownRequest, StartRequest,
    StopRequest, lifecycle_interface_client::LifecycleInterfaceClient, pattern_message::Message,
    proxy_command::Command,
};
use prism_testkit::{RedisServer, free_port};
use serde_json::{Value, json};

use super::proxy::{Proxy, Stream, structure};

/// As a foreign proxy writes it: an explicit interface list, numbers, and keys of its own spelling.
fn memory() -> Value {
    json!({
        "pattern": "multicast_registry",
        "slots": {
            "registry": { "backend": "memstore", "interfaces": ["KeyValueBasicInterface"], "config": {} },
            "messaging": { "driver": "memory", "config": { "listener_queue": 64 } },
        },
        "behavior": { "max_identities": 1_000, "max_filter_depth": 5 },
    })
}

/// A runner that serves `test` under a foreign proxy.
async fn serving() -> Result<(Proxy, Stream, Runner)> {
    let mut proxy = Proxy::start().await?;
    let runner = Runner::under(proxy.address).await?;
    let (_, mut stream) = proxy.registered().await?;
    stream
        .initialize("test", memory())
        .await?
        .map_err(anyhow::Error::msg)?;
    assert_eq!(stream.start().await?, runner.data.to_string());
    Ok((proxy, stream, runner))
}

fn count(runner: &Runner, text: &str) -> usize {
    let lines = runner.process.stderr();
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn it_registers_is_configured_and_serves() -> Result<()> {
    let mut proxy = Proxy::start().await?;
    let control = proxy.address.to_string();
    let environment = [("PROCESS_ID", "1"), ("PATTERN_NAME", "multicast_registry")];
    let runners = [
        Runner::start(&["-proxy-addr", &control], &environment).await?,
        // Another container, the same process id, and so the same name at this proxy.
        Runner::start(&["-proxy-addr", &control], &environment).await?,
    ];
    let mut endpoints = Vec::new();
    let mut streams = Vec::new();
    for _ in &runners {
        let (register, mut stream) = proxy.registered().await?;
        assert_eq!(
            (&*register.pattern_name, register.process_id),
            ("multicast_registry", 1)
        );
        let metadata = register
            .metadata
            .expect("a proxy in the field crashes without metadata");
        assert!(
            !metadata.interfaces.is_empty() && !register.pattern_version.is_empty(),
            "{metadata:?}"
        );
        stream
            .initialize("test", memory())
            .await?
            .map_err(anyhow::Error::msg)?;
        endpoints.push(stream.start().await?);
        streams.push(stream);
    }
    endpoints.sort();
    let mut expected: Vec<_> = runners.iter().map(|runner| runner.data.to_string()).collect();
    expected.sort();
    assert_eq!(endpoints, expected);
    for runner in &runners {
        runner
            .client("test")?
            .registry
            .register(RegisterRequest::new("a"))
            .await?;
    }
    Ok(())
}

/// Nothing more comes after the start, for longer than a proxy of ours is ever silent.
#[tokio::test]
async fn it_may_be_silent_for_ever() -> Result<()> {
    let (mut proxy, mut stream, runner) = serving().await?;
    assert!(
        !proxy.is_dialled_within(Duration::from_secs(14)).await,
        "the runner gave up a silent proxy"
    );
    let Message::HealthResponse(health) = stream
        .ask(Some(Command::HealthCheck(HealthCheckRequest {})))
        .await?
    else {
        panic!("no health");
    };
    assert_eq!(health.status(), HealthStatus::Healthy);
    runner
        .client("test")?
        .registry
        .register(RegisterRequest::new("a"))
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_same_configuration_again_restarts_nothing() -> Result<()> {
    let (mut proxy, stream, runner) = serving().await?;
    let client = runner.client("test")?;
    let registered = client.registry.register(RegisterRequest::new("a")).await?;
    drop(stream);
    let (_, mut stream) = proxy.registered().await?;
    stream
        .initialize("test", memory())
        .await?
        .map_err(anyhow::Error::msg)?;
    assert_eq!(stream.start().await?, runner.data.to_string());
    let again = client.registry.register(RegisterRequest::new("b")).await?;
    assert_eq!(registered.position.epoch, again.position.epoch);
    assert!(client.registry.get("a").await.is_ok());
    assert_eq!(count(&runner, "coordinator initialized"), 1);
    assert_eq!(count(&runner, "coordinator ready"), 1);
    Ok(())
}

#[tokio::test]
async fn commands_are_answered_whatever_they_are() -> Result<()> {
    let (_proxy, mut stream, mut runner) = serving().await?;
    // Of a newer proxy: nothing that this runner can read.
    assert!(matches!(stream.ask(None).await?, Message::HealthResponse(_)));

    let mut wrong = memory();
    wrong["slots"]["registry"]["config"] = json!({ "adress": "localhost" });
    let refusal = stream.initialize("other", wrong).await?.unwrap_err();
    assert!(
        refusal.contains("slot `registry`") && refusal.contains("adress"),
        "{refusal}"
    );
    let versioned = |version, digest: &str| InitializeRequest {
        name: "counted".to_owned(),
        config: structure(memory()).ok(),
        config_version: version,
        config_digest: digest.to_owned(),
        ..InitializeRequest::default()
    };
    assert_eq!(stream.push(versioned(5, "a")).await?, Ok(()));
    assert_eq!(
        stream.push(versioned(5, "a")).await?,
        Ok(()),
        "an equal digest is a no-op"
    );
    assert!(
        stream
            .push(versioned(5, "b"))
            .await?
            .unwrap_err()
            .contains("version `5`")
    );
    assert!(
        stream
            .push(versioned(4, "b"))
            .await?
            .unwrap_err()
            .contains("older")
    );
    assert_eq!(
        stream.push(versioned(6, "b")).await?,
        Ok(()),
        "a higher version wins"
    );

    let drain = DrainRequest {
        timeout_seconds: 5,
        reason: "test".to_owned(),
    };
    let Message::DrainResponse(drained) = stream.ask(Some(Command::Drain(drain))).await? else {
        panic!("no drain response");
    };
    assert!(drained.success, "{drained:?}");
    let shutdown = ShutdownRequest {
        timeout_seconds: 5,
        reason: "test".to_owned(),
    };
    let Message::StopResponse(stopped) = stream.ask(Some(Command::Shutdown(shutdown))).await? else {
        panic!("no stop response");
    };
    assert!(stopped.success, "{stopped:?}");
    assert_eq!(
        runner.process.wait(START_LIMIT).await?.code(),
        Some(0),
        "it does not stay alive"
    );
    Ok(())
}

/// What is under way when the drain's time is over is counted, cut, and said by the exit code.
#[tokio::test]
async fn a_drain_that_takes_too_long_ends_with_2() -> Result<()> {
    let redis = RedisServer::start().await?;
    let mut proxy = Proxy::start().await?;
    let mut runner = Runner::under(proxy.address).await?;
    let (_, mut stream) = proxy.registered().await?;
    let mut config = memory();
    config["slots"]["registry"] =
        json!({ "backend": "redis", "config": { "address": redis.addr().to_string() } });
    stream
        .initialize("test", config)
        .await?
        .map_err(anyhow::Error::msg)?;
    stream.start().await?;
    let client = runner.client("test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    // A request that never comes to its end.
    let connection = tokio::net::TcpStream::connect(runner.data).await?;
    let (send, driver) = h2::client::handshake(connection).await?;
    let _driver = tokio::spawn(driver);
    let request =
        tonic::codegen::http::Request::post("http://runner/prism.pattern.MulticastRegistryPattern/Register")
            .header("content-type", "application/grpc")
            .body(())?;
    let _call = send.ready().await?.send_request(request, false)?;
    client
        .registry
        .register(RegisterRequest::new("so that it has arrived"))
        .await?;
    let drain = DrainRequest {
        timeout_seconds: 1,
        reason: "test".to_owned(),
    };
    let Message::DrainResponse(drained) = stream.ask(Some(Command::Drain(drain))).await? else {
        panic!("no drain response");
    };
    assert!(!drained.success && drained.aborted_operations == 1, "{drained:?}");
    stream
        .ask(Some(Command::Stop(StopRequest { timeout_seconds: 1 })))
        .await?;
    assert_eq!(runner.process.wait(START_LIMIT).await?.code(), Some(2));
    Ok(())
}

/// The older style: the runner is started with nothing but an environment, and the proxy dials in.
#[tokio::test]
async fn it_may_dial_in() -> Result<()> {
    let (grpc, health) = (free_port().to_string(), free_port().to_string());
    let environment = [
        ("NAMESPACE", "test"),
        ("GRPC_PORT", &*grpc),
        ("HEALTH_PORT", &*health),
        ("PROCESS_ID", "shared:multicast-registry"),
        ("PATTERN_NAME", "multicast-registry"),
    ];
    let mut process = prism_testkit::Process::spawn("multicast-registry-runner", &[], &environment)?;
    process
        .stdout_line(&format!("data 0.0.0.0:{grpc}"), START_LIMIT)
        .await?;
    let health = format!("127.0.0.1:{health}").parse()?;
    let (status, page) = http_get(health, "/health").await?;
    assert_eq!(status, 200, "{page}");

    let data: std::net::SocketAddr = format!("127.0.0.1:{grpc}").parse()?;
    let mut lifecycle = LifecycleInterfaceClient::connect(format!("http://{data}")).await?;
    let initialize = InitializeRequest {
        name: "test".to_owned(),
        config: Some(structure(memory())?),
        ..InitializeRequest::default()
    };
    for _ in 0..2 {
        let answer = lifecycle.initialize(initialize.clone()).await?.into_inner();
        assert!(answer.success, "{}", answer.error);
    }
    let started = lifecycle.start(StartRequest {}).await?.into_inner();
    assert_eq!(started.data_endpoint, data.to_string(), "as the proxy reached it");
    let client = integration::client_of(data, "test")?;
    client.registry.register(RegisterRequest::new("a")).await?;
    let report = lifecycle.health_check(HealthCheckRequest {}).await?.into_inner();
    assert_eq!(report.status(), HealthStatus::Healthy, "{report:?}");

    let drain = DrainRequest {
        timeout_seconds: 5,
        reason: "test".to_owned(),
    };
    assert!(lifecycle.drain(drain).await?.into_inner().success);
    assert!(
        lifecycle
            .stop(StopRequest { timeout_seconds: 5 })
            .await?
            .into_inner()
            .success
    );
    assert_eq!(process.wait(PATIENCE).await?.code(), Some(0));
    Ok(())
}
