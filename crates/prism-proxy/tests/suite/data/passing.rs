//! Calls pass through a proxy as if it were not there, and end in time when a runner does not end them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use prism_core::{caller::Proof, failure::Reason, id::SessionToken};
use prism_proxy::forward::{Bounds, Limits};
use tokio::sync::{Mutex, mpsc};
use tonic::Code;

use crate::data::support::{
    self, Client, Exchange, LONG, Proxy, Reply, Runner, STREAM, UNARY, message, runner, soon,
};

fn impatient() -> Limits {
    let bounds = Bounds {
        default: Duration::from_millis(200),
        longest: Duration::from_millis(400),
    };
    Limits {
        bounds,
        ..Limits::default()
    }
}

async fn proxy_and(runner: &Runner) -> (Proxy, Client) {
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[runner]);
    let client = proxy.client().await;
    (proxy, client)
}

/// A runner that echoes, and what headers its last request had.
async fn observed() -> (Runner, Arc<Mutex<HeaderMap>>) {
    let seen = Arc::<Mutex<HeaderMap>>::default();
    let noted = seen.clone();
    let runner = Runner::start(move |exchange: Exchange| {
        let noted = noted.clone();
        async move {
            *noted.lock().await = exchange.request.headers().clone();
            exchange.echo().await;
        }
    })
    .await;
    (runner, seen)
}

#[tokio::test]
async fn a_unary_call_comes_back_with_its_headers_body_and_trailers() {
    let runner = Runner::echo().await;
    let (proxy, client) = proxy_and(&runner).await;
    let reply = client.unary(UNARY, b"hello").await;
    assert_eq!(reply.body, message(b"hello"));
    assert_eq!(reply.head["x-from-runner"], "1");
    assert_eq!(reply.trailers["x-trailer"], "2");
    assert_eq!(reply.grpc().code(), Code::Ok);
    drop(client);
    let counted = proxy.counter(
        "prism_proxy_calls_total{namespace=\"test\",method=\"prism.pattern.MulticastRegistryPattern/Register\",\
         code=\"OK\"}",
    );
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn metadata_passes_but_what_is_not_the_clients_to_say() {
    let (runner, seen) = observed().await;
    let (_proxy, client) = proxy_and(&runner).await;
    let request = Client::request(UNARY)
        .header("x-custom", "kept")
        .header("x-custom-bin", "AAAA")
        .header("authorization", "Bearer mine")
        .header("x-prism-principal", "root")
        .header("x-prism-peer", "10.0.0.1")
        .header("x-prism-proof", "believe me")
        .header("proxy-authorization", "secret");
    assert_eq!(client.send(request, &message(b"")).await.grpc().code(), Code::Ok);
    let seen = seen.lock().await.clone();
    for (name, value) in [
        ("x-custom", "kept"),
        ("x-custom-bin", "AAAA"),
        ("authorization", "Bearer mine"),
    ] {
        assert_eq!(seen[name], value);
    }
    assert_eq!(seen["te"], "trailers");
    assert_eq!(seen["x-prism-peer"], "127.0.0.1", "as the proxy sees it");
    for name in ["x-prism-principal", "x-prism-proof", "proxy-authorization"] {
        assert!(!seen.contains_key(name), "{name} got through");
    }
}

/// A runner believes what is said of a caller when the proxy that it is registered with says it.
#[tokio::test]
async fn each_runner_is_shown_its_own_proof() {
    let (runner, seen) = observed().await;
    let (proxy, client) = proxy_and(&runner).await;
    let proof = Proof::of(&SessionToken::generate());
    proxy.serve_proven(runner.address, proof.clone());
    assert_eq!(client.unary(UNARY, b"").await.grpc().code(), Code::Ok);
    assert_eq!(seen.lock().await["x-prism-proof"], proof.as_str());
}

#[tokio::test]
async fn the_alias_of_the_namespace_header_works() {
    let (runner, seen) = observed().await;
    let (_proxy, client) = proxy_and(&runner).await;
    let mut request = Client::request(UNARY).header("x-namespace", support::NAMESPACE);
    request.headers_mut().unwrap().remove("x-prism-namespace");
    assert_eq!(client.send(request, &message(b"")).await.grpc().code(), Code::Ok);
    assert_eq!(seen.lock().await["x-prism-namespace"], support::NAMESPACE);
}

#[tokio::test]
async fn a_trace_is_continued_and_begun_where_there_is_none() {
    let (runner, seen) = observed().await;
    let (_proxy, client) = proxy_and(&runner).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client
        .send(
            Client::request(UNARY).header("traceparent", parent),
            &message(b""),
        )
        .await;
    assert_eq!(seen.lock().await["traceparent"], parent);
    client.unary(UNARY, b"").await;
    let begun = seen.lock().await["traceparent"].clone();
    assert!(prism_core::telemetry::TraceContext::parse(begun.to_str().unwrap()).is_some());
}

#[tokio::test]
async fn the_runner_learns_how_much_time_is_left() {
    let (runner, seen) = observed().await;
    let (_proxy, client) = proxy_and(&runner).await;
    let millis = |headers: &HeaderMap| {
        let text = headers["grpc-timeout"].to_str().unwrap().to_owned();
        text.strip_suffix('u').unwrap().parse::<u64>().unwrap() / 1_000
    };
    client.unary_within(UNARY, Duration::from_secs(10)).await;
    assert!((5_000..10_000).contains(&millis(&*seen.lock().await)));
    client.unary(UNARY, b"").await;
    let stated = seen.lock().await.contains_key("grpc-timeout");
    assert!(
        !stated,
        "what the caller leaves to the runner is left to the runner"
    );
}

#[tokio::test]
async fn a_failed_call_comes_back_as_the_runner_said_it() {
    let runner = Runner::failing(
        9,
        &[
            ("grpc-message", "stale"),
            ("prism-applied", "no"),
            ("x-more", "3"),
        ],
    )
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.grpc().code(), reply.grpc().message()),
        (Code::FailedPrecondition, "stale")
    );
    assert_eq!(
        (&reply.head["prism-applied"], &reply.head["x-more"]),
        (&"no".parse().unwrap(), &"3".parse().unwrap())
    );
    assert!(
        reply.trailers.is_empty() && reply.body.is_empty(),
        "headers alone stay headers alone"
    );
    assert_eq!(runner.calls(), 1);
}

