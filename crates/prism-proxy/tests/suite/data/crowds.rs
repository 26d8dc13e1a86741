//! Many calls on one connection, and what some of them must not do to the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prism_proxy::{
    forward::{Limits, lane},
    serve::{Port, Settings},
};
use prism_testkit::{Direction, FaultProxy, Flow, give_up_calls};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::Code;

use crate::data::support::{
    Client, Exchange, NAMESPACE, Proxy, Reply, Runner, STREAM, UNARY, message, runner, soon,
};

async fn until(what: &str, is: impl Fn() -> bool) {
    prism_testkit::eventually(Duration::from_secs(20), what, async || is()).await;
}

/// Every call that times out at both ends at the same moment looks like this to the proxy.
#[tokio::test]
async fn answers_to_calls_given_up_do_not_end_the_connection_of_the_others() {
    // More than what a library lets pass over the life of a connection before it takes it for an attack.
    const GIVEN_UP: usize = 1_500;
    let (go, gone) = watch::channel(false);
    let answered = Arc::<AtomicUsize>::default();
    let counted = answered.clone();
    let runner = Runner::start(move |mut exchange: Exchange| {
        let (mut gone, answered) = (gone.clone(), counted.clone());
        async move {
            if exchange.request.uri().path() == STREAM {
                let mut down = exchange.begin();
                while exchange.read_message().await.is_some() {
                    down.send_data(message(b"still here"), false).unwrap();
                }
                return;
            }
            gone.wait_for(|go| *go).await.unwrap();
            exchange.fail(4, &[]);
            answered.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let link = FaultProxy::start(runner.address).await.unwrap();
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([link.addr()], &[]);
    let client = proxy.client().await;
    let (response, mut up) = client.open(STREAM).await;
    let mut down = soon(response).await.unwrap().into_body();
    let mut calls = Vec::new();
    for _ in 0..GIVEN_UP {
        calls.push(client.open(UNARY).await);
    }
    until("all calls are at the runner", || runner.calls() == GIVEN_UP + 1).await;

    // The runner does not hear that they are given up, and answers.
    link.set(Direction::ToServer, Flow::Hold);
    drop(calls);
    until("the calls are given up", || proxy.forward.under_way() == 1).await;
    go.send(true).unwrap();
    until("all calls are answered", || {
        answered.load(Ordering::SeqCst) == GIVEN_UP
    })
    .await;
    link.heal();
    up.send_data(message(b"are you?"), false).unwrap();
    assert_eq!(soon(down.data()).await.unwrap().unwrap(), message(b"still here"));
}

/// A client that is far away, and has sent its requests by the time it hears that they are refused.
#[tokio::test]
async fn requests_that_come_after_their_refusal_do_not_end_the_connection_of_the_others() {
    // More than what a library lets pass over the life of a connection before it takes it for an attack.
    const REFUSED: usize = 1_500;
    let runner = Runner::start(|mut exchange: Exchange| async move {
        let mut down = exchange.begin();
        while exchange.read_message().await.is_some() {
            down.send_data(message(b"still here"), false).unwrap();
        }
    })
    .await;
    let full = Limits {
        calls: 0,
        ..Limits::default()
    };
    let proxy = Proxy::start(full).await;
    proxy.serve(&[&runner]);
    let link = FaultProxy::start(proxy.port.address()).await.unwrap();
    let client = Client::connect(link.addr()).await;
    let (response, mut up) = client.open(STREAM).await;
    let mut down = soon(response).await.unwrap().into_body();

    link.set(Direction::ToClient, Flow::Hold);
    let mut calls = Vec::new();
    for _ in 0..REFUSED {
        calls.push(client.open(UNARY).await);
    }
    let refused = "prism_proxy_calls_total{namespace=\"test\",method=\"prism.pattern.MulticastRegistryPattern/Register\",\
                   code=\"RESOURCE_EXHAUSTED\"}";
    until("all calls are refused", || {
        proxy.counter(refused) == REFUSED as u64
    })
    .await;
    for (_, request) in &mut calls {
        request.send_data(message(b"x"), true).unwrap();
    }
    up.send_data(message(b"are you?"), false).unwrap();
    link.heal();
    assert_eq!(soon(down.data()).await.unwrap().unwrap(), message(b"still here"));
}

/// A client whose calls all timed out while the proxy had no time for it.
#[tokio::test]
async fn calls_given_up_before_they_are_looked_at_do_not_end_the_connection() {
    let runner = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let survived = |count| give_up_calls(proxy.port.address(), UNARY, NAMESPACE, count);
    assert!(survived(300).await.unwrap());
    assert!(!survived(5_000).await.unwrap(), "an attack is one");
}

/// A client that makes the proxy reset its calls, to have more of them than it may.
#[tokio::test]
async fn calls_that_are_reset_for_nonsense_make_no_room_for_more() {
    const OPEN: usize = 100;
    // Frames of HTTP/2: a request with three headers, and room for more of its answer than there can be.
    const HEADERS: [u8; 5] = [0, 0, 3, 1, 4];
    const POST_HTTP_ROOT: [u8; 3] = [0x83, 0x86, 0x84];
    const WINDOW_UPDATE: [u8; 5] = [0, 0, 4, 8, 0];
    const ALL: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
    let settings = Settings {
        streams: OPEN as u32,
        ..Settings::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (looked_at, most) = (Arc::new(()), Arc::<AtomicUsize>::default());
    let seen = most.clone();
    let port = Port::serve(listener, settings, Gauge::default(), move |_| {
        let looked_at = looked_at.clone();
        // Beside the one that is held here.
        seen.fetch_max(Arc::strong_count(&looked_at) - 1, Ordering::SeqCst);
        async move {
            std::future::pending::<()>().await;
            drop(looked_at);
            http::Response::new(http_body_util::Full::<Bytes>::default())
        }
    })
    .unwrap();

    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (0..5_000_u32).map(|call| (2 * call + 1).to_be_bytes()) {
        bytes.extend(HEADERS.iter().chain(&stream).chain(&POST_HTTP_ROOT));
        bytes.extend(WINDOW_UPDATE.iter().chain(&stream).chain(&ALL));
    }
    let mut connection = TcpStream::connect(port.address()).await.unwrap();
    connection.write_all(&bytes).await.unwrap();
    let mut answers = [0; 1 << 10];
    let quiet = Duration::from_millis(200);
    while let Ok(Ok(1..)) = tokio::time::timeout(quiet, connection.read(&mut answers)).await {}
    let most = most.load(Ordering::SeqCst);
    assert!((1..=2 * OPEN).contains(&most), "{most} at once");
}

/// Small messages that a client does not read wait at the runner, and are no reason to cut off everybody.
#[tokio::test]
async fn small_messages_that_nobody_reads_wait_their_turn() {
    const MESSAGES: usize = 2_000;
    let runner = Runner::start(|mut exchange: Exchange| async move {
        if exchange.request.uri().path() == UNARY {
            return exchange.echo().await;
        }
        let mut down = exchange.begin();
        for _ in 0..MESSAGES {
            down.send_data(message(&[7; 25]), false).unwrap();
        }
        down.send_trailers(runner::ok()).unwrap();
    })
    .await;
    let lanes = lane::Settings {
        stream_window: 128 << 10,
        connection_window: 128 << 10,
        ..lane::Settings::default()
    };
    let proxy = Proxy::with_lanes(Limits::default(), Settings::default(), lanes).await;
    proxy.serve(&[&runner]);
    let idle = Client::connect_with_window(proxy.port.address(), 100).await;
    let (response, _up) = idle.open(STREAM).await;
    let unread = soon(response).await.unwrap();
    let client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    }
    let reply = Reply::read(unread).await;
    assert_eq!((reply.body.len(), reply.grpc().code()), (MESSAGES * 30, Code::Ok));
}

/// What clients do not read stays at the runner, but for what the windows on the way hold.
#[tokio::test]
async fn clients_that_do_not_read_cost_their_windows_and_no_more() {
    const CLIENTS: u64 = 50;
    let runner = Runner::start(|mut exchange: Exchange| async move {
        if exchange.request.uri().path() == UNARY {
            return exchange.echo().await;
        }
        let mut down = exchange.begin();
        down.send_data(Bytes::from(vec![7; 4 << 20]), true).unwrap();
    })
    .await;
    let link = FaultProxy::start(runner.address).await.unwrap();
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([link.addr()], &[]);
    let mut unread = Vec::new();
    for _ in 0..CLIENTS {
        let client = proxy.client().await;
        let (response, up) = client.open(STREAM).await;
        unread.push((client, soon(response).await.unwrap(), up));
    }
    let window = u64::from(lane::Settings::default().stream_window);
    let came = || link.forwarded(Direction::ToClient);
    until("the windows are full", || came() >= CLIENTS * window).await;
    let client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    }
    // The proxy's window, the client's, and what is passed on between them.
    let most = CLIENTS * 3 * window;
    assert!(came() < most, "{} of {most} bytes", came());
}

/// An answer that its client leaves lying holds a place among all calls, and not for longer than the call
/// may take.
#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up() {
    let runner = Runner::echo().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let client = Client::connect_with_window(proxy.port.address(), 0).await;
    let request = Client::request(UNARY).header("grpc-timeout", "1S");
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, mut up) = send.send_request(request.body(()).unwrap(), false).unwrap();
    up.send_data(message(b"x"), true).unwrap();
    let mut unread = soon(response).await.unwrap().into_body();
    assert_eq!(proxy.forward.under_way(), 1);
    until("it is given up", || proxy.forward.under_way() == 0).await;
    assert!(soon(unread.data()).await.unwrap().is_err());
}

