//! What a call does about time and failure: when it is given up, when it is tried again.

use std::{
    future::{pending, ready},
    time::{Duration, Instant},
};

use prism_client::{
    Applied, Code, Error, MulticastRequest, Reason, RegisterRequest, UpdateRequest,
    testing::{FakeRegistry, answers, in_turn},
};
use prism_core::failure::Failure;
use prism_proto::pattern;
use prism_testkit::FaultProxy;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{PATIENCE, builder, started};

const SOON: Duration = Duration::from_millis(300);

trait IntoUpdate {
    fn into_update(self) -> UpdateRequest;
}

impl IntoUpdate for &str {
    fn into_update(self) -> UpdateRequest {
        UpdateRequest {
            identity: self.to_owned(),
            patch: json!({"status": "away"}),
            ..Default::default()
        }
    }
}

#[tokio::test]
async fn a_mute_service_costs_the_timeout_and_not_more() {
    let (fake, client) = started().await;
    fake.on_get(|_| pending());
    fake.on_multicast(|_| pending());
    let registry = client.registry.with_timeout(SOON);
    let began = Instant::now();
    let error = registry.get("a").await.unwrap_err();
    assert!(
        matches!(error, Error::DeadlineExceeded { timeout, .. } if timeout == SOON),
        "{error:?}"
    );
    assert_eq!(
        (error.code(), error.applied()),
        (Code::DeadlineExceeded, Applied::Unknown)
    );
    registry.multicast(MulticastRequest::default()).await.unwrap_err();
    let took = began.elapsed();
    assert!(took >= SOON * 2 && took < SOON * 6, "{took:?}");
    assert_eq!(fake.count("Multicast"), 1);
}

#[tokio::test]
async fn a_network_that_swallows_everything_costs_the_timeout_and_not_more() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let client = builder(format!("http://{}", proxy.addr()))
        .connect()
        .await
        .unwrap();
    client.registry.get("a").await.unwrap();
    proxy.black_hole();
    let began = Instant::now();
    let error = client.registry.with_timeout(SOON).get("a").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded));
    assert!(began.elapsed() < SOON * 5);
    proxy.heal();
    client.registry.get("a").await.unwrap();
}

#[tokio::test]
async fn a_dead_connection_is_noticed_without_an_answer() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    fake.on_update(|_| pending());
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let keepalive = Some((Duration::from_millis(100), Duration::from_millis(100)));
    let client = builder(format!("http://{}", proxy.addr()))
        .keepalive(keepalive)
        .connect()
        .await
        .unwrap();
    client.registry.get("a").await.unwrap();
    proxy.black_hole();
    let error = client.registry.update("a".into_update()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::ConnectionLost {
                applied: Applied::Unknown,
                ..
            }
        ),
        "{error:?}"
    );
}

fn draining() -> tonic::Status {
    Failure::new(Reason::Draining, "about to end")
        .not_applied()
        .into()
}

fn runner_lost() -> tonic::Status {
    Failure::new(Reason::RunnerLost, "gone").maybe_applied().into()
}

#[tokio::test]
async fn what_was_not_applied_is_tried_again_whatever_it_is() {
    let (fake, client) = started().await;
    let turns = in_turn([Err(draining()), Err(draining()), Ok(answers::delivered(&["a"]))]);
    fake.on_multicast(move |_| ready(turns()));
    client
        .registry
        .multicast(MulticastRequest::default())
        .await
        .unwrap();
    assert_eq!(fake.count("Multicast"), 3);
}

#[tokio::test]
async fn what_may_have_been_applied_is_tried_again_only_where_that_does_no_harm() {
    let (fake, client) = started().await;
    let registered = in_turn([Err(runner_lost()), Ok(answers::registered(1))]);
    fake.on_register(move |_| ready(registered()));
    let found = in_turn([Err(runner_lost()), Ok(answers::found("a"))]);
    fake.on_get(move |_| ready(found()));
    fake.on_update(|_| ready(Err(runner_lost())));
    fake.on_multicast(|_| ready(Err(runner_lost())));
    fake.on_unregister(|_| ready(Err(runner_lost())));

    let registry = &client.registry;
    registry.register(RegisterRequest::new("a")).await.unwrap();
    registry.get("a").await.unwrap();
    for error in [
        registry.update("a".into_update()).await.unwrap_err(),
        registry.multicast(MulticastRequest::default()).await.unwrap_err(),
        registry.unregister("a").await.unwrap_err(),
    ] {
        assert_eq!(
            (error.reason(), error.applied()),
            (Some(Reason::RunnerLost), Applied::Unknown)
        );
    }
    let counts = ["Register", "Get", "Update", "Multicast", "Unregister"].map(|method| fake.count(method));
    assert_eq!(counts, [2, 2, 1, 1, 1]);
}

