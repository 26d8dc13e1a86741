//! What the proxy refuses by itself, and how it says so.

use std::time::Duration;

use http::Request;
use prism_core::failure::Reason;
use prism_proxy::forward::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::data::support::{Client, NAMESPACE, Proxy, Reply, Runner, STREAM, UNARY, message, soon};

#[tokio::test]
async fn an_unknown_namespace_is_not_found() {
    let proxy = Proxy::start(Limits::default()).await;
    let mut request = Client::request(UNARY);
    request
        .headers_mut()
        .unwrap()
        .insert("x-prism-namespace", "nowhere".parse().unwrap());
    let reply = proxy.client().await.send(request, &message(b"x")).await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::NotFound, "UNKNOWN_NAMESPACE")
    );
    assert_eq!(reply.failure().details["namespace"], "nowhere");
    assert_eq!(reply.failure().applied, Some(false));
}

#[tokio::test]
async fn a_namespace_that_nobody_serves_says_when_to_try_again() {
    let proxy = Proxy::start(Limits::default()).await;
    let reply = proxy.client().await.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::Unavailable, "NO_RUNNER")
    );
    assert!(reply.failure().retry_after.is_some());
    assert_eq!(reply.failure().applied, Some(false));
}

#[tokio::test]
async fn a_call_without_a_namespace_is_told_which_metadata_it_lacks() {
    let proxy = Proxy::start(Limits::default()).await;
    let mut request = Client::request(UNARY);
    request.headers_mut().unwrap().remove("x-prism-namespace");
    let reply = proxy.client().await.send(request, &message(b"x")).await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
    assert_eq!(reply.failure().details["field"], "x-prism-namespace");
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    let proxy = Proxy::start(Limits::default()).await;
    let reply = proxy
        .client()
        .await
        .send(Client::request(UNARY).header("grpc-timeout", "soon"), b"")
        .await;
    assert_eq!(reply.failure().reason, Reason::InvalidRequest);
    assert_eq!(reply.failure().details["field"], "grpc-timeout");
}

#[tokio::test]
async fn a_message_that_is_too_large_goes_no_further() {
    let runner = Runner::start(|mut exchange| async move {
        // Would be answered, if it came through.
        if exchange.read_message().await.is_some() {
            exchange.fail(0, &[]);
        }
    })
    .await;
    let proxy = Proxy::start(Limits {
        message: 1_000,
        ..Limits::default()
    })
    .await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    assert_eq!(client.unary(UNARY, &[7; 1_000]).await.grpc().code(), Code::Ok);
    let reply = client.unary(UNARY, &[7; 1_001]).await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::InvalidArgument, "PAYLOAD_TOO_LARGE")
    );
    let details = reply.failure().details;
    assert_eq!(
        [&details["key"], &details["size"], &details["limit"]],
        ["limits.message_size", "1001", "1000"]
    );
    assert_eq!(reply.failure().applied, Some(false));

    // The announcement of a large message is enough.
    let (response, mut up) = client.open(STREAM).await;
    up.send_data(vec![0, 0xff, 0xff, 0xff, 0xff].into(), false)
        .unwrap();
    assert_eq!(
        Reply::read(soon(response).await.unwrap()).await.reason(),
        "PAYLOAD_TOO_LARGE"
    );
}

