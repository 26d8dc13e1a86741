//! Limits that hold whoever calls, and through whichever runner.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt, future::join_all, stream};
use integration::{PATIENCE, Proxy, Runner, memory_namespace, shared_namespace};
use prism_client::{Applied, Client, MulticastRequest, Reason, RegisterRequest};
use prism_core::failure::Failure;
use prism_proto::pattern::{
    EnumerateRequest, multicast_registry_pattern_client::MulticastRegistryPatternClient,
};
use prism_testkit::{NatsServer, RedisServer, eventually};
use serde_json::json;
use tonic::{Status, transport::Endpoint};

/// A thousand, through two runners of one namespace on one Redis, where there is room for a hundred.
#[tokio::test]
async fn the_quota_is_exact_across_runners() -> Result<()> {
    const ROOM: usize = 100;
    // So many are taken by a runner however busy the machine is.
    const AT_ONCE: usize = 64;
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let mut namespace = shared_namespace("test", &redis, &nats);
    namespace["behavior"] = json!({ "max_identities": ROOM });
    let proxy = Proxy::start(&[namespace]).await?;
    let runners = [
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("test", 2).await;
    // Past the proxy, so that it is known who is asked.
    let clients = [runners[0].client("test")?, runners[1].client("test")?];
    let calls = (0..1_000).map(|number| {
        let client = clients[number % 2].clone();
        async move {
            client
                .registry
                .register(RegisterRequest::new(format!("id-{number:04}")))
                .await
        }
    });
    let (mut taken, mut full) = (0, 0);
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(AT_ONCE).collect().await;
    for outcome in outcomes {
        match outcome {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.reason(), Some(Reason::QuotaExceeded), "{error}");
                assert_eq!(error.applied(), Applied::No);
                full += 1;
            }
        }
    }
    assert_eq!((taken, full), (ROOM, 1_000 - ROOM));
    let page = clients[1]
        .registry
        .enumerate(prism_client::EnumerateRequest::default())
        .await?;
    assert_eq!(page.total_count, ROOM as u64);
    // Room that is given back is room again, once.
    let leaving = page.identities[0].identity.clone();
    clients[0].registry.unregister(leaving).await?;
    clients[1].registry.register(RegisterRequest::new("late")).await?;
    let later = clients[0].registry.register(RegisterRequest::new("later")).await;
    assert_eq!(later.unwrap_err().reason(), Some(Reason::QuotaExceeded));
    Ok(())
}

/// Streams of registrations are as many registrations as they carry, whoever else registers at the same time.
#[tokio::test]
async fn streams_share_the_quota_of_all_runners() -> Result<()> {
    const ROOM: usize = 100;
    let (redis, nats) = tokio::try_join!(RedisServer::start(), NatsServer::start())?;
    let mut namespace = shared_namespace("test", &redis, &nats);
    namespace["behavior"] = json!({ "max_identities": ROOM });
    let proxy = Proxy::start(&[namespace]).await?;
    let runners = [
        Runner::under(proxy.control).await?,
        Runner::under(proxy.control).await?,
    ];
    proxy.wait_for_runners("test", 2).await;
    let clients = [runners[0].client("test")?, runners[1].client("test")?];
    let streams = clients.iter().enumerate().map(|(stream, client)| {
        let requests = (0..500).map(move |number| RegisterRequest::new(format!("id-{stream}-{number:03}")));
        client.registry.register_many(requests)
    });
    let (mut taken, mut full) = (0, 0);
    for outcome in join_all(streams).await {
        for outcome in outcome? {
            match outcome {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error.reason(), Some(Reason::QuotaExceeded), "{error}");
                    assert_eq!(error.applied(), Applied::No);
                    full += 1;
                }
            }
        }
    }
    assert_eq!((taken, full), (ROOM, 1_000 - ROOM));
    Ok(())
}

#[tokio::test]
async fn leases_are_cut_to_the_longest_where_that_is_configured() -> Result<()> {
    let mut namespace = memory_namespace("test");
    namespace["behavior"] = json!({ "ttl_max": "60s", "ttl_default": "5m", "on_long_ttl": "clamp" });
    let proxy = Proxy::start(&[namespace.clone()]).await?;
    let _runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    for (name, asked, granted) in [
        ("default", None, 60),
        ("long", Some(3_600), 60),
        ("none", Some(0), 60),
        ("short", Some(7), 7),
    ] {
        let request = RegisterRequest {
            ttl: asked,
            ..RegisterRequest::new(name)
        };
        let told = client.registry.register(request).await?;
        assert_eq!(told.ttl, Some(Duration::from_secs(granted)), "{name}");
        let ends = told
            .expires_at
            .and_then(|end| end.duration_since(told.registered_at).ok());
        assert_eq!(ends, told.ttl, "{name}: what is told is what is");
    }
    // Refused from now on, and so is a default that would not be granted.
    namespace["behavior"] = json!({ "ttl_max": "60s", "on_long_ttl": "refuse" });
    proxy.configure(&[namespace])?;
    eventually(PATIENCE, "long leases are refused", async || {
        let request = RegisterRequest {
            ttl: Some(3_600),
            ..RegisterRequest::new("long")
        };
        let refused = client.registry.register(request).await;
        refused.is_err_and(|error| error.reason() == Some(Reason::InvalidTtl))
    })
    .await;
    Ok(())
}

