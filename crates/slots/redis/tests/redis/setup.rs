//! What is refused at open, and what every setting of the connection does.

use prism_slot::Error;
use prism_slot_redis::{Config, RedisRegistry};
use prism_testkit::{RedisServer, free_port};
use serde_json::{Value as Json, json};

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
    let allowed = [
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
    let user = ["ACL", "SETUSER", "runner", "on", ">secret", "~{prism:*"];
    admin.run(&[&user[..], &allowed[..]].concat()).await;
    let login = json!({ "username": "runner", "password": "secret" });
    let slot = open_with(server.addr(), login.clone()).await;
    assert!(register(&slot, leased("a", 60_000)).await.is_ok());
    assert_eq!(history(&slot, prism_slot::Revision::ZERO).await.len(), 1);

    admin.run(&["ACL", "SETUSER", "runner", "-fcall"]).await;
    let text = refusal(config(server.addr(), login)).await;
    assert!(text.contains("FCALL"), "{text}");
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
    let _slot = open_with(server.addr(), json!({ "pool_size": 7.0 })).await;
    assert_eq!(admin.info("clients", "connected_clients").await, "8");
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