#[tokio::test]
async fn more_calls_than_allowed_are_refused_at_once() {
    let runner = Runner::mute().await;
    let proxy = Proxy::start(Limits {
        calls: 2,
        ..Limits::default()
    })
    .await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(client.open(UNARY).await);
        runner.arrival().await;
    }
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::ResourceExhausted, "OVERLOADED")
    );
    assert!(reply.failure().retry_after.is_some());
    assert!(reply.failure().hold_back, "whatever the call");
    assert_eq!(runner.calls(), 2);
    // Streams have places of their own.
    held.push(client.open(STREAM).await);
    runner.arrival().await;

    proxy.forward.set_limits(Limits {
        calls: 3,
        ..Limits::default()
    });
    held.push(client.open(UNARY).await);
    runner.arrival().await;
    assert_eq!(proxy.forward.under_way(), 4);
    held.clear();
    soon(async {
        while proxy.forward.under_way() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_at_once() {
    let runner = Runner::mute().await;
    let proxy = Proxy::start(Limits {
        streams: 1,
        ..Limits::default()
    })
    .await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let _held = client.open(STREAM).await;
    runner.arrival().await;
    let reply = client.unary(STREAM, b"x").await;
    assert_eq!(reply.reason(), "OVERLOADED");
    assert!(!reply.failure().hold_back, "calls are taken");
}

#[tokio::test]
async fn headers_have_a_limit() {
    let runner = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let with = |length: usize| {
        let request = Client::request(UNARY).header("x-long", "x".repeat(length));
        let client = client.clone();
        async move { client.send(request, &message(b"x")).await }
    };
    assert_eq!(with(31_000).await.grpc().code(), Code::Ok);
    let reply = with(33_000).await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::InvalidArgument, "INVALID_REQUEST")
    );
    assert_eq!(
        (
            &*reply.failure().details["field"],
            &*reply.failure().details["limit"]
        ),
        ("metadata", "32768")
    );
    assert_eq!(
        with(140_000).await.status.as_u16(),
        431,
        "what is far beyond is not even read"
    );
    assert_eq!(with(1).await.grpc().code(), Code::Ok, "the connection lives on");
    assert_eq!(runner.calls(), 2);
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_a_stream_that_is_under_way() {
    let (ended, mut told) = tokio::sync::mpsc::channel(1);
    let runner = Runner::start(move |mut exchange| {
        let ended = ended.clone();
        async move {
            let mut down = exchange.begin();
            let first = exchange.read_message().await.unwrap();
            down.send_data(message(&first), false).unwrap();
            let reset = std::future::poll_fn(|cx| down.poll_reset(cx)).await;
            ended.send(reset.unwrap()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Limits {
        message: 1_000,
        ..Limits::default()
    })
    .await;
    proxy.serve(&[&runner]);
    let (response, mut up) = proxy.client().await.open(STREAM).await;
    up.send_data(message(b"first"), false).unwrap();
    let mut down = soon(response).await.unwrap();
    assert_eq!(
        soon(down.body_mut().data()).await.unwrap().unwrap(),
        message(b"first")
    );
    up.send_data(message(&[7; 1_001]), false).unwrap();
    let reply = Reply::read(down).await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("PAYLOAD_TOO_LARGE", Some(true))
    );
    assert_eq!(soon(told.recv()).await, Some(h2::Reason::CANCEL));
}

#[tokio::test]
async fn what_is_no_grpc_at_the_runner_is_said_to_be_so() {
    for (status, code, reason) in [
        (404, Code::Internal, "INTERNAL"),
        (503, Code::Unavailable, "RUNNER_LOST"),
    ] {
        let web = Runner::start(move |mut exchange| async move {
            let head = http::Response::builder().status(status).body(()).unwrap();
            exchange.respond.send_response(head, true).unwrap();
        })
        .await;
        let proxy = Proxy::start(Limits::default()).await;
        proxy.serve(&[&web]);
        let reply = proxy.client().await.unary(UNARY, b"x").await;
        assert_eq!((reply.grpc().code(), reply.reason()), (code, reason));
        assert!(reply.grpc().message().contains(&status.to_string()), "{reply:?}");
        assert_eq!((reply.failure().applied, web.calls()), (Some(true), 1));
    }
}

#[tokio::test]
async fn calls_wait_while_runners_change_over() {
    let runner = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    assert!(proxy.table.hold(NAMESPACE));
    let client = proxy.client().await;
    let waiting = tokio::spawn(async move { client.unary(UNARY, b"x").await });
    soon(async {
        while proxy.forward.under_way() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!waiting.is_finished());
    proxy.serve(&[&runner]);
    assert_eq!(soon(waiting).await.unwrap().grpc().code(), Code::Ok);
}

#[tokio::test]
async fn calls_do_not_wait_for_ever_while_runners_change_over() {
    let proxy = Proxy::start(Limits {
        hold: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    proxy.table.hold(NAMESPACE);
    let reply = proxy.client().await.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("NO_RUNNER", Some(false))
    );
}

#[tokio::test]
async fn clients_cannot_stop_runners() {
    let runner = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let reply = proxy
        .client()
        .await
        .unary("/prism.interfaces.LifecycleInterface/Stop", b"")
        .await;
    assert_eq!(
        (reply.grpc().code(), reply.reason()),
        (Code::Unimplemented, "NOT_IMPLEMENTED")
    );
    assert_eq!(runner.calls(), 0);
}

#[tokio::test]
async fn what_is_no_grpc_gets_an_http_answer() {
    let proxy = Proxy::start(Limits::default()).await;
    let client = proxy.client().await;
    let json = Request::post("http://proxy/x").header("content-type", "application/json");
    assert_eq!(client.send(json, b"{}").await.status.as_u16(), 415);
    assert_eq!(
        client
            .send(Request::get("http://proxy/"), b"")
            .await
            .status
            .as_u16(),
        404
    );

    let mut old = tokio::net::TcpStream::connect(proxy.port.address())
        .await
        .unwrap();
    old.write_all(b"GET / HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon(old.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("gRPC"),
        "{answer}"
    );
}

#[tokio::test]
async fn load_goes_to_the_runner_that_has_less_of_it() {
    let (busy, idle) = (Runner::mute().await, Runner::echo().await);
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&busy]);
    let client = proxy.client().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(client.open(STREAM).await);
        busy.arrival().await;
    }
    proxy.serve_beside(idle.address);
    for _ in 0..50 {
        assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    }
    assert_eq!((busy.calls(), idle.calls()), (5, 50));
}