/// Registers many at once, again and again, until one is refused; which one, and how.
async fn first_refusal(client: &Client) -> Result<(usize, prism_client::Error)> {
    for round in 0.. {
        let numbers = round * 20..(round + 1) * 20;
        let calls = numbers.clone().map(|number| {
            client
                .registry
                .register(RegisterRequest::new(format!("limited-{number}")))
        });
        for (number, outcome) in numbers.zip(join_all(calls).await) {
            match outcome {
                Err(error) if error.reason() == Some(Reason::RateLimited) => return Ok((number, error)),
                outcome => drop(outcome?),
            }
        }
    }
    anyhow::bail!("nothing is ever refused")
}

/// Who calls too often is told when to come again; nothing is done; others are not held up; and a client
/// that waits as it is told gets through.
#[tokio::test]
async fn callers_are_limited_each_by_itself_and_without_a_restart() -> Result<()> {
    let mut namespace = memory_namespace("test");
    let proxy = Proxy::start(&[namespace.clone()]).await?;
    let runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let client = proxy.client("test")?;
    for number in 0..50 {
        client
            .registry
            .register(RegisterRequest::new(format!("free-{number}")))
            .await?;
    }

    namespace["behavior"] = json!({ "caller_writes": "2/s", "caller_targets": 10 });
    proxy.configure(&[namespace])?;
    let (number, refused) = first_refusal(&client).await?;
    assert_eq!(
        (refused.code(), refused.applied()),
        (prism_client::Code::ResourceExhausted, Applied::No)
    );
    let pause = refused.retry_after().unwrap_or_default();
    assert!(
        !pause.is_zero() && pause <= Duration::from_millis(500),
        "{pause:?}"
    );
    let absent = client
        .registry
        .get(format!("limited-{number}"))
        .await
        .unwrap_err();
    assert_eq!(
        absent.reason(),
        Some(Reason::NotRegistered),
        "nothing was done, and reads go on"
    );

    // A multicast to everybody is one to too many.
    let everybody = client
        .registry
        .multicast(MulticastRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (everybody.reason(), everybody.retry_after()),
        (Some(Reason::RateLimited), None)
    );
    let counted = integration::http_get(runner.health, "/metrics").await?.1;
    assert!(
        counted.contains("multicast_registry_rate_limited_total{namespace=\"test\"}"),
        "{counted}"
    );

    // A client that may try again waits, and needs no code for it.
    let patient = Client::builder()
        .endpoint(proxy.data.to_string())
        .namespace("test")
        .connect_lazy()?;
    for number in 0..3 {
        patient
            .registry
            .register(RegisterRequest::new(format!("patient-{number}")))
            .await?;
    }
    Ok(())
}

/// A read from a host of this machine's own network, with what is said of its caller.
async fn read(at: SocketAddr, from: Ipv4Addr, said: &[(&'static str, &str)]) -> Result<(), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{at}")).unwrap();
    let channel = endpoint.local_address(Some(from.into())).connect().await.unwrap();
    let mut request = tonic::Request::new(EnumerateRequest::default());
    let said = said.iter().chain(&[("x-prism-namespace", "test")]);
    for (key, value) in said {
        request.metadata_mut().insert(*key, value.parse().unwrap());
    }
    MulticastRegistryPatternClient::new(channel)
        .enumerate(request)
        .await
        .map(drop)
}

/// Through the proxy each host is a caller, and at the runner's own port as well. Whoever says that he is
/// somebody else is not believed.
#[tokio::test]
async fn callers_are_told_apart_by_where_they_call_from() -> Result<()> {
    let mut namespace = memory_namespace("test");
    namespace["behavior"] = json!({ "caller_reads": "1/h" });
    let proxy = Proxy::start(&[namespace]).await?;
    let runner = Runner::under(proxy.control).await?;
    proxy.wait_for_runners("test", 1).await;
    let host = |number| Ipv4Addr::new(127, 0, 0, number);
    for (at, number) in [(proxy.data, 11), (proxy.data, 12), (runner.data, 13)] {
        let forged = [("x-prism-principal", "somebody"), ("x-prism-peer", "192.0.2.7")];
        let first = read(at, host(number), &[]).await;
        assert!(first.is_ok(), "{number}: {first:?}");
        for said in [&forged[..0], &forged[..1], &forged[..]] {
            let status = read(at, host(number), said).await.unwrap_err();
            let told = Failure::from_status(&status).map(|failure| failure.reason);
            assert_eq!(told, Some(Reason::RateLimited), "{number} {said:?}");
        }
    }
    Ok(())
}