#[tokio::test]
async fn the_retry_of_a_registration_carries_the_same_session() {
    let (fake, client) = started().await;
    let (sent, mut received) = mpsc::unbounded_channel();
    let turns = in_turn([Err(runner_lost()), Ok(answers::registered(1))]);
    fake.on_register(move |request| {
        sent.send(request.into_inner().session).unwrap();
        ready(turns())
    });
    client.registry.register(RegisterRequest::new("a")).await.unwrap();
    assert_eq!(received.recv().await.unwrap(), received.recv().await.unwrap());
}

#[tokio::test]
async fn a_request_over_the_raw_wire_without_a_session_is_not_registered_twice() {
    let (fake, client) = started().await;
    fake.on_register(|_| ready(Err(runner_lost())));
    let request = pattern::RegisterRequest {
        identity: "a".to_owned(),
        ..Default::default()
    };
    client.registry.raw().register(request).await.unwrap_err();
    assert_eq!(fake.count("Register"), 1);
}

#[tokio::test]
async fn a_retry_waits_as_long_as_the_service_asks() {
    let (fake, client) = started().await;
    let busy = Failure::new(Reason::NotReady, "wait")
        .not_applied()
        .retry_after(SOON);
    let turns = in_turn([Err(busy.into()), Ok(answers::found("a"))]);
    fake.on_get(move |_| ready(turns()));
    let began = Instant::now();
    client.registry.get("a").await.unwrap();
    assert!(began.elapsed() >= SOON);
}

#[tokio::test]
async fn retries_can_be_turned_off() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_get(|_| ready(Err(draining())));
    let client = builder(fake.endpoint()).attempts(1).connect().await.unwrap();
    client.registry.get("a").await.unwrap_err();
    assert_eq!(fake.count("Get"), 1);
}

#[tokio::test]
async fn nobody_there_is_said_soon_and_as_not_applied() {
    let fake = FakeRegistry::start().await.unwrap();
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    proxy.refuse().await;
    let endpoint = format!("http://{}", proxy.addr());
    let error = builder(endpoint.clone()).connect().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { endpoint: named, .. } if *named == endpoint),
        "{error:?}"
    );

    let client = builder(endpoint).connect_lazy().unwrap();
    let began = Instant::now();
    let error = client
        .registry
        .multicast(MulticastRequest::default())
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.applied()), (Code::Unavailable, Applied::No));
    assert!(began.elapsed() < PATIENCE / 2);

    fake.on_multicast(|_| ready(Ok(answers::delivered(&["a"]))));
    proxy.accept().await.unwrap();
    client
        .registry
        .multicast(MulticastRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_made_again_for_the_next_call() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_update(|_| ready(Ok(answers::updated("a"))));
    let proxy = FaultProxy::start(fake.address()).await.unwrap();
    let client = builder(format!("http://{}", proxy.addr()))
        .connect()
        .await
        .unwrap();
    client.registry.update("a".into_update()).await.unwrap();
    let before = proxy.accepted();
    proxy.cut();
    // The first call after the cut may still be written to the dead connection.
    if let Err(error) = client.registry.update("a".into_update()).await {
        assert!(error.is_transient(), "{error:?}");
        client.registry.update("a".into_update()).await.unwrap();
    }
    assert_eq!(proxy.accepted(), before + 1);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_passed_over() {
    let fake = FakeRegistry::start().await.unwrap();
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    let dead = format!("http://127.0.0.1:{}", prism_testkit::free_port());
    for _ in 0..4 {
        let client = builder(format!("{dead},{}", fake.endpoint()))
            .connect()
            .await
            .unwrap();
        client.registry.get("a").await.unwrap();
    }
}

#[tokio::test]
async fn a_multicast_may_take_as_long_as_it_asks_for() {
    let (fake, client) = started().await;
    fake.on_multicast(|_| ready(Ok(answers::delivered(&["a"]))));
    let request = MulticastRequest {
        timeout: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    client
        .registry
        .with_timeout(SOON)
        .multicast(request)
        .await
        .unwrap();
    let calls = fake.calls();
    let told = calls[0].metadata("grpc-timeout").unwrap();
    let (number, unit) = told.split_at(told.len() - 1);
    let scale = match unit {
        "m" => 1_000,
        "u" => 1_000_000,
        other => panic!("{other}"),
    };
    let told = number.parse::<u64>().unwrap() / scale;
    assert!((60..=61).contains(&told), "{told} s");
}

/// More than `grpc-timeout` can carry, and than a clock can count.
#[tokio::test]
async fn a_time_beyond_reason_is_a_day() {
    let (fake, client) = started().await;
    fake.on_get(|_| ready(Ok(answers::found("a"))));
    fake.on_multicast(|_| ready(Ok(answers::delivered(&["a"]))));
    let patient = client.registry.with_timeout(Duration::MAX);
    patient.get("a").await.unwrap();
    let request = pattern::MulticastRequest {
        timeout_ms: Some(i64::MAX),
        ..Default::default()
    };
    client.registry.raw().multicast(request).await.unwrap();
    for call in fake.calls() {
        let told = call.metadata("grpc-timeout").unwrap().to_owned();
        assert!(told == "86400000m" || told.starts_with("86399"), "{told}");
    }
}

#[tokio::test]
async fn a_pause_beyond_reason_is_not_waited_for() {
    let (fake, client) = started().await;
    fake.on_get(|_| {
        let never = Failure::new(Reason::NotReady, "never").not_applied();
        ready(Err(never
            .retry_after(Duration::from_secs(i64::MAX as u64))
            .into()))
    });
    let error = client.registry.get("a").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3_600)));
    assert_eq!(fake.count("Get"), 1);
}