#[tokio::test]
async fn thousands_of_streams_share_one_connection() {
    const STREAMS: usize = 5_000;
    let runner = Runner::start(|mut exchange: Exchange| async move {
        let mut down = exchange.begin();
        while let Some(content) = exchange.read_message().await {
            down.send_data(message(&content), false).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let (response, up) = client.open(STREAM).await;
        streams.push((soon(response).await.unwrap().into_body(), up));
    }
    assert_eq!(proxy.forward.under_way(), STREAMS);
    for (number, (_, up)) in streams.iter_mut().enumerate() {
        up.send_data(message(&number.to_be_bytes()), false).unwrap();
    }
    for (number, (down, _)) in streams.iter_mut().enumerate() {
        let read: Bytes = soon(down.data()).await.unwrap().unwrap();
        down.flow_control().release_capacity(read.len()).unwrap();
        assert_eq!(read, message(&number.to_be_bytes()));
    }
    drop(streams);
    until("all of them are over", || proxy.forward.under_way() == 0).await;
}

/// A runner with ten streams on each connection, that holds what streams and answers the rest.
async fn narrow() -> Runner {
    Runner::start_with(10, |exchange: Exchange| async move {
        if exchange.request.uri().path() == UNARY {
            return exchange.echo().await;
        }
        let _held = exchange;
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn a_full_connection_is_not_the_last_one() {
    let runner = narrow().await;
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let mut held = Vec::new();
    for _ in 0..25 {
        held.push(client.open(STREAM).await);
    }
    until("all streams are at the runner", || runner.calls() == 25).await;
    assert_eq!(runner.connections(), 3);
    assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    assert_eq!(runner.connections(), 3);
}

#[tokio::test]
async fn what_no_connection_has_room_for_is_refused_at_once() {
    let runner = narrow().await;
    let lanes = lane::Settings {
        most_connections: 2,
        ..lane::Settings::default()
    };
    let proxy = Proxy::with_lanes(Limits::default(), Settings::default(), lanes).await;
    proxy.serve(&[&runner]);
    let client = proxy.client().await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(client.open(STREAM).await);
    }
    until("all streams are at the runner", || runner.calls() == 20).await;
    let reply = client.unary(UNARY, b"x").await;
    assert_eq!(
        (reply.reason(), reply.failure().applied),
        ("OVERLOADED", Some(false))
    );
    assert!(reply.failure().retry_after.is_some());
    assert_eq!(proxy.counter("prism_proxy_calls_shed_total"), 1);
    assert_eq!((runner.calls(), runner.connections()), (20, 2));

    // As soon as there is room, it is answered; without, another runner takes it.
    held.pop();
    let answered = async || client.unary(UNARY, b"x").await.grpc().code() == Code::Ok;
    prism_testkit::eventually(Duration::from_secs(20), "there is room", answered).await;
    assert_eq!(runner.connections(), 2);
    let before = runner.calls();
    held.push(client.open(STREAM).await);
    until("all is full again", || runner.calls() > before).await;
    let idle = Runner::echo().await;
    proxy.serve_beside(idle.address);
    for _ in 0..10 {
        assert_eq!(client.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    }
    assert_eq!((runner.calls(), idle.calls()), (before + 1, 10));
}

/// Calls that come while the connection is made are not sent only to be refused.
#[tokio::test]
async fn how_many_streams_a_runner_takes_is_known_before_the_first_one_is_opened() {
    let runner = narrow().await;
    let link = FaultProxy::start(runner.address).await.unwrap();
    link.set(Direction::ToClient, Flow::Delay(Duration::from_millis(50)));
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve_at([link.addr()], &[]);
    let client = proxy.client().await;
    let mut held = Vec::new();
    for _ in 0..25 {
        held.push(client.open(STREAM).await);
    }
    until("all streams are at the runner", || runner.calls() == 25).await;
    assert_eq!(runner.connections(), 3);
    let retried = "prism_proxy_retries_total{cause=\"unsent\"}";
    assert_eq!(proxy.counter(retried), 0);
}
