//! How the data port comes to an end.

use std::time::Duration;

use bytes::Bytes;
use prism_core::failure::{Failure, Reason};
use prism_proxy::{forward::Limits, serve::Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::Instant,
};
use tonic::{Code, Status};

use crate::data::support::{
    Client, LONG, NAMESPACE, Proxy, Reply, Runner, STREAM, UNARY, message, runner, soon,
};

/// A runner that answers when it is let.
async fn held() -> (Runner, watch::Sender<bool>) {
    let (go, gone) = watch::channel(false);
    let runner = Runner::start(move |exchange| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|go| *go).await.unwrap();
            exchange.echo().await;
        }
    })
    .await;
    (runner, go)
}

async fn proxy_before(runner: &Runner) -> Proxy {
    let proxy = Proxy::start(Limits::default()).await;
    proxy.serve(&[runner]);
    proxy
}

#[tokio::test]
async fn a_call_under_way_is_finished_before_the_port_ends() {
    let (runner, go) = held().await;
    let proxy = proxy_before(&runner).await;
    let mut client = proxy.client().await;
    let calling = {
        let client = client.clone();
        tokio::spawn(async move { client.unary(UNARY, b"x").await })
    };
    runner.arrival().await;
    let drained = proxy.port.drain(Instant::now() + LONG);
    let mut drained = std::pin::pin!(drained);
    // The client has been told to go elsewhere, and the port is closed, while the call is under way.
    tokio::select! {
        _ = drained.as_mut() => panic!("drained with a call under way"),
        () = async { while TcpStream::connect(proxy.port.address()).await.is_ok() {} } => {}
    }
    assert!(!calling.is_finished());
    go.send(true).unwrap();
    assert!(soon(drained).await, "nothing had to be ended by force");
    assert_eq!(calling.await.unwrap().grpc().code(), Code::Ok);
    soon(client.ended.wait_for(Option::is_some)).await.unwrap();
    assert_eq!(
        client.ended.borrow().as_deref(),
        Some("closed"),
        "a GOAWAY without error"
    );
}