#[tokio::test]
async fn an_endpoint_that_drains_costs_no_call_not_even_one_that_must_not_be_repeated() {
    let fakes = [
        FakeRegistry::start().await.unwrap(),
        FakeRegistry::start().await.unwrap(),
    ];
    for fake in &fakes {
        fake.on_update(|_| async {
            tokio::task::yield_now().await;
            Ok(answers::updated("a"))
        });
    }
    let endpoints = fakes.each_ref().map(FakeRegistry::endpoint).join(",");
    let client = builder(endpoints).connect().await.unwrap();
    client.registry.update("a".into_update()).await.unwrap();
    let serving = fakes.iter().position(|fake| fake.count("Update") == 1).unwrap();

    let callers: Vec<_> = (0..8)
        .map(|_| {
            let registry = client.registry.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    registry.update("a".into_update()).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    prism_testkit::eventually(PATIENCE, "calls are under way", || {
        ready(fakes[serving].count("Update") > 100)
    })
    .await;
    fakes[serving].drain();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let counts = fakes.each_ref().map(|fake| fake.count("Update"));
    assert_eq!(
        counts.iter().sum::<usize>(),
        1_601,
        "each call was carried out once"
    );
    assert!(counts[1 - serving] > 0, "it was drained too late");
}

/// Refusing costs the service, too.
#[tokio::test]
async fn a_service_with_too_much_to_do_is_sent_little() {
    const CALLS: usize = 400;
    let fake = FakeRegistry::start().await.unwrap();
    let client = builder(fake.endpoint()).attempts(1).connect().await.unwrap();
    let busy = Failure::new(Reason::Overloaded, "too much to do")
        .not_applied()
        .hold_back();
    fake.on_get(move |_| ready(Err(busy.clone().into())));
    for _ in 0..CALLS {
        let error = client.registry.get("a").await.unwrap_err();
        assert_eq!(
            (error.reason(), error.applied()),
            (Some(Reason::Overloaded), Applied::No)
        );
    }
    assert!(
        fake.count("Get") < CALLS * 3 / 4,
        "{} of {CALLS}",
        fake.count("Get")
    );

    // Another namespace may be served by a runner that has nothing to do.
    let elsewhere = client.namespace("elsewhere").unwrap();
    for _ in 0..CALLS {
        let error = elsewhere.registry.update("a".into_update()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented);
    }
    assert_eq!(fake.count("Update"), CALLS);

    let limit = Failure::new(Reason::Overloaded, "too many targets wait").not_applied();
    fake.on_multicast(move |_| ready(Err(limit.clone().into())));
    let before = fake.count("Multicast");
    let other = builder(fake.endpoint()).attempts(1).connect().await.unwrap();
    for _ in 0..CALLS {
        other
            .registry
            .multicast(MulticastRequest::default())
            .await
            .unwrap_err();
    }
    assert_eq!(
        fake.count("Multicast") - before,
        CALLS,
        "a limit is about what it limits"
    );
}
