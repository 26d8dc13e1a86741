//! The faults of the proxy, against an echo server.

use std::{net::SocketAddr, time::Duration};

use prism_testkit::{Direction, FaultProxy, Flow, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(50);

struct Echo {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        Self { addr, _tasks: tasks }
    }
}

async fn pair() -> (Echo, FaultProxy, TcpStream) {
    let echo = Echo::start().await;
    let proxy = FaultProxy::start(echo.addr).await.unwrap();
    let client = TcpStream::connect(proxy.addr()).await.unwrap();
    (echo, proxy, client)
}

async fn say(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
}

async fn hears(client: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(SOON, client.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard, text.as_bytes());
}

async fn hears_nothing(client: &mut TcpStream) {
    assert!(timeout(A_WHILE, client.read_u8()).await.is_err());
}

/// Reads to the end; a reset is an end, too.
async fn hears_the_end(client: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = timeout(SOON, client.read_to_end(&mut heard)).await.unwrap();
    heard
}

#[tokio::test]
async fn bytes_and_ends_pass() {
    let (_echo, proxy, mut client) = pair().await;
    let text = "x".repeat(1 << 20);
    let (mut read, mut write) = client.split();
    let send = async {
        write.write_all(text.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut heard = Vec::new();
    let (_, count) = tokio::join!(send, timeout(SOON, read.read_to_end(&mut heard)));
    assert_eq!(count.unwrap().unwrap(), 1 << 20);
    assert_eq!(proxy.forwarded(Direction::ToServer), 1 << 20);
    assert_eq!(proxy.forwarded(Direction::ToClient), 1 << 20);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_black_hole_keeps_what_it_swallowed() {
    let (_echo, proxy, mut client) = pair().await;
    proxy.black_hole();
    say(&mut client, "hello").await;
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut second, "again").await;
    hears_nothing(&mut client).await;
    assert_eq!(proxy.forwarded(Direction::ToServer), 0);
    proxy.heal();
    hears(&mut client, "hello").await;
    hears(&mut second, "again").await;
}

#[tokio::test]
async fn one_direction_can_be_held_alone() {
    let (_echo, proxy, mut client) = pair().await;
    proxy.set(Direction::ToClient, Flow::Hold);
    say(&mut client, "hello").await;
    eventually(SOON, "the request is through", || async {
        proxy.forwarded(Direction::ToServer) == 5
    })
    .await;
    hears_nothing(&mut client).await;
    proxy.heal();
    hears(&mut client, "hello").await;
}

#[tokio::test]
async fn dropped_replies_never_come() {
    let (_echo, proxy, mut client) = pair().await;
    proxy.drop_replies();
    say(&mut client, "lost").await;
    eventually(SOON, "the request is through", || async {
        proxy.forwarded(Direction::ToServer) == 4
    })
    .await;
    hears_nothing(&mut client).await;
    proxy.heal();
    say(&mut client, "found").await;
    hears(&mut client, "found").await;
    assert_eq!(proxy.forwarded(Direction::ToClient), 5);
}

#[tokio::test]
async fn refused_connections_fail_at_once_and_open_ones_stay() {
    let (_echo, proxy, mut client) = pair().await;
    say(&mut client, "a").await;
    hears(&mut client, "a").await;
    proxy.refuse().await;
    let refused = timeout(SOON, TcpStream::connect(proxy.addr())).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    say(&mut client, "b").await;
    hears(&mut client, "b").await;
    proxy.accept().await.unwrap();
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut second, "c").await;
    hears(&mut second, "c").await;
}

#[tokio::test]
async fn cut_connections_end_and_new_ones_work() {
    let (_echo, proxy, mut client) = pair().await;
    say(&mut client, "a").await;
    hears(&mut client, "a").await;
    proxy.cut();
    assert_eq!(hears_the_end(&mut client).await, b"");
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut second, "b").await;
    hears(&mut second, "b").await;
}

#[tokio::test]
async fn a_cut_comes_after_exactly_so_many_bytes() {
    let (_echo, proxy, mut client) = pair().await;
    proxy.set(Direction::ToClient, Flow::CutAfter(7));
    say(&mut client, "hello").await;
    hears(&mut client, "hello").await;
    say(&mut client, "world").await;
    assert_eq!(hears_the_end(&mut client).await, b"wo");
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    say(&mut second, "healed").await;
    hears(&mut second, "healed").await;
}

/// What arrives of a connection that lost something is its beginning, also where it is healed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_lost_bytes_and_is_cut_has_no_hole() {
    let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    for round in 0..100 {
        let (_echo, proxy, mut client) = pair().await;
        say(&mut client, "open").await;
        hears(&mut client, "open").await;
        let (mut read, mut write) = client.split();
        let sent = async {
            // Fails when it is cut, which is what is tested.
            let _ = write.write_all(&text).await;
            let _ = write.shutdown().await;
        };
        let disturbed = async {
            tokio::time::sleep(Duration::from_micros(round * 40)).await;
            proxy.drop_replies();
            tokio::task::yield_now().await;
            proxy.cut();
            proxy.heal();
        };
        let heard = async {
            let mut heard = Vec::new();
            let _ = timeout(SOON, read.read_to_end(&mut heard)).await.unwrap();
            heard
        };
        let (_, (), heard) = tokio::join!(sent, disturbed, heard);
        assert!(text.starts_with(&heard), "round {round}: {} bytes", heard.len());
    }
}

#[tokio::test]
async fn a_delay_is_latency_and_not_a_narrow_pipe() {
    let (_echo, proxy, mut client) = pair().await;
    let delay = Duration::from_millis(100);
    proxy.set(Direction::ToClient, Flow::Delay(delay));
    let begun = Instant::now();
    for _ in 0..10 {
        say(&mut client, "x").await;
        tokio::task::yield_now().await;
    }
    hears(&mut client, "xxxxxxxxxx").await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < delay * 9, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nothing_outlives_the_proxy() {
    let (_echo, proxy, mut client) = pair().await;
    say(&mut client, "a").await;
    hears(&mut client, "a").await;
    let addr = proxy.addr();
    drop(proxy);
    assert_eq!(hears_the_end(&mut client).await, b"");
    eventually(SOON, "the port is closed", || async {
        TcpStream::connect(addr).await.is_err()
    })
    .await;
}