#[tokio::test]
async fn streams_are_cut_with_a_status_that_says_why() {
    let runner = Runner::start(|mut exchange| async move {
        let mut down = exchange.begin();
        down.send_data(message(b"first"), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let (response, _up) = client.open(STREAM).await;
    let mut response = soon(response).await.unwrap();
    soon(response.body_mut().data()).await.unwrap().unwrap();
    proxy.forward.cut_streams();
    let reply = Reply::read(response).await;
    assert_eq!(
        (reply.trailers["grpc-status"].as_bytes(), reply.reason()),
        (&b"14"[..], "DRAINING")
    );
    assert_eq!(reply.failure().applied, Some(true));
    // Also those that come later, of which the runner never hears.
    let (response, _up) = client.open(STREAM).await;
    let failure = Reply::read(soon(response).await.unwrap()).await.failure();
    assert_eq!(
        (failure.reason, failure.retry_after.is_some()),
        (Reason::Draining, true)
    );
    assert_eq!((failure.applied, runner.calls()), (Some(false), 1));
    drop(client);
    assert!(soon(proxy.port.drain(Instant::now() + LONG)).await);
}

/// A runner whose answer to a stream is longer than a slow reader gets to read of it.
async fn talkative() -> Runner {
    Runner::start(|mut exchange| async move {
        let mut down = exchange.begin();
        down.send_data(Bytes::from(vec![7; 32 << 20]), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

/// Reads on for as long as it takes, more slowly than the proxy could send. The trailers, at the end.
async fn read_slowly(mut response: http::Response<h2::RecvStream>) -> http::HeaderMap {
    let body = response.body_mut();
    soon(async {
        while let Some(chunk) = body.data().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let read = chunk.expect("a status, and no broken stream").len();
            body.flow_control().release_capacity(read).unwrap();
        }
        body.trailers().await.unwrap().unwrap()
    })
    .await
}

/// Something is always there to be passed on to it, so that nobody waits for anything but for it.
#[tokio::test]
async fn a_slow_reader_is_told_why_its_stream_is_cut() {
    let runner = talkative().await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let (response, _up) = client.open(STREAM).await;
    let mut response = soon(response).await.unwrap();
    soon(response.body_mut().data()).await.unwrap().unwrap();
    let forward = proxy.forward.clone();
    let (trailers, ()) = tokio::join!(read_slowly(response), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        forward.cut_streams();
    });
    let failure = Failure::from_status(&Status::from_header_map(&trailers).unwrap()).unwrap();
    assert_eq!(failure.reason, Reason::Draining);
}

#[tokio::test]
async fn a_slow_reader_is_told_that_its_time_is_over() {
    let runner = talkative().await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let request = Client::request(STREAM).header("grpc-timeout", "200m");
    let mut send = client.send.clone().ready().await.unwrap();
    let (response, _up) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let trailers = read_slowly(soon(response).await.unwrap()).await;
    let failure = Failure::from_status(&Status::from_header_map(&trailers).unwrap()).unwrap();
    assert_eq!(failure.reason, Reason::DeadlineExceeded);
}

/// The server asks for no more of the answer, so there is nobody to be told.
#[tokio::test]
async fn a_stream_that_is_not_read_ends_when_streams_are_cut() {
    let runner = Runner::start(|mut exchange| async move {
        // More than every window on the way holds.
        let mut down = exchange.begin();
        down.send_data(Bytes::from(vec![7; 32 << 20]), false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let (response, _up) = client.open(STREAM).await;
    let mut unread = soon(response).await.unwrap();
    let mut received = 0;
    while received < 65_535 {
        // Without making room for more.
        received += soon(unread.body_mut().data()).await.unwrap().unwrap().len();
    }
    // By then there is more at the server, for which it waits for room.
    tokio::time::sleep(Duration::from_millis(50)).await;
    proxy.forward.cut_streams();
    soon(async {
        while proxy.forward.under_way() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_cut_before_its_answer_began_may_have_been_applied() {
    let runner = Runner::mute().await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let (response, _up) = client.open(STREAM).await;
    runner.arrival().await;
    proxy.forward.cut_streams();
    let failure = Reply::read(soon(response).await.unwrap()).await.failure();
    assert_eq!((failure.reason, failure.applied), (Reason::Draining, Some(true)));
}

#[tokio::test]
async fn unary_calls_go_on_when_streams_are_cut() {
    let runner = Runner::echo().await;
    let proxy = proxy_before(&runner).await;
    proxy.forward.cut_streams();
    assert_eq!(
        proxy.client().await.unary(UNARY, b"x").await.grpc().code(),
        Code::Ok
    );
}

#[tokio::test]
async fn what_does_not_end_is_ended_at_the_deadline() {
    let runner = Runner::mute().await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let (response, _up) = client.open(UNARY).await;
    runner.arrival().await;
    let began = Instant::now();
    assert!(
        !soon(proxy.port.drain(began + Duration::from_millis(200))).await,
        "not a clean end"
    );
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(proxy.forward.under_way(), 1, "what is left can be counted");
    soon(proxy.port.end()).await;
    assert!(soon(response).await.is_err(), "the connection is gone");
    assert_eq!(proxy.forward.under_way(), 0);
}

#[tokio::test]
async fn a_client_that_never_speaks_holds_nothing_up() {
    let proxy = Proxy::start(Limits::default()).await;
    let mute = TcpStream::connect(proxy.port.address()).await.unwrap();
    let mut half = TcpStream::connect(proxy.port.address()).await.unwrap();
    half.write_all(b"PRI * HT").await.unwrap();
    soon(async {
        while proxy.metrics.connections.get() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Well before they would be disconnected for their silence.
    let limit = Settings::default().silence / 2;
    assert!(soon(proxy.port.drain(Instant::now() + limit)).await);
    drop((mute, half));
}

#[tokio::test]
async fn a_client_that_never_speaks_is_disconnected() {
    let settings = Settings {
        silence: Duration::from_millis(50),
        ..Settings::default()
    };
    let proxy = Proxy::with(Limits::default(), settings).await;
    for said in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\n"] {
        let mut mute = TcpStream::connect(proxy.port.address()).await.unwrap();
        mute.write_all(said).await.unwrap();
        // Whatever it is told, and be it nothing, the connection ends.
        let _ = soon(mute.read_to_end(&mut Vec::new())).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let runner = Runner::echo().await;
    let proxy = Proxy::with(
        Limits::default(),
        Settings {
            connections: 1,
            ..Settings::default()
        },
    )
    .await;
    proxy.serve(&[&runner]);
    let first = proxy.client().await;
    assert_eq!(first.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    let second = proxy.client().await;
    let waiting = tokio::spawn(async move { second.unary(UNARY, b"x").await });
    assert_eq!(first.unary(UNARY, b"x").await.grpc().code(), Code::Ok);
    assert_eq!(
        (proxy.metrics.connections.get(), waiting.is_finished()),
        (1, false)
    );
    first.vanish();
    assert_eq!(soon(waiting).await.unwrap().grpc().code(), Code::Ok);
}

#[tokio::test]
async fn a_runner_known_to_be_dead_fails_its_calls_at_once() {
    let runner = Runner::mute().await;
    let proxy = proxy_before(&runner).await;
    let instance = proxy.table.snapshot().remove(NAMESPACE).unwrap().1[0]
        .instance_id
        .clone();
    let (response, _up) = proxy.client().await.open(STREAM).await;
    runner.arrival().await;
    proxy.table.disconnect(&instance);
    let reply = Reply::read(soon(response).await.unwrap()).await;
    assert_eq!(
        (reply.failure().reason, reply.failure().applied),
        (Reason::RunnerLost, Some(true))
    );
    assert_eq!(runner::ok()["grpc-status"], "0");
}

#[tokio::test]
async fn a_runner_taken_out_of_the_table_finishes_what_it_has() {
    let (runner, go) = held().await;
    let proxy = proxy_before(&runner).await;
    let client = proxy.client().await;
    let calling = tokio::spawn(async move { client.unary(UNARY, b"x").await });
    runner.arrival().await;
    proxy.serve(&[]);
    go.send(true).unwrap();
    assert_eq!(soon(calling).await.unwrap().grpc().code(), Code::Ok);
}