#[tokio::test]
async fn both_ends_of_a_stream_talk_in_turns() {
    let runner = Runner::start(|mut exchange| async move {
        let mut down = exchange.begin();
        while let Some(content) = exchange.read_message().await {
            down.send_data(message(&content), false).unwrap();
        }
        down.send_trailers(runner::ok()).unwrap();
    })
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    let (response, mut up) = client.open(STREAM).await;
    let mut down = soon(response).await.unwrap().into_body();
    for turn in 0..5_u8 {
        up.send_data(message(&[turn]), false).unwrap();
        assert_eq!(soon(down.data()).await.unwrap().unwrap(), message(&[turn]));
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert!(soon(down.data()).await.is_none());
    assert_eq!(soon(down.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn many_megabytes_pass_in_both_directions_at_once() {
    const PIECE: usize = 60_000;
    const PIECES: usize = 200;
    let runner = Runner::start(|mut exchange| async move {
        let mut down = exchange.begin();
        let up = tokio::spawn(async move { exchange.read_all().await });
        for _ in 0..PIECES {
            runner_send(&mut down, message(&vec![7; PIECE])).await;
        }
        assert_eq!(up.await.unwrap(), PIECES * (PIECE + 5));
        down.send_trailers(runner::ok()).unwrap();
    })
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    let (response, mut up) = client.open(STREAM).await;
    let upload = tokio::spawn(async move {
        for piece in 0..PIECES {
            runner_send(&mut up, message(&vec![7; PIECE])).await;
            if piece + 1 == PIECES {
                up.send_data(Bytes::new(), true).unwrap();
            }
        }
    });
    let reply = Reply::read(soon(response).await.unwrap()).await;
    upload.await.unwrap();
    assert_eq!(
        (reply.body.len(), reply.grpc().code()),
        (PIECES * (PIECE + 5), Code::Ok)
    );
}

async fn runner_send(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = soon(std::future::poll_fn(|cx| stream.poll_capacity(cx)))
            .await
            .unwrap()
            .unwrap();
        stream
            .send_data(bytes.split_to(room.min(bytes.len())), false)
            .unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_stop_its_own_uploads() {
    let (counted, mut count) = mpsc::channel(1);
    let runner = Runner::start(move |mut exchange| {
        let counted = counted.clone();
        async move {
            let mut down = exchange.begin();
            // More than every window on the way holds.
            down.send_data(Bytes::from(vec![7; 32 << 20]), false).unwrap();
            counted.send(exchange.read_all().await).await.unwrap();
        }
    })
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    let (response, mut up) = client.open(STREAM).await;
    let _unread = soon(response).await.unwrap();
    for _ in 0..100 {
        runner_send(&mut up, message(&vec![7; 50_000])).await;
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon(count.recv()).await, Some(100 * 50_005));
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    let runner = Runner::start(|mut exchange| async move {
        if exchange.request.uri().path() == UNARY {
            return exchange.echo().await;
        }
        // More than every window on the way holds.
        let mut down = exchange.begin();
        down.send_data(Bytes::from(vec![7; 2 << 20]), true).unwrap();
    })
    .await;
    let (proxy, idle) = proxy_and(&runner).await;
    let mut unread = Vec::new();
    for _ in 0..100 {
        let (response, up) = idle.open(STREAM).await;
        unread.push((soon(response).await.unwrap(), up));
    }
    let client = proxy.client().await;
    for _ in 0..20 {
        let reply = client.unary_within(UNARY, LONG / 2).await;
        assert_eq!(reply.grpc().code(), Code::Ok);
    }
}

#[tokio::test]
async fn a_mute_runner_costs_the_callers_deadline_and_no_more() {
    let runner = Runner::mute().await;
    let (_proxy, client) = proxy_and(&runner).await;
    let reply = client.unary_within(UNARY, Duration::from_millis(100)).await;
    assert_eq!(reply.grpc().code(), Code::DeadlineExceeded);
    assert_eq!(reply.failure().reason, Reason::DeadlineExceeded);
    assert_eq!(reply.failure().applied, Some(true), "the runner has the request");
}

#[tokio::test]
async fn a_call_without_a_deadline_is_given_one_and_a_long_one_is_shortened() {
    let runner = Runner::mute().await;
    let proxy = Proxy::start(impatient()).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    assert_eq!(client.unary(UNARY, b"x").await.reason(), "DEADLINE_EXCEEDED");
    assert_eq!(
        client.unary_within(UNARY, LONG * 10).await.reason(),
        "DEADLINE_EXCEEDED"
    );
    let unknown = "/not.compiled.In/Method";
    assert_eq!(client.unary(unknown, b"x").await.reason(), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_runner_that_falls_silent_midway_costs_the_deadline_and_no_more() {
    let runner = Runner::start(|mut exchange| async move {
        let mut down = exchange.begin();
        down.send_data(message(b"part"), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(impatient()).await;
    proxy.serve(&[&runner]);
    let reply = proxy.client().await.unary(UNARY, b"x").await;
    assert_eq!(reply.body, message(b"part"));
    assert_eq!(reply.reason(), "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_stream_without_a_deadline_outlives_the_default() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let runner = Runner::start(move |mut exchange| {
        let mut gone = gone.clone();
        async move {
            if exchange.request.uri().path() == UNARY {
                return std::future::pending().await;
            }
            let mut down = exchange.begin();
            gone.wait_for(|go| *go).await.unwrap();
            down.send_trailers(runner::ok()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(impatient()).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let (response, _up) = client.open(STREAM).await;
    let response = soon(response).await.unwrap();
    // A unary call that began later has run out of time by now.
    assert_eq!(client.unary(UNARY, b"x").await.reason(), "DEADLINE_EXCEEDED");
    go.send(true).unwrap();
    assert_eq!(Reply::read(response).await.grpc().code(), Code::Ok);
}

#[tokio::test]
async fn a_stream_with_a_deadline_ends_with_it() {
    let runner = Runner::start(|mut exchange| async move {
        let _down = exchange.begin();
        std::future::pending::<()>().await;
    })
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    assert_eq!(
        client
            .unary_within(STREAM, Duration::from_millis(100))
            .await
            .reason(),
        "DEADLINE_EXCEEDED"
    );
}

#[tokio::test]
async fn a_call_given_up_by_its_client_is_given_up_at_the_runner() {
    let (gone, mut told) = mpsc::channel(1);
    let runner = Runner::start(move |mut exchange: Exchange| {
        let gone = gone.clone();
        async move {
            let reason = std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await;
            gone.send(reason.unwrap()).await.unwrap();
        }
    })
    .await;
    let (proxy, client) = proxy_and(&runner).await;
    let (response, up) = client.open(UNARY).await;
    runner.arrival().await;
    drop((response, up));
    assert_eq!(soon(told.recv()).await, Some(h2::Reason::CANCEL));

    let other = proxy.client().await;
    let (_response, _up) = other.open(UNARY).await;
    runner.arrival().await;
    other.vanish();
    assert_eq!(soon(told.recv()).await, Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn a_runner_that_ends_without_a_status_is_reported() {
    let runner = Runner::start(|mut exchange| async move {
        exchange.begin().send_data(message(b"x"), true).unwrap();
    })
    .await;
    let (_proxy, client) = proxy_and(&runner).await;
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("RUNNER_LOST", Some(true))
    );
}
