//! Calls that come too often, as they are told.

use std::time::Duration;

use prism_core::failure::Reason;
use prism_proto::pattern as proto;
use serde_json::json;
use tonic::Request;

use super::{Client, failure, fixture, registration, to};
use crate::testing::Op;

/// The same call by somebody else.
fn by<T>(caller: &str, mut request: Request<T>) -> Request<T> {
    let caller = caller.parse().unwrap();
    request.metadata_mut().insert("x-prism-principal", caller);
    request
}

async fn register(client: &mut Client, caller: &str, name: &str) -> Result<(), tonic::Status> {
    let request = by(caller, to("test", registration(name, &json!({}))));
    client.register(request).await.map(drop)
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_again_and_nothing_is_done() {
    let fixture = fixture(|config| config.behavior.caller_writes = "2/h".parse().ok());
    let mut client = fixture.client().await;
    for name in ["a", "b"] {
        // Two at once would be one more than what is saved up in a second.
        let outcome = register(&mut client, name, name).await;
        assert!(outcome.is_ok(), "each caller has its own: {outcome:?}");
    }
    let told = failure(&register(&mut client, "a", "c").await.unwrap_err());
    assert_eq!((told.reason, told.applied), (Reason::RateLimited, Some(false)));
    assert_eq!(told.reason.code(), tonic::Code::ResourceExhausted);
    let pause = told.retry_after.unwrap();
    assert!(
        pause > Duration::from_secs(1_700) && pause <= Duration::from_secs(1_800),
        "{pause:?}"
    );
    assert_eq!(
        (told.details["key"].as_str(), told.details["limit"].as_str()),
        ("caller_writes", "2/h")
    );
    assert_eq!(
        fixture.store.script.count(Op::Register),
        2,
        "the third reached no slot"
    );
    // Reads are another matter.
    let read = by("a", to("test", proto::GetRequest { identity: "a".into() }));
    assert!(client.get(read).await.is_ok());
}

/// Nobody is named: whoever calls from one host is one caller.
#[tokio::test]
async fn callers_without_a_name_are_told_apart_by_host() {
    let fixture = fixture(|config| config.behavior.caller_reads = "1/h".parse().ok());
    let read = async |peer: Option<&str>| {
        // A connection of its own, and so another port.
        let mut request = to("test", proto::EnumerateRequest::default());
        if let Some(peer) = peer {
            request
                .metadata_mut()
                .insert("x-prism-peer", peer.parse().unwrap());
        }
        fixture.client().await.enumerate(request).await.is_ok()
    };
    assert_eq!((read(None).await, read(None).await), (true, false));
    assert!(!read(Some("127.0.0.1")).await, "the same host, said by a proxy");
    assert_eq!(
        (read(Some("192.0.2.1")).await, read(Some("192.0.2.1")).await),
        (true, false)
    );
    assert!(read(Some("192.0.2.2")).await);
}

#[tokio::test]
async fn every_method_counts_as_what_it_does() {
    let limited = async |key: &str| {
        let fixture = fixture(|config| {
            let rate = "1/h".parse().ok();
            match key {
                "writes" => config.behavior.caller_writes = rate,
                "reads" => config.behavior.caller_reads = rate,
                _ => config.behavior.caller_multicasts = rate,
            }
        });
        // Spent by one call of each kind.
        let mut client = fixture.client().await;
        client
            .register(to("test", registration("a", &json!({}))))
            .await
            .unwrap();
        client
            .get(to("test", proto::GetRequest { identity: "a".into() }))
            .await
            .unwrap();
        client.multicast(to("test", Default::default())).await.unwrap();
        refused(&mut client).await
    };
    assert_eq!(
        limited("reads").await,
        ["get", "enumerate", "check_schema", "watch", "explain"]
    );
    assert_eq!(limited("multicasts").await, ["multicast"]);
    assert_eq!(
        limited("writes").await,
        [
            "register",
            "renew",
            "update",
            "unregister",
            "register_many",
            "subscribe"
        ]
    );
}

/// Many registrations in one stream are many writes: they are made as fast as their caller may write, for as
/// long as there is time, and each of the rest is told that it was not made.
#[tokio::test]
async fn a_stream_of_registrations_is_no_way_around() {
    let register = async |rate: &str, burst, count: usize| {
        let fixture = fixture(|config| {
            config.behavior.caller_writes = rate.parse().ok();
            config.behavior.caller_burst = burst;
        });
        let requests = (0..count).map(|number| registration(&format!("id-{number:02}"), &json!({})));
        let stream = tokio_stream::iter(requests.collect::<Vec<_>>());
        let mut client = fixture.client().await;
        let answer = client
            .register_many(to("test", stream))
            .await
            .unwrap()
            .into_inner();
        let results = answer.results.into_iter().map(|result| {
            assert!(!result.maybe_applied);
            let limited = result.reason == Reason::RateLimited.as_str();
            let pause = result.retry_after_ms.unwrap_or_default();
            assert_eq!(
                pause > 1_000_000,
                limited,
                "whoever may come again is told when: {pause}"
            );
            if result.success {
                "OK".to_owned()
            } else {
                result.reason
            }
        });
        (
            results.collect::<Vec<_>>(),
            fixture.store.script.count(Op::Register),
        )
    };
    let (results, _) = register("200/s", Duration::from_millis(10), 30).await;
    assert_eq!(results, ["OK"; 30], "later, and all of them");
    let (results, calls) = register("3/h", Duration::from_secs(3_600), 6).await;
    assert_eq!(
        results,
        ["OK", "OK", "OK", "RATE_LIMITED", "RATE_LIMITED", "RATE_LIMITED"]
    );
    assert_eq!(calls, 1, "those that may are registered together");
}

/// The methods that are refused for being called too often.
async fn refused(client: &mut Client) -> Vec<&'static str> {
    let mut refused = Vec::new();
    let mut note = |method, outcome: Result<(), tonic::Status>| {
        let limited = |status: tonic::Status| {
            status.code() == tonic::Code::ResourceExhausted && failure(&status).reason == Reason::RateLimited
        };
        if outcome.is_err_and(limited) {
            refused.push(method);
        }
    };
    note(
        "register",
        client.register(to("test", Default::default())).await.map(drop),
    );
    note(
        "renew",
        client.renew(to("test", Default::default())).await.map(drop),
    );
    note(
        "update",
        client.update(to("test", Default::default())).await.map(drop),
    );
    note("get", client.get(to("test", Default::default())).await.map(drop));
    note(
        "enumerate",
        client.enumerate(to("test", Default::default())).await.map(drop),
    );
    note(
        "multicast",
        client.multicast(to("test", Default::default())).await.map(drop),
    );
    note(
        "unregister",
        client.unregister(to("test", Default::default())).await.map(drop),
    );
    note(
        "check_schema",
        client
            .check_schema(to("test", Default::default()))
            .await
            .map(drop),
    );
    note(
        "watch",
        client.watch(to("test", Default::default())).await.map(drop),
    );
    note(
        "explain",
        client.explain(to("test", Default::default())).await.map(drop),
    );
    let none = to("test", tokio_stream::iter(Vec::new()));
    note("register_many", client.register_many(none).await.map(drop));
    let opening = to("test", tokio_stream::iter(Vec::new()));
    note("subscribe", client.subscribe(opening).await.map(drop));
    refused
}

