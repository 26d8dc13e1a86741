//! The servers, as tests use them.

use std::time::Duration;

use prism_testkit::{NatsServer, RedisServer, Server, flavour::Flavour};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const SOON: Duration = Duration::from_secs(10);
const A_WHILE: Duration = Duration::from_millis(50);

/// Sends one Redis command and returns the first piece of the answer.
async fn redis(server: &RedisServer, command: &str) -> String {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = vec![0; 4096];
    let length = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// The first bytes that a server says by itself.
async fn greeting(server: &NatsServer) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(server.addr()).await?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

async fn refuses<F: Flavour>(server: &Server<F>) -> bool {
    TcpStream::connect(server.addr()).await.is_err()
}

#[tokio::test]
async fn redis_forgets_and_remembers_as_told() {
    let mut forgetful = RedisServer::start().await.unwrap();
    assert!(redis(&forgetful, "SET key value").await.starts_with("+OK"));
    assert!(
        redis(&forgetful, "CONFIG GET maxmemory-policy")
            .await
            .contains("noeviction")
    );
    let (addr, pid) = (forgetful.addr(), forgetful.pid());
    forgetful.restart().await.unwrap();
    assert_eq!(forgetful.addr(), addr);
    assert_ne!(forgetful.pid(), pid);
    assert!(redis(&forgetful, "GET key").await.starts_with("$-1"));

    let on_disk = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut persistent = RedisServer::start_with(&on_disk).await.unwrap();
    assert!(redis(&persistent, "SET key value").await.starts_with("+OK"));
    persistent.restart().await.unwrap();
    assert!(redis(&persistent, "GET key").await.contains("value"));
    persistent.restart_empty().await.unwrap();
    assert!(redis(&persistent, "GET key").await.starts_with("$-1"));
}

#[tokio::test]
async fn a_replica_follows_its_primary() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::start_replica_of(primary.addr()).await.unwrap();
    prism_testkit::eventually(SOON, "the replica is in step", || async {
        redis(&replica, "INFO replication")
            .await
            .contains("master_link_status:up")
    })
    .await;
    assert!(redis(&replica, "SET a b").await.starts_with("-READONLY"));
}

#[tokio::test]
async fn options_may_demand_a_password() {
    let server = RedisServer::start_with(&["--requirepass", "secret"])
        .await
        .unwrap();
    assert!(redis(&server, "PING").await.starts_with("-NOAUTH"));
}

#[tokio::test]
async fn nats_is_stopped_and_restarted() {
    let mut server = NatsServer::start().await.unwrap();
    assert!(greeting(&server).await.unwrap().starts_with("INFO"));
    server.stop();
    assert!(refuses(&server).await);
    server.restart().await.unwrap();
    assert!(greeting(&server).await.unwrap().starts_with("INFO"));
    server.terminate().await.unwrap();
    assert!(refuses(&server).await);
    assert_eq!(server.pid(), None);
}

#[tokio::test]
async fn nats_obeys_its_configuration() {
    let server = NatsServer::start_with("max_payload: 4096\nauthorization { token: secret }")
        .await
        .unwrap();
    let info = greeting(&server).await.unwrap();
    assert!(
        info.contains("\"max_payload\":4096") && info.contains("\"auth_required\":true"),
        "{info}"
    );
}

#[tokio::test]
async fn a_frozen_server_is_silent_until_thawed() {
    let mut server = NatsServer::start().await.unwrap();
    server.freeze().unwrap();
    assert!(timeout(A_WHILE, greeting(&server)).await.is_err());
    server.thaw().unwrap();
    let greeted = timeout(SOON, greeting(&server)).await.unwrap().unwrap();
    assert!(greeted.starts_with("INFO"));
    server.freeze().unwrap();
    server.stop();
    assert!(refuses(&server).await);
}

#[tokio::test]
async fn a_bad_option_shows_what_the_server_said() {
    let error = RedisServer::start_with(&["--no-such-option", "1"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ended at once") && error.contains("no-such-option"),
        "{error}"
    );
    let error = NatsServer::start_with("no_such_key {")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("`nats-server` ended at once"), "{error}");
}
