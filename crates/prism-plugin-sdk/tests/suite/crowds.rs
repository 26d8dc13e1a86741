//! A proxy has one connection for the calls of all its clients. What some of them do must not end it.

use std::time::Duration;

use crate::common::{Running, good, initial, quick};
use h2::{RecvStream, SendStream, client::SendRequest};
use prism_testkit::give_up_calls;
use tokio::{net::TcpStream, time::timeout};
use tonic::codegen::{
    Bytes,
    http::{Request, Response},
};

const LONG: Duration = Duration::from_secs(20);

/// A connection as a proxy makes it: with as many calls on it as there are.
struct Proxy(SendRequest<Bytes>);

impl Proxy {
    async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_connection_window_size(1 << 30)
            .data_frame_budget(usize::MAX);
        let (send, driver) = builder.handshake(stream).await.unwrap();
        tokio::spawn(async { drop(driver.await) });
        Self(send)
    }

    async fn open(&self, method: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://runner/prism.test.Echo/{method}"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let mut send = self.0.clone().ready().await.unwrap();
        send.send_request(request, false).unwrap()
    }

    /// One short call, whose answer has to come.
    async fn say(&self) {
        let (response, mut up) = self.open("Say").await;
        up.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let mut answer = begun(response).await;
        assert_eq!(read(&mut answer).await, "hello");
    }
}

async fn begun(response: h2::client::ResponseFuture) -> RecvStream {
    let response: Response<RecvStream> = timeout(LONG, response).await.expect("an answer").unwrap();
    response.into_body()
}

async fn read(answer: &mut RecvStream) -> Bytes {
    let data = timeout(LONG, answer.data())
        .await
        .expect("data")
        .unwrap()
        .unwrap();
    answer.flow_control().release_capacity(data.len()).unwrap();
    data
}

async fn serving() -> Running {
    let runner = Running::start_with(Vec::new(), |runner| {
        runner
            .settings(quick())
            .initial(vec![initial("presence", good())])
    })
    .await;
    runner.calls.noted("start").await;
    runner
}

/// As when the runner had no time for a moment, and the calls of that moment timed out.
#[tokio::test]
async fn calls_given_up_before_they_are_looked_at_end_no_others() {
    let runner = serving().await;
    assert!(
        give_up_calls(runner.data, "/prism.test.Echo/Say", "presence", 300)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn thousands_of_streams_may_speak_at_once() {
    let runner = serving().await;
    let proxy = Proxy::connect(runner.data).await;
    let mut streams = Vec::new();
    for _ in 0..5_000 {
        let (response, up) = proxy.open("Say").await;
        streams.push((begun(response).await, up));
    }
    for (_, up) in &mut streams {
        up.send_data(Bytes::from_static(b"here"), false).unwrap();
    }
    for (down, _) in &mut streams {
        assert_eq!(read(down).await, "here");
    }
}

#[tokio::test]
async fn a_request_that_is_not_read_holds_up_no_others() {
    let runner = serving().await;
    let proxy = Proxy::connect(runner.data).await;
    let mut unread = Vec::new();
    for _ in 0..20 {
        let (response, mut up) = proxy.open("Keep").await;
        // More than any window holds.
        up.send_data(Bytes::from(vec![7; 2 << 20]), false).unwrap();
        unread.push((response, up));
    }
    runner.calls.noted("keep").await;
    proxy.say().await;
}