/// Whom a multicast reaches is known only when its filter has been answered, and then nothing is sent.
#[tokio::test]
async fn a_multicast_to_too_many_reaches_nobody() {
    let fixture = fixture(|config| {
        config.behavior.caller_targets = "3/h".parse().ok();
        config.behavior.caller_burst = Duration::from_secs(3_600);
    });
    let client = fixture.client().await;
    let ask = async |caller: &str, dry_run: bool| {
        let request = proto::MulticastRequest {
            dry_run,
            ..Default::default()
        };
        let multicast = by(caller, to("test", request));
        let answer = client.clone().multicast(multicast).await;
        answer.map(|answer| answer.into_inner().target_count)
    };
    let send = async |caller: &str| ask(caller, false).await;
    fixture.service_registers(&["a", "b"]).await;
    // Looking uses nothing up.
    for _ in 0..2 {
        assert_eq!(ask("one", true).await.unwrap(), 2);
    }
    assert_eq!(send("one").await.unwrap(), 2);
    let told = failure(&send("one").await.unwrap_err());
    assert_eq!((told.reason, told.applied), (Reason::RateLimited, Some(false)));
    assert!(
        told.retry_after
            .is_some_and(|pause| pause <= Duration::from_secs(1_200))
    );
    assert_eq!(told.details["key"], "caller_targets");
    assert_eq!(send("other").await.unwrap(), 2);
    // More than may ever be reached at once.
    fixture.service_registers(&["c", "d"]).await;
    let told = failure(&send("third").await.unwrap_err());
    assert_eq!((told.retry_after, told.details["burst"].as_str()), (None, "3"));
    assert_eq!(
        fixture.broker.batches().len(),
        2,
        "only what was allowed was sent"
    );
}
