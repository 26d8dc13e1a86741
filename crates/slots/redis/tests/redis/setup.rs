//! What is refused at open, and what every setting of the connection does.

use prism_slot::Error;
use prism_slot_redis::{Config, RedisRegistry};
use prism_testkit::{RedisServer, free_port};
use serde_json::{Value as Json, json};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::support::*;

async fn refusal(config: Config) -> String {
    let refused = RedisRegistry::open(NAMESPACE, config).await.unwrap_err();
    assert!(matches!(refused, Error::Misconfigured { .. }), "{refused:?}");
    refused.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_evict_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"])
        .await
        .unwrap();
    let text = refusal(config(server.addr(), json!({}))).await;
    assert!(
        text.contains("`allkeys-lru`") && text.contains("`noeviction`"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_used_and_wrong_ones_named() {
    let server = RedisServer::start_with(&["--requirepass", "swordfish"])
        .await
        .unwrap();
    for settings in [json!({}), json!({ "password": "hunter2" })] {
        let text = refusal(config(server.addr(), settings)).await;
        assert!(text.contains("`password`"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let right = open_with(server.addr(), json!({ "password": "swordfish" })).await;
    assert!(register(&right, request("a")).await.is_ok());
    let url = json!({ "address": format!("redis://:swordfish@{}", server.addr()) });
    let by_url = open_with(server.addr(), url).await;
    assert!(get(&by_url, "a").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_few_permissions_and_is_told_which() {
    let server = RedisServer::start().await.unwrap();
    let admin = Admin::to(server.addr()).await;
    allow(&admin, &[]).await;
    let slot = open_with(server.addr(), login()).await;
    assert!(register(&slot, leased("a", 60_000)).await.is_ok());
    assert_eq!(history(&slot, prism_slot::Revision::ZERO).await.len(), 1);

    // A key that the user may not touch.
    let mut elsewhere = login();
    elsewhere["prefix"] = "other:".into();
    let text = refusal(config(server.addr(), elsewhere)).await;
    assert!(text.contains("permissions"), "{text}");
}

/// Before anything is written: a permission that is found missing in the middle of a write comes too late.
#[tokio::test(flavor = "multi_thread")]
async fn every_missing_permission_is_named_at_open() {
    let server = RedisServer::start().await.unwrap();
    let admin = Admin::to(server.addr()).await;
    for missing in [
        "fcall", "info", "time", "get", "set", "unlink", "hget", "hset", "hmget", "hdel", "hlen", "hscan",
        "zadd", "zrem", "zcard", "zscore", "zmscore", "zrange", "xadd", "xlen", "xrange", "xtrim", "rpush",
        "lpop", "llen", "lindex",
    ] {
        allow(&admin, &[&format!("-{missing}")]).await;
        let text = refusal(config(server.addr(), login())).await;
        let said = text.to_lowercase();
        assert!(
            said.contains(missing) || said.contains("permissions to run"),
            "without {missing}: {text}"
        );
        assert!(said.contains("username"), "without {missing}: {text}");
        assert_eq!(
            admin.run(&["DBSIZE"]).await.as_u64(),
            Some(0),
            "without {missing}"
        );
    }
    admin.run(&["FUNCTION", "FLUSH"]).await;
    allow(&admin, &["-function|load"]).await;
    let text = refusal(config(server.addr(), login())).await;
    assert!(text.contains("FUNCTION LOAD"), "{text}");
}

/// What keeps the functions from being loaded is told, however often it is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_for_the_functions_says_so() {
    let server = RedisServer::start_with(&["--maxmemory", "1"]).await.unwrap();
    for retries in [0, 1, 5] {
        let settings = json!({ "max_retries": retries });
        let refused = RedisRegistry::open(NAMESPACE, config(server.addr(), settings)).await;
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("cannot load its functions") && text.contains("maxmemory"),
            "{text}"
        );
    }
}

/// Lets the user `runner` do what the documentation says that it needs, with changes.
async fn allow(admin: &Admin, changes: &[&str]) {
    let user = ["ACL", "SETUSER", "runner", "reset", "on", ">secret", "~{prism:*"];
    let needed = [
        "+fcall",
        "+function|load",
        "+info",
        "+ping",
        "+get",
        "+set",
        "+unlink",
        "+time",
        "+@hash",
        "+@sortedset",
        "+@stream",
        "+@list",
        "+client|id",
        "+cluster|info",
    ];
    admin.run(&[&user[..], &needed[..], changes].concat()).await;
}

fn login() -> Json {
    json!({ "username": "runner", "password": "secret" })
}

/// Speaks enough of the protocol to say which version it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_functions_is_refused_by_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let old = async {
        let mut clients = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            clients.spawn(async move {
                let mut request = vec![0; 4_096];
                while let Ok(length @ 1..) = stream.read(&mut request).await {
                    let commands = String::from_utf8_lossy(&request[..length]).to_uppercase();
                    for command in commands.split('*').skip(1) {
                        let version = "redis_version:6.2.14\r\n";
                        let answer = if command.contains("INFO") {
                            format!("${}\r\n{version}\r\n", version.len())
                        } else {
                            "+OK\r\n".to_owned()
                        };
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    };
    let text = tokio::select! {
        text = refusal(config(addr, json!({ "pool_size": 1 }))) => text,
        () = old => String::new(),
    };
    assert!(text.contains("`6.2.14`") && text.contains("7.0"), "{text}");
}

/// It may become the primary at any time: unavailable, and not misconfigured.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_place_for_a_registry() {
    let primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::start_replica_of(primary.addr()).await.unwrap();
    let settings = json!({ "max_retries": 1 });
    let refused = RedisRegistry::open(NAMESPACE, config(replica.addr(), settings))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("read only replica"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_prefixes_keep_namespaces_apart() {
    let server = RedisServer::start().await.unwrap();
    let settings = [json!({}), json!({ "db": 3 }), json!({ "prefix": "other:" })];
    for more in &settings {
        let slot = open_with(server.addr(), more.clone()).await;
        assert_eq!(get(&slot, "a").await, None, "{more}");
        register(&slot, request("a")).await.unwrap();
    }
    let by_url = json!({ "address": format!("redis://{}/3", server.addr()) });
    assert!(get(&open_with(server.addr(), by_url).await, "a").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_has_the_configured_size() {
    let server = RedisServer::start().await.unwrap();
    let admin = Admin::to(server.addr()).await;
    let _slot = open_with(server.addr(), json!({ "pool_size": 7 })).await;
    // Its own, the one that waits for changes, and the asker's.
    assert_eq!(admin.info("clients", "connected_clients").await, "9");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_whom_it_is_told_to() {
    let files = tempfile::tempdir().unwrap();
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = free_port();
    let options = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        cert.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ];
    let _server = RedisServer::start_with(&options).await.unwrap();
    let config = |more: Json| {
        let mut settings = json!({ "address": format!("localhost:{port}"), "dial_timeout": "2s" });
        settings
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value::<Config>(settings).unwrap()
    };
    let trusting = config(json!({ "tls": true, "ca_file": cert }));
    let slot = RedisRegistry::open(NAMESPACE, trusting).await.unwrap();
    assert!(register(&slot, request("a")).await.is_ok());
    let by_url = config(json!({ "address": format!("rediss://localhost:{port}"), "ca_file": cert }));
    assert!(RedisRegistry::open(NAMESPACE, by_url).await.is_ok());

    let stranger = RedisRegistry::open(NAMESPACE, config(json!({ "tls": true })))
        .await
        .unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let missing = RedisRegistry::open(
        NAMESPACE,
        config(json!({ "tls": true, "ca_file": "/nowhere.pem" })),
    )
    .await;
    assert!(missing.unwrap_err().to_string().contains("`ca_file`"));
}
